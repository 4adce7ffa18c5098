//! Keys by Zipf's law, in constant time for each: Gray and others, "Quickly Generating Billion-Record Synthetic
//! Databases", SIGMOD'94, as YCSB has it. Pure.

use oorandom::Rand64;

/// Keys from 0 to a number, the popular ones anywhere among them.
#[derive(Clone, Debug)]
pub struct Zipf {
    random: Rand64,
    keys: u64,
    exponent: f64,
    zeta: f64,
    eta: f64,
}

/// Odd and without a factor in common with any number of keys that is used: a permutation by multiplication.
const SCATTER: u64 = 2_654_435_761;

impl Zipf {
    /// Of `keys` keys; the one of rank `n` is asked for in proportion to `n` to the power of minus `exponent`, which is
    /// below one.
    #[must_use]
    pub fn new(keys: u64, exponent: f64, seed: u128) -> Self {
        let zeta = |ranks: u64| (1..=ranks).map(|rank| (rank as f64).powf(-exponent)).sum::<f64>();
        let (zeta_two, zeta) = (zeta(2), zeta(keys));
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - exponent)) / (1.0 - zeta_two / zeta);
        Self { random: Rand64::new(seed), keys, exponent, zeta, eta }
    }

    /// The rank of the next one, from 0.
    pub fn rank(&mut self) -> u64 {
        let share = self.random.rand_float();
        let scaled = share * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(self.exponent) {
            return 1;
        }
        let rank = (self.eta * share - self.eta + 1.0).powf(1.0 / (1.0 - self.exponent)) * self.keys as f64;
        (rank as u64).min(self.keys - 1)
    }

    /// The next key.
    pub fn key(&mut self) -> u64 {
        self.rank().wrapping_mul(SCATTER) % self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ranks_are_as_frequent_as_the_law_says() {
        let mut zipf = Zipf::new(10_000, 0.99, 1);
        let mut counts = vec![0_u32; 10_000];
        for _ in 0..1_000_000 {
            counts[zipf.rank() as usize] += 1;
        }
        let of_first = |ranks: usize| f64::from(counts[..ranks].iter().sum::<u32>()) / 1e6;
        let law = |ranks: usize| {
            let sum = |to: usize| (1..=to).map(|rank| (rank as f64).powf(-0.99)).sum::<f64>();
            sum(ranks) / sum(10_000)
        };
        for ranks in [1, 2, 100, 1000, 5000] {
            assert!(
                (of_first(ranks) - law(ranks)).abs() < 0.02,
                "{ranks}: {} {}",
                of_first(ranks),
                law(ranks)
            );
        }
    }

    #[test]
    fn every_rank_has_a_key_of_its_own() {
        for keys in [163_840_u64, 98_304] {
            let distinct: HashSet<u64> = (0..keys).map(|rank| rank.wrapping_mul(SCATTER) % keys).collect();
            assert_eq!(distinct.len() as u64, keys);
        }
    }
}

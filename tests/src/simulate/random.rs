//! Random numbers of one guest: a small generator of its own, so that no guest's luck depends on another's. Pure.

use super::decay::exp2;
use oorandom::Rand32;

/// The random numbers of one guest.
#[derive(Clone, Debug)]
pub struct Random(Rand32);

impl Random {
    /// The generator of guest number `stream` under `seed`.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(Rand32::new_inc(seed, stream))
    }

    /// From 0 to below 1.
    pub fn unit(&mut self) -> f64 {
        f64::from(self.0.rand_float())
    }

    /// From `low` to below `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// From `low` up to `octaves` doublings of it, each factor as likely as another.
    pub fn octaves(&mut self, low: f64, octaves: f64) -> f64 {
        low * f64::from(exp2((octaves * self.unit()) as f32))
    }

    /// Whether something of this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A count with this mean as independent events give it: Poisson's up to 16, and above a uniform one of the same
    /// variance, which is all that sums of thousands need.
    pub fn count(&mut self, mean: f64) -> f64 {
        if mean <= 0.0 {
            return 0.0;
        }
        if mean > 16.0 {
            let spread = (3.0 * mean).sqrt();
            return (mean + spread * (2.0 * self.unit() - 1.0)).round().max(0.0);
        }
        let mut left = self.unit();
        let mut probability = f64::from(exp2(-(mean * std::f64::consts::LOG2_E) as f32));
        let mut count = 0.0;
        while left > probability && count < 64.0 {
            left -= probability;
            count += 1.0;
            probability *= mean / count;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_mean_and_variance() {
        for mean in [0.01, 0.7, 5.0, 15.9, 16.1, 400.0] {
            let mut random = Random::new(1, 2);
            let counts: Vec<f64> = (0..200_000).map(|_| random.count(mean)).collect();
            let average = counts.iter().sum::<f64>() / counts.len() as f64;
            let variance =
                counts.iter().map(|count| (count - average).powi(2)).sum::<f64>() / counts.len() as f64;
            assert!((average / mean - 1.0).abs() < 0.05, "{mean}: {average}");
            assert!((variance / mean - 1.0).abs() < 0.1, "{mean}: {variance}");
        }
    }

    #[test]
    fn guests_have_their_own_luck() {
        let draw = |seed, stream| {
            let mut random = Random::new(seed, stream);
            [random.unit(), random.unit(), random.unit()]
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }
}

//! What a guest tells of itself, one JSON document a line, and the sum of what several told. Pure.

use serde::{Deserialize, Serialize};

/// Since the line before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Time that has passed.
    pub passed_ms: u64,
    /// What each request took that ended.
    pub took_us: Vec<u32>,
    /// Time for which some task waited for memory.
    pub stalled_us: u64,
    /// Pages that had been evicted and came back.
    pub refaults: u64,
}

impl Told {
    /// One line.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(line: &str) -> serde_json::Result<Self> {
        serde_json::from_str(line)
    }

    /// And what another told.
    pub fn add(&mut self, other: &Self) {
        self.passed_ms += other.passed_ms;
        self.took_us.extend(&other.took_us);
        self.stalled_us += other.stalled_us;
        self.refaults += other.refaults;
    }

    /// Requests of one guest in a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.took_us.len() as f64 * 1000.0 / self.passed_ms.max(1) as f64
    }

    /// Refaults of one guest in a second.
    #[must_use]
    pub fn refaults_per_second(&self) -> f64 {
        self.refaults as f64 * 1000.0 / self.passed_ms.max(1) as f64
    }

    /// Share of time in which some task waited for memory.
    #[must_use]
    pub fn stall(&self) -> f64 {
        self.stalled_us as f64 / 1000.0 / self.passed_ms.max(1) as f64
    }

    /// What `permille` of the requests took at most; none without requests.
    #[must_use]
    pub fn percentile_us(&self, permille: usize) -> Option<u32> {
        let mut sorted = self.took_us.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * permille).div_ceil(1000);
        sorted.get(rank.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_told_adds_up() {
        let mut sum = Told::default();
        assert_eq!((sum.percentile_us(990), sum.stall()), (None, 0.0));
        for half in [1..=100, 101..=200] {
            sum.add(&Told { passed_ms: 10_000, took_us: half.collect(), stalled_us: 1000, refaults: 50 });
        }
        assert_eq!((sum.percentile_us(500), sum.percentile_us(990)), (Some(100), Some(198)));
        assert!((sum.per_second() - 10.0).abs() < 1e-9);
        assert!((sum.refaults_per_second() - 5.0).abs() < 1e-9);
        assert!((sum.stall() - 1e-4).abs() < 1e-12);
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let told = Told { passed_ms: 15_000, took_us: vec![7, 9], stalled_us: 3, refaults: 2 };
        assert_eq!(Told::parse(&serde_json::to_string(&told).unwrap()).unwrap(), told);
        assert!(Told::parse("insmod: can't insert").is_err());
    }
}

//! How long requests took, in a fixed amount of memory. Pure.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Longer ones count as that long: 100 ms, in microseconds.
const MOST_US: usize = 100_000;

/// Counts of requests by the microsecond.
#[derive(Clone, Debug)]
pub struct Latencies {
    counts: Vec<u32>,
    total: u64,
}

/// Latencies in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of the requests took no longer.
    pub p50_us: u64,
    /// 99 % took no longer.
    pub p99_us: u64,
    /// 99.9 % took no longer.
    pub p999_us: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; MOST_US + 1], total: 0 }
    }
}

impl Latencies {
    /// One more.
    pub fn add(&mut self, took: Duration) {
        let us = usize::try_from(took.as_micros()).unwrap_or(MOST_US).min(MOST_US);
        self.counts[us] += 1;
        self.total += 1;
    }

    /// What of them is told.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        let at = |permille: u64| {
            let wanted = (self.total * permille).div_ceil(1000);
            let mut seen = 0;
            let position = self.counts.iter().position(|count| {
                seen += u64::from(*count);
                seen >= wanted
            });
            position.unwrap_or(MOST_US) as u64
        };
        Percentiles { p50_us: at(500), p99_us: at(990), p999_us: at(999) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        let mut latencies = Latencies::default();
        for us in 1..=1000 {
            latencies.add(Duration::from_micros(us));
        }
        assert_eq!(latencies.percentiles(), Percentiles { p50_us: 500, p99_us: 990, p999_us: 999 });
        for _ in 0..1000 {
            latencies.add(Duration::from_secs(5));
        }
        assert_eq!(latencies.percentiles().p99_us, 100_000);
    }
}

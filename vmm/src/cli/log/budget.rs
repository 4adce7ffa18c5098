//! How fast a log may grow: a token bucket. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::{Duration, Instant};

/// Bytes of log a second in the long run. A workload that logs so much fills its whole log every few seconds; to format
/// and to write them takes a few percent of a CPU.
const RATE: u64 = 8 << 20;
/// Bytes that may come at once: a whole log of the usual size.
const BURST: u64 = 16 << 20;

/// What may be written now.
#[derive(Debug)]
pub struct Budget {
    /// Bytes that were written ahead of the rate.
    debt: u64,
    since: Instant,
}

impl Budget {
    /// All of it.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { debt: 0, since: now }
    }

    /// So many bytes were written at `now`: how long to wait before the next.
    pub fn spend(&mut self, bytes: u64, now: Instant) -> Duration {
        let passed_us =
            u64::try_from(now.saturating_duration_since(self.since).as_micros()).unwrap_or(u64::MAX);
        let paid =
            u64::try_from(u128::from(passed_us).saturating_mul(RATE.into()) / 1_000_000).unwrap_or(u64::MAX);
        self.debt = self.debt.saturating_sub(paid).saturating_add(bytes);
        self.since = now;
        let excess = self.debt.saturating_sub(BURST);
        Duration::from_micros(excess.saturating_mul(1_000_000) / RATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_a_flood_keeps_the_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!(budget.spend(BURST, start), Duration::ZERO);
        assert_eq!(budget.spend(RATE, start), Duration::from_secs(1));
        // Who waits as told has written RATE bytes a second.
        let mut now = start + Duration::from_secs(1);
        let mut written = 0;
        while now < start + Duration::from_secs(100) {
            now += budget.spend(300_000, now);
            written += 300_000;
        }
        assert!((99 * RATE..=100 * RATE + 300_000).contains(&written), "{written}");
        assert_eq!(budget.spend(BURST, now + Duration::from_secs(10)), Duration::ZERO);
    }
}

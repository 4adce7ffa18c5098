//! When to sample, and why. Pure: time goes in.
//!
//! How often is the host's to say: it knows whether the workload idles, and then has the guest woken seldom. What cannot
//! wait, pressure and kills, is told at once, but not more often than every [`LEAST_US`]: the host reacts no faster, and a
//! guest in need has better to do.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use proto::{Cause, Counters};

/// Between any two samples.
pub const LEAST_US: u64 = 250_000;
/// Between samples, in milliseconds, until the host says otherwise.
pub const FIRST_PACE_MS: u32 = 1000;
/// A host that wants fewer takes the guest for dead.
const MOST_PACE_US: u64 = 60_000_000;

/// When to sample.
#[derive(Debug, Clone, Copy)]
pub struct Cadence {
    pace_us: u64,
    last_us: u64,
    /// The workload waits for memory, or something of it was killed, since the last sample.
    alarmed: bool,
    /// Of the last sample.
    counters: Option<Counters>,
}

impl Cadence {
    /// A workload that begins at `now_us`: it is sampled first a while after, so one that ends before is left alone.
    pub fn new(now_us: u64) -> Self {
        let mut cadence = Self { pace_us: 0, last_us: now_us, alarmed: false, counters: None };
        cadence.set_pace(FIRST_PACE_MS);
        cadence
    }

    /// The host wants samples so often.
    pub fn set_pace(&mut self, sample_ms: u32) {
        self.pace_us = u64::from(sample_ms).saturating_mul(1000).clamp(LEAST_US, MOST_PACE_US);
    }

    /// Something happened that the host is to know at once.
    pub fn alarm(&mut self) {
        self.alarmed = true;
    }

    /// Microseconds from `now_us` to the next sample; 0: now.
    pub fn wait_us(&self, now_us: u64) -> u64 {
        let period = if self.alarmed { LEAST_US } else { self.pace_us };
        self.last_us.saturating_add(period).saturating_sub(now_us)
    }

    /// A sample is taken at `now_us`: says why.
    pub fn take(&mut self, now_us: u64, counters: &Counters) -> Cause {
        let last = self.counters.unwrap_or(*counters);
        let grew = |of: fn(&Counters) -> u64| of(counters) > of(&last);
        let cause = if grew(|c| c.oom_kill) {
            Cause::OutOfMemory
        } else if grew(|c| c.alloc_stall) {
            Cause::Stall
        } else if self.alarmed && grew(|c| c.memory_some_us) {
            Cause::Pressure
        } else {
            Cause::Periodic
        };
        self.alarmed = false;
        self.last_us = now_us;
        self.counters = Some(*counters);
        cause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    #[test]
    fn the_pace_is_the_hosts_within_bounds() {
        let mut cadence = Cadence::new(5 * S);
        assert_eq!(cadence.wait_us(5 * S), S);
        assert_eq!(cadence.take(6 * S, &Counters::default()), Cause::Periodic);
        cadence.set_pace(10_000);
        assert_eq!(cadence.wait_us(7 * S), 9 * S);
        cadence.set_pace(0);
        assert_eq!(cadence.wait_us(6 * S), LEAST_US);
        cadence.set_pace(u32::MAX);
        assert_eq!(cadence.wait_us(6 * S), 60 * S);
    }

    #[test]
    fn alarms_come_at_once_and_not_in_floods() {
        let mut cadence = Cadence::new(0);
        cadence.take(S, &Counters::default());
        cadence.take(2 * S, &Counters::default());
        cadence.alarm();
        assert_eq!(cadence.wait_us(2 * S + 1), LEAST_US - 1);
        assert_eq!(cadence.wait_us(3 * S), 0);
        let waited = Counters { memory_some_us: 9, ..Counters::default() };
        assert_eq!(cadence.take(3 * S, &waited), Cause::Pressure);
        cadence.alarm();
        assert_eq!(cadence.take(4 * S, &waited), Cause::Periodic, "nothing waited");
        let stalled = Counters { alloc_stall: 1, ..waited };
        assert_eq!(cadence.take(5 * S, &stalled), Cause::Stall);
        let killed = Counters { oom_kill: 1, alloc_stall: 2, ..waited };
        assert_eq!(cadence.take(6 * S, &killed), Cause::OutOfMemory);
    }

    #[test]
    fn what_was_before_the_first_sample_is_no_news() {
        let before = Counters { oom_kill: 1, alloc_stall: 7, ..Counters::default() };
        assert_eq!(Cadence::new(0).take(S, &before), Cause::Periodic);
    }
}

//! Cumulative counters become deltas, whatever the guest sends.
//!
//! A sample is dropped if it is late, repeated or makes no sense. Where a counter falls, the sample is the new base and
//! there is no delta, so that one lie or one wrap costs one delta. A guest can only say that it stalled as much as
//! time passed.

use super::sample::Sample;
use serde::{Deserialize, Serialize};

/// Longest time between two samples of which a delta tells anything.
const LONGEST_US: u64 = 600_000_000;

/// What happened between two samples. Pages and events unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Time between them, by the guest's clock.
    pub elapsed_us: u64,
    /// Refaults of page cache.
    pub refault_file: u64,
    /// Refaults of anonymous memory.
    pub refault_anon: u64,
    /// Refaults of what had been in use.
    pub restore: u64,
    /// Shadow nodes that the kernel forgot.
    pub nodereclaim: u64,
    /// Evicted by the kernel of its own accord.
    pub stolen: u64,
    /// Waits for reclaim.
    pub alloc_stall: u64,
    /// Kills for want of memory.
    pub oom_kill: u64,
    /// Time in which some task waited for memory, without the agent's own; no more than passed.
    pub stall_us: u64,
    /// Time in which some task waited for I/O; no more than passed.
    pub io_us: u64,
    /// CPU time.
    pub cpu_busy_us: u64,
}

impl Delta {
    /// All refaults.
    #[must_use]
    pub fn refaults(&self) -> u64 {
        self.refault_file.saturating_add(self.refault_anon)
    }
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is the first of a boot.
    First,
    /// It continues the one before.
    Delta(Delta),
    /// It is the new base: what it counts cannot follow from the one before.
    Rebased,
    /// It is late, repeated or impossible, and changes nothing.
    Dropped,
}

/// All deltas in sum: never less than before, whatever the guest does to its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Totals {
    /// Refaults of page cache, in pages.
    pub refault_file: u64,
    /// Refaults of anonymous memory, in pages.
    pub refault_anon: u64,
    /// Time in which some task waited for memory, without the agent's own.
    pub stall_us: u64,
}

impl Totals {
    fn add(&mut self, delta: &Delta) {
        self.refault_file = self.refault_file.saturating_add(delta.refault_file);
        self.refault_anon = self.refault_anon.saturating_add(delta.refault_anon);
        self.stall_us = self.stall_us.saturating_add(delta.stall_us);
    }
}

/// Takes deltas of one guest's samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    last: Option<Sample>,
    implausible: u64,
    totals: Totals,
}

impl Meter {
    /// The last sample that was taken.
    #[must_use]
    pub fn last(&self) -> Option<&Sample> {
        self.last.as_ref()
    }

    /// How many samples made no sense.
    #[must_use]
    pub fn implausible(&self) -> u64 {
        self.implausible
    }

    /// What has happened since the first sample.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Takes a sample of a machine of `size_bytes`.
    pub fn take(&mut self, sample: &Sample, size_bytes: u64) -> Taken {
        if !is_possible(sample, size_bytes) {
            self.implausible = self.implausible.saturating_add(1);
            return Taken::Dropped;
        }
        let Some(last) = self.last.filter(|last| last.boot_id == sample.boot_id) else {
            self.last = Some(*sample);
            return Taken::First;
        };
        if sample.sequence <= last.sequence {
            return Taken::Dropped;
        }
        self.last = Some(*sample);
        match delta(&last, sample) {
            Some(delta) => {
                self.totals.add(&delta);
                Taken::Delta(delta)
            }
            None => {
                self.implausible = self.implausible.saturating_add(1);
                Taken::Rebased
            }
        }
    }
}

/// Whether a machine of `size_bytes` can have these sizes.
fn is_possible(sample: &Sample, size_bytes: u64) -> bool {
    let total = sample.total_bytes;
    let lists = [
        sample.active_file_bytes,
        sample.inactive_file_bytes,
        sample.active_anon_bytes,
        sample.inactive_anon_bytes,
    ];
    let listed = lists.into_iter().try_fold(0u64, u64::checked_add);
    let parts = [sample.free_bytes, sample.available_bytes, sample.dirty_bytes, sample.unevictable_bytes];
    total <= size_bytes
        && listed.is_some_and(|listed| listed <= total)
        && parts.into_iter().all(|part| part <= total)
        && sample.swap_free_bytes <= sample.swap_total_bytes
}

fn delta(last: &Sample, sample: &Sample) -> Option<Delta> {
    let rise = |counter: fn(&Sample) -> u64| counter(sample).checked_sub(counter(last));
    let elapsed_us = rise(|sample| sample.monotonic_us).filter(|elapsed| *elapsed > 0)?.min(LONGEST_US);
    let stall_us = rise(|sample| sample.memory_some_us)?;
    let own_us = rise(|sample| sample.own_stall_us)?;
    let restore = rise(|sample| sample.restore_file)?.saturating_add(rise(|sample| sample.restore_anon)?);
    Some(Delta {
        elapsed_us,
        refault_file: rise(|sample| sample.refault_file)?,
        refault_anon: rise(|sample| sample.refault_anon)?,
        restore,
        nodereclaim: rise(|sample| sample.nodereclaim)?,
        stolen: rise(|sample| sample.steal_kswapd)?.saturating_add(rise(|sample| sample.steal_direct)?),
        alloc_stall: rise(|sample| sample.alloc_stall)?,
        oom_kill: rise(|sample| sample.oom_kill)?,
        stall_us: stall_us.saturating_sub(own_us).min(elapsed_us),
        io_us: rise(|sample| sample.io_some_us)?.min(elapsed_us),
        cpu_busy_us: rise(|sample| sample.cpu_busy_us)?,
    })
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 1 << 30;

    fn sample(sequence: u64, refault_file: u64) -> Sample {
        let monotonic_us = sequence.saturating_mul(1_000_000);
        Sample { sequence, monotonic_us, refault_file, total_bytes: SIZE, ..Sample::default() }
    }

    #[test]
    fn counts_what_happened_once() {
        let mut meter = Meter::default();
        assert_eq!(meter.take(&sample(1, 5), SIZE), Taken::First);
        let Taken::Delta(delta) = meter.take(&sample(2, 12), SIZE) else { panic!("no delta") };
        assert_eq!((delta.refault_file, delta.elapsed_us), (7, 1_000_000));
        assert_eq!(meter.take(&sample(2, 12), SIZE), Taken::Dropped, "twice");
        assert_eq!(meter.take(&sample(1, 5), SIZE), Taken::Dropped, "late");
        let Taken::Delta(delta) = meter.take(&sample(5, 20), SIZE) else { panic!("no delta") };
        assert_eq!((delta.refault_file, delta.elapsed_us), (8, 3_000_000), "two were lost");
        assert_eq!(meter.take(&sample(6, 3), SIZE), Taken::Rebased, "a counter fell");
        let Taken::Delta(delta) = meter.take(&sample(7, 4), SIZE) else { panic!("no delta") };
        assert_eq!(delta.refault_file, 1);
        let booted = Sample { boot_id: [1; 16], ..sample(1, 0) };
        assert_eq!(meter.take(&booted, SIZE), Taken::First);
        assert_eq!(meter.implausible(), 1);
        assert_eq!(meter.totals().refault_file, 7 + 8 + 1, "another boot takes nothing away");
    }

    #[test]
    fn a_stall_is_no_longer_than_the_time_and_not_the_agents_own() {
        let mut meter = Meter::default();
        meter.take(&sample(1, 0), SIZE);
        let stalled = |sequence, memory_some_us, own_stall_us| Sample {
            memory_some_us,
            own_stall_us,
            ..sample(sequence, 0)
        };
        let Taken::Delta(delta) = meter.take(&stalled(2, 5_000, 2_000), SIZE) else { panic!("no delta") };
        assert_eq!(delta.stall_us, 3_000);
        let Taken::Delta(delta) = meter.take(&stalled(3, u64::MAX, 2_000), SIZE) else { panic!("no delta") };
        assert_eq!(delta.stall_us, 1_000_000);
    }

    #[test]
    fn sizes_that_no_such_machine_has_are_dropped() {
        let mut meter = Meter::default();
        assert_eq!(meter.take(&Sample { total_bytes: SIZE + 1, ..sample(1, 0) }, SIZE), Taken::Dropped);
        assert_eq!(
            meter.take(&Sample { inactive_file_bytes: SIZE + 1, ..sample(1, 0) }, SIZE),
            Taken::Dropped
        );
        let halves =
            Sample { inactive_file_bytes: SIZE / 2 + 1, active_anon_bytes: SIZE / 2, ..sample(1, 0) };
        assert_eq!(meter.take(&halves, SIZE), Taken::Dropped);
        assert_eq!(meter.implausible(), 3);
    }

    proptest! {
        /// Samples of a true course of events, some lost, some repeated, in any order: what is counted is never more
        /// than what happened, and all of it if the last one comes and none is late.
        #[test]
        fn never_counts_more_than_happened(
            rises in prop::collection::vec(0..1000u64, 1..50),
            order in prop::collection::vec(0..50usize, 1..200),
        ) {
            let mut total = 0;
            let course: Vec<Sample> = rises
                .iter()
                .enumerate()
                .map(|(number, rise)| {
                    total += rise;
                    sample(number as u64 + 1, total)
                })
                .collect();
            let mut meter = Meter::default();
            let mut counted = 0;
            let mut first = None;
            for number in order {
                let sample = &course[number % course.len()];
                first = first.or(Some(sample.refault_file));
                if let Taken::Delta(delta) = meter.take(sample, SIZE) {
                    counted += delta.refault_file;
                }
            }
            let last = meter.last().unwrap().refault_file;
            prop_assert_eq!(counted, last - first.unwrap());
            prop_assert_eq!(counted, meter.totals().refault_file);
        }
    }
}

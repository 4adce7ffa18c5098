//! Balloon only: a guest without an agent, by what its balloon's driver says.
//!
//! Nothing there tells refaults. Faults that needed the disk and pages swapped in are taken as harm, at the assumed
//! cost of each; waits for reclaim, which Linux tells from 6.12 on, and next to nothing available are pressure. Page
//! cache that is read, not mapped, is silent, so half of what there is stays.

use super::Law;
use crate::PAGE_BYTES;
use crate::device::Values;
use crate::policy::arithmetic::{permille, scale};
use crate::policy::meter::Delta;
use crate::policy::reason::{Reason, Source};
use crate::policy::state::Signal;

/// What the driver said last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Driver {
    last: Option<(u64, Values)>,
}

impl Driver {
    /// What can be gone by.
    pub(super) fn source(&self) -> Source {
        match self.last {
            None => Source::None,
            Some((_, values)) if values.allocation_stalls.is_some() => Source::StatisticsWithStalls,
            Some(_) => Source::Statistics,
        }
    }

    /// Takes new numbers, and returns what happened since the last, if they can follow from them.
    fn take(&mut self, now_ms: u64, values: &Values, refetch_us: u64) -> Option<Delta> {
        let (before_ms, before) = self.last.replace((now_ms, *values))?;
        let rise = |counter: fn(&Values) -> Option<u64>| {
            counter(values).unwrap_or(0).checked_sub(counter(&before).unwrap_or(0))
        };
        let elapsed_us = now_ms.saturating_sub(before_ms).saturating_mul(1000);
        let swapped = rise(|values| values.swap_in_bytes)?.div_euclid(PAGE_BYTES);
        let fetched = rise(|values| values.major_faults)?.saturating_add(swapped);
        Some(Delta {
            elapsed_us,
            alloc_stall: rise(|values| values.allocation_stalls)?,
            oom_kill: rise(|values| values.oom_kills)?,
            stolen: rise(|values| values.async_reclaimed_bytes)?.div_euclid(PAGE_BYTES),
            stall_us: fetched.saturating_mul(refetch_us).min(elapsed_us),
            ..Delta::default()
        })
    }
}

impl Law {
    /// Takes note of the driver's statistics.
    pub(super) fn told(&mut self, now_ms: u64, values: &Values) {
        if !values.plausible(self.size_bytes) {
            return;
        }
        if self.driver.last.is_none() && self.meter.last().is_none() {
            self.start_until_ms = now_ms.saturating_add(self.tuning.start_ms);
        }
        let delta = self.driver.take(now_ms, values, self.tuning.refetch_us);
        if self.has_agent() {
            return;
        }
        self.heard_ms = now_ms;
        let Some(delta) = delta else { return };
        self.harm.passed(&delta, None);
        let held = self.guest_bytes();
        let is_scarce =
            values.available_bytes.is_some_and(|bytes| bytes < permille(held, self.tuning.scarce_permille));
        let signal = if delta.oom_kill > 0 {
            Signal::OutOfMemory
        } else if delta.alloc_stall > 0 && is_scarce {
            Signal::Stall
        } else if is_scarce && values.available_bytes < Some(permille(held, self.tuning.empty_permille)) {
            Signal::Scarce
        } else {
            return;
        };
        self.suffers(now_ms, signal, is_scarce, scale(delta.stall_us, 1_000_000, delta.elapsed_us));
    }

    /// What the guest is to be left, by the driver's word: what it uses, half of its page cache, and some room.
    pub(super) fn wanted_ceiling(&self, now_ms: u64) -> Option<(u64, Reason)> {
        let (_, values) = self.driver.last.as_ref()?;
        let (free, cache_bytes) = (values.free_bytes?, values.disk_caches_bytes.unwrap_or(0));
        let used_bytes = self.guest_bytes().saturating_sub(free).saturating_sub(cache_bytes);
        let room = permille(used_bytes, self.tuning.headroom_permille).max(self.tuning.headroom_bytes);
        let kept = permille(cache_bytes, self.tuning.cache_permille);
        let wanted = used_bytes.saturating_add(kept).saturating_add(room);
        let slack_bytes = self.ceiling.bytes().saturating_sub(wanted);
        let harm_permille = self.harm_permille(now_ms);
        Some((wanted, Reason::Statistics { used_bytes, cache_bytes, slack_bytes, harm_permille }))
    }
}

//! What samples say, and when a guest suffers.

use super::Law;
use crate::PAGE_BYTES;
use crate::policy::arithmetic::scale;
use crate::policy::meter::{Delta, Taken};
use crate::policy::reason::Reason;
use crate::policy::sample::{Cause, Sample};
use crate::policy::state::Signal;

impl Law {
    pub(super) fn sampled(&mut self, now_ms: u64, sample: &Sample) {
        match self.meter.take(sample, self.size_bytes) {
            Taken::Dropped => return,
            Taken::First => {
                self.booted_bytes = self.guest_bytes().saturating_sub(sample.free_bytes);
                self.harm.reset();
                self.gain.reset();
                self.start_until_ms = now_ms.saturating_add(self.tuning.start_ms);
                self.stream.accept(sample);
                self.gather.end();
            }
            Taken::Rebased => {}
            Taken::Delta(delta) => {
                self.is_fresh = true;
                self.passed(now_ms, sample, &delta);
            }
        }
        self.gather.sampled();
        self.unseen_bytes =
            self.pending.map_or(0, |pending| pending.ordered_pages.saturating_mul(PAGE_BYTES));
        self.heard_ms = now_ms;
    }

    fn passed(&mut self, now_ms: u64, sample: &Sample, delta: &Delta) {
        let tuning = self.tuning;
        let psi = self.capabilities.is_some_and(|capabilities| capabilities.psi);
        self.harm.passed(delta, (!psi).then_some(tuning.refetch_us));
        self.stream.passed(sample, delta, &tuning);
        if now_ms < self.start_until_ms {
            self.stream.accept(sample);
        }
        self.pace.passed(now_ms, delta, &tuning);
        // The kernel remembers eight times as many evictions as pages are left (`count_shadow_nodes()`), so that whoever
        // is trimmed to an eighth makes it forget the oldest. What it forgot and is needed again must be fetched: while
        // tasks hardly wait for I/O there is nothing to be blind to.
        let io_ppm = self.harm.io_ppm(&tuning);
        if delta.nodereclaim > 0 && (!psi || io_ppm > self.budget_ppm(now_ms)) {
            let reason = |_, until_ms| Reason::Forgotten { nodes: delta.nodereclaim, io_ppm, until_ms };
            self.blind.begin(now_ms, tuning.window_ms, tuning.window_ms, reason);
        }
        // A guest whose page cache fills its memory waits for reclaim now and then, and trimming helps it.
        // Where the balloon deflates on OOM, what it has counts in the guest's total.
        let held_bytes = self.guest_bytes().min(sample.total_bytes);
        let is_scarce = sample.available_bytes < scale(held_bytes, tuning.scarce_permille, 1000);
        if let Some(signal) = self.signal(sample, delta, is_scarce) {
            self.suffers(now_ms, signal, is_scarce, scale(delta.stall_us, 1_000_000, delta.elapsed_us));
        }
    }

    /// How the guest suffers, if it does.
    fn signal(&self, sample: &Sample, delta: &Delta, is_scarce: bool) -> Option<Signal> {
        let is_bound = self.ordered_ceiling_bytes < self.bounds().max_bytes;
        let lists_pages = sample.file_bytes().saturating_add(sample.anon_bytes()).div_euclid(PAGE_BYTES);
        let no_trigger = self.capabilities.is_some_and(|can| can.psi && !can.psi_trigger);
        let stall_ppm = scale(delta.stall_us, 1_000_000, delta.elapsed_us);
        if sample.cause == Cause::OutOfMemory || delta.oom_kill > 0 {
            Some(Signal::OutOfMemory)
        } else if sample.cause == Cause::Pressure {
            Some(Signal::Trigger)
        } else if (sample.cause == Cause::Stall || delta.alloc_stall > 0) && (is_bound || is_scarce) {
            Some(Signal::Stall)
        } else if no_trigger && stall_ppm >= self.tuning.trigger_ppm {
            Some(Signal::Budget)
        } else if is_bound && self.harm.thrashes(lists_pages, &self.tuning) {
            Some(Signal::Thrash)
        } else {
            None
        }
    }

    /// Stops trimming for a while, and lifts the ceiling at once, where that helps.
    ///
    /// Whoever is short reclaims: a guest whose kernel evicts nothing of its own accord and has memory available gains
    /// nothing by a higher ceiling. What it waits for is to fetch again what was trimmed, once; that is a reason to
    /// hold, and no more. If nothing that was trimmed came back either, it waits for something else.
    pub(super) fn suffers(&mut self, now_ms: u64, signal: Signal, is_scarce: bool, stall_ppm: u64) {
        let tuning = self.tuning;
        // What it waits for because the balloon fetches is over when that ends.
        let is_bound = self.ceiling.bytes() < self.bounds().max_bytes;
        if self.gather.end() && !is_bound && matches!(signal, Signal::Stall | Signal::Thrash) {
            return;
        }
        let is_short = is_scarce
            || self.harm.stolen() > 0
            || matches!(signal, Signal::OutOfMemory | Signal::Stall | Signal::Thrash | Signal::Scarce);
        if !is_short && self.harm.charged() == 0 {
            return;
        }
        let ceiling_bytes = self.ceiling.bytes();
        let grant_bytes = self.leased(now_ms).map_or(0, |envelope| envelope.grant_bytes);
        let is_repeated = self.hold.is_remembered(now_ms, tuning.longest_hold_ms);
        let longest_ms = if is_short { tuning.longest_hold_ms } else { tuning.hold_ms };
        self.hold.begin(now_ms, tuning.hold_ms, longest_ms, |repeats, _| Reason::Pressure {
            signal,
            stall_ppm,
            repeats,
            ceiling_bytes,
            grant_bytes,
        });
        if !is_short {
            return;
        }
        // Beyond the grant only as the host allows.
        let most_bytes = self
            .host_is_short()
            .then(|| self.granted_from_bytes.saturating_add(grant_bytes).saturating_sub(ceiling_bytes));
        let bounds = self.bounds();
        let kept_until_ms = self.hold.until_ms().max(now_ms.saturating_add(tuning.lifted_ms));
        self.ceiling.lift(now_ms, &bounds, is_repeated, most_bytes, kept_until_ms, &tuning);
    }
}

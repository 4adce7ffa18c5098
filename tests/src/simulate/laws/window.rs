//! Deltas of an agent's counters over a law's own interval. Pure.

use balloon::policy::Sample;

/// What happened in one interval.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta {
    /// Its length.
    pub ms: u64,
    /// Stalls of the guest's processes, without the agent's own.
    pub stall_us: u64,
    /// Refaults of both kinds, in pages.
    pub refaults: u64,
}

/// Remembers where an interval began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    since: Option<Sample>,
}

impl Window {
    /// The interval, if `interval_ms` are over: the next one begins then. A reboot begins one too.
    pub fn over(&mut self, sample: &Sample, interval_ms: u64) -> Option<Delta> {
        let Some(since) = self.since.filter(|since| since.boot_id == sample.boot_id) else {
            self.since = Some(*sample);
            return None;
        };
        let ms = sample.monotonic_us.saturating_sub(since.monotonic_us) / 1000;
        if ms < interval_ms {
            return None;
        }
        self.since = Some(*sample);
        let net = |sample: &Sample| sample.memory_some_us.saturating_sub(sample.own_stall_us);
        let refaults = |sample: &Sample| sample.refault_file + sample.refault_anon;
        Some(Delta {
            ms,
            stall_us: net(sample).saturating_sub(net(&since)),
            refaults: refaults(sample).saturating_sub(refaults(&since)),
        })
    }
}

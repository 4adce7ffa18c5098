//! What arbitration keeps of a node from tick to tick.

use super::FleetTuning;
use super::lambda::CALM;
use crate::policy::arithmetic::permille;
use crate::zone::Id;

/// Ticks until what was directed must show in the charge: reclaim, the two seconds of free page reporting, a report.
pub(super) const LAG_TICKS: u64 = 4;
/// The same while the host is at its end: reclaim and a report, for which the balloon or the host's swap is fast enough.
pub(super) const CRITICAL_LAG_TICKS: u64 = 2;

/// Of one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) id: Id,
    pub(super) lambda: u64,
    imposed_bytes: Option<u64>,
    pub(super) target_bytes: Option<u64>,
    directed_bytes: u64,
    directed_charge_bytes: u64,
    directed_tick: u64,
}

impl Memory {
    pub(super) fn new(id: Id) -> Self {
        Self {
            id,
            lambda: CALM,
            imposed_bytes: None,
            target_bytes: None,
            directed_bytes: 0,
            directed_charge_bytes: 0,
            directed_tick: 0,
        }
    }

    /// What was directed and does not show in the charge yet, as long as it may still come.
    pub(super) fn outstanding(&self, charge_bytes: u64, tick: u64, lag_ticks: u64) -> u64 {
        if tick.saturating_sub(self.directed_tick) > lag_ticks {
            return 0;
        }
        self.directed_bytes.saturating_sub(self.directed_charge_bytes.saturating_sub(charge_bytes))
    }

    /// So much more is directed; `outstanding_bytes` are still to come of what was before.
    pub(super) fn directed(&mut self, bytes: u64, outstanding_bytes: u64, charge_bytes: u64, tick: u64) {
        self.directed_bytes = outstanding_bytes.saturating_add(bytes);
        (self.directed_charge_bytes, self.directed_tick) = (charge_bytes, tick);
    }

    /// The ceiling that arbitration imposes: falls at once, rises slowly and only while nothing presses.
    pub(super) fn impose(
        &mut self,
        lower: Option<u64>,
        pressed: bool,
        max_bytes: u64,
        tuning: &FleetTuning,
    ) -> Option<u64> {
        if let Some(bytes) = lower {
            self.imposed_bytes = Some(self.imposed_bytes.unwrap_or(u64::MAX).min(bytes));
        } else if !pressed {
            self.imposed_bytes = self
                .imposed_bytes
                .map(|bytes| bytes.saturating_add(permille(bytes, tuning.release_permille)));
        }
        self.imposed_bytes = self.imposed_bytes.filter(|bytes| *bytes < max_bytes);
        self.imposed_bytes
    }
}

/// What is kept of the node, from now on if nothing was.
pub(super) fn remembered(memories: &mut Vec<Option<Memory>>, id: Id) -> Memory {
    if memories.len() <= id.index() {
        memories.resize(id.index().saturating_add(1), None);
    }
    match memories.get_mut(id.index()) {
        Some(Some(memory)) if memory.id == id => *memory,
        Some(known) => *known.insert(Memory::new(id)),
        None => Memory::new(id),
    }
}

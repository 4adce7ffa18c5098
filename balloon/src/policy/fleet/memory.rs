//! What arbitration keeps of a node from tick to tick.

use super::FleetTuning;
use super::lambda::CALM;
use crate::policy::arithmetic::permille;
use crate::zone::Id;

/// Ticks until what was directed must show in the charge: reclaim, the two seconds of free page reporting, a report.
pub(super) const LAG_TICKS: usize = 4;
/// The same while the host is at its end: reclaim and a report, for which the balloon or the host's swap is fast enough.
pub(super) const CRITICAL_LAG_TICKS: usize = 2;

/// Once something has come, a tick that brings less than this part of what is outstanding tells that what was directed so many
/// ticks ago and earlier does not come any more: one tick until an order is there, one until it shows.
const PROGRESS_PART: u64 = 16;
const STILL_TICKS: usize = 2;

/// Of one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) id: Id,
    pub(super) lambda: u64,
    imposed_bytes: Option<u64>,
    pub(super) target_bytes: Option<u64>,
    /// What was directed and has not come, by how many ticks ago that was.
    directed_bytes: [u64; LAG_TICKS + 1],
    /// Something of that has.
    has_begun: bool,
    /// Its charge a tick ago.
    charge_bytes: u64,
    /// What it fell by, but for what was directed, and what it rose by, in each of the last ticks.
    moved_bytes: [(u64, u64); LAG_TICKS],
    /// For how many ticks it has held too much.
    over_ticks: usize,
}

impl Memory {
    pub(super) fn new(id: Id) -> Self {
        Self {
            id,
            lambda: CALM,
            imposed_bytes: None,
            target_bytes: None,
            directed_bytes: [0; LAG_TICKS + 1],
            has_begun: false,
            charge_bytes: 0,
            moved_bytes: [(0, 0); LAG_TICKS],
            over_ticks: 0,
        }
    }

    /// A tick later: what was directed and does not show in the charge yet, as long as it may still come. What has come counts
    /// for what was directed first.
    pub(super) fn outstanding(&mut self, charge_bytes: u64, lag_ticks: usize) -> u64 {
        let before = std::mem::replace(&mut self.charge_bytes, charge_bytes);
        let came = before.saturating_sub(charge_bytes);
        self.directed_bytes.rotate_right(1);
        if let Some(now) = self.directed_bytes.first_mut() {
            *now = 0;
        }
        let missing = self.missing();
        let is_still = self.has_begun && came < missing.div_ceil(PROGRESS_PART);
        let waits = if is_still { STILL_TICKS } else { lag_ticks.saturating_add(1) };
        self.directed_bytes.iter_mut().skip(waits).for_each(|bytes| *bytes = 0);
        let mut left = came;
        for bytes in self.directed_bytes.iter_mut().rev() {
            let paid = left.min(*bytes);
            *bytes = bytes.saturating_sub(paid);
            left = left.saturating_sub(paid);
        }
        self.moved_bytes.rotate_right(1);
        if let Some(now) = self.moved_bytes.first_mut() {
            *now = (left, charge_bytes.saturating_sub(before));
        }
        let missing = self.missing();
        self.has_begun = missing > 0 && (self.has_begun || came > 0);
        missing
    }

    fn missing(&self) -> u64 {
        self.directed_bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// What its charge fell by of itself while what was directed before should have shown.
    pub(super) fn fell(&self) -> u64 {
        let sum = |sum: u64, bytes: u64| sum.saturating_add(bytes);
        let (fell, rose) = self
            .moved_bytes
            .iter()
            .fold((0, 0), |(down, up), (fell, rose)| (sum(down, *fell), sum(up, *rose)));
        fell.saturating_sub(rose)
    }

    /// In this tick it holds too much, or not. Returns whether for longer than what is given back takes to show.
    pub(super) fn holds_too_much(&mut self, is_over: bool) -> bool {
        self.over_ticks = if is_over { self.over_ticks.saturating_add(1) } else { 0 };
        self.over_ticks > LAG_TICKS
    }

    /// So much more is directed in this tick.
    pub(super) fn directed(&mut self, bytes: u64) {
        if let Some(now) = self.directed_bytes.first_mut() {
            *now = now.saturating_add(bytes);
        }
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
            // Of less than it holds nothing came: a guest keeps what it cannot do without, whatever it was told.
            let held_bytes = self.charge_bytes;
            self.imposed_bytes = self.imposed_bytes.map(|bytes| {
                let bytes = bytes.max(held_bytes);
                let rise = permille(bytes, tuning.release_permille).max(tuning.least_take_bytes).max(1);
                bytes.saturating_add(rise)
            });
        }
        self.imposed_bytes = self.imposed_bytes.filter(|bytes| *bytes < max_bytes);
        self.imposed_bytes
    }
}

/// Looks with `look` at what is kept of the node, from now on if nothing was.
pub(super) fn remembered<T>(
    memories: &mut Vec<Option<Memory>>,
    id: Id,
    look: impl FnOnce(&mut Memory) -> T,
) -> T {
    if memories.len() <= id.index() {
        memories.resize(id.index().saturating_add(1), None);
    }
    match memories.get_mut(id.index()) {
        Some(Some(memory)) if memory.id == id => look(memory),
        Some(known) => look(known.insert(Memory::new(id))),
        None => look(&mut Memory::new(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::{Pool, Tree};

    fn memory(charge_bytes: u64) -> Memory {
        let tree = Tree::new(Pool { capacity_bytes: 1 << 30, overcommit: true }).unwrap();
        let mut memory = Memory::new(tree.root());
        assert_eq!(memory.outstanding(charge_bytes, LAG_TICKS), 0);
        memory
    }

    #[test]
    fn whatever_was_imposed_is_lifted_when_nothing_presses() {
        let tuning = FleetTuning::default();
        for (held, imposed) in [(0, 0), (66 << 20, 0), (66 << 20, 10 << 20), (66 << 20, 200 << 20)] {
            let mut memory = memory(held);
            assert_eq!(memory.impose(Some(imposed), true, 256 << 20, &tuning), Some(imposed));
            assert_eq!(memory.impose(None, true, 256 << 20, &tuning), Some(imposed));
            let risen = std::iter::from_fn(|| memory.impose(None, false, 256 << 20, &tuning));
            let risen: Vec<u64> = risen.take(1000).collect();
            assert!(risen.is_sorted_by(|one, next| one < next) && risen.len() < 300, "{risen:?}");
            assert!(held == 0 || risen.len() < 30, "{risen:?}");
        }
    }

    #[test]
    fn what_is_directed_later_prolongs_no_wait() {
        let mut memory = memory(1000);
        memory.directed(160);
        assert_eq!(memory.outstanding(1000, LAG_TICKS), 160);
        memory.directed(16);
        let later: Vec<u64> = (0..5).map(|_| memory.outstanding(1000, LAG_TICKS)).collect();
        assert_eq!(later, [176, 176, 176, 16, 0]);
    }

    #[test]
    fn what_comes_pays_for_what_was_directed_first_and_what_stands_still_does_not_come() {
        let mut memory = memory(1000);
        memory.directed(160);
        assert_eq!(memory.outstanding(900, LAG_TICKS), 60);
        memory.directed(30);
        assert_eq!(memory.outstanding(870, LAG_TICKS), 60, "30 of the first are missing");
        assert_eq!(
            memory.outstanding(869, LAG_TICKS),
            0,
            "one of sixty is no progress, and both are two ticks old"
        );
        assert_eq!(memory.outstanding(500, LAG_TICKS), 0);
    }
}

//! How long memory has been short, and what that leads to when nobody gives it back: to swap out, and to kill. Pure.

use super::Kill;
use super::memory::CRITICAL_LAG_TICKS;
use crate::zone::{Id, Tree};
use std::cmp::Reverse;

/// Ticks without progress below the last watermark after which somebody is killed: what was directed was waited for, and
/// so was what was to be swapped out.
const KILL_TICKS: u64 = 2 * (CRITICAL_LAG_TICKS as u64 + 1);
/// Progress is a deficit that is a sixteenth less than the least that was seen.
const PROGRESS_PART: u64 = 16;

/// Of the pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Shortage {
    /// Ticks in a row in which something was lacking.
    short_ticks: u64,
    /// The same below the last watermark, since the last progress.
    dire_ticks: u64,
    /// The least deficit in those.
    least_bytes: u64,
    /// Who was chosen to be killed, while the host does not have all of its memory back.
    victim: Option<Id>,
    /// Who was chosen and could not be killed: not chosen again before all others have been.
    spared: Vec<Id>,
}

impl Shortage {
    /// Another tick, in which `deficit_bytes` are lacking and the host is below the last watermark or not.
    pub(super) fn next(&mut self, tree: &Tree, deficit_bytes: u64, is_dire: bool) {
        self.short_ticks = if deficit_bytes > 0 { self.short_ticks.saturating_add(1) } else { 0 };
        self.victim = self.victim.filter(|id| tree.get(*id).is_some());
        self.spared.retain(|id| is_dire && tree.get(*id).is_some());
        if !is_dire || deficit_bytes == 0 || self.victim.is_some() {
            self.dire_ticks = 0;
            return;
        }
        let progress = self.least_bytes.saturating_sub(self.least_bytes.div_euclid(PROGRESS_PART));
        if self.dire_ticks == 0 || deficit_bytes < progress {
            (self.dire_ticks, self.least_bytes) = (1, deficit_bytes);
        } else {
            self.dire_ticks = self.dire_ticks.saturating_add(1);
        }
    }

    /// What was directed first has been waited for, for `lag_ticks`, and something is still lacking.
    pub(super) fn is_overdue(&self, lag_ticks: usize) -> bool {
        self.short_ticks > lag_ticks.saturating_add(1) as u64
    }

    /// Nothing is left to be tried.
    pub(super) fn is_hopeless(&self) -> bool {
        self.dire_ticks > KILL_TICKS
    }

    /// The least protected of `candidates`, whose second parts are what `low` protects of them: who has more than that
    /// before others, then the least weight, then who has most beyond what `min` protects. Whoever has no more than
    /// that is never chosen. Until the host has that memory back nobody else is.
    pub(super) fn choose(&mut self, candidates: impl Iterator<Item = (Kill, u64)>) -> Option<Kill> {
        let rank = |(kill, low_bytes): &(Kill, u64)| {
            let excess_bytes = kill.charge_bytes.saturating_sub(kill.protected_bytes);
            (kill.charge_bytes <= *low_bytes, kill.weight, Reverse(excess_bytes))
        };
        let killable = candidates.filter(|(kill, _)| kill.charge_bytes > kill.protected_bytes);
        let Some((kill, _)) = killable.filter(|(kill, _)| !self.spared.contains(&kill.vm)).min_by_key(rank)
        else {
            if !self.spared.is_empty() {
                // What the host refused it may allow later, but need not be asked each tick.
                self.spared.clear();
                self.dire_ticks = 0;
            }
            return None;
        };
        (self.victim, self.dire_ticks) = (Some(kill.vm), 0);
        Some(kill)
    }

    /// Whoever was chosen cannot be killed: another is chosen with the next tick.
    pub(super) fn spare(&mut self, vm: Id) {
        if self.victim.take_if(|victim| *victim == vm).is_some() {
            self.spared.push(vm);
            self.dire_ticks = KILL_TICKS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::{Limits, Pool};

    fn tree() -> (Tree, Id) {
        let mut tree = Tree::new(Pool { capacity_bytes: 1 << 30, overcommit: true }).unwrap();
        let vm = tree.create_vm("", "a", Limits::default()).unwrap();
        tree.settle(vm, 1, 4096).unwrap();
        (tree, vm)
    }

    #[test]
    fn progress_is_waited_for_and_a_single_tick_of_enough_begins_anew() {
        let (tree, _) = tree();
        let mut shortage = Shortage::default();
        for tick in 0..100u32 {
            shortage.next(&tree, 1 << (40 - tick / 5), true);
            assert!(!shortage.is_hopeless(), "{tick}");
        }
        for _ in 0..=KILL_TICKS {
            shortage.next(&tree, 1 << 20, true);
        }
        assert!(shortage.is_hopeless() && shortage.is_overdue(4));
        shortage.next(&tree, 1 << 20, false);
        assert!(!shortage.is_hopeless() && shortage.is_overdue(4));
        shortage.next(&tree, 0, true);
        assert!(!shortage.is_overdue(0));
    }

    #[test]
    fn while_the_memory_of_the_last_is_not_back_nobody_is_killed() {
        let (mut tree, vm) = tree();
        let mut shortage = Shortage::default();
        let wait = |shortage: &mut Shortage, tree: &Tree| {
            (0..=KILL_TICKS).for_each(|_| shortage.next(tree, 1 << 20, true));
            shortage.is_hopeless()
        };
        assert!(wait(&mut shortage, &tree));
        let kill = Kill { vm, charge_bytes: 4096, protected_bytes: 4096, weight: 100 };
        assert_eq!(shortage.choose([(kill, 0)].into_iter()), None, "it is protected");
        let kill = Kill { protected_bytes: 4095, ..kill };
        assert_eq!(shortage.choose([(kill, 0)].into_iter()), Some(kill));
        assert!(!wait(&mut shortage, &tree));
        assert!(tree.retire(vm).unwrap() > 0);
        assert!(!wait(&mut shortage, &tree), "it is an orphan");
        tree.settle(vm, 2, 0).unwrap();
        assert!(wait(&mut shortage, &tree));
    }

    #[test]
    fn who_cannot_be_killed_is_passed_over_until_all_others_were_tried() {
        let (mut tree, a) = tree();
        let b = tree.create_vm("", "b", Limits::default()).unwrap();
        tree.settle(b, 1, 4096).unwrap();
        let kill = |vm, weight| (Kill { vm, charge_bytes: 4096, protected_bytes: 0, weight }, 0);
        let mut shortage = Shortage::default();
        let mut tick = |tries: &dyn Fn(Id) -> bool, is_dire| {
            shortage.next(&tree, 1 << 20, is_dire);
            let chosen =
                shortage.is_hopeless().then(|| shortage.choose([kill(a, 1), kill(b, 2)].into_iter()));
            let chosen = chosen.flatten().map(|kill| kill.vm)?;
            if !tries(chosen) {
                shortage.spare(chosen);
            }
            Some(chosen)
        };
        let mut ticks = |count, tries: &dyn Fn(Id) -> bool, is_dire| -> Vec<Id> {
            (0..count).filter_map(|_| tick(tries, is_dire)).collect()
        };
        let never = |_: Id| false;
        assert_eq!(ticks(KILL_TICKS, &never, true), []);
        assert_eq!(ticks(3, &never, true), [a, b], "one a tick, and then nobody for a while");
        assert_eq!(ticks(KILL_TICKS, &never, true), []);
        assert_eq!(ticks(1, &never, true), [a], "all are tried again");
        assert_eq!(ticks(1, &never, false), [], "the host is better off");
        assert_eq!(ticks(KILL_TICKS, &never, true), []);
        assert_eq!(ticks(100, &|vm| vm == b, true), [a, b], "its memory is waited for");
    }
}

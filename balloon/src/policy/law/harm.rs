//! What trimming costs the guest: memory stalls over a window, and refaults of what was evicted by order.

use crate::policy::Tuning;
use crate::policy::arithmetic::{permille, scale};
use crate::policy::meter::Delta;

/// Parts of the window. One is begun with each step.
const PARTS: usize = 5;

/// What happened in one part of the window.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    elapsed_us: u64,
    stall_us: u64,
    /// Of that, what is no harm of steps.
    excused_us: u64,
    /// Waits for I/O.
    io_us: u64,
    refaults: u64,
    /// Of what was evicted by order.
    charged: u64,
    /// Of that, what was verified to be cold.
    charged_cold: u64,
    restores: u64,
    /// Evicted by the kernel of its own accord.
    stolen: u64,
    /// Evicted to recycle streams.
    recycled: u64,
}

/// The window, and the books of what was evicted and has not come back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Harm {
    parts: [Part; PARTS],
    current: usize,
    /// Pages evicted by order that were not needed again.
    ordered: u64,
    /// Of these, those that were verified to be unused for a working-set age.
    cold: u64,
    /// Pages that the kernel evicted of its own accord and that were not needed again.
    own: u64,
    /// Of what makes room for streams, the share that comes back though no step evicted anything: the kernel's wrong
    /// victims, in thousandths.
    wrong_permille: u64,
    /// Pages of which that is expected.
    expected: u64,
    /// Memory stall that is there though no step evicted anything: the guest's memory is smaller than what it uses.
    native_ppm: u64,
}

impl Harm {
    /// Pages were evicted by order, of those that were verified to be cold or of any.
    pub(super) fn evicted(&mut self, pages: u64, is_cold: bool) {
        self.ordered = self.ordered.saturating_add(pages);
        if is_cold {
            self.cold = self.cold.saturating_add(pages);
        }
    }

    /// Pages were evicted to recycle a stream: most of them for good, and what comes back of them is no harm of steps.
    pub(super) fn recycled(&mut self, pages: u64) {
        self.expected = self.expected.saturating_add(permille(pages, self.wrong_permille));
        if let Some(part) = self.parts.get_mut(self.current) {
            part.recycled = part.recycled.saturating_add(pages);
        }
    }

    /// Time went on in the guest. Refaults are charged to who evicted, in proportion to what is out. Without pressure
    /// statistics each is taken to cost `refetch_us`.
    pub(super) fn passed(&mut self, delta: &Delta, refetch_us: Option<u64>) {
        self.own = self.own.saturating_add(delta.stolen);
        self.expected = self.expected.saturating_add(permille(delta.stolen, self.wrong_permille));
        let refaults = delta.refaults();
        let excused = refaults.min(self.expected);
        self.expected = self.expected.saturating_sub(excused);
        let others = refaults.saturating_sub(excused);
        let charged = scale(others, self.ordered, self.ordered.saturating_add(self.own));
        let charged = charged.min(self.ordered);
        let charged_cold = scale(charged, self.cold, self.ordered.max(1)).min(self.cold);
        self.ordered = self.ordered.saturating_sub(charged);
        self.cold = self.cold.saturating_sub(charged_cold);
        self.own = self.own.saturating_sub(others.saturating_sub(charged));
        let stall_us = match refetch_us {
            None => delta.stall_us,
            Some(cost_us) => refaults.saturating_mul(cost_us).min(delta.elapsed_us),
        };
        let excused_us = scale(stall_us, excused, refaults);
        let Some(part) = self.parts.get_mut(self.current) else { return };
        part.elapsed_us = part.elapsed_us.saturating_add(delta.elapsed_us);
        part.stall_us = part.stall_us.saturating_add(stall_us);
        part.io_us = part.io_us.saturating_add(delta.io_us);
        part.excused_us = part.excused_us.saturating_add(excused_us);
        part.refaults = part.refaults.saturating_add(refaults);
        part.charged = part.charged.saturating_add(charged);
        part.charged_cold = part.charged_cold.saturating_add(charged_cold);
        part.restores = part.restores.saturating_add(delta.restore);
        part.stolen = part.stolen.saturating_add(delta.stolen);
    }

    /// Begins a new part of the window and forgets the oldest; old evictions say less. The guest may have all of its memory
    /// (`is_whole`), as far as steps leave it that.
    pub(super) fn turn(&mut self, age_ms: u64, lists_pages: u64, is_whole: bool, tuning: &Tuning) {
        let is_clear = self.ordered <= permille(lists_pages, tuning.clear_permille);
        self.learn(is_clear, tuning);
        self.current = self.current.saturating_add(1).checked_rem(PARTS).unwrap_or(0);
        if let Some(part) = self.parts.get_mut(self.current) {
            *part = Part::default();
        }
        // As much of the window as harm is judged by.
        self.learn_native(is_clear && is_whole, tuning);
        // Half after so many ages: ln 2 of it in each such time.
        let life_ms = age_ms.saturating_mul(tuning.memory_ages).max(tuning.step_ms);
        for pool in [&mut self.ordered, &mut self.cold, &mut self.own, &mut self.expected] {
            *pool = pool.saturating_sub(scale(
                *pool,
                tuning.step_ms.saturating_mul(693),
                life_ms.saturating_mul(1000),
            ));
        }
    }

    /// Of what makes room for streams some comes back, whatever steps do: how much is learned while next to nothing
    /// that steps evicted is out, in both directions. At other times it can only turn out to be less.
    fn learn(&mut self, is_clear: bool, tuning: &Tuning) {
        let taken = self.sum(|part| part.recycled).saturating_add(self.stolen());
        if taken < tuning.evidence_pages {
            return;
        }
        let seen = scale(self.refaults(), 1000, taken).min(tuning.wrong_permille);
        if seen < self.wrong_permille {
            let fall = self.wrong_permille.saturating_sub(seen).div_ceil(if is_clear { 4 } else { 8 });
            self.wrong_permille = self.wrong_permille.saturating_sub(fall);
        } else if is_clear {
            let rise = seen.saturating_sub(self.wrong_permille).div_ceil(4);
            self.wrong_permille = self.wrong_permille.saturating_add(rise);
        }
    }

    /// A guest that needs more than it has waits for memory, whatever steps do: how much is learned while nothing else than
    /// its own kernel evicts, which it does where memory is full. At other times it can only turn out to be less.
    fn learn_native(&mut self, is_clear: bool, tuning: &Tuning) {
        let seen_ppm = self.charged_stall_ppm(tuning);
        let is_full = self.stolen() > 0 && self.stolen().saturating_mul(2) >= self.refaults();
        if seen_ppm < self.native_ppm {
            self.native_ppm =
                self.native_ppm.saturating_sub(self.native_ppm.saturating_sub(seen_ppm).div_ceil(8));
        } else if is_clear && is_full {
            self.native_ppm =
                self.native_ppm.saturating_add(seen_ppm.saturating_sub(self.native_ppm).div_ceil(4));
        }
    }

    /// The guest has started anew: nothing is out.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    fn sum(&self, field: impl Fn(&Part) -> u64) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(field(part)))
    }

    fn window_us(&self, tuning: &Tuning) -> u64 {
        self.sum(|part| part.elapsed_us).max(tuning.window_ms.saturating_mul(1000)).max(1)
    }

    /// Memory stall of the window.
    pub(super) fn stall_ppm(&self, tuning: &Tuning) -> u64 {
        scale(self.sum(|part| part.stall_us), 1_000_000, self.window_us(tuning))
    }

    /// Of that, what steps may have caused.
    fn charged_stall_ppm(&self, tuning: &Tuning) -> u64 {
        let stall_us = self.sum(|part| part.stall_us.saturating_sub(part.excused_us));
        scale(stall_us, 1_000_000, self.window_us(tuning))
    }

    /// Waits for I/O in the window.
    pub(super) fn io_ppm(&self, tuning: &Tuning) -> u64 {
        scale(self.sum(|part| part.io_us), 1_000_000, self.window_us(tuning))
    }

    /// All refaults of the window, in thousandths per second.
    pub(super) fn refault_millis(&self, tuning: &Tuning) -> u64 {
        scale(self.sum(|part| part.refaults), 1_000_000_000, self.window_us(tuning))
    }

    /// Refaults of what was evicted by order, in thousandths per second.
    pub(super) fn charged_millis(&self, tuning: &Tuning) -> u64 {
        scale(self.sum(|part| part.charged), 1_000_000_000, self.window_us(tuning))
    }

    /// Refaults in the window, in pages.
    pub(super) fn refaults(&self) -> u64 {
        self.sum(|part| part.refaults)
    }

    /// Refaults in the window of what was evicted by order, in pages.
    pub(super) fn charged(&self) -> u64 {
        self.sum(|part| part.charged)
    }

    /// Evicted in the window by the kernel of its own accord, in pages.
    pub(super) fn stolen(&self) -> u64 {
        self.sum(|part| part.stolen)
    }

    /// Pages evicted by order that were not needed again.
    pub(super) fn ordered_pages(&self) -> u64 {
        self.ordered
    }

    /// Mean time after which what was evicted by order is needed again; nothing if it is not.
    pub(super) fn reuse_ms(&self, tuning: &Tuning) -> Option<u64> {
        let charged = self.sum(|part| part.charged);
        let window_ms = self.window_us(tuning).div_euclid(1000);
        (charged > 0).then(|| scale(self.ordered.max(tuning.evidence_pages), window_ms, charged))
    }

    /// Mean time between two uses of what was evicted by order and is needed again: the time for which it was out, and
    /// that for which it was idle before, as far as that was verified.
    fn interval_ms(&self, age_ms: u64, tuning: &Tuning) -> Option<u64> {
        let (charged, cold) = (self.sum(|part| part.charged), self.sum(|part| part.charged_cold));
        Some(self.reuse_ms(tuning)?.saturating_add(scale(age_ms, cold, charged.max(1))))
    }

    /// Whether the guest needs again and again what was evicted: within the window at least half as much came back as
    /// went, by the kernel's own hand, at least an eighth of `lists_pages`, and a quarter of it had been in use.
    /// What was evicted by order and comes back once is no such thing.
    pub(super) fn thrashes(&self, lists_pages: u64, tuning: &Tuning) -> bool {
        let (refaults, charged) = (self.sum(|part| part.refaults), self.sum(|part| part.charged));
        let (stolen, restores) = (self.sum(|part| part.stolen), self.sum(|part| part.restores));
        let again = refaults.saturating_sub(charged);
        again >= tuning.evidence_pages.max(lists_pages.div_euclid(8))
            && again.saturating_mul(2) >= stolen
            && restores.saturating_mul(4) >= refaults
    }

    /// Harm by stall and by refaults, the greater: 1000 is as much as the budget and the working-set age allow. Stall that is
    /// the guest's own is none, but no more of that than steps may add.
    pub(super) fn permille(&self, budget_ppm: u64, age_ms: u64, tuning: &Tuning) -> u64 {
        let added_ppm = self.charged_stall_ppm(tuning).saturating_sub(self.native_ppm.min(budget_ppm));
        let stall = scale(added_ppm, 1000, budget_ppm.max(1));
        let interval_ms = self.interval_ms(age_ms, tuning);
        stall.max(interval_ms.map_or(0, |interval_ms| scale(1000, age_ms, interval_ms.max(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTS_PAGES: u64 = 200_000;

    /// A stream of 10,000 pages in each of 50 steps, of which `refaults` come back and cost 100 us each.
    fn streamed(refaults: u64) -> Harm {
        let (mut harm, tuning) = (Harm::default(), Tuning::default());
        for _ in 0..50 {
            harm.recycled(10_000);
            let stall_us = refaults.saturating_mul(100);
            let delta = Delta { elapsed_us: 6_000_000, refault_file: refaults, stall_us, ..Delta::default() };
            harm.passed(&delta, None);
            harm.turn(300_000, LISTS_PAGES, true, &tuning);
        }
        harm
    }

    #[test]
    fn the_kernels_wrong_victims_of_a_stream_are_no_harm_of_steps() {
        let (harm, tuning) = (streamed(1000), Tuning::default());
        assert!(harm.stall_ppm(&tuning) > 10_000, "a tenth came back: {}", harm.stall_ppm(&tuning));
        assert!(harm.charged_stall_ppm(&tuning) < 1000, "{}", harm.charged_stall_ppm(&tuning));
    }

    /// As `minutes` go by in which pages come back and go again by the kernel's own hand, or not, each for 100 us.
    fn full(harm: &mut Harm, minutes: u64, refaults: u64, is_full: bool, is_whole: bool) {
        let stolen = if is_full { refaults } else { 0 };
        let stall_us = refaults.saturating_mul(100);
        for _ in 0..minutes.saturating_mul(10) {
            let delta =
                Delta { elapsed_us: 6_000_000, refault_file: refaults, stolen, stall_us, ..Delta::default() };
            harm.passed(&delta, None);
            harm.turn(300_000, LISTS_PAGES, is_whole, &Tuning::default());
        }
    }

    #[test]
    fn what_a_guest_waits_for_without_any_step_is_no_harm_of_steps() {
        let permille = |harm: &Harm| harm.permille(1000, 300_000, &Tuning::default());
        // 60 pages in six seconds are 0.1 % of the time, of which harm sees four fifths.
        let mut harm = Harm::default();
        full(&mut harm, 2, 60, true, true);
        assert!(permille(&harm) < 60, "{}", permille(&harm));
        // Steps have evicted since, and twice as much comes back: what they add counts.
        harm.evicted(LISTS_PAGES / 4, false);
        full(&mut harm, 5, 120, false, true);
        assert!((750..=850).contains(&permille(&harm)), "{}", permille(&harm));
        // The guest does something else: nothing of that is its own any more.
        full(&mut harm, 5, 0, false, true);
        full(&mut harm, 1, 60, false, true);
        assert!(permille(&harm) > 700, "{}", permille(&harm));
    }

    #[test]
    fn no_more_is_a_guests_own_than_steps_may_add_and_nothing_by_our_hand() {
        let permille = |harm: &Harm| harm.permille(1000, 300_000, &Tuning::default());
        let mut thrashing = Harm::default();
        full(&mut thrashing, 5, 6000, true, true);
        assert!(permille(&thrashing) > 60_000, "{}", permille(&thrashing));
        // Whether it is trimmed, long ago, or its ceiling is lower than its size.
        for (is_full, is_whole) in [(false, true), (true, false)] {
            let mut ours = Harm::default();
            full(&mut ours, 60, 60, is_full, is_whole);
            assert!(permille(&ours) >= 790, "{}", permille(&ours));
        }
    }

    #[test]
    fn what_comes_back_whole_is_harm() {
        let (harm, tuning) = (streamed(10_000), Tuning::default());
        let (all, charged) = (harm.stall_ppm(&tuning), harm.charged_stall_ppm(&tuning));
        assert!(charged >= all / 8 * 6, "{charged} of {all}");
    }

    #[test]
    fn what_steps_evicted_and_comes_back_is_not_learned_as_a_streams() {
        let (mut harm, tuning) = (streamed(200), Tuning::default());
        harm.evicted(LISTS_PAGES / 10, false);
        for _ in 0..50 {
            harm.recycled(10_000);
            let delta =
                Delta { elapsed_us: 6_000_000, refault_file: 1000, stall_us: 100_000, ..Delta::default() };
            harm.passed(&delta, None);
            harm.evicted(800, false);
            harm.turn(300_000, LISTS_PAGES, true, &tuning);
        }
        assert!(harm.wrong_permille <= 20, "{}", harm.wrong_permille);
    }
}

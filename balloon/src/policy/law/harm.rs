//! What trimming costs the guest: memory stalls over a window, and refaults of what was evicted by order.

use crate::policy::Tuning;
use crate::policy::arithmetic::scale;
use crate::policy::meter::Delta;

/// Parts of the window. One is begun with each step.
const PARTS: usize = 5;

/// What happened in one part of the window.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    elapsed_us: u64,
    stall_us: u64,
    refaults: u64,
    /// Of what was evicted by order.
    charged: u64,
    restores: u64,
    /// Evicted by the kernel of its own accord.
    stolen: u64,
}

/// The window, and the books of what was evicted and has not come back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Harm {
    parts: [Part; PARTS],
    current: usize,
    /// Pages evicted by order that were not needed again.
    ordered: u64,
    /// Pages that the kernel evicted of its own accord and that were not needed again.
    own: u64,
}

impl Harm {
    /// Pages were evicted by order.
    pub(super) fn evicted(&mut self, pages: u64) {
        self.ordered = self.ordered.saturating_add(pages);
    }

    /// Time went on in the guest. Refaults are charged to who evicted, in proportion to what is out. Without pressure
    /// statistics each is taken to cost `refetch_us`.
    pub(super) fn passed(&mut self, delta: &Delta, refetch_us: Option<u64>) {
        self.own = self.own.saturating_add(delta.stolen);
        let refaults = delta.refaults();
        let charged = scale(refaults, self.ordered, self.ordered.saturating_add(self.own));
        let charged = charged.min(self.ordered);
        self.ordered = self.ordered.saturating_sub(charged);
        self.own = self.own.saturating_sub(refaults.saturating_sub(charged));
        let stall_us = match refetch_us {
            None => delta.stall_us,
            Some(cost_us) => refaults.saturating_mul(cost_us).min(delta.elapsed_us),
        };
        let Some(part) = self.parts.get_mut(self.current) else { return };
        part.elapsed_us = part.elapsed_us.saturating_add(delta.elapsed_us);
        part.stall_us = part.stall_us.saturating_add(stall_us);
        part.refaults = part.refaults.saturating_add(refaults);
        part.charged = part.charged.saturating_add(charged);
        part.restores = part.restores.saturating_add(delta.restore);
        part.stolen = part.stolen.saturating_add(delta.stolen);
    }

    /// Begins a new part of the window and forgets the oldest; old evictions say less.
    pub(super) fn turn(&mut self, age_ms: u64, tuning: &Tuning) {
        self.current = self.current.saturating_add(1).checked_rem(PARTS).unwrap_or(0);
        if let Some(part) = self.parts.get_mut(self.current) {
            *part = Part::default();
        }
        // Half after so many ages: ln 2 of it in each such time.
        let life_ms = age_ms.saturating_mul(tuning.memory_ages).max(tuning.step_ms);
        for pool in [&mut self.ordered, &mut self.own] {
            *pool = pool.saturating_sub(scale(
                *pool,
                tuning.step_ms.saturating_mul(693),
                life_ms.saturating_mul(1000),
            ));
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

    /// Harm by stall and by refaults, the greater: 1000 is as much as the budget and the working-set age allow.
    pub(super) fn permille(&self, budget_ppm: u64, age_ms: u64, tuning: &Tuning) -> u64 {
        let stall = scale(self.stall_ppm(tuning), 1000, budget_ppm.max(1));
        let reuse = self.reuse_ms(tuning).map_or(0, |reuse_ms| scale(1000, age_ms, reuse_ms.max(1)));
        stall.max(reuse)
    }
}

//! The pages of one guest by when they were last used, and which of them it still holds.
//!
//! Pages of a bin are used at random moments with the bin's mean interval. Whether a page is held or not, it is used
//! as often, so of `n` pages of rate `r` always `n * exp(-r * t)` were last used more than `t` ago. What was
//! evicted is therefore said completely by the share that is still held of the pages last used in each of a few
//! spans of time, the [`Slot`]s: eviction by age empties the old ones, and every use moves a page to the youngest,
//! through a fault if it was not held. This is Denning's working set as an exact mean of the kernel's lists, at a cost
//! that does not depend on the number of pages. What ages do not say has rows of its own, by bin:
//! *holes* (evicted whatever their age) and *once* (read in and not used again: the inactive list's).
//!
//! Pure. Counts are pages, as floats: means of very many.

use crate::simulate::decay::{BINS, Row, dot, sum};

/// How many spans of time are kept apart. MGLRU needs four, cut once each by eviction.
pub const SLOTS: usize = 8;

/// Added and taken away again, it makes nothing of what is next to nothing: processors are slow with denormal numbers.
const TINY: f32 = 1e-18;

/// Page cache or anonymous memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Page cache.
    File,
    /// Anonymous memory, evicted to swap.
    Anon,
}

/// Pages that were last used in one span of time.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// MGLRU generation.
    pub generation: u32,
    /// When the span begins, in milliseconds of the simulation.
    pub since_ms: u64,
    /// Share that is held of file and of anonymous pages.
    pub held: [f32; 2],
    /// Held file pages that are never used again: what streams leave behind.
    pub dead: f32,
    /// For each bin the probability that a page was last used before this span.
    pub before: Row,
}

/// File pages that are read again and again in the same order, each once a round: what random use cannot express.
/// All were last used within one round, evenly.
#[derive(Clone, Copy, Debug)]
pub struct Cycle {
    /// How many.
    pub pages: f64,
    /// Length of a round.
    pub round_ms: u64,
}

/// What use did in one tick: pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Evicted and used again.
    pub refaults: [f64; 2],
    /// Used for the first time.
    pub first: [f64; 2],
    /// Of the refaulted file pages those that had been used more than once before.
    pub restores_file: f64,
}

/// All pages of a guest that its processes use.
#[derive(Clone, Debug)]
pub struct Pages {
    /// How many there are in each bin: file, anonymous.
    pub demand: [Row; 2],
    /// Beside the bins.
    pub cycle: Option<Cycle>,
    pub(super) slots: [Slot; SLOTS],
    pub(super) count: usize,
    pub(super) held: [f64; 2],
    /// Anonymous pages that were ever used.
    used_anon: f64,
    pub(super) holes: [Row; 2],
    /// Pages of the file bins that were never read in, beside those before the oldest slot.
    pub(super) unread: Row,
    pub(super) once: Row,
    /// Held file pages that were written and not read since.
    pub(super) fresh: Row,
    /// Share of the holes in the file bins that were evicted without a second use.
    pub(super) once_share: f64,
}

impl Kind {
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

impl Pages {
    /// Pages of a guest of which those are held whose last use `before` says; a guest that has run for long holds all.
    #[must_use]
    pub fn new(demand: [Row; 2], before: Row, now_ms: u64) -> Self {
        let slot = Slot { generation: 0, since_ms: now_ms, held: [1.0; 2], dead: 0.0, before };
        let unused: Row = before.map(|before| 1.0 - before);
        Self {
            demand,
            cycle: None,
            slots: [slot; SLOTS],
            count: 1,
            held: [dot(&demand[0], &unused), dot(&demand[1], &unused)],
            used_anon: dot(&demand[1], &unused),
            holes: [[0.0; BINS]; 2],
            unread: [0.0; BINS],
            once: [0.0; BINS],
            fresh: [0.0; BINS],
            once_share: 0.0,
        }
    }

    /// Pages of a guest that has just written all of its file pages, one after another, and used none again.
    #[must_use]
    pub fn written(demand: [Row; 2], now_ms: u64) -> Self {
        Self { fresh: demand[0], ..Self::new(demand, [0.0; BINS], now_ms) }
    }

    /// Held pages, those of streams among them.
    #[must_use]
    pub fn held(&self, kind: Kind) -> f64 {
        self.held[kind.index()]
    }

    /// Anonymous pages in swap.
    #[must_use]
    pub fn swapped(&self) -> f64 {
        (self.used_anon - self.held[1]).max(0.0)
    }

    /// Of evicted file pages the share, by bin, that come back after more evictions than there are active pages, of which
    /// there are so many a second: the kernel's test whether they would still be there if it had kept them instead
    /// (mm/workingset.c).
    #[must_use]
    pub fn distant(&self, rates: &Row, evicted_per_s: f64) -> Row {
        let active = (self.held(Kind::File) - self.inactive_file()).max(0.0);
        let evicted_in = |rate: f32| evicted_per_s * f64::from(std::f32::consts::LOG2_E / rate);
        rates.map(|rate| 1.0 - (active / evicted_in(rate).max(1e-9)).min(1.0) as f32)
    }

    /// One tick: `unused` is, for each bin, the probability that a page is not used in it, and `distant` the share of
    /// evicted pages that come back after so many other evictions that the kernel takes them for new.
    pub fn age(&mut self, unused: &Row, distant: &Row) -> Faults {
        let mut faults = Faults::default();
        let mut used = *unused;
        used.iter_mut().for_each(|unused| *unused = 1.0 - *unused);
        for kind in 0..2 {
            let flux: Row = std::array::from_fn(|bin| self.demand[kind][bin] * used[bin]);
            for slot in 0..self.count {
                let missing = f64::from(1.0 - self.slots[slot].held[kind]);
                if missing > 0.0 {
                    let older = dot(&flux, &self.slots[slot].before);
                    let younger =
                        if slot == 0 { sum(&flux) } else { dot(&flux, &self.slots[slot - 1].before) };
                    faults.refaults[kind] += (younger - older).max(0.0) * missing;
                }
            }
            faults.first[kind] = dot(&flux, &self.oldest().before);
            if kind == 0 {
                faults.restores_file = faults.refaults[0];
            }
            let filled: Row = std::array::from_fn(|bin| self.holes[kind][bin] * used[bin]);
            let filled_sum = sum(&filled);
            for bin in 0..BINS {
                self.holes[kind][bin] = (self.holes[kind][bin] - filled[bin] + TINY) - TINY;
            }
            faults.refaults[kind] += filled_sum;
            if kind == 0 {
                faults.restores_file += filled_sum * (1.0 - self.once_share);
                for bin in 0..BINS {
                    let read = self.unread[bin] * used[bin];
                    self.unread[bin] -= read;
                    self.once[bin] = (self.once[bin] * unused[bin] + TINY) - TINY;
                    let begun = self.fresh[bin] * used[bin];
                    self.fresh[bin] = (self.fresh[bin] - begun + TINY) - TINY;
                    self.once[bin] += (read + filled[bin] * distant[bin] + begun) * unused[bin];
                    faults.first[0] += f64::from(read);
                }
                self.admit_once(&flux, unused, distant);
            }
            self.held[kind] += faults.refaults[kind] + faults.first[kind];
        }
        // Of the youngest slot a part may not be held: what was used in this tick is, and mixes with it.
        let young = self.slots[0];
        for kind in 0..2 {
            if young.held[kind] < 1.0 {
                let slot: Row = std::array::from_fn(|bin| 1.0 - young.before[bin]);
                let kept: Row = std::array::from_fn(|bin| slot[bin] * unused[bin]);
                let whole = dot(&self.demand[kind], &slot).max(1e-9);
                let share = (dot(&self.demand[kind], &kept) / whole) as f32;
                self.slots[0].held[kind] = 1.0 - (1.0 - young.held[kind]) * share;
            }
        }
        for slot in &mut self.slots[..self.count] {
            for bin in 0..BINS {
                slot.before[bin] = (slot.before[bin] * unused[bin] + TINY) - TINY;
            }
        }
        self.used_anon += faults.first[1];
        faults
    }

    /// File pages that come in by first use or long after eviction by age begin on the inactive list too.
    fn admit_once(&mut self, flux: &Row, unused: &Row, distant: &Row) {
        let mut younger: Row = [1.0; BINS];
        let slots = self.slots[..self.count].iter().map(|slot| (slot, distant));
        for (slot, distant) in slots.chain([(&Slot::NEVER, &[1.0; BINS])]) {
            let missing = 1.0 - slot.held[0];
            if missing > 0.0 {
                for bin in 0..BINS {
                    let part = (younger[bin] - slot.before[bin]).max(0.0);
                    self.once[bin] += flux[bin] * part * missing * unused[bin] * distant[bin];
                }
            }
            younger = slot.before;
        }
    }

    /// A part of a round of the cycle: `milliseconds` of it until `now_ms`. Tells how many pages had been evicted.
    pub fn read_on(&mut self, now_ms: u64, milliseconds: f64) -> f64 {
        let Some(cycle) = self.cycle else { return 0.0 };
        let last_ms = now_ms.saturating_sub(cycle.round_ms);
        let slot =
            self.slots[..self.count].iter().find(|slot| slot.since_ms <= last_ms).unwrap_or(self.oldest());
        let pages = cycle.pages * milliseconds / cycle.round_ms as f64;
        let missing = pages * f64::from(1.0 - slot.held[0]);
        self.held[0] += missing;
        missing
    }

    /// Held pages of the cycle that were last used in a slot's span.
    fn of_cycle(&self, slot: usize, now_ms: u64) -> f64 {
        let Some(cycle) = self.cycle else { return 0.0 };
        let until_ms = if slot == 0 { now_ms } else { self.slots[slot - 1].since_ms };
        let first_ms = now_ms.saturating_sub(cycle.round_ms);
        let since_ms =
            if slot + 1 == self.count { first_ms } else { self.slots[slot].since_ms.max(first_ms) };
        let share = until_ms.saturating_sub(since_ms) as f64 / cycle.round_ms as f64;
        cycle.pages * share * f64::from(self.slots[slot].held[0])
    }

    /// Counts anew what is held.
    pub(super) fn recount(&mut self, now_ms: u64) {
        let cycle: f64 = (0..self.count).map(|slot| self.of_cycle(slot, now_ms)).sum();
        self.held = [sum(&self.live(Kind::File)) + self.dead() + cycle, sum(&self.live(Kind::Anon))];
    }

    /// A stream reads pages that nobody will use again.
    pub fn stream(&mut self, pages: f64) {
        self.slots[0].dead += pages as f32;
        self.held[0] += pages;
    }

    /// A share of the file pages goes out of use, and as many others come into it: a change of what is worked on.
    pub fn turn_over(&mut self, share: f64) {
        let share = share as f32;
        let live = self.live(Kind::File);
        for bin in 0..BINS {
            let gone = live[bin] * share;
            self.unread[bin] += gone;
            self.holes[0][bin] *= 1.0 - share;
            self.unread[bin] += self.holes[0][bin] * share;
            self.once[bin] *= 1.0 - share;
            self.fresh[bin] *= 1.0 - share;
        }
        // They grow old from now on.
        self.slots[0].dead += (sum(&live) * f64::from(share)) as f32;
    }

    /// Held pages of one kind by bin, without those of streams.
    #[must_use]
    pub fn live(&self, kind: Kind) -> Row {
        let (index, whole) = (kind.index(), self.reach(kind));
        std::array::from_fn(|bin| {
            let missing = self.holes[index][bin] + if index == 0 { self.unread[bin] } else { 0.0 };
            (whole[bin] - missing).max(0.0)
        })
    }

    /// As [`Self::live`], holes and all.
    pub(super) fn reach(&self, kind: Kind) -> Row {
        let index = kind.index();
        let mut younger: Row = [1.0; BINS];
        let mut share: Row = [0.0; BINS];
        for slot in &self.slots[..self.count] {
            for bin in 0..BINS {
                share[bin] += slot.held[index] * (younger[bin] - slot.before[bin]);
            }
            younger = slot.before;
        }
        std::array::from_fn(|bin| self.demand[index][bin] * share[bin])
    }

    /// Share of the pages by age that are no holes.
    pub(super) fn filled(&self, kind: Kind) -> f64 {
        sum(&self.live(kind)) / sum(&self.reach(kind)).max(1e-9)
    }

    /// Held pages of a slot: of the bins, holes and all, and others.
    #[must_use]
    pub(super) fn of_slot(&self, slot: usize, kind: Kind, now_ms: u64) -> (f64, f64) {
        let before = &self.slots[slot].before;
        let younger = if slot == 0 {
            sum(&self.demand[kind.index()])
        } else {
            dot(&self.demand[kind.index()], &self.slots[slot - 1].before)
        };
        let live = (younger - dot(&self.demand[kind.index()], before)).max(0.0)
            * f64::from(self.slots[slot].held[kind.index()]);
        let others = match kind {
            Kind::File => f64::from(self.slots[slot].dead) + self.of_cycle(slot, now_ms),
            Kind::Anon => 0.0,
        };
        (live, others)
    }

    pub(super) fn oldest(&self) -> &Slot {
        &self.slots[self.count - 1]
    }

    /// Held file pages of streams.
    #[must_use]
    pub fn dead(&self) -> f64 {
        self.slots[..self.count].iter().map(|slot| f64::from(slot.dead)).sum()
    }

    /// File pages on the inactive list: those of one use, and of none since they were written.
    #[must_use]
    pub fn inactive_file(&self) -> f64 {
        self.dead() + sum(&self.once) + sum(&self.fresh)
    }

    /// Tells of each generation, youngest first, its number from there, its age and what it holds.
    pub fn generations(&self, now_ms: u64, mut tell: impl FnMut(usize, u64, [f64; 2])) {
        let newest = self.slots[0].generation;
        let filled = [self.filled(Kind::File), self.filled(Kind::Anon)];
        let mut slot = 0;
        while slot < self.count {
            let generation = self.slots[slot].generation;
            let mut held = [0.0; 2];
            while slot < self.count && self.slots[slot].generation == generation {
                for kind in [Kind::File, Kind::Anon] {
                    let (live, others) = self.of_slot(slot, kind, now_ms);
                    held[kind.index()] += live * filled[kind.index()] + others;
                }
                slot += 1;
            }
            tell((newest - generation) as usize, now_ms.saturating_sub(self.slots[slot - 1].since_ms), held);
        }
    }
}

impl Slot {
    /// Never used: before all slots.
    const NEVER: Self = Self { generation: 0, since_ms: 0, held: [0.0; 2], dead: 0.0, before: [0.0; BINS] };
}

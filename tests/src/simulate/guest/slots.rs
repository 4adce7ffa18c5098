//! Spans of time of last use: begun by aging and by the books' own clock, made one when there are too many. Pure.

use super::pages::{Kind, Pages, SLOTS, Slot};
use crate::simulate::decay::{BINS, dot, sum};

impl Pages {
    /// One aging pass of MGLRU: what is used from now on is younger than all else. Of more than four generations the
    /// two oldest become one.
    pub fn begin_generation(&mut self, now_ms: u64) {
        self.begin_slot(now_ms);
        let generation = self.slots[0].generation + 1;
        self.slots[0].generation = generation;
        for slot in &mut self.slots[..self.count] {
            slot.generation = slot.generation.max(generation.saturating_sub(3));
        }
    }

    /// What is used from now on is kept apart from what was used before. No more than finer books.
    pub fn begin_slot(&mut self, now_ms: u64) {
        self.make_room(now_ms);
        self.slots.copy_within(0..self.count, 1);
        self.count += 1;
        let generation = self.slots[1].generation;
        self.slots[0] = Slot { generation, since_ms: now_ms, held: [1.0; 2], dead: 0.0, before: [1.0; BINS] };
    }

    /// Makes one of the two neighbours that differ least.
    pub(super) fn make_room(&mut self, now_ms: u64) {
        if self.count < SLOTS {
            return;
        }
        let seconds = |slot: usize| {
            let until = if slot == 0 { now_ms } else { self.slots[slot - 1].since_ms };
            until.saturating_sub(self.slots[slot].since_ms) as f64 / 1000.0 + 0.001
        };
        let mut best = (f64::MAX, self.count - 2);
        for older in (1..self.count).rev() {
            let (left, right) = (&self.slots[older - 1], &self.slots[older]);
            let mut difference = if left.generation == right.generation { 0.0 } else { 1e12 };
            for kind in [Kind::File, Kind::Anon] {
                let apart = f64::from((left.held[kind.index()] - right.held[kind.index()]).abs());
                difference += apart * (self.span(older - 1, kind).min(self.span(older, kind)));
            }
            let (young_s, old_s) = (seconds(older - 1), seconds(older));
            let apart = (f64::from(left.dead) / young_s - f64::from(right.dead) / old_s).abs();
            difference += apart * young_s.min(old_s);
            if difference < best.0 {
                best = (difference, older);
            }
        }
        self.merge(best.1);
    }

    /// Pages last used in a slot's span, held or not.
    fn span(&self, slot: usize, kind: Kind) -> f64 {
        let younger = if slot == 0 {
            sum(&self.demand[kind.index()])
        } else {
            dot(&self.demand[kind.index()], &self.slots[slot - 1].before)
        };
        (younger - dot(&self.demand[kind.index()], &self.slots[slot].before)).max(0.0)
    }

    fn merge(&mut self, older: usize) {
        for kind in [Kind::File, Kind::Anon] {
            let (left, right) = (self.span(older - 1, kind), self.span(older, kind));
            let [a, b] = [self.slots[older - 1].held[kind.index()], self.slots[older].held[kind.index()]];
            let mixed = (f64::from(a) * left + f64::from(b) * right) / (left + right).max(1e-9);
            self.slots[older].held[kind.index()] = if left + right < 1e-6 { b } else { mixed as f32 };
        }
        self.slots[older].dead += self.slots[older - 1].dead;
        self.slots.copy_within(older..self.count, older - 1);
        self.count -= 1;
    }
}

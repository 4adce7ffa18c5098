//! How the guest's kernel chooses what to evict: least recently used first, as well as it can tell.
//!
//! Two imperfect ways, both of Linux: the *classic* lists take pages of one use first, then the least recently used;
//! *MGLRU* empties whole generations, the oldest first, in no order within one, and never the two youngest. Both take
//! some wrong victims: pages mapped in huge pages, used through `read(2)`, or sharing a folio. Pure.

use super::pages::{Kind, Pages};
use crate::simulate::decay::{BINS, Row, dot, exp2, sum};

/// Which lists the kernel keeps, and how well.
#[derive(Clone, Copy, Debug)]
pub struct Lists {
    /// MGLRU instead of the classic lists.
    pub generations: bool,
    /// Share of all victims that are taken whatever their age.
    pub wrong: f64,
    /// Share of file victims taken from pages of one use while a fifth of the page cache is such (the kernel leaves
    /// the active list alone while the inactive one is not low), and less where it is less.
    pub once_first: f64,
}

/// What one call is to evict.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Of which kind.
    pub kind: Kind,
    /// How many pages.
    pub pages: f64,
    /// Only what was not used for so long, where the kernel can tell.
    pub older_than_ms: Option<u64>,
    /// The moment.
    pub now_ms: u64,
}

impl Pages {
    /// Evicts and tells how many pages it could.
    pub fn evict(&mut self, lists: Lists, wish: Wish) -> f64 {
        let index = wish.kind.index();
        let mut left = wish.pages.min(self.held[index]);
        if left <= 0.0 {
            return 0.0;
        }
        let before = self.held[index];
        let by_age = lists.generations && wish.older_than_ms.is_some();
        if by_age {
            left = left.min(self.idle(wish.kind, wish.now_ms, wish.older_than_ms));
        } else if wish.kind == Kind::File {
            let enough = (self.inactive_file() * 5.0 / self.held[0].max(1e-9)).min(1.0);
            left -= self.evict_once(left * lists.once_first * enough);
        }
        left -= self.evict_any(wish.kind, left * lists.wrong);
        let reach = self.reach(wish.kind);
        if lists.generations {
            left -= self.empty_generations(wish, left);
            // Nothing is left in old generations: the kernel ages by itself and goes on, until the two youngest hold only
            // what was used meanwhile.
            for _ in 0..2 {
                if left > 1.0 && !by_age {
                    self.begin_generation(wish.now_ms);
                    left -= self.empty_generations(wish, left);
                }
            }
        } else {
            self.empty_oldest(wish, left);
        }
        self.shrink_holes(wish.kind, &reach);
        self.recount(wish.now_ms);
        (before - self.held[index]).max(0.0)
    }

    /// Pages that MGLRU can show to be idle for as long as asked: those of a generation whose successor was begun
    /// before, and not of the two youngest.
    #[must_use]
    pub fn idle(&self, kind: Kind, now_ms: u64, older_than_ms: Option<u64>) -> f64 {
        (0..self.count)
            .filter(|slot| self.is_idle(*slot, now_ms, older_than_ms))
            .map(|slot| {
                let (live, others) = self.of_slot(slot, kind, now_ms);
                live * self.filled(kind) + others
            })
            .sum()
    }

    fn is_idle(&self, slot: usize, now_ms: u64, older_than_ms: Option<u64>) -> bool {
        let newest = self.slots[0].generation;
        let generation = self.slots[slot].generation;
        let until_ms = self.slots[..slot]
            .iter()
            .rev()
            .find(|younger| younger.generation != generation)
            .map(|younger| younger.since_ms);
        let idle_ms = until_ms.map_or(0, |until| now_ms.saturating_sub(until));
        generation + 2 <= newest && older_than_ms.is_none_or(|wanted| idle_ms >= wanted)
    }

    /// From the inactive list: first what was only ever written, which is oldest; then what was used once, of streams and of
    /// bins alike.
    fn evict_once(&mut self, pages: f64) -> f64 {
        let (dead, fresh) = (self.dead(), sum(&self.fresh));
        let of_fresh = (pages / fresh.max(1e-9)).min(1.0);
        let others = (self.inactive_file() - fresh).max(1e-9);
        let share = ((pages - fresh).max(0.0) / others).min(1.0);
        for slot in &mut self.slots[..self.count] {
            slot.dead *= 1.0 - share as f32;
        }
        let live = self.live(Kind::File);
        let mut taken = 0.0;
        for bin in 0..BINS {
            let (once, fresh) = (self.once[bin] * share as f32, self.fresh[bin] * of_fresh as f32);
            let hole = (once + fresh).min(live[bin]);
            self.once[bin] -= once;
            self.fresh[bin] -= fresh;
            self.holes[0][bin] += hole;
            taken += f64::from(hole);
        }
        let holes = sum(&self.holes[0]).max(1e-9);
        self.once_share += (1.0 - self.once_share) * (taken / holes).min(1.0);
        dead * share + taken
    }

    /// Victims whatever their age.
    fn evict_any(&mut self, kind: Kind, pages: f64) -> f64 {
        let index = kind.index();
        let share = (pages / self.held[index].max(1e-9)).min(1.0);
        let live = self.live(kind);
        for bin in 0..BINS {
            self.holes[index][bin] += live[bin] * share as f32;
        }
        let mut gone = sum(&live) * share;
        self.once_share *=
            1.0 - (gone / sum(&self.holes[index]).max(1e-9)).min(1.0) * f64::from(u8::from(index == 0));
        if index == 0 {
            gone += self.dead() * share;
            for slot in &mut self.slots[..self.count] {
                slot.dead *= 1.0 - share as f32;
            }
            for once in self.once.iter_mut().chain(&mut self.fresh) {
                *once *= 1.0 - share as f32;
            }
        }
        gone
    }

    fn empty_generations(&mut self, wish: Wish, pages: f64) -> f64 {
        let mut gone = 0.0;
        let mut slot = self.count;
        while slot > 0 && gone < pages {
            let generation = self.slots[slot - 1].generation;
            let first = self.slots[..slot]
                .iter()
                .position(|other| other.generation == generation)
                .unwrap_or(slot - 1);
            if self.is_idle(slot - 1, wish.now_ms, wish.older_than_ms) {
                let filled = self.filled(wish.kind);
                let held: f64 = (first..slot).map(|slot| self.in_slot(slot, wish, filled)).sum();
                let share = ((pages - gone) / held.max(1e-9)).min(1.0);
                (first..slot).for_each(|slot| self.empty(slot, wish.kind, share));
                gone += held * share;
            }
            slot = first;
        }
        gone
    }

    /// The least recently used first, cutting the slot in which that ends.
    fn empty_oldest(&mut self, wish: Wish, pages: f64) {
        self.make_room(wish.now_ms);
        let filled = self.filled(wish.kind);
        let mut left = pages;
        for slot in (0..self.count).rev() {
            let held = self.in_slot(slot, wish, filled);
            if held > left {
                self.cut(slot, wish, left / held);
                self.empty(slot + 1, wish.kind, 1.0);
                break;
            }
            self.empty(slot, wish.kind, 1.0);
            left -= held;
        }
    }

    /// Held pages of a slot.
    fn in_slot(&self, slot: usize, wish: Wish, filled: f64) -> f64 {
        let (live, others) = self.of_slot(slot, wish.kind, wish.now_ms);
        live * filled + others
    }

    fn empty(&mut self, slot: usize, kind: Kind, share: f64) {
        let slot = &mut self.slots[slot];
        slot.held[kind.index()] *= 1.0 - share as f32;
        if kind == Kind::File {
            slot.dead *= 1.0 - share as f32;
        }
    }

    /// Divides a slot so that the older part holds `share` of its pages of one kind.
    fn cut(&mut self, slot: usize, wish: Wish, share: f64) {
        let mut young = self.slots[slot];
        let younger_edge: Row = if slot == 0 { [1.0; BINS] } else { self.slots[slot - 1].before };
        let until_ms = if slot == 0 { wish.now_ms } else { self.slots[slot - 1].since_ms };
        let demand = &self.demand[wish.kind.index()];
        let older = dot(demand, &young.before);
        let (live, others) = self.of_slot(slot, wish.kind, wish.now_ms);
        let filled = self.filled(wish.kind);
        let held = f64::from(young.held[wish.kind.index()]) * filled;
        let goal = share * (live * filled + others);
        let slope: Row =
            std::array::from_fn(|bin| log2(young.before[bin].max(1e-30) / younger_edge[bin].max(1e-30)));
        let mut row = young.before;
        let (mut low, mut high) = (0.0_f32, 1.0_f32);
        for _ in 0..12 {
            let middle = (low + high) / 2.0;
            row = std::array::from_fn(|bin| younger_edge[bin] * exp2((1.0 - middle) * slope[bin]));
            let mass = (dot(demand, &row) - older) * held + others * f64::from(middle);
            *(if mass < goal { &mut low } else { &mut high }) = middle;
        }
        let mut old = young;
        old.dead *= high;
        young.dead -= old.dead;
        young.before = row;
        // The oldest slot has no beginning; what is known of its length is the oldest reuse that matters.
        let length_ms = until_ms.saturating_sub(young.since_ms);
        young.since_ms += (length_ms as f64 * f64::from(high)) as u64;
        self.slots.copy_within(slot..self.count, slot + 1);
        self.count += 1;
        self.slots[slot] = young;
        self.slots[slot + 1] = old;
    }

    /// Of the pages evicted by age as many were holes as of the others of their bin.
    fn shrink_holes(&mut self, kind: Kind, before: &Row) {
        let after = self.reach(kind);
        for bin in 0..BINS {
            let ratio = if before[bin] > 0.0 { (after[bin] / before[bin]).min(1.0) } else { 1.0 };
            self.holes[kind.index()][bin] *= ratio;
            if kind == Kind::File {
                self.once[bin] *= ratio;
                self.fresh[bin] *= ratio;
                self.unread[bin] *= ratio;
            }
        }
    }
}

/// The logarithm of a positive number to base 2, within 1e-4.
fn log2(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let mantissa = f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000);
    // Of the inverse hyperbolic tangent's series: log2(m) = 2/ln2 * atanh((m-1)/(m+1)).
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let square = z * z;
    exponent as f32
        + 2.0 * std::f32::consts::LOG2_E * z * (1.0 + square * (1.0 / 3.0 + square * (0.2 + square / 7.0)))
}

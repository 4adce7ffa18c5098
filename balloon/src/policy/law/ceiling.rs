//! The ceiling: limits, what pressure lifts, and how it comes down again.

use crate::policy::Tuning;
use crate::policy::arithmetic::permille;

/// Below this a way down is gone whole: halves would never arrive.
const LAST_BYTES: u64 = 4 << 20;

/// Between what the ceiling is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Never above.
    pub(super) max_bytes: u64,
    /// Not above without pressure.
    pub(super) high_bytes: Option<u64>,
    /// Never below, unless `max` is.
    pub(super) floor_bytes: u64,
}

impl Bounds {
    /// Where the ceiling is when nothing is lifted.
    pub(super) fn rest_bytes(&self) -> u64 {
        let high = self.high_bytes.unwrap_or(self.max_bytes);
        high.max(self.floor_bytes).min(self.max_bytes)
    }
}

/// The ceiling as it was last ordered. Its only owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ceiling {
    bytes: u64,
    /// Until when it does not come down.
    kept_until_ms: u64,
    /// When it last moved by itself.
    moved_ms: u64,
    /// When pressure last lifted it.
    lifted_ms: Option<u64>,
    lifted: bool,
}

impl Ceiling {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, kept_until_ms: 0, moved_ms: 0, lifted_ms: None, lifted: false }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hard limits hold at once.
    pub(super) fn bound(&mut self, bounds: &Bounds) {
        self.bytes = self.bytes.max(bounds.floor_bytes).min(bounds.max_bytes);
    }

    /// Set by hand.
    pub(super) fn set(&mut self, bytes: u64, bounds: &Bounds) {
        self.bytes = bytes;
        self.bound(bounds);
    }

    /// Pressure: up in one step, all the way if it is `repeated`, by no more than `most_bytes`. What is asserted all
    /// the time lifts twice a second.
    pub(super) fn lift(
        &mut self,
        now_ms: u64,
        bounds: &Bounds,
        repeated: bool,
        most_bytes: Option<u64>,
        kept_until_ms: u64,
        tuning: &Tuning,
    ) {
        self.kept_until_ms = self.kept_until_ms.max(kept_until_ms);
        if self.lifted_ms.is_some_and(|lifted_ms| now_ms.saturating_sub(lifted_ms) < tuning.lift_ms) {
            return;
        }
        self.lifted_ms = Some(now_ms);
        let raise = permille(self.bytes, tuning.raise_permille).max(tuning.raise_bytes);
        let raise = if repeated { u64::MAX } else { raise };
        let raise = raise.min(most_bytes.unwrap_or(u64::MAX));
        self.lifted |= raise > 0;
        self.bytes = self.bytes.saturating_add(raise).min(bounds.max_bytes).max(self.bytes);
        self.bound(bounds);
    }

    /// Whether pressure lifted it and it has not come down to where it rests.
    pub(super) fn is_lifted(&self) -> bool {
        self.lifted
    }

    /// It is where limits have it, or is to go there whether it is used or not.
    pub(super) fn settled(&mut self) {
        self.lifted = false;
    }

    /// Silence: climbs by a part of the size, now and then.
    pub(super) fn climb(&mut self, now_ms: u64, bounds: &Bounds, size_bytes: u64, tuning: &Tuning) {
        if now_ms.saturating_sub(self.moved_ms) < tuning.climb_ms {
            return;
        }
        self.moved_ms = now_ms;
        let raise = permille(size_bytes, tuning.climb_permille);
        self.bytes = self.bytes.saturating_add(raise).min(bounds.max_bytes).max(self.bytes);
    }

    /// Goes where it is wanted: up at once and no higher than `most_bytes`; down once a step, by half the way and
    /// no more than `step_bytes`, and not while it is kept.
    pub(super) fn follow(
        &mut self,
        now_ms: u64,
        wanted_bytes: u64,
        most_bytes: u64,
        step_bytes: u64,
        tuning: &Tuning,
    ) {
        if self.bytes <= wanted_bytes {
            self.bytes = wanted_bytes.min(most_bytes).max(self.bytes);
        } else if now_ms >= self.kept_until_ms && now_ms.saturating_sub(self.moved_ms) >= tuning.step_ms {
            let way = self.bytes.saturating_sub(wanted_bytes);
            let step = if way <= LAST_BYTES { way } else { way.div_euclid(2) };
            let step = step.min(step_bytes);
            if step > 0 {
                self.moved_ms = now_ms;
            }
            self.bytes = self.bytes.saturating_sub(step);
        }
    }
}

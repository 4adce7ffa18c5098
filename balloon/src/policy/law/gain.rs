//! Whether the host has what the guest freed. What reclaim frees goes back by free page reporting, in whole blocks, so
//! that scattered free pages may never come.

use super::Law;
use crate::policy::arithmetic::permille;
use crate::policy::reason::Reason;

/// What guest and host held when the comparison began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gain {
    from: Option<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    since_ms: u64,
    /// Of the guest's word.
    used_bytes: u64,
    /// Of the host's.
    resident_bytes: u64,
    /// What the balloon left it.
    guest_bytes: u64,
}

impl Gain {
    /// The guest has started anew.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Law {
    /// Compares now and then what the guest freed with what the host gained.
    pub(super) fn check_gain(&mut self, now_ms: u64) {
        let (Some(used_bytes), Some(resident_bytes)) = (self.used_bytes(), self.host.resident_bytes) else {
            return;
        };
        let guest_bytes = self.guest_bytes();
        let now = Held { since_ms: now_ms, used_bytes, resident_bytes, guest_bytes };
        let same = |from: &Held| used_bytes <= from.used_bytes && guest_bytes == from.guest_bytes;
        let Some(from) = self.gain.from.filter(same) else {
            // The guest grew, or its balloon moved: what it freed on the way cannot be told.
            self.compare_from(now);
            return;
        };
        let tuning = self.tuning;
        let freed_bytes = from.used_bytes.saturating_sub(now.used_bytes);
        let passed_ms = now_ms.saturating_sub(from.since_ms);
        if passed_ms < tuning.gain_ms || freed_bytes < tuning.gain_bytes {
            return;
        }
        let gained_bytes = from.resident_bytes.saturating_sub(now.resident_bytes);
        // Who holds hardly more than the guest uses has nothing left to gain.
        let kept_bytes = now.resident_bytes.saturating_sub(now.used_bytes);
        let is_there = gained_bytes >= permille(freed_bytes, tuning.gain_permille)
            || kept_bytes < freed_bytes.div_euclid(2);
        // What lies scattered comes when it is compacted, and only if it does not is trimming in vain.
        if !is_there && self.reports_finely() && !self.pace.was_fine(now_ms, &tuning) {
            return;
        }
        self.compare_from(now);
        if !is_there {
            self.rest.begin(now_ms, tuning.rest_ms, tuning.longest_rest_ms, |_, until_ms| Reason::NoGain {
                freed_bytes,
                gained_bytes,
                until_ms,
            });
        }
    }

    fn compare_from(&mut self, now: Held) {
        self.gain.from = Some(now);
        self.pace.forget_fine();
    }

    /// Whether the agent can have free pages reported in other blocks than the kernel's own choice.
    fn reports_finely(&self) -> bool {
        self.has_agent() && self.capabilities.is_some_and(|can| can.reporting_order)
    }
}

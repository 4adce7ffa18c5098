//! What a guest was made to free and its kernel is slow to report, the balloon fetches and gives back.
//!
//! In a pass of two seconds a kernel reports a sixteenth of each list of free blocks (`page_reporting_cycle()` in
//! mm/page_reporting.c): what was evicted page by page takes half a minute to come. The balloon has it within a second. The
//! ceiling rises again as soon as it is there, and until the guest uses them its free pages take nothing of the host.

use super::Law;
use crate::policy::Mode;
use crate::policy::reason::Reason;
use crate::policy::state::State;

/// When the balloon fetches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gather {
    /// Until then, as memory was directed and freed.
    wanted_until_ms: u64,
    /// No other one before that.
    next_ms: u64,
    /// The ceiling while it does, and why.
    going_on: Option<(u64, Reason)>,
}

impl Gather {
    /// The guest has freed what was directed.
    pub(super) fn freed(&mut self, now_ms: u64, gather_ms: u64) {
        self.wanted_until_ms = now_ms.saturating_add(gather_ms);
    }
}

impl Law {
    /// The ceiling while the balloon fetches, and why.
    pub(super) fn gathered(&mut self, now_ms: u64) -> Option<(u64, Reason)> {
        let Gather { wanted_until_ms, next_ms, going_on } = self.gather;
        self.gather.going_on = match going_on {
            _ if !self.may_gather() => None,
            Some((bytes, _)) => going_on.filter(|_| now_ms < next_ms && bytes < self.guest_bytes()),
            None if now_ms < wanted_until_ms && now_ms >= next_ms => self.to_gather(),
            None => None,
        };
        if going_on.is_none() && self.gather.going_on.is_some() {
            self.gather.next_ms = now_ms.saturating_add(self.tuning.gather_ms);
        }
        self.gather.going_on
    }

    /// One that has paused, or of which nothing is known, keeps what it has.
    fn may_gather(&self) -> bool {
        let goes_on = matches!(self.state, State::Start | State::Trimming | State::Blind | State::NoGain);
        goes_on && self.has_agent() && self.host.balloon && self.settings.mode == Mode::Auto
    }

    /// What is used and some room, if the balloon is at rest and the host has much that is free.
    fn to_gather(&self) -> Option<(u64, Reason)> {
        let (held_bytes, used_bytes) = (self.host.resident_bytes?, self.used_bytes()?);
        let free_bytes = held_bytes.saturating_sub(used_bytes);
        let bytes = used_bytes.saturating_add(self.tuning.gather_room_bytes).max(self.floor_bytes());
        let is_at_rest = self.guest_bytes() == self.ordered_ceiling_bytes;
        let is_worth_it =
            is_at_rest && free_bytes >= self.tuning.gain_bytes && bytes < self.ordered_ceiling_bytes;
        is_worth_it.then_some((bytes, Reason::Gather { free_bytes, used_bytes }))
    }
}

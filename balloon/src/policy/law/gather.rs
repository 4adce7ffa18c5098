//! What a guest was made to free and its kernel is slow to report, the balloon fetches and gives back.
//!
//! In a pass of two seconds a kernel reports a sixteenth of each list of free blocks (`page_reporting_cycle()` in
//! mm/page_reporting.c): what was evicted page by page takes half a minute to come. The balloon has it within a second. The
//! ceiling rises again as soon as it is there, and until the guest uses them its free pages take nothing of the host.

use super::Law;
use crate::PAGE_BYTES;
use crate::policy::Mode;
use crate::policy::arithmetic::permille;
use crate::policy::reason::Reason;
use crate::policy::state::State;

/// When the balloon fetches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gather {
    /// Until when what is directed is looked for, and why it is.
    directed: Option<(u64, Reason)>,
    freed: Freed,
    /// No other one before that.
    next_ms: u64,
    /// The ceiling while it does, and why.
    going_on: Option<(u64, Reason)>,
}

/// Whether there is something to fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Freed {
    #[default]
    Nothing,
    /// What is used now no sample has told yet: of what was told before, the guest may use more.
    Untold,
    Told,
}

impl Gather {
    /// Memory is directed.
    pub(super) fn directed(&mut self, now_ms: u64, gather_ms: u64, reason: Reason) {
        self.directed = Some((now_ms.saturating_add(gather_ms), reason));
    }

    /// The guest has freed some of it.
    pub(super) fn freed(&mut self, now_ms: u64, gather_ms: u64) {
        if let Some((until_ms, _)) = &mut self.directed {
            *until_ms = now_ms.saturating_add(gather_ms);
        }
        self.freed = Freed::Untold;
    }

    /// A sample has come.
    pub(super) fn sampled(&mut self) {
        if self.freed == Freed::Untold {
            self.freed = Freed::Told;
        }
    }

    /// Why samples are wanted soon.
    pub(super) fn waits(&self, now_ms: u64) -> Option<Reason> {
        self.directed.filter(|(until_ms, _)| now_ms < *until_ms).map(|(_, reason)| reason)
    }

    /// Ends; whether it was going on.
    pub(super) fn end(&mut self) -> bool {
        let next_ms = self.next_ms;
        let ended = std::mem::replace(self, Self { next_ms, ..Self::default() });
        ended.going_on.is_some()
    }
}

impl Law {
    /// The ceiling while the balloon fetches, and why.
    pub(super) fn gathered(&mut self, now_ms: u64) -> Option<(u64, Reason)> {
        if !self.may_gather() {
            self.gather.going_on = None;
        } else if let Some((bytes, _)) = self.gather.going_on {
            let is_there = self.guest_bytes() < bytes.saturating_add(PAGE_BYTES);
            self.gather.going_on = self.gather.going_on.filter(|_| now_ms < self.gather.next_ms && !is_there);
        } else if self.gather.freed == Freed::Told
            && now_ms >= self.gather.next_ms
            && self.gather.waits(now_ms).is_some()
        {
            self.gather.going_on = self.to_gather();
            if self.gather.going_on.is_some() {
                (self.gather.freed, self.gather.next_ms) =
                    (Freed::Nothing, now_ms.saturating_add(self.tuning.gather_ms));
            }
        }
        self.gather.going_on.map(|(bytes, reason)| (bytes.max(self.floor_bytes()), reason))
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
        let room = permille(self.size_bytes, self.tuning.gather_room_permille);
        let bytes = used_bytes.saturating_add(room.max(self.tuning.gather_room_bytes));
        let is_at_rest = self.guest_bytes().abs_diff(self.ordered_ceiling_bytes) < PAGE_BYTES;
        let is_worth_it =
            is_at_rest && free_bytes >= self.tuning.gain_bytes && bytes < self.ordered_ceiling_bytes;
        is_worth_it.then_some((bytes, Reason::Gather { free_bytes, used_bytes }))
    }
}

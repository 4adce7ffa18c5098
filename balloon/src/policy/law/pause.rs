//! Times without a step, each longer than the one before.

use crate::policy::reason::Reason;

/// A pause that doubles when it is needed again soon.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pause {
    until_ms: u64,
    last_ms: u64,
    repeats: u64,
    reason: Option<Reason>,
}

impl Pause {
    /// Begins or prolongs the pause, `first_ms` long, twice as long for each repetition within `longest_ms`. `reason`
    /// is given how often it has been repeated and when the pause ends. A cause that goes on while the pause has
    /// lasted less than half of its time is the same one.
    pub(super) fn begin(
        &mut self,
        now_ms: u64,
        first_ms: u64,
        longest_ms: u64,
        reason: impl FnOnce(u64, u64) -> Reason,
    ) {
        let recent = self.reason.is_some() && now_ms.saturating_sub(self.last_ms) < longest_ms.max(first_ms);
        self.repeats = if recent { self.repeats.saturating_add(1) } else { 0 };
        self.last_ms = now_ms;
        let doubled = first_ms.saturating_mul(
            1u64.checked_shl(u32::try_from(self.repeats.min(32)).unwrap_or(32)).unwrap_or(u64::MAX),
        );
        self.until_ms = self.until_ms.max(now_ms.saturating_add(doubled.min(longest_ms.max(first_ms))));
        self.reason = Some(reason(self.repeats, self.until_ms));
    }

    /// How often it would be repeated if it began now.
    pub(super) fn repeats(&self, now_ms: u64, longest_ms: u64) -> u64 {
        let recent = self.reason.is_some() && now_ms.saturating_sub(self.last_ms) < longest_ms;
        if recent { self.repeats.saturating_add(1) } else { 0 }
    }

    /// When it ends, and why it began, if it holds.
    pub(super) fn holds(&self, now_ms: u64) -> Option<(u64, Reason)> {
        self.reason.filter(|_| now_ms < self.until_ms).map(|reason| (self.until_ms, reason))
    }

    /// When it ends, or has ended.
    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }
}

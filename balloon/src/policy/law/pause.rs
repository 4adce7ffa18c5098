//! Times without a step, each longer than the one before.

use crate::policy::reason::Reason;

/// A pause that doubles when it is needed again soon.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pause {
    until_ms: u64,
    length_ms: u64,
    last_ms: u64,
    repeats: u64,
    reason: Option<Reason>,
}

impl Pause {
    /// Begins the pause: `first_ms` long, twice as long for each time that it was needed before within the last
    /// `longest_ms`, and never longer than that. One that lasts is prolonged. `reason` is given how often it has
    /// been repeated and when it ends.
    pub(super) fn begin(
        &mut self,
        now_ms: u64,
        first_ms: u64,
        longest_ms: u64,
        reason: impl FnOnce(u64, u64) -> Reason,
    ) {
        if !self.lasts(now_ms) {
            let again = self.is_remembered(now_ms, longest_ms);
            self.repeats = if again { self.repeats.saturating_add(1) } else { 0 };
            let doubled = if again { self.length_ms.saturating_mul(2) } else { 0 };
            self.length_ms = doubled.max(first_ms).min(longest_ms.max(first_ms));
        }
        self.last_ms = now_ms;
        self.until_ms = self.until_ms.max(now_ms.saturating_add(self.length_ms));
        self.reason = Some(reason(self.repeats, self.until_ms));
    }

    /// Whether it was needed within the last `memory_ms`, or since it was needed has not ended for so long.
    pub(super) fn is_remembered(&self, now_ms: u64, memory_ms: u64) -> bool {
        self.reason.is_some() && now_ms.saturating_sub(self.until_ms.max(self.last_ms)) < memory_ms
    }

    fn lasts(&self, now_ms: u64) -> bool {
        self.reason.is_some() && now_ms < self.until_ms
    }

    /// When it ends, and why it began, if it lasts.
    pub(super) fn holds(&self, now_ms: u64) -> Option<(u64, Reason)> {
        self.reason.filter(|_| self.lasts(now_ms)).map(|reason| (self.until_ms, reason))
    }

    /// When it ends, or has ended.
    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_when_needed_again_and_forgets() {
        let mut pause = Pause::default();
        let mut begin = |now_ms| {
            pause.begin(now_ms, 10, 100, |_, _| Reason::Off);
            pause.until_ms()
        };
        assert_eq!(begin(0), 10);
        assert_eq!(begin(5), 15, "it lasts, and is prolonged");
        assert_eq!(begin(20), 40);
        assert_eq!(begin(50), 90);
        assert_eq!(begin(100), 180);
        assert_eq!(begin(200), 300, "never longer than the longest");
        assert_eq!(begin(400), 410, "forgotten");
    }
}

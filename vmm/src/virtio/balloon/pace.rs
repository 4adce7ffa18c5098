//! When it is read on how much of the guest's memory the host holds: by a timer, and for clients that ask. Pure.
//!
//! A step takes below a millisecond of the event loop. The timer's steps are far apart; clients together get a few in
//! the same time, however many they are and however often they ask.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::time::Duration;

/// How long after a reading the timer begins the next one. What is reported free counts until then as given back
/// although the guest may have taken it again.
const BETWEEN_READINGS: Duration = Duration::from_secs(10);
/// How long after a step the timer makes the next one of the same reading, so that devices and clients take their
/// turns.
const BETWEEN_STEPS: Duration = Duration::from_millis(BETWEEN_STEPS_MS);
const BETWEEN_STEPS_MS: u64 = 20;
/// Steps in such a time, the timer's among them, after which none is made for clients: a GiB of guest memory.
const STEPS: usize = 4;
/// A reading is good for clients for so long.
const KEPT_MS: u64 = 1000;

/// What was read when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When the last steps were made, the oldest first.
    steps_ms: [Option<u64>; STEPS],
    /// When a reading last came to its end.
    ended_ms: Option<u64>,
}

impl Pace {
    /// Whether a client that asks at `now_ms` may have a step made for it.
    pub(super) fn allows(&self, now_ms: u64) -> bool {
        let is_past = |then_ms: Option<u64>, span_ms| {
            then_ms.is_none_or(|then_ms| now_ms.saturating_sub(then_ms) >= span_ms)
        };
        let [oldest_ms, ..] = self.steps_ms;
        is_past(oldest_ms, BETWEEN_STEPS_MS) && is_past(self.ended_ms, KEPT_MS)
    }

    /// A step was made, the last of a reading if it `ended`: complete, or because the host does not say.
    pub(super) fn step(&mut self, now_ms: u64, ended: bool) {
        let [_, second, third, fourth] = self.steps_ms;
        self.steps_ms = [second, third, fourth, Some(now_ms)];
        if ended {
            self.ended_ms = Some(now_ms);
        }
    }
}

/// When the timer makes its next step, from its last one on; the first, from the machine's start on.
pub(super) fn next(ended: bool) -> Duration {
    if ended { BETWEEN_READINGS } else { BETWEEN_STEPS }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reading_is_kept_for_a_while() {
        let mut pace = Pace::default();
        assert!(pace.allows(0), "there has been none");
        pace.step(0, false);
        assert!(pace.allows(0), "it has not ended");
        pace.step(5, true);
        assert!(!pace.allows(5) && !pace.allows(1004));
        assert!(pace.allows(1005));
    }

    #[test]
    fn so_many_steps_in_so_long_and_then_no_more() {
        let mut pace = Pace::default();
        for at_ms in [7, 7, 9, 26] {
            assert!(pace.allows(at_ms));
            pace.step(at_ms, false);
        }
        assert!(!pace.allows(26));
        assert!(pace.allows(27));
    }

    /// How much later so many clients ask, whether the timer makes a step then, and whether steps end a reading.
    fn ask() -> impl Strategy<Value = (u64, usize, bool, bool)> {
        (0u64..12, 0usize..20, prop::bool::weighted(0.1), prop::bool::weighted(0.1))
    }

    proptest! {
        /// Whoever asks and whenever, and whatever the timer does meanwhile.
        #[test]
        fn clients_together_never_get_more(asks in prop::collection::vec(ask(), 1..200)) {
            let (mut pace, mut now_ms, mut made) = (Pace::default(), 0, Vec::new());
            for (later_ms, clients, timer, ends) in asks {
                now_ms += later_ms;
                if timer {
                    pace.step(now_ms, ends);
                }
                for _ in 0..clients {
                    if pace.allows(now_ms) {
                        pace.step(now_ms, ends);
                        made.push(now_ms);
                    }
                }
            }
            for steps in made.windows(STEPS + 1) {
                prop_assert!(steps[STEPS] - steps[0] >= BETWEEN_STEPS_MS);
            }
        }
    }
}

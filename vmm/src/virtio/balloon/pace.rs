//! When it is read on how much of the guest's memory the host holds: by a timer, and for clients that ask. Pure.
//!
//! A step takes below a millisecond of the event loop. The timer's steps are far apart; clients together get a few in
//! the same time, however many they are and however often they ask, and none while no memory moves.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use balloon::resident::Moves;
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
/// While no memory is seen to move, a reading is as good as a new one for so long, if hardly anything moves unseen,
const HOLDS_MS: u64 = 60_000;
/// and otherwise for so long: where the host fetches from swap, it may be a page at a time.
const HOLDS_DOUBTFUL_MS: u64 = 10_000;

/// What was read when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When the last steps were made, the oldest first.
    steps_ms: [Option<u64>; STEPS],
    /// When a reading last came to its end, or was seen to be as good as new.
    ended_ms: Option<u64>,
    /// How things stood when the reading under way began, and when that was;
    began: Option<(Standing, u64)>,
    /// the same of the last whole one.
    read: Option<(Standing, u64)>,
    /// Memory may move unseen, by what was read then.
    is_doubtful: bool,
}

/// Of the process, and how many entries the books have. As long as it stays the same, so does how much is resident.
pub(super) type Standing = (Moves, u64);

impl Pace {
    /// Whether a client that asks at `now_ms` may have a step made for it.
    pub(super) fn allows(&self, now_ms: u64) -> bool {
        let is_past = |then_ms: Option<u64>, span_ms| {
            then_ms.is_none_or(|then_ms| now_ms.saturating_sub(then_ms) >= span_ms)
        };
        let [oldest_ms, ..] = self.steps_ms;
        is_past(oldest_ms, BETWEEN_STEPS_MS) && is_past(self.ended_ms, KEPT_MS)
    }

    /// A reading begins at `now_ms` as things stand so, if that is known.
    pub(super) fn begin(&mut self, now_ms: u64, standing: Option<Standing>) {
        self.began = standing.map(|standing| (standing, now_ms));
    }

    /// The reading under way tells nothing.
    pub(super) fn fail(&mut self) {
        self.began = None;
    }

    /// What the last reading tells is so, and memory may move unseen or not.
    pub(super) fn doubt(&mut self, is_doubtful: bool) {
        self.is_doubtful = is_doubtful;
    }

    /// A step was made, the last of a reading if it `ended`: complete, or because the host does not say.
    pub(super) fn step(&mut self, now_ms: u64, ended: bool) {
        let [_, second, third, fourth] = self.steps_ms;
        self.steps_ms = [second, third, fourth, Some(now_ms)];
        if ended {
            self.ended_ms = Some(now_ms);
            self.read = self.began.take();
        }
    }

    /// Whether things stand as when the last whole reading began, so that it is as good as one of `now_ms`.
    pub(super) fn holds(&mut self, now_ms: u64, standing: Option<Standing>) -> bool {
        let holds_ms = if self.is_doubtful { HOLDS_DOUBTFUL_MS } else { HOLDS_MS };
        let read = self.read.filter(|(_, began_ms)| now_ms.saturating_sub(*began_ms) < holds_ms);
        let holds = standing.is_some() && standing == read.map(|(standing, _)| standing);
        if holds {
            self.ended_ms = Some(now_ms);
        }
        holds
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

    #[test]
    fn a_reading_holds_as_long_as_nothing_moves() {
        let standing = |faults, resident_pages, entries| Some((Moves { faults, resident_pages }, entries));
        let mut pace = Pace::default();
        assert!(!pace.holds(0, standing(1, 1, 1)), "there has been none");
        pace.begin(0, standing(1, 1, 1));
        pace.step(0, false);
        assert!(!pace.holds(10, standing(1, 1, 1)), "it is not whole");
        pace.step(20, true);
        assert!(pace.allows(1020));
        assert!(pace.holds(1020, standing(1, 1, 1)));
        assert!(!pace.allows(2019) && pace.allows(2020), "as if it had been made then");
        for moved in [standing(2, 1, 1), standing(1, 2, 1), standing(1, 1, 2), None] {
            assert!(!pace.holds(2020, moved), "{moved:?}");
        }
        // Of one that began before memory moved.
        pace.begin(2900, standing(2, 1, 1));
        pace.step(3000, true);
        assert!(!pace.holds(3010, standing(3, 1, 1)));
        assert!(pace.holds(62_899, standing(2, 1, 1)));
        assert!(!pace.holds(62_900, standing(2, 1, 1)), "it is a minute old");
        pace.doubt(true);
        assert!(pace.holds(12_899, standing(2, 1, 1)));
        assert!(!pace.holds(12_900, standing(2, 1, 1)), "it may have moved unseen");
        pace.begin(70_000, None);
        pace.step(70_000, true);
        assert!(!pace.holds(70_010, None), "nobody can tell");
        pace.begin(80_000, standing(2, 1, 1));
        pace.fail();
        pace.step(80_000, true);
        assert!(!pace.holds(80_010, standing(2, 1, 1)), "the host did not say");
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

//! How soon after pressure the ceiling moved. Pure.
//!
//! Guest and host each by their own clock: from the pressure to the agent's sample by the guest's, from when that was there to
//! the order by the host's. What lies between, the way through the link, is the host's scheduling.

use super::recorded::{Alarm, Deed, Recorded};
use serde::{Deserialize, Serialize};

/// Before that much time has passed an alarm belongs to a burst: two bursts are further apart.
const BURST_MS: u64 = 5000;

/// One burst, by the guest's clock since its boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lift {
    /// When its tasks had waited for memory so long that the kernel's trigger is due.
    pub pressed_ms: Option<u64>,
    /// When the balloon gave the first page back, which its driver does by itself when the guest is out of memory.
    pub moved_ms: Option<u64>,
}

/// What came of pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    /// From the pressure until the agent had taken a sample.
    told_ms: u64,
    /// From when the law had that until it ordered a higher ceiling.
    lifted_ms: u64,
}

impl Lift {
    /// Nothing without pressure; `Some(None)` if it was never answered.
    fn answer(&self, recorded: &Recorded) -> Option<Option<Answer>> {
        let pressed_ms = self.pressed_ms?;
        let is_its = |alarm: &&Alarm| (pressed_ms..pressed_ms + BURST_MS).contains(&alarm.taken_ms);
        let Some(alarm) = recorded.alarms.iter().find(is_its) else { return Some(None) };
        Some(higher_ceiling_ms(recorded, alarm.at_ms).map(|ordered_ms| Answer {
            told_ms: alarm.taken_ms - pressed_ms,
            lifted_ms: ordered_ms - alarm.at_ms,
        }))
    }
}

/// When a ceiling was ordered that is above the one before it: at `from_ms`, or in the time of a burst after that.
fn higher_ceiling_ms(recorded: &Recorded, from_ms: u64) -> Option<u64> {
    let mut before = u64::MAX;
    for (at_ms, deed) in &recorded.deeds {
        let Deed::Ceiling(bytes) = *deed else { continue };
        if (from_ms..from_ms + BURST_MS).contains(at_ms) && bytes > before {
            return Some(*at_ms);
        }
        before = bytes;
    }
    None
}

/// In words.
#[must_use]
pub fn summary(lifts: &[Lift], recorded: &Recorded) -> String {
    let answers: Vec<_> = lifts.iter().filter_map(|lift| lift.answer(recorded)).collect();
    let times = |time: fn(&Answer) -> u64| {
        let mut all: Vec<_> = answers.iter().map(|answer| answer.as_ref().map_or(u64::MAX, time)).collect();
        all.sort_unstable();
        let at = |permille: usize| match all.get((all.len() * permille).div_ceil(1000).saturating_sub(1)) {
            None => "-".into(),
            Some(&u64::MAX) => "never".into(),
            Some(ms) => format!("{ms} ms"),
        };
        format!("median {}, p99 {}, worst {}", at(500), at(990), at(1000))
    };
    format!(
        "{} bursts, {} with a pressure event, {} in which the balloon gave back\n  \
         from the event to the agent's sample, by the guest's clock: {}\n  \
         from when that was there to the higher ceiling, by the host's: {}\n  \
         both: {}",
        lifts.len(),
        answers.len(),
        lifts.iter().filter(|lift| lift.moved_ms.is_some()).count(),
        times(|answer| answer.told_ms),
        times(|answer| answer.lifted_ms),
        times(|answer| answer.told_ms + answer.lifted_ms),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(at_ms: u64) -> Lift {
        Lift { pressed_ms: Some(at_ms), moved_ms: None }
    }

    #[test]
    fn each_part_of_the_way_is_by_its_own_clock() {
        let recorded = Recorded {
            alarms: vec![
                Alarm { taken_ms: 900, at_ms: 100_900 },
                Alarm { taken_ms: 1040, at_ms: 101_000 },
                Alarm { taken_ms: 20_000, at_ms: 120_000 },
            ],
            deeds: vec![
                (50, Deed::Ceiling(9)),
                (60, Deed::Ceiling(5)),
                (100_900, Deed::Ceiling(6)),
                (101_002, Deed::Ordered(1 << 30)),
                (101_003, Deed::Ceiling(7)),
                (120_000, Deed::Ceiling(2)),
            ],
            ..Recorded::default()
        };
        let answer = |lift: Lift| lift.answer(&recorded);
        assert_eq!(answer(Lift::default()), None, "no pressure");
        assert_eq!(answer(pressed(1000)), Some(Some(Answer { told_ms: 40, lifted_ms: 3 })));
        assert_eq!(answer(pressed(19_999)), Some(None), "that ceiling fell");
        assert_eq!(answer(pressed(30_000)), Some(None), "nobody told");
        let text = summary(&[pressed(1000), Lift::default(), pressed(30_000)], &recorded);
        assert!(text.contains("3 bursts, 2 with"), "{text}");
        assert!(text.contains("both: median 43 ms, p99 never, worst never"), "{text}");
    }
}

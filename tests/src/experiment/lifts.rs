//! How soon after pressure the ceiling moved. Pure.

use serde::{Deserialize, Serialize};

/// One burst, by the guest's clock since its boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lift {
    /// When its tasks had waited for memory so long that the kernel's trigger is due.
    pub pressed_ms: Option<u64>,
    /// When the balloon gave the first page back.
    pub moved_ms: Option<u64>,
}

impl Lift {
    /// Time from the one to the other: none if the balloon was there first, nothing if there was no pressure.
    #[must_use]
    pub fn took_ms(&self) -> Option<u64> {
        self.pressed_ms.map(|pressed| self.moved_ms.map_or(u64::MAX, |moved| moved.saturating_sub(pressed)))
    }
}

/// In words.
#[must_use]
pub fn summary(lifts: &[Lift]) -> String {
    let mut took: Vec<u64> = lifts.iter().filter_map(Lift::took_ms).collect();
    took.sort_unstable();
    let at = |permille: usize| took.get((took.len() * permille).div_ceil(1000).saturating_sub(1));
    let words = |value: Option<&u64>| match value {
        None => "-".into(),
        Some(&u64::MAX) => "never".into(),
        Some(ms) => format!("{ms} ms"),
    };
    format!(
        "{} bursts, {} with a pressure event, {} in which the balloon gave back; from the event to the first page: \
         median {}, p99 {}, worst {}",
        lifts.len(),
        took.len(),
        lifts.iter().filter(|lift| lift.moved_ms.is_some()).count(),
        words(at(500)),
        words(at(990)),
        words(took.last()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_moved_is_the_worst() {
        let lift = |pressed_ms, moved_ms| Lift { pressed_ms, moved_ms };
        let lifts =
            [lift(Some(100), Some(150)), lift(Some(90), Some(80)), lift(None, None), lift(Some(1), None)];
        assert_eq!(lifts.map(|lift| lift.took_ms()), [Some(50), Some(0), None, Some(u64::MAX)]);
        let text = summary(&lifts);
        assert!(
            text.contains("3 with") && text.contains("median 50 ms") && text.contains("worst never"),
            "{text}"
        );
    }
}

//! What was seen with so many microVMs, and whether there is room for another. Pure.

use super::kind::Kind;
use super::told::Told;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A host is full with less than this available when it has settled: `ballastd` calls that critical, and a microVM that
/// nobody makes room for does not fit any more.
pub const FULL_PERMILLE: u64 = 20;
/// With less than this at any time the host's kernel is about to kill: no other microVM is worth trying.
pub const END_PERMILLE: u64 = 7;

/// One step of a ramp, as a line of its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// MicroVMs that ran.
    pub vms: usize,
    /// Virtual time since the first began.
    pub at_s: u64,
    /// What is less available on the host than before the first of them and the daemon, if there is one, began.
    pub used_bytes: u64,
    /// What the cgroups of the VMMs are charged with.
    pub charged_bytes: u64,
    /// What was available of the host's memory at the end, in thousandths.
    pub available_permille: u64,
    /// The least of that since the step before.
    pub least_permille: u64,
    /// What each guest told at the end of it, by its number.
    pub told: BTreeMap<usize, Told>,
}

/// Why a ramp ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The host was full.
    Full,
    /// Another one was refused, in these words.
    Refused(String),
    /// One ended that should not have: its number.
    Lost(usize),
    /// No more were wanted.
    Enough,
}

/// A line of a ramp's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// One for each microVM.
    Step(Step),
    /// The last one.
    End(End),
}

/// Which guests' requests count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Also of those that have just started.
    Any,
    /// Of those that had run for [`SETTLING_STEPS`] before.
    Settled,
}

/// After so many steps a guest that is left alone has been trimmed: they are six minutes, longer than the age at which
/// memory counts as unused.
const SETTLING_STEPS: usize = 4;

impl Step {
    /// What guests of `kind` and that age told, in sum.
    #[must_use]
    pub fn of(&self, kind: Kind, age: Age) -> Told {
        let mut sum = Told::default();
        let counts = |number: usize| age == Age::Any || number + SETTLING_STEPS <= self.vms;
        let those = self.told.iter().filter(|(number, _)| Kind::of(**number) == kind && counts(**number));
        those.for_each(|(_, told)| sum.add(told));
        sum
    }

    /// Whether the host held so many.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.available_permille >= FULL_PERMILLE && self.least_permille >= END_PERMILLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_full_when_it_stays_short_or_was_at_its_end() {
        let step = |available_permille, least_permille| Step {
            vms: 1,
            at_s: 0,
            used_bytes: 0,
            charged_bytes: 0,
            available_permille,
            least_permille,
            told: BTreeMap::new(),
        };
        assert!(step(20, 7).is_held());
        assert!(!step(19, 19).is_held() && !step(60, 6).is_held());
        let told = |number| (number, Told { refaults: number as u64, ..Told::default() });
        let step = Step { vms: 9, told: (1..=9).map(told).collect(), ..step(20, 7) };
        assert_eq!(step.of(Kind::Idle, Age::Any).refaults, 1 + 5 + 9);
        assert_eq!(step.of(Kind::Idle, Age::Settled).refaults, 1 + 5);
        let line = serde_json::to_string(&Line::Step(step.clone())).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&line).unwrap(), Line::Step(step));
    }
}

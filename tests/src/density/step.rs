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
    /// What the guests of each kind told at the end of it, in sum.
    pub told: BTreeMap<Kind, Told>,
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

impl Step {
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
        let line = serde_json::to_string(&Line::Step(step(20, 7))).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&line).unwrap(), Line::Step(step(20, 7)));
    }
}

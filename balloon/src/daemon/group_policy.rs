//! What groups say of how the laws of their microVMs work, and who inherits it. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::control::link::{GroupPolicy, Inherited};
use crate::working_set::{StallBudget, WorkingSetAge};
use std::collections::BTreeMap;

/// What one group says itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Memory that is used at least that often is kept.
    pub working_set_age: Option<WorkingSetAge>,
    /// Share of time that its microVMs may lose to memory stalls.
    pub stall_budget: Option<StallBudget>,
}

/// What each group says, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupPolicies(BTreeMap<String, Said>);

impl GroupPolicies {
    /// As `said` has it of groups by their paths.
    #[must_use]
    pub fn new(said: BTreeMap<String, Said>) -> Self {
        Self(said)
    }

    /// What holds in `group`, which need not be configured: of each figure what the nearest group says, upwards from it.
    #[must_use]
    pub fn of(&self, group: &str) -> GroupPolicy {
        GroupPolicy {
            working_set_age_ms: self.nearest(group, |said| said.working_set_age.map(WorkingSetAge::ms)),
            stall_budget_ppm: self.nearest(group, |said| said.stall_budget.map(StallBudget::ppm)),
        }
    }

    fn nearest(&self, group: &str, figure: impl Fn(&Said) -> Option<u64>) -> Option<Inherited> {
        let mut path = group;
        loop {
            if let Some(value) = self.0.get(path).and_then(&figure) {
                return Some(Inherited { group: path.into(), value });
            }
            (path, _) = path.rsplit_once('/')?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(age_ms: Option<u64>, budget_ppm: Option<u64>) -> Said {
        Said {
            working_set_age: age_ms.and_then(WorkingSetAge::from_ms),
            stall_budget: budget_ppm.and_then(StallBudget::from_ppm),
        }
    }

    #[test]
    fn each_figure_comes_from_the_nearest_group_that_says_it() {
        let groups = [
            ("ci", said(Some(60_000), Some(3000))),
            ("ci/linux", said(None, Some(500))),
            ("ci/linux/x", said(None, None)),
        ];
        let policies = GroupPolicies::new(groups.map(|(path, said)| (path.to_owned(), said)).into());
        let of = |group| {
            let GroupPolicy { working_set_age_ms, stall_budget_ppm } = policies.of(group);
            [working_set_age_ms, stall_budget_ppm].map(|of| of.map(|of| (of.group, of.value)))
        };
        let from = |group: &str, value| Some((group.to_owned(), value));
        assert_eq!(of("ci"), [from("ci", 60_000), from("ci", 3000)]);
        assert_eq!(of("ci/linux/x/y"), [from("ci", 60_000), from("ci/linux", 500)]);
        for other in ["", "web", "ci-2", "c", "x/ci"] {
            assert_eq!(of(other), [None, None], "{other}");
        }
    }

    /// An age and a budget, as far as a group says them.
    type Figures = (Option<u64>, Option<u64>);

    proptest! {
        /// Of all groups that say something and hold this one, the one with the longest path.
        #[test]
        fn inheritance_is_as_in_the_naive_model(
            groups in prop::collection::btree_map(
                "[ab](/[ab]){0,3}",
                (prop::option::of(1000..9000u64), prop::option::of(10..90u64)),
                0..12,
            ),
            group in "[abc](/[abc]){0,4}",
        ) {
            let of_all = groups.iter().map(|(path, (age, budget))| (path.clone(), said(*age, *budget)));
            let policy = GroupPolicies::new(of_all.collect()).of(&group);
            let naive = |figure: fn(&Figures) -> Option<u64>| {
                let holds = |path: &str| format!("{group}/").starts_with(&format!("{path}/"));
                let speakers = groups.iter().filter_map(|(path, said)| Some((path, figure(said)?)));
                let nearest = speakers.filter(|(path, _)| holds(path)).max_by_key(|(path, _)| path.len());
                nearest.map(|(path, value)| Inherited { group: path.clone(), value })
            };
            prop_assert_eq!(policy.working_set_age_ms, naive(|said| said.0));
            prop_assert_eq!(policy.stall_budget_ppm, naive(|said| said.1));
        }
    }
}

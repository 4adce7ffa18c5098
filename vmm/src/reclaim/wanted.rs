//! What the law is to work with, and who says so: the microVM's own word, else its group's, else the default. Pure.
//!
//! The law is told the outcome as [`Settings`], so that a recording has it and the law need not know of groups.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use balloon::control::link::{GroupPolicy, Inherited, OwnPolicy};
use balloon::control::reclaim::{Origin, ReclaimRequest};
use balloon::policy::{Mode, Settings};
use balloon::working_set::{AGES_MS, BUDGETS_PPM};

/// What the law is to work with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    mode: Mode,
    own: OwnPolicy,
    /// As `ballastd` said last. Its lease may have ended: what was inherited grants nothing, and a guest that is to be
    /// trimmed gently must not be trimmed harder because its daemon is away.
    inherited: GroupPolicy,
}

impl Wanted {
    /// A law of this mode, with what the microVM is told at its start.
    #[must_use]
    pub fn new(mode: Mode, own: OwnPolicy) -> Self {
        Self { mode, own, inherited: GroupPolicy::default() }
    }

    /// What it may use.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What the microVM was told.
    #[must_use]
    pub fn own(&self) -> OwnPolicy {
        self.own
    }

    /// The microVM is told otherwise.
    pub fn set(&mut self, request: ReclaimRequest) {
        self.own = OwnPolicy {
            working_set_age_ms: request.working_set_age_ms.unwrap_or(self.own.working_set_age_ms),
            stall_budget_ppm: request.stall_budget_ppm.unwrap_or(self.own.stall_budget_ppm),
        };
    }

    /// Its groups say this from now on. A figure that no law works with is none.
    pub fn inherit(&mut self, policy: &GroupPolicy) {
        let usable = |said: &Option<Inherited>, bounds: std::ops::RangeInclusive<u64>| {
            said.clone().filter(|said| bounds.contains(&said.value))
        };
        self.inherited = GroupPolicy {
            working_set_age_ms: usable(&policy.working_set_age_ms, AGES_MS),
            stall_budget_ppm: usable(&policy.stall_budget_ppm, BUDGETS_PPM),
        };
    }

    /// The working-set age in milliseconds, and who says so.
    #[must_use]
    pub fn working_set_age_ms(&self) -> (u64, Origin) {
        let inherited = self.inherited.working_set_age_ms.as_ref();
        first(self.own.working_set_age_ms, inherited, Settings::WORKING_SET_AGE_MS)
    }

    /// The stall budget in millionths, and who says so.
    #[must_use]
    pub fn stall_budget_ppm(&self) -> (u64, Origin) {
        let inherited = self.inherited.stall_budget_ppm.as_ref();
        first(self.own.stall_budget_ppm, inherited, Settings::STALL_BUDGET_PPM)
    }

    /// The same as the law is told, for a microVM that may have `max_bytes`.
    #[must_use]
    pub fn settings(&self, max_bytes: u64) -> Settings {
        Settings {
            mode: self.mode,
            working_set_age_ms: self.working_set_age_ms().0,
            stall_budget_ppm: self.stall_budget_ppm().0,
            ..Settings::new(max_bytes)
        }
    }
}

fn first(own: Option<u64>, inherited: Option<&Inherited>, default: u64) -> (u64, Origin) {
    match (own, inherited) {
        (Some(value), _) => (value, Origin::Own),
        (None, Some(Inherited { group, value })) => (*value, Origin::Group(group.clone())),
        (None, None) => (default, Origin::Default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: u64) -> Option<Inherited> {
        Some(Inherited { group: "ci".into(), value })
    }

    #[test]
    fn its_own_word_is_before_the_groups_and_that_before_the_default() {
        let own = OwnPolicy { working_set_age_ms: Some(7000), stall_budget_ppm: None };
        let mut wanted = Wanted::new(Mode::Trim, own);
        assert_eq!(wanted.working_set_age_ms(), (7000, Origin::Own));
        assert_eq!(wanted.stall_budget_ppm(), (1000, Origin::Default));
        wanted.inherit(&GroupPolicy { working_set_age_ms: said(60_000), stall_budget_ppm: said(3000) });
        assert_eq!(wanted.working_set_age_ms(), (7000, Origin::Own));
        assert_eq!(wanted.stall_budget_ppm(), (3000, Origin::Group("ci".into())));
        wanted.set(ReclaimRequest { working_set_age_ms: Some(None), stall_budget_ppm: Some(Some(20)) });
        assert_eq!(wanted.working_set_age_ms(), (60_000, Origin::Group("ci".into())));
        assert_eq!(wanted.stall_budget_ppm(), (20, Origin::Own));
        let settings = wanted.settings(9);
        let in_force = (settings.working_set_age_ms, settings.stall_budget_ppm);
        assert_eq!((settings.mode, settings.max_bytes, in_force), (Mode::Trim, 9, (60_000, 20)));
        wanted.inherit(&GroupPolicy::default());
        assert_eq!(wanted.working_set_age_ms(), (300_000, Origin::Default));
    }

    #[test]
    fn what_no_law_works_with_is_not_inherited() {
        let mut wanted = Wanted::new(Mode::Auto, OwnPolicy::default());
        for (age_ms, budget_ppm) in [(0, 0), (999, 9), (u64::MAX, 1_000_001)] {
            let policy = GroupPolicy { working_set_age_ms: said(age_ms), stall_budget_ppm: said(budget_ppm) };
            wanted.inherit(&policy);
            assert_eq!(wanted.settings(9), Settings::new(9));
        }
    }
}

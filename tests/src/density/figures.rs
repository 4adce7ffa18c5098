//! What the steps of a ramp come to. Pure.

use super::arm::Arm;
use super::kind::Kind;
use super::step::{Age, End, Line, Step};
use super::told::Told;

/// Steps whose requests are judged together: each kind of guest has come once in them.
const TOGETHER: usize = Kind::ALL.len();
/// The first few microVMs: one of each kind.
pub const FIRST: usize = Kind::ALL.len();

/// A ramp as it went.
#[derive(Clone, Debug)]
pub struct Ramp {
    /// Under what.
    pub arm: Arm,
    /// With one microVM, two, and so on.
    pub steps: Vec<Step>,
    /// Why it ended; none if it was cut off.
    pub end: Option<End>,
}

impl Ramp {
    /// Reads a result. A last line that was cut off is left out.
    ///
    /// # Errors
    /// Another line is none.
    pub fn parse(arm: Arm, text: &str) -> serde_json::Result<Self> {
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut ramp = Self { arm, steps: Vec::new(), end: None };
        for line in whole.lines() {
            match serde_json::from_str(line)? {
                Line::Step(step) => ramp.steps.push(step),
                Line::End(end) => ramp.end = Some(end),
            }
        }
        Ok(ramp)
    }

    /// What guests of `kind` and that age told in the step with `vms` microVMs and those just before, if there was one.
    #[must_use]
    pub fn told(&self, vms: usize, kind: Kind, age: Age) -> Option<Told> {
        Some(sum(self.steps.get(vms.saturating_sub(TOGETHER)..vms)?, kind, age))
    }

    /// What guests of `kind` told in all steps up to that with `vms` microVMs: of what is done seldom.
    #[must_use]
    pub fn told_until(&self, vms: usize, kind: Kind) -> Option<Told> {
        Some(sum(self.steps.get(..vms)?, kind, Age::Any))
    }

    /// The 99th percentile of requests to guests of `kind` and that age, with `vms` microVMs; none without any.
    #[must_use]
    pub fn p99_us(&self, vms: usize, kind: Kind, age: Age) -> Option<u32> {
        self.told(vms, kind, age)?.percentile_us(990)
    }

    /// Most microVMs that the host held, whatever their requests took.
    #[must_use]
    pub fn most_held(&self) -> usize {
        self.steps.iter().take_while(|step| step.is_held()).count()
    }

    /// Most microVMs that the host held while the 99th percentile of requests, of each kind that answers any and of guests of
    /// that age, was within `bound` times what it was in the first step of `reference` that says it; none if one of the two
    /// never does.
    #[must_use]
    pub fn held_within(&self, bound: f64, reference: &Self, age: Age) -> Option<usize> {
        let first = reference.first_judged(age)?;
        let is_within = |vms: &usize| {
            answering().all(|kind| {
                let limit = reference.p99_us(first, kind, age).map(|us| f64::from(us) * bound);
                self.p99_us(*vms, kind, age).zip(limit).is_some_and(|(us, limit)| f64::from(us) <= limit)
            })
        };
        let judged = self.first_judged(age)?..=self.most_held();
        Some(judged.take_while(is_within).last().unwrap_or(0))
    }

    /// The first step in which guests of that age have answered requests of each kind: before that there is little to judge
    /// by.
    fn first_judged(&self, age: Age) -> Option<usize> {
        let is_judged = |vms: &usize| answering().all(|kind| self.p99_us(*vms, kind, age).is_some());
        (FIRST..=self.most_held()).find(is_judged)
    }
}

/// The kinds for whose requests somebody waits.
fn answering() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| kind.answers())
}

fn sum(steps: &[Step], kind: Kind, age: Age) -> Told {
    let mut sum = Told::default();
    steps.iter().for_each(|step| sum.add(&step.of(kind, age)));
    sum
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// So many steps of 200 MiB each, in which the requests of the first guests, a service and a store, take so long.
    pub fn ramp(arm: Arm, steps: usize, took_us: impl Fn(usize) -> u32) -> Ramp {
        let step = |vms: usize| {
            let told = Told { passed_ms: 60_000, took_us: vec![took_us(vms); 100], ..Told::default() };
            Step {
                vms,
                at_s: vms as u64 * 120,
                used_bytes: vms as u64 * (200 << 20),
                charged_bytes: vms as u64 * (190 << 20),
                available_permille: if vms < steps { 500 } else { 10 },
                least_permille: 10,
                told: BTreeMap::from([(1, told.clone()), (2, told)]),
            }
        };
        Ramp { arm, steps: (1..=steps).map(step).collect(), end: Some(End::Full) }
    }

    #[test]
    fn the_last_step_of_a_full_host_does_not_count() {
        assert_eq!(ramp(Arm::Reporting, 12, |_| 100).most_held(), 11);
    }

    #[test]
    fn as_many_are_held_as_answer_in_time() {
        let reference = ramp(Arm::Reporting, 12, |_| 100);
        assert_eq!(reference.held_within(1.25, &reference, Age::Any), Some(11));
        // One in a hundred of four steps' requests is four: the first slow step is beyond it.
        let slower = ramp(Arm::Ballast, 31, |vms| if vms > 20 { 140 } else { 100 });
        assert_eq!(slower.held_within(1.25, &reference, Age::Settled), Some(20));
        assert_eq!(slower.held_within(1.5, &reference, Age::Any), Some(30));
        let slow = ramp(Arm::Ballast, 31, |_| 140);
        assert_eq!(slow.held_within(1.25, &reference, Age::Any), Some(0));
        assert_eq!(
            slow.held_within(1.25, &ramp(Arm::Reporting, 3, |_| 100), Age::Any),
            None,
            "too short to compare with"
        );
    }

    #[test]
    fn a_slow_start_counts_only_with_the_starts() {
        let reference = ramp(Arm::Reporting, 12, |_| 100);
        let mut slow = ramp(Arm::Ballast, 12, |_| 100);
        for step in &mut slow.steps {
            step.told.insert(step.vms, Told { took_us: vec![900; 100], ..Told::default() });
        }
        assert_eq!(slow.held_within(3.0, &reference, Age::Any), Some(0));
        assert_eq!(slow.held_within(1.25, &reference, Age::Settled), Some(11));
        let short = ramp(Arm::Reporting, 6, |_| 100);
        assert_eq!(slow.held_within(3.0, &short, Age::Settled), None, "its store has not settled");
        // Who falls silent does not answer in time.
        for step in slow.steps.iter_mut().skip(6) {
            step.told.clear();
        }
        assert_eq!(
            slow.held_within(3.0, &reference, Age::Settled),
            Some(9),
            "four steps are judged together"
        );
    }

    #[test]
    fn a_result_that_was_cut_off_has_no_end() {
        let ramp = ramp(Arm::Ballast, 2, |_| 1);
        let lines = ramp.steps.into_iter().map(Line::Step).chain([Line::End(End::Full)]);
        let text: String = lines.map(|line| serde_json::to_string(&line).unwrap() + "\n").collect();
        let whole = Ramp::parse(Arm::Ballast, &text).unwrap();
        assert_eq!((whole.steps.len(), whole.end), (2, Some(End::Full)));
        let cut = Ramp::parse(Arm::Ballast, &text[..text.len() - 3]).unwrap();
        assert_eq!((cut.steps.len(), cut.end), (2, None));
        assert!(Ramp::parse(Arm::Ballast, "{}\n").is_err());
    }
}

//! What a node may hold and what it is left: `min`, `low`, `high`, `max` and its weight.

use super::Error;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// The weight of who has set none, as cgroups have it.
pub const DEFAULT_WEIGHT: u32 = 100;

/// What a weight may be, as in cgroups (`CGROUP_WEIGHT_MIN` and `_MAX` in `include/linux/cgroup.h`).
pub const WEIGHTS: RangeInclusive<u32> = 1..=10_000;

/// Limits of one node, in bytes. All of them look at its charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Never taken. Unset, it is what the node's children have in sum: a group that nobody configured passes on
    /// what its VMs are promised. Zero passes nothing on, as in the kernel.
    pub min: Option<u64>,
    /// Taken only when nothing unprotected is left. Unset as `min`.
    pub low: Option<u64>,
    /// Taken back to when exceeded. Unset is no such limit.
    pub high: Option<u64>,
    /// Never exceeded. Unset is unlimited, so that only those above bind.
    pub max: Option<u64>,
    /// Scales the age to which the node is trimmed under pressure, in [`WEIGHTS`]. The kernel's protection knows
    /// no weight.
    pub weight: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min: None, low: None, high: None, max: None, weight: DEFAULT_WEIGHT }
    }
}

impl Limits {
    /// Whether each limit that is set admits the next one, and the weight is one.
    ///
    /// # Errors
    /// Not so for the node of that `name`.
    pub fn check(&self, name: &str) -> Result<(), Error> {
        let all = [("min", self.min), ("low", self.low), ("high", self.high), ("max", self.max)];
        let mut least = ("min", 0);
        for (limit, bytes) in all.into_iter().filter_map(|(limit, bytes)| Some((limit, bytes?))) {
            if bytes < least.1 {
                let (lower, lower_bytes) = least;
                return Err(Error::Order {
                    name: name.into(),
                    lower,
                    lower_bytes,
                    upper: limit,
                    upper_bytes: bytes,
                });
            }
            least = (limit, bytes);
        }
        if !WEIGHTS.contains(&self.weight) {
            return Err(Error::Weight { name: name.into(), weight: self.weight });
        }
        Ok(())
    }

    /// What of these holds of who was admitted with `admitted`: nobody protects itself more, or may have more, by its own
    /// word. That it is brought back to less, or no longer, is its own affair.
    #[must_use]
    pub fn within(&self, admitted: &Self) -> Self {
        let protected = |own: Option<u64>, admitted: Option<u64>| Some(own?.min(admitted?));
        let max = self.max.into_iter().chain(admitted.max).min();
        Self {
            min: protected(self.min, admitted.min),
            low: protected(self.low, admitted.low),
            high: self.high.map(|high| high.min(max.unwrap_or(high))),
            max,
            weight: self.weight.min(admitted.weight),
        }
    }

    /// Limits within which both of these are.
    #[must_use]
    pub fn widest(&self, other: &Self) -> Self {
        // No limit is the least protection and the largest bound.
        let bound = |one: Option<u64>, other: Option<u64>| Some(one?.max(other?));
        // The low of one may be less than the min of the other, and so on upwards.
        let min = self.min.max(other.min);
        let low = self.low.max(other.low).map(|low| low.max(min.unwrap_or(low)));
        let least = low.or(min).unwrap_or(0);
        let high = bound(self.high, other.high).map(|high| high.max(least));
        let max = bound(self.max, other.max).map(|max| max.max(high.unwrap_or(least)));
        Self { min, low, high, max, weight: self.weight.max(other.weight) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_of_two_contradicts_itself_never() {
        let values = [None, Some(1), Some(2), Some(3)];
        let mut all = Vec::new();
        for (min, low) in values.iter().flat_map(|min| values.map(|low| (*min, low))) {
            for (high, max) in values.iter().flat_map(|high| values.map(|max| (*high, max))) {
                let limits = Limits { min, low, high, max, weight: 100 };
                all.extend(limits.check("a").is_ok().then_some(limits));
            }
        }
        assert!(all.len() > 50);
        for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (one, other))) {
            let widest = one.widest(other);
            assert_eq!(widest.check("a"), Ok(()), "{one:?} {other:?}");
            assert!(widest.min >= one.min && widest.low >= one.low, "{one:?} {other:?}");
            let is_within = |own: Option<u64>, wide: Option<u64>| {
                wide.is_none_or(|wide| own.is_some_and(|own| own <= wide))
            };
            assert!(is_within(one.max, widest.max) && is_within(one.high, widest.high), "{one:?} {other:?}");
        }
    }

    #[test]
    fn who_was_admitted_may_want_less_and_never_more() {
        let admitted = Limits { min: Some(2), low: Some(4), high: Some(6), max: Some(8), weight: 100 };
        let less = Limits { min: Some(1), low: None, high: Some(5), max: Some(7), weight: 50 };
        assert_eq!(less.within(&admitted), less);
        let more = Limits { min: Some(3), low: Some(5), high: Some(9), max: None, weight: 10_000 };
        assert_eq!(more.within(&admitted), Limits { high: Some(8), ..admitted });
        let unprotected = Limits { min: None, low: None, ..Limits::default() };
        assert_eq!(more.within(&unprotected), Limits { high: Some(9), ..unprotected });
        for (one, other) in [(admitted, less), (less, more), (more, unprotected)] {
            let widest = one.widest(&other);
            assert_eq!((one.within(&widest), other.within(&widest)), (one, other), "{one:?} {other:?}");
        }
    }

    #[test]
    fn what_is_set_must_ascend() {
        let limits = |min, low, high, max| Limits { min, low, high, max, ..Limits::default() };
        for good in [
            limits(None, None, None, None),
            limits(Some(1), Some(1), Some(1), Some(1)),
            limits(Some(1), None, None, Some(2)),
            limits(None, Some(3), None, None),
        ] {
            assert_eq!(good.check("web"), Ok(()));
        }
        for (bad, lower, upper) in [
            (limits(Some(2), Some(1), None, None), ("min", 2), ("low", 1)),
            (limits(Some(2), None, None, Some(1)), ("min", 2), ("max", 1)),
            (limits(Some(1), Some(9), Some(8), Some(9)), ("low", 9), ("high", 8)),
        ] {
            let (lower, lower_bytes) = lower;
            let (upper, upper_bytes) = upper;
            let name = "web".into();
            assert_eq!(bad.check("web"), Err(Error::Order { name, lower, lower_bytes, upper, upper_bytes }));
        }
    }

    #[test]
    fn a_weight_is_within_its_range() {
        for (weight, good) in [(0, false), (1, true), (10_000, true), (10_001, false)] {
            assert_eq!(Limits { weight, ..Limits::default() }.check("web").is_ok(), good);
        }
    }
}

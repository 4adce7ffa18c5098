//! Who gives back what, when waiting is too slow.

use super::COLD_POINTS;
use super::ages::{Cold, age_for, cold_bytes};
use crate::policy::arithmetic::scale;

/// A microVM in a node that is short.
#[derive(Clone, Copy, Debug)]
pub(super) struct Giver {
    /// Which, by the caller's number.
    pub(super) index: usize,
    /// What it holds, less what was taken for nodes further down.
    pub(super) charge_bytes: u64,
    /// What `low` and `min` protect of it, as seen from the node that is short.
    pub(super) protected: [u64; 2],
    /// Its weight: of 100, what is older than the age goes; of 200, what is twice as old.
    pub(super) weight: u32,
    pub(super) cold: [Cold; COLD_POINTS],
    /// What it is to give: none before.
    pub(super) take_bytes: u64,
}

impl Giver {
    fn left(&self, protection: usize) -> u64 {
        let protected = self.protected.get(protection).copied().unwrap_or(u64::MAX);
        self.charge_bytes.saturating_sub(self.take_bytes).saturating_sub(protected)
    }

    /// What it has that is older than `age_ms` and may be taken.
    fn cold(&self, age_ms: u64, protection: usize) -> u64 {
        let age_ms = if self.weight == 100 { age_ms } else { scale(age_ms, self.weight.into(), 100) };
        cold_bytes(&self.cold, age_ms).saturating_sub(self.take_bytes).min(self.left(protection))
    }
}

/// Divides `need_bytes` among `givers`, and returns what nobody can give.
///
/// First what `low` leaves, then what `min` leaves; of each first what is older than one age, the same for all, then
/// in proportion to what is left. The parts are exactly what is needed less what is returned.
pub(super) fn take(need_bytes: u64, givers: &mut [Giver]) -> u64 {
    let mut need = need_bytes;
    for protection in 0..2 {
        if need == 0 {
            break;
        }
        let total = |givers: &[Giver], age_ms: u64| {
            givers.iter().fold(0u64, |sum, giver| sum.saturating_add(giver.cold(age_ms, protection)))
        };
        if givers.iter().any(|giver| giver.cold.iter().any(|point| point.age_ms > 0)) {
            let age_ms = age_for(need, |age_ms| total(givers, age_ms));
            need = share(need, givers, |giver| giver.cold(age_ms, protection));
        }
        need = share(need, givers, |giver| giver.left(protection));
    }
    need
}

/// Takes `need` in proportion to what each has by `available`, and returns what they have not.
fn share(need: u64, givers: &mut [Giver], available: impl Fn(&Giver) -> u64) -> u64 {
    if need == 0 {
        return 0;
    }
    let whole = givers.iter().fold(0u64, |sum, giver| sum.saturating_add(available(giver)));
    let taken = need.min(whole);
    let (mut seen, mut paid) = (0u64, 0u64);
    for giver in givers {
        // The difference of two rounded sums, so that the parts add up; it is never more than is available, as a
        // part of less than the whole grows no faster than the sum.
        seen = seen.saturating_add(available(giver));
        let until = scale(taken, seen, whole.max(1));
        giver.take_bytes = giver.take_bytes.saturating_add(until.saturating_sub(paid));
        paid = until;
    }
    need.saturating_sub(taken)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn giver(charge_bytes: u64, low: u64, min: u64, cold: [Cold; COLD_POINTS]) -> Giver {
        Giver { index: 0, charge_bytes, protected: [low, min], weight: 100, cold, take_bytes: 0 }
    }

    fn curve(points: [(u64, u64); COLD_POINTS]) -> [Cold; COLD_POINTS] {
        points.map(|(age_ms, bytes)| Cold { age_ms, bytes })
    }

    #[test]
    fn the_coldest_pay_whoever_has_them() {
        let idle = giver(1000, 0, 0, curve([(10_000, 900), (100_000, 800), (300_000, 700)]));
        let busy = giver(1000, 0, 0, curve([(10_000, 500), (100_000, 0), (0, 0)]));
        let mut givers = [idle, busy];
        assert_eq!(take(600, &mut givers), 0);
        assert_eq!(givers.map(|giver| giver.take_bytes), [600, 0]);
    }

    #[test]
    fn weight_scales_the_age() {
        let cold = curve([(10_000, 900), (100_000, 0), (0, 0)]);
        let mut givers = [giver(1000, 0, 0, cold), Giver { weight: 200, ..giver(1000, 0, 0, cold) }];
        assert_eq!(take(300, &mut givers), 0);
        assert!(givers[0].take_bytes > 250 && givers[1].take_bytes < 50, "{givers:?}");
    }

    #[test]
    fn low_is_taken_last_and_min_never() {
        let young = [Cold::default(); COLD_POINTS];
        let mut givers = [giver(1000, 800, 500, young), giver(1000, 0, 0, young)];
        assert_eq!(take(1200, &mut givers), 0);
        assert_eq!(givers.map(|giver| giver.take_bytes), [200, 1000]);
        let mut givers = [giver(1000, 800, 500, young), giver(1000, 0, 0, young)];
        assert_eq!(take(1600, &mut givers), 100);
        assert_eq!(givers.map(|giver| giver.take_bytes), [500, 1000]);
    }

    proptest! {
        #[test]
        fn what_is_needed_is_given_or_returned_and_nothing_protected_goes(
            need in 0..1u64 << 45,
            givers in prop::collection::vec(
                (0..1u64 << 40, 0..1u64 << 40, 0..1u64 << 40, 1..10_000u32, any::<[(u32, u32); COLD_POINTS]>()),
                0..40,
            ),
        ) {
            let mut givers: Vec<Giver> = givers
                .into_iter()
                .map(|(charge, low, min, weight, points)| {
                    let points = points.map(|(age_ms, kib)| (age_ms.into(), u64::from(kib) << 10));
                    Giver { weight, ..giver(charge, low.max(min), min, curve(points)) }
                })
                .collect();
            let unmet = take(need, &mut givers);
            prop_assert_eq!(givers.iter().map(|giver| giver.take_bytes).sum::<u64>() + unmet, need);
            for giver in &givers {
                prop_assert!(giver.take_bytes <= giver.charge_bytes.saturating_sub(giver.protected[1]));
            }
            let takable: u64 = givers.iter().map(|giver| giver.charge_bytes.saturating_sub(giver.protected[1])).sum();
            prop_assert_eq!(unmet, need.saturating_sub(takable));
        }
    }
}

//! The pressure of one node.

use super::FleetTuning;
use crate::policy::arithmetic::{permille, scale};

/// No pressure.
pub(super) const CALM: u64 = 1000;

/// The next pressure of a node that holds `charge_bytes` where `goal_bytes` is wanted.
///
/// Grows by a share of itself, the more the greater the excess, to first order and second like an exponential;
/// falls by a tenth once the charge is well below the goal, and stays in between.
pub(super) fn next(lambda: u64, charge_bytes: u64, goal_bytes: u64, tuning: &FleetTuning) -> u64 {
    let excess = charge_bytes.saturating_sub(goal_bytes);
    if excess > 0 {
        let error = scale(excess, 1000, goal_bytes.max(1)).min(500);
        let rise = error.saturating_add(error.saturating_mul(error).div_euclid(2000));
        let rise = rise.max(tuning.least_rise_permille).min(tuning.rise_permille);
        lambda.saturating_add(permille(lambda, rise)).min(tuning.cap_permille)
    } else if charge_bytes < goal_bytes.saturating_sub(permille(goal_bytes, tuning.slack_permille)) {
        lambda.saturating_sub(permille(lambda, tuning.fall_permille)).max(CALM)
    } else {
        lambda
    }
}

/// Pressure on a microVM of `weight`, where 100 is what who has set none has: none where nothing presses.
pub(super) fn weighted(lambda: u64, weight: u32) -> u64 {
    if lambda <= CALM { CALM } else { scale(lambda, 100, u64::from(weight).max(1)).max(CALM) }
}

/// What a weight comes to within a group of weight `above`.
pub(super) fn inherited(weight: u32, above: u32) -> u32 {
    let weight = scale(weight.into(), above.into(), 100).max(1);
    u32::try_from(weight).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rises_fast_stays_near_the_goal_and_falls_slowly() {
        let tuning = FleetTuning::default();
        assert_eq!(next(CALM, 2000, 1000, &tuning), 1625);
        assert_eq!(next(CALM, 1001, 1000, &tuning), 1020);
        assert_eq!(next(4000, 1000, 1000, &tuning), 4000);
        assert_eq!(next(4000, 981, 1000, &tuning), 4000);
        assert_eq!(next(4000, 900, 1000, &tuning), 3600);
        assert_eq!(next(CALM, 0, 1000, &tuning), CALM);
    }

    #[test]
    fn a_greater_weight_is_pressed_less_and_never_less_than_nothing() {
        assert_eq!(weighted(8000, 100), 8000);
        assert_eq!(weighted(8000, 400), 2000);
        assert_eq!(weighted(8000, 10_000), CALM);
        assert_eq!(weighted(2000, 50), 4000);
        assert_eq!((weighted(CALM, 50), weighted(CALM, 1)), (CALM, CALM), "nothing presses");
    }

    #[test]
    fn weights_multiply_along_a_path() {
        assert_eq!((inherited(100, 100), inherited(100, 400), inherited(50, 400)), (100, 400, 200));
        assert_eq!((inherited(1, 1), inherited(u32::MAX, 10_000)), (1, u32::MAX));
    }

    proptest! {
        #[test]
        fn more_excess_is_never_less_pressure(lambda in CALM..150_000u64, charge: u64, more: u64, goal: u64) {
            let tuning = FleetTuning::default();
            let one = next(lambda, charge, goal, &tuning);
            prop_assert!(one <= next(lambda, charge.saturating_add(more), goal, &tuning));
            prop_assert!((CALM..=tuning.cap_permille).contains(&one));
        }
    }
}

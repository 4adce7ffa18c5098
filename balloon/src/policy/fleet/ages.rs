//! How much memory of a guest is unused for how long, and the age at which several together have enough.

use super::COLD_POINTS;
use crate::policy::arithmetic::scale;
use serde::{Deserialize, Serialize};

/// Ages below this are none: a tick. Younger memory is in use.
pub(super) const YOUNGEST_MS: u64 = 2000;

/// A point of a guest's cold curve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cold {
    /// At least so long unused.
    pub age_ms: u64,
    /// Is so much.
    pub bytes: u64,
}

/// Bytes that are unused for at least `age_ms`: between two points in proportion to age, beyond the last in inverse
/// proportion. A curve that rises with age is a lie; the least of what it says so far counts.
pub(super) fn cold_bytes(points: &[Cold; COLD_POINTS], age_ms: u64) -> u64 {
    let mut younger: Option<Cold> = None;
    for point in points.iter().filter(|point| point.age_ms > 0) {
        let bytes = younger.map_or(point.bytes, |younger| younger.bytes.min(point.bytes));
        let point = Cold { age_ms: point.age_ms, bytes };
        if age_ms <= point.age_ms {
            let Some(younger) = younger else { return point.bytes };
            let way = point.age_ms.saturating_sub(younger.age_ms);
            let gone = age_ms.saturating_sub(younger.age_ms);
            let fall = younger.bytes.saturating_sub(point.bytes);
            return younger.bytes.saturating_sub(if way == 0 { fall } else { scale(fall, gone, way) });
        }
        if younger.is_none_or(|younger| point.age_ms >= younger.age_ms) {
            younger = Some(point);
        }
    }
    younger.map_or(0, |last| scale(last.bytes, last.age_ms, age_ms.max(1)))
}

/// The greatest age, to within 3 %, at which `total` of that age is at least `need_bytes`; the youngest if there is
/// none.
pub(super) fn age_for(need_bytes: u64, mut total: impl FnMut(u64) -> u64) -> u64 {
    // In steps of a 32nd from the youngest, by bisection over the exponent: 2^(512/32) is 18 hours.
    let age = |step: u32| {
        let octave = YOUNGEST_MS.checked_shl(step.div_euclid(32)).unwrap_or(u64::MAX);
        octave.saturating_add(scale(octave, u64::from(step.rem_euclid(32)), 32))
    };
    let (mut low, mut high) = (0u32, 512u32);
    while high.saturating_sub(low) > 1 {
        let middle = low.saturating_add(high).div_euclid(2);
        if total(age(middle)) >= need_bytes {
            low = middle;
        } else {
            high = middle;
        }
    }
    age(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CURVE: [Cold; COLD_POINTS] = [
        Cold { age_ms: 10_000, bytes: 800 },
        Cold { age_ms: 100_000, bytes: 400 },
        Cold { age_ms: 300_000, bytes: 0 },
    ];

    #[test]
    fn between_points_it_falls_evenly() {
        assert_eq!(cold_bytes(&CURVE, 2000), 800, "younger than that nobody can tell");
        assert_eq!(cold_bytes(&CURVE, 55_000), 600);
        assert_eq!(cold_bytes(&CURVE, 200_000), 200);
        assert_eq!(cold_bytes(&CURVE, 900_000), 0);
        assert_eq!(cold_bytes(&[Cold::default(); COLD_POINTS], 1), 0);
    }

    #[test]
    fn finds_the_age_that_suffices() {
        let age = age_for(600, |age_ms| cold_bytes(&CURVE, age_ms));
        assert!(age <= 55_000 && age > 53_000, "{age}");
        assert_eq!(age_for(801, |age_ms| cold_bytes(&CURVE, age_ms)), YOUNGEST_MS);
    }

    proptest! {
        #[test]
        fn older_is_never_more(points: [(u32, u32); COLD_POINTS], one: u32, two: u32) {
            let points = points.map(|(age, bytes)| Cold { age_ms: age.into(), bytes: bytes.into() });
            prop_assert!(cold_bytes(&points, one.max(two).into()) <= cold_bytes(&points, one.min(two).into()));
        }
    }
}

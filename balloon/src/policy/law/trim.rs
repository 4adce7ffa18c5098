//! How much a step takes.

use crate::policy::Tuning;
use crate::policy::arithmetic::{permille, ppm, scale};
use crate::policy::fleet::{COLD_POINTS, Cold};
use crate::policy::sample::{Capabilities, Generation, Sample};

/// What is known when a step is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lists {
    /// On the LRU lists and possible to reclaim.
    pub(super) lru_bytes: u64,
    /// Of these, verified to be older than the working-set age.
    pub(super) cold_bytes: u64,
}

impl Lists {
    /// Of the last sample, for a working-set age of `age_ms`.
    pub(super) fn of(sample: &Sample, capabilities: &Capabilities, age_ms: u64) -> Self {
        let swap_bytes = if capabilities.swap { sample.swap_free_bytes } else { 0 };
        let anon_bytes = sample.anon_bytes().min(swap_bytes);
        // tmpfs stands on the anonymous lists; what is dirty must be written first.
        let clean_bytes = sample.file_bytes().saturating_sub(sample.dirty_bytes);
        let lru_bytes = clean_bytes.saturating_add(anon_bytes);
        let cold = |(generation, younger): (&Generation, &Generation)| {
            if younger.age_ms < age_ms {
                return 0;
            }
            generation.file_bytes.saturating_add(if swap_bytes > 0 { generation.anon_bytes } else { 0 })
        };
        // What lies in a generation was last used before the next younger one was begun. The two youngest are never
        // evicted.
        let pairs = sample.ages.iter().skip(2).zip(sample.ages.iter().skip(1));
        let cold_bytes = pairs.map(cold).fold(0u64, u64::saturating_add);
        let cold_bytes = if capabilities.ages { cold_bytes.min(lru_bytes) } else { 0 };
        Self { lru_bytes, cold_bytes }
    }

    /// Only what is verified to be cold.
    pub(super) fn verified(self) -> Self {
        Self { lru_bytes: 0, ..self }
    }
}

/// How long after a step the next one may take what is not verified: longer than a step for long working-set ages.
pub(super) fn unverified_every_ms(age_ms: u64, tuning: &Tuning) -> u64 {
    scale(tuning.step_ms, age_ms.max(tuning.unverified_age_ms), tuning.unverified_age_ms)
}

/// How much memory is unused for how long: what lies in older generations was last used before each was begun.
pub(super) fn cold_curve(sample: &Sample) -> [Cold; COLD_POINTS] {
    let [_, b, c, d] =
        sample.ages.map(|generation| generation.anon_bytes.saturating_add(generation.file_bytes));
    let [youngest, young, old, _] = sample.ages;
    let (beyond_old, beyond_young) = (d, c.saturating_add(d));
    [
        Cold { age_ms: youngest.age_ms, bytes: b.saturating_add(beyond_young) },
        Cold { age_ms: young.age_ms, bytes: beyond_young },
        Cold { age_ms: old.age_ms, bytes: beyond_old },
    ]
}

/// Bytes that a step takes: the greater of a share of the lists and a share of what is verified to be cold, both less
/// the more it hurts.
pub(super) fn step_bytes(
    lists: Lists,
    age_ms: u64,
    gain: u64,
    quiet: bool,
    harm_permille: u64,
    tuning: &Tuning,
) -> u64 {
    let most_ppm = if quiet { tuning.quiet_ppm } else { tuning.unverified_ppm };
    let share_ppm = if quiet { most_ppm } else { tuning.ratio_ppm.saturating_mul(gain).min(most_ppm) };
    let unverified = ppm(lists.lru_bytes, share_ppm);
    let cold = scale(lists.cold_bytes, tuning.cold_ms, age_ms.max(1));
    let cold = cold.min(permille(lists.cold_bytes, tuning.cold_permille));
    let wanted = unverified.max(cold).min(scale(tuning.bytes_per_s, tuning.step_ms, 1000));
    permille(wanted, 1000u64.saturating_sub(harm_permille))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTS: u64 = 1 << 30;

    #[test]
    fn a_turn_over_what_is_not_verified_takes_two_ages_and_never_less_than_ten_minutes() {
        let tuning = Tuning::default();
        let lists = Lists { lru_bytes: LISTS, cold_bytes: 0 };
        for (age_s, turn_s) in [(60, 600), (300, 600), (1800, 3600), (7200, 14_400)] {
            let step = step_bytes(lists, age_s * 1000, tuning.pressed_gain, false, 0, &tuning);
            let every_ms = unverified_every_ms(age_s * 1000, &tuning);
            let turn = scale(every_ms, LISTS, step).div_euclid(1000);
            assert!(turn.abs_diff(turn_s) <= turn_s.div_euclid(100), "{age_s}: {turn}");
        }
    }

    #[test]
    fn what_is_verified_goes_at_any_age_in_its_time() {
        let tuning = Tuning::default();
        let lists = Lists { lru_bytes: LISTS, cold_bytes: LISTS };
        for age_ms in [60_000, 300_000, 1_800_000] {
            let step = step_bytes(lists, age_ms, tuning.gain, false, 0, &tuning);
            let expected = scale(LISTS, tuning.cold_ms, age_ms).min((32 * 6) << 20);
            assert_eq!(step, expected.max(ppm(LISTS, 5000)), "{age_ms}");
            assert_eq!(
                step_bytes(lists.verified(), age_ms, tuning.gain, false, 0, &tuning),
                expected,
                "{age_ms}"
            );
        }
    }
}

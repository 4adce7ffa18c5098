//! Steps that take what is not verified to be cold: rarer, the longer the working-set age.

#![expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]

use super::tests::{Guest, SIZE, reclaimed_bytes};
use super::*;
use crate::policy::Decision;
use crate::policy::sample::Generation;

fn guest(age_s: u64) -> Guest {
    let mut guest = Guest::new();
    guest.tell(&Observation::Settings(Settings { working_set_age_ms: age_s * 1000, ..Settings::new(SIZE) }));
    guest
}

/// When it was ordered to reclaim within so many seconds.
fn steps(guest: &mut Guest, seconds: u64) -> Vec<u64> {
    let is_step = |decision: &Decision| matches!(decision.order, Order::Reclaim { older_than_ms: None, .. });
    guest.seconds(seconds).iter().filter(|decision| is_step(decision)).map(|step| step.now_ms).collect()
}

#[test]
fn a_long_age_makes_steps_rare_whatever_the_clock_does() {
    for (age_s, every_ms) in
        [(60, 6000), (300, 6000), (450, 12_000), (600, 12_000), (900, 18_000), (1800, 36_000)]
    {
        for second_ms in [1000, 1003, 1020] {
            let mut guest = guest(age_s);
            guest.second_ms = second_ms;
            let at = steps(&mut guest, 900);
            let mean_ms = (at.last().unwrap() - at[0]) / (at.len() as u64 - 1);
            assert!(mean_ms.abs_diff(every_ms) <= every_ms / 50, "{age_s} {second_ms}: {mean_ms}");
        }
    }
}

#[test]
fn the_first_is_due_at_once_wherever_the_clock_begins() {
    let ages = [300, 7200, 30 * 24 * 3600];
    assert_eq!(ages.map(|age_s| steps(&mut guest(age_s), 70).len()), [1, 1, 1]);
}

#[test]
fn who_is_pressed_or_told_a_shorter_age_waits_no_longer() {
    let envelope = Envelope {
        sequence: 1,
        lease_ms: 120_000,
        lambda_permille: 6000,
        max_bytes: SIZE,
        high_bytes: None,
        floor_bytes: 0,
        grant_bytes: 0,
        take_bytes: 0,
    };
    let shorter = Settings { working_set_age_ms: 300_000, ..Settings::new(SIZE) };
    for told in [Observation::Envelope(envelope), Observation::Settings(shorter)] {
        let mut guest = guest(1800);
        assert_eq!(steps(&mut guest, 110).len(), 2);
        guest.tell(&told);
        assert_eq!(steps(&mut guest, 60).len(), 10, "{told:?}");
    }
}

#[test]
fn what_is_said_to_be_given_is_given() {
    for age_s in [60, 300, 1800] {
        let mut guest = guest(age_s);
        guest.seconds(120);
        let before = guest.law.status(guest.now_ms).yield_bytes_per_s;
        let given = reclaimed_bytes(&guest.seconds(720)) / 720;
        let after = guest.law.status(guest.now_ms).yield_bytes_per_s;
        assert!(after <= given && given <= before, "{age_s}: {before} {given} {after}");
    }
}

#[test]
fn what_is_verified_is_given_step_by_step() {
    let mut guest = guest(1800);
    let capabilities =
        Capabilities { psi: true, memory_reclaim: true, ages: true, ..Capabilities::default() };
    guest.tell(&Observation::Capabilities(capabilities));
    let cold = |file_bytes| Generation { age_ms: 4_000_000, anon_bytes: 0, file_bytes };
    guest.sample.ages = [cold(0), cold(0), cold(100 << 20), cold(100 << 20)];
    guest.seconds(120);
    let said = guest.law.status(guest.now_ms).yield_bytes_per_s;
    let is_cold =
        |decision: &Decision| matches!(decision.order, Order::Reclaim { older_than_ms: Some(_), .. });
    let decisions = guest.seconds(60);
    assert_eq!(decisions.iter().filter(|decision| is_cold(decision)).count(), 10, "{decisions:?}");
    let given = reclaimed_bytes(&decisions) / 60;
    assert!(said.abs_diff(given) <= said / 10, "{said} {given}");
}

//! Whatever a law is told, some things hold.

#![expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]

use super::*;
use crate::policy::{Cause, Decision, Generation, Reclaimed, Sample, Stopped};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 1024 * MIB;

/// Any number, and often a small or a huge one.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..4u64, 0..SIZE, any::<u64>(), Just(u64::MAX)]
}

fn sample() -> impl Strategy<Value = Observation> {
    let sizes = (0..SIZE, 0..SIZE / 4, 0..SIZE / 4, 0..SIZE / 4, 0..SIZE / 4);
    let counters = (number(), number(), 0..100_000u64, number(), 0..3u64, 0..2u64);
    let cause = prop_oneof![
        Just(Cause::Periodic),
        Just(Cause::Pressure),
        Just(Cause::Stall),
        Just(Cause::OutOfMemory)
    ];
    let time = (0..2u8, 0..1000u64, 0..1_000_000_000u64);
    (time, cause, counters, sizes, prop::array::uniform4((number(), number(), number()))).prop_map(
        |((boot, sequence, monotonic_us), cause, counters, sizes, ages)| {
            let (refault_file, restore_file, nodereclaim, steal_kswapd, alloc_stall, oom_kill) = counters;
            let (free_bytes, active_file_bytes, inactive_file_bytes, active_anon_bytes, dirty_bytes) = sizes;
            Observation::Sample(Sample {
                boot_id: [boot; 16],
                sequence,
                monotonic_us,
                cause,
                refault_file,
                restore_file,
                nodereclaim,
                steal_kswapd,
                alloc_stall,
                oom_kill,
                memory_some_us: refault_file,
                total_bytes: SIZE,
                free_bytes,
                available_bytes: free_bytes,
                active_file_bytes,
                inactive_file_bytes,
                active_anon_bytes,
                dirty_bytes,
                ages: ages.map(|(age_ms, anon_bytes, file_bytes)| Generation {
                    age_ms,
                    anon_bytes,
                    file_bytes,
                }),
                ..Sample::default()
            })
        },
    )
}

/// A guest that does what a guest does: counters rise, time goes by.
fn observation() -> impl Strategy<Value = Observation> {
    let sizes = (prop::option::of(0..SIZE), 0..=SIZE, 0..256 * MIB, 0..256 * MIB);
    let host = (sizes, 0..30_000u64, 0..200u64, any::<bool>());
    let envelope =
        (number(), 0..20_000u64, 0..200_000u64, 0..=SIZE, prop::option::of(0..=SIZE), 0..256 * MIB);
    let settings =
        (prop::option::weighted(0.1, 0..=SIZE), prop::option::of(0..=SIZE), 0..=SIZE, 0..4u8, number());
    prop_oneof![
        4 => sample(),
        2 => Just(Observation::Tick),
        1 => any::<[bool; 9]>().prop_map(|can| {
            let [psi, psi_trigger, memory_reclaim, reclaim_swappiness, ages, swap, reporting_order, compaction, counter] =
                can;
            Observation::Capabilities(Capabilities {
                psi, psi_trigger, memory_reclaim, reclaim_swappiness, ages, swap, reporting_order, compaction,
                proactive_counter: counter,
            })
        }),
        1 => (number(), number(), number()).prop_map(|(number, file_pages, took_us)| {
            Observation::Reclaimed(Reclaimed { number, file_pages, took_us, anon_pages: 0, stopped: Stopped::InUse })
        }),
        1 => host.prop_map(|(sizes, stall_ppm, available_permille, balloon)| {
            let (resident_bytes, ceiling_bytes, floor_bytes, min_bytes) = sizes;
            Observation::Host(HostReading {
                resident_bytes, ceiling_bytes, floor_bytes, min_bytes, stall_ppm, available_permille, balloon,
            })
        }),
        1 => (envelope, 0..SIZE, 0..SIZE).prop_map(|(envelope, grant_bytes, take_bytes)| {
            let (sequence, lease_ms, lambda_permille, max_bytes, high_bytes, floor_bytes) = envelope;
            Observation::Envelope(Envelope {
                sequence, lease_ms, lambda_permille, max_bytes, high_bytes, floor_bytes, grant_bytes, take_bytes,
            })
        }),
        1 => settings.prop_map(|(ceiling_bytes, high_bytes, max_bytes, mode, age_ms)| {
            let mode = [Mode::Auto, Mode::Trim, Mode::Balloon, Mode::Off][usize::from(mode)];
            let settings = Settings { mode, high_bytes, ceiling_bytes, ..Settings::new(max_bytes) };
            Observation::Settings(Settings { working_set_age_ms: age_ms, ..settings })
        }),
        1 => (number(), 0..SIZE, 0..SIZE, prop::option::of(0..3u64)).prop_map(|(faults, free, caches, stalls)| {
            Observation::Statistics(crate::device::Values {
                major_faults: Some(faults),
                free_bytes: Some(free),
                available_bytes: Some(free),
                disk_caches_bytes: Some(caches),
                allocation_stalls: stalls,
                ..crate::device::Values::default()
            })
        }),
    ]
}

fn run(steps: &[(u64, Observation)]) -> Vec<Decision> {
    let mut law = Law::new(0, SIZE, Settings::new(SIZE), Tuning::default());
    let mut now_ms = 0;
    let mut all = Vec::new();
    for (passed_ms, observation) in steps {
        now_ms += passed_ms;
        let mut orders = Orders::new();
        let (before, ceiling_before) = (law.bounds(), law.ceiling.bytes());
        law.observe(now_ms, observation, &mut orders);
        let (bounds, ceiling) = (law.bounds(), law.ceiling.bytes());
        let limits_changed = before != bounds || law.state == State::Manual;
        assert!(ceiling <= bounds.max_bytes, "above max");
        assert!(ceiling >= bounds.floor_bytes.min(bounds.max_bytes), "below the floor");
        if !limits_changed && ceiling < ceiling_before {
            let way = ceiling_before.saturating_sub(bounds.floor_bytes);
            let half = way.div_ceil(2).max(4 * MIB);
            assert!(ceiling_before - ceiling <= half, "more than half the slack");
        }
        let status = law.status(now_ms);
        assert!(status.target_bytes <= bounds.max_bytes && status.target_bytes <= law.held_bytes());
        for decision in orders.iter() {
            if let Order::Reclaim { bytes, .. } = decision.order {
                let held = law.held_bytes();
                let used = law.used_bytes().unwrap_or(held);
                assert!(bytes <= used.saturating_sub(law.left_bytes()), "below what trimming leaves");
                assert!(bytes <= used.min(held).saturating_sub(law.host.min_bytes), "below what is promised");
                let is_directed = matches!(decision.reason, Reason::Directed { .. });
                assert!(is_directed || law.state == State::Trimming, "trims in {:?}", law.state);
            }
            if let (Order::Ceiling { bytes }, Reason::Gather { .. }) = (decision.order, decision.reason) {
                assert!(
                    bytes >= bounds.floor_bytes.max(law.used_bytes().unwrap_or(0)),
                    "fetches what is used"
                );
                assert!(bytes < ceiling, "raises to fetch");
            }
            assert!(!decision.reason.to_string().is_empty());
            all.push(*decision);
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn limits_hold_floors_hold_and_nothing_is_trimmed_in_a_pause(
        steps in prop::collection::vec((0..5000u64, observation()), 1..150),
    ) {
        prop_assert_eq!(run(&steps), run(&steps));
    }

    #[test]
    fn a_sample_that_comes_twice_counts_once(first in sample(), more in prop::collection::vec(sample(), 0..5)) {
        let run = |times: usize| {
            let mut law = Law::new(0, SIZE, Settings::new(SIZE), Tuning::default());
            let mut orders = Orders::new();
            law.observe(0, &Observation::Capabilities(Capabilities { psi: true, ..Capabilities::default() }), &mut orders);
            for observation in [first].iter().chain(&more) {
                (0..times).for_each(|_| law.observe(1000, observation, &mut Orders::new()));
            }
            (law.harm.refaults(), law.harm.stolen(), law.ceiling.bytes())
        };
        // Those that make no sense are taken as the new base the first time, and dropped the second.
        prop_assert_eq!(run(1), run(2));
    }
}

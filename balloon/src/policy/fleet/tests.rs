//! Arbitration over whole trees.

#![expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]

use super::*;
use crate::zone::{Limits, Pool, Protection, Tree};
use proptest::prelude::*;

pub(super) const MIB: u64 = 1 << 20;
const NONE: [Cold; COLD_POINTS] = [Cold { age_ms: 0, bytes: 0 }; COLD_POINTS];

pub(super) fn pool(capacity_bytes: u64) -> Tree {
    Tree::new(Pool { capacity_bytes, overcommit: true }).unwrap()
}

pub(super) fn vm(tree: &mut Tree, group: &str, name: &str, limits: Limits, held: u64) -> Reading {
    let vm = tree.create_vm(group, name, limits).unwrap();
    tree.settle(vm, 1, held).unwrap();
    // Of a guest that nothing limits.
    Reading { vm, ceiling_bytes: u64::MAX, cold: NONE, yield_bytes_per_s: 0, follows: true, pages_out: true }
}

pub(super) fn host(available_permille: u64) -> Host {
    let (total_bytes, available_bytes) = (100_000 * MIB, 100 * MIB * available_permille);
    Host { total_bytes, available_bytes, ..Host::default() }
}

pub(super) fn tick(
    fleet: &mut Fleet,
    tree: &Tree,
    host: &Host,
    readings: &[Reading],
) -> (Verdict, Vec<Allotment>) {
    let mut allotments = Vec::new();
    let verdict = fleet.tick(tree, host, readings, &mut allotments);
    (verdict, allotments)
}

#[test]
fn a_calm_host_presses_nobody_and_grants_something() {
    let mut tree = pool(1000 * MIB);
    let limits = Limits { high: Some(200 * MIB), max: Some(400 * MIB), ..Limits::default() };
    let readings = [vm(&mut tree, "", "a", limits, 100 * MIB)];
    let (verdict, allotments) = tick(&mut Fleet::new(FleetTuning::default()), &tree, &host(500), &readings);
    assert_eq!((verdict.lambda_permille, verdict.short, verdict.refuse), (1000, false, false));
    let one = allotments[0];
    assert_eq!((one.lambda_permille, one.take_bytes, one.pressed_by), (1000, 0, None));
    assert_eq!((one.high_bytes, one.max_bytes, one.grant_bytes), (Some(200 * MIB), 400 * MIB, 128 * MIB));
}

#[test]
fn what_falls_fast_is_short_before_it_is() {
    let mut tree = pool(100_000 * MIB);
    let all_is_protected = Limits { min: Some(50_000 * MIB), ..Limits::default() };
    let readings = [vm(&mut tree, "", "a", all_is_protected, 50_000 * MIB)];
    let mut fleet = Fleet::new(FleetTuning::default());
    let mut seen = |available| {
        let verdict = tick(&mut fleet, &tree, &host(available), &readings).0;
        // Whoever is protected is in nobody's way for what is only expected.
        assert_eq!((verdict.refuse, verdict.unmet_bytes > 0), (available < 40, available < 40));
        (verdict.falling_bytes / MIB, verdict.deficit_bytes / MIB)
    };
    // Far from short, and slowly.
    assert_eq!([500, 400, 300, 130, 130, 130, 119, 109].map(&mut seen).map(|(_, deficit)| deficit), [0; 8]);
    // By 4 % in two ticks, evenly or not: there will be 1 %, and 6 % are to be.
    assert_eq!([90, 70].map(&mut seen), [(4350, 0), (5850, 4850)]);
    assert_eq!(
        [70, 70, 110, 110, 109, 70].map(&mut seen),
        [(3000, 0), (0, 0), (0, 0), (0, 0), (150, 0), (6000, 5000)]
    );
    assert_eq!([70, 70].map(&mut seen), [(5850, 4850), (0, 0)], "it has stopped");
    assert_eq!(seen(30).1, 6000, "never more than is to be");
}

#[test]
fn a_group_above_its_high_is_pressed_and_its_neighbours_are_not() {
    let mut tree = pool(10_000 * MIB);
    let limits = Limits { high: Some(500 * MIB), ..Limits::default() };
    tree.create_group("ci", limits).unwrap();
    let readings = [
        vm(&mut tree, "ci", "a", Limits::default(), 600 * MIB),
        vm(&mut tree, "web", "b", Limits::default(), 600 * MIB),
    ];
    let mut fleet = Fleet::new(FleetTuning::default());
    let (verdict, allotments) = tick(&mut fleet, &tree, &host(500), &readings);
    assert_eq!(verdict.lambda_permille, 1000);
    assert!(allotments[0].lambda_permille > 1000 && allotments[0].pressed_by == tree.group("ci"));
    assert_eq!(allotments[0].take_bytes, 100 * MIB);
    assert_eq!((allotments[1].lambda_permille, allotments[1].take_bytes), (1000, 0));
}

#[test]
fn what_laws_give_by_themselves_is_not_directed_and_nothing_is_directed_twice() {
    let mut tree = pool(1000 * MIB);
    let mut readings = [vm(&mut tree, "", "a", Limits::default(), 1100 * MIB)];
    let mut fleet = Fleet::new(FleetTuning::default());
    readings[0].yield_bytes_per_s = 15 * MIB;
    let (verdict, _) = tick(&mut fleet, &tree, &host(500), &readings);
    assert_eq!((verdict.deficit_bytes, verdict.directed_bytes), (100 * MIB, 45 * MIB), "20 MiB to spare");
    readings[0].yield_bytes_per_s = 0;
    let (verdict, _) = tick(&mut fleet, &tree, &host(500), &readings);
    assert_eq!(verdict.directed_bytes, 75 * MIB, "45 MiB are on their way");
    let (verdict, _) = tick(&mut fleet, &tree, &host(500), &readings);
    assert_eq!(verdict.directed_bytes, 0);
}

#[test]
fn who_does_not_follow_is_left_to_the_balloon_and_let_go_when_the_host_has_enough() {
    let mut tree = pool(1000 * MIB);
    let mut readings = [
        vm(&mut tree, "", "a", Limits::default(), 600 * MIB),
        vm(&mut tree, "", "b", Limits::default(), 600 * MIB),
    ];
    readings[0].follows = false;
    let mut fleet = Fleet::new(FleetTuning::default());
    let (_, allotments) = tick(&mut fleet, &tree, &host(500), &readings);
    assert_eq!([0, 1].map(|one: usize| allotments[one].take_bytes), [110 * MIB; 2]);
    assert_eq!([0, 1].map(|one: usize| allotments[one].high_bytes), [Some(490 * MIB), None]);
    for reading in &readings {
        tree.settle(reading.vm, 2, 300 * MIB).unwrap();
    }
    let highs: Vec<_> =
        (0..100).map(|_| tick(&mut fleet, &tree, &host(500), &readings).1[0].high_bytes).collect();
    assert!(highs.is_sorted_by_key(|high| high.unwrap_or(u64::MAX)), "{highs:?}");
    assert_eq!(highs.last(), Some(&None), "{highs:?}");
}

#[test]
fn what_is_protected_is_not_there_to_take() {
    let mut tree = pool(1000 * MIB);
    let limits = Limits { min: Some(900 * MIB), ..Limits::default() };
    let readings = [vm(&mut tree, "", "a", limits, 1000 * MIB)];
    let (verdict, allotments) = tick(&mut Fleet::new(FleetTuning::default()), &tree, &host(5), &readings);
    assert_eq!(allotments[0].take_bytes, 100 * MIB);
    assert_eq!(allotments[0].floor_bytes, 900 * MIB);
    assert!(verdict.unmet_bytes > 0 && verdict.refuse);
}

#[test]
fn what_does_not_come_in_time_is_swapped_out_if_there_is_swap() {
    let mut tree = pool(1000 * MIB);
    let limits = Limits { min: Some(550 * MIB), ..Limits::default() };
    let mut readings = [
        vm(&mut tree, "", "a", Limits::default(), 600 * MIB),
        vm(&mut tree, "", "b", limits, 600 * MIB),
        vm(&mut tree, "", "c", Limits::default(), 0),
    ];
    let run = |swap_free_bytes: u64, readings: &[Reading]| {
        let host = Host { swap_free_bytes, ..host(500) };
        let mut fleet = Fleet::new(FleetTuning { kills: true, ..FleetTuning::default() });
        let ticks: Vec<_> = (0..12).map(|_| tick(&mut fleet, &tree, &host, readings)).collect();
        assert!(ticks.iter().all(|(verdict, _)| verdict.kill.is_none()), "the host is not at its end");
        let of = |sum: fn(&Verdict) -> u64| ticks.iter().map(|(verdict, _)| sum(verdict) / MIB).collect();
        let (taken, paged_out): (Vec<u64>, Vec<u64>) =
            (of(|verdict| verdict.directed_bytes), of(|verdict| verdict.page_out_bytes));
        (taken, paged_out, ticks)
    };
    let (taken, paged_out, ticks) = run(150 * MIB, &readings);
    assert_eq!(taken, [220, 0, 0, 0, 0, 70, 0, 0, 0, 0, 70, 0]);
    assert_eq!(paged_out, [0, 0, 0, 0, 0, 150, 0, 0, 0, 0, 150, 0]);
    assert!(ticks[5].1[0].page_out_bytes > ticks[5].1[1].page_out_bytes, "{ticks:?}");
    assert_eq!(run(0, &readings).1, [0; 12]);
    readings.iter_mut().for_each(|reading| reading.pages_out = false);
    assert_eq!(run(150 * MIB, &readings).1, [0; 12]);
}

#[test]
fn the_least_protected_is_killed_when_nothing_else_helps() {
    let mut tree = pool(10_000 * MIB);
    let limits = |min: u64, weight| Limits { min: Some(min * MIB), weight, ..Limits::default() };
    let readings = [
        vm(&mut tree, "", "protected", limits(900, 1), 900 * MIB),
        vm(&mut tree, "", "heavy", limits(0, 200), 900 * MIB),
        vm(&mut tree, "", "small", limits(0, 100), 300 * MIB),
        vm(&mut tree, "", "large", limits(100, 100), 500 * MIB),
    ];
    let mut fleet = Fleet::new(FleetTuning { kills: true, ..FleetTuning::default() });
    let killed: Vec<_> = (0..20)
        .filter_map(|round| Some((round, tick(&mut fleet, &tree, &host(5), &readings).0.kill?)))
        .collect();
    let kill = Kill { vm: readings[3].vm, charge_bytes: 500 * MIB, protected_bytes: 100 * MIB, weight: 100 };
    assert_eq!(killed, [(6, kill)], "its memory is not back");
}

#[derive(Clone, Debug)]
struct Plan {
    group: usize,
    held: u64,
    min: u64,
    low: u64,
    high: Option<u64>,
    weight: u32,
    cold: [(u64, u64); COLD_POINTS],
    follows: bool,
    pages_out: bool,
}

fn plan() -> impl Strategy<Value = Plan> {
    let points =
        [(0..600_000u64, 0..4096 * MIB), (0..600_000u64, 0..4096 * MIB), (0..600_000u64, 0..4096 * MIB)];
    let limits = (0..1024 * MIB, 0..1024 * MIB, prop::option::of(2048 * MIB..8192 * MIB), 1..=10_000u32);
    (0..4usize, 0..4096 * MIB, limits, points, any::<[bool; 2]>()).prop_map(
        |(group, held, limits, cold, [follows, pages_out])| {
            let (min, low, high, weight) = limits;
            Plan { group, held, min, low: low.max(min), high, weight, cold, follows, pages_out }
        },
    )
}

/// With limits of groups and microVMs, or without, so that only the pool can be short.
fn build(plans: &[Plan], capacity: u64, limited: bool) -> (Tree, Vec<Reading>) {
    let mut tree = pool(capacity);
    let groups = ["", "a", "a/b", "c"];
    let high = Limits { high: limited.then_some(4096 * MIB), ..Limits::default() };
    tree.create_group("a", high).unwrap();
    let mut readings = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        let limits = Limits {
            min: Some(plan.min),
            low: Some(plan.low),
            high: plan.high.filter(|_| limited),
            weight: plan.weight,
            ..Limits::default()
        };
        let vm = tree.adopt_vm(groups[plan.group], &format!("vm{number}"), limits).unwrap();
        tree.settle(vm, 1, plan.held).unwrap();
        let cold = plan.cold.map(|(age_ms, bytes)| Cold { age_ms, bytes });
        readings.push(Reading {
            vm,
            ceiling_bytes: plan.held,
            cold,
            yield_bytes_per_s: 0,
            follows: plan.follows,
            pages_out: plan.pages_out,
        });
    }
    (tree, readings)
}

proptest! {
    #[test]
    fn under_pressure_no_target_rises_and_no_minimum_is_crossed(
        plans in prop::collection::vec(plan(), 1..12),
        hosts in prop::collection::vec((0..100u64, 0..4096 * MIB), 1..20),
        swap_free_bytes in prop_oneof![Just(0), 0..8192 * MIB],
        limited: bool,
    ) {
        let (mut tree, readings) = build(&plans, 8192 * MIB, limited);
        let mut fleet = Fleet::new(FleetTuning::default());
        let mut before: Option<Vec<u64>> = None;
        for (round, (available, held)) in hosts.into_iter().enumerate() {
            let host = Host { swap_free_bytes, ..host(available) };
            let who = &readings[round % readings.len()];
            tree.settle(who.vm, 2 + round as u64, held).unwrap();
            let (verdict, allotments) = tick(&mut fleet, &tree, &host, &readings);
            let targets: Vec<u64> = allotments.iter().map(Allotment::target_bytes).collect();
            if let Some(before) = before.filter(|_| verdict.short) {
                prop_assert!(targets.iter().zip(&before).all(|(now, before)| now <= before));
            }
            before = Some(targets);
            let mut protection = Protection::default();
            protection.compute(&tree, tree.root(), true);
            for one in &allotments {
                let min = protection.get(one.vm).unwrap().min;
                let held = tree.get(one.vm).unwrap().charge_bytes();
                prop_assert_eq!(one.floor_bytes, min);
                // The limit of a group may take what the pool would protect, as in the kernel.
                let protected = if limited { 0 } else { min };
                let given = one.take_bytes + one.page_out_bytes;
                prop_assert!(given <= held.saturating_sub(protected), "{:?} of {}", one, held);
                prop_assert!(limited || one.high_bytes.is_none_or(|high| high >= min.min(one.target_bytes())));
            }
            let granted: u64 = allotments.iter().map(|one| one.grant_bytes).sum();
            prop_assert!(granted <= host.available_bytes);
            prop_assert!(verdict.page_out_bytes <= swap_free_bytes.min(verdict.deficit_bytes));
        }
    }

    /// The pool is less by what `taken` says of what is held. Guests give what they are told within two ticks, by
    /// themselves or by a ceiling; then five ticks, which are ten seconds, are enough, and nobody loses what is protected.
    #[test]
    fn a_step_of_the_pool_is_met_within_ten_seconds(
        plans in prop::collection::vec(plan(), 1..12),
        taken_permille in 0..500u64,
    ) {
        let held: u64 = plans.iter().map(|plan| plan.held).sum();
        let capacity = held * (1000 - taken_permille) / 1000;
        prop_assume!(capacity > 0 && plans.iter().map(|plan| plan.min).sum::<u64>() <= capacity);
        let (mut tree, readings) = build(&plans, capacity, false);
        let mut fleet = Fleet::new(FleetTuning::default());
        let mut ordered: Vec<Vec<Allotment>> = Vec::new();
        for round in 0..5usize {
            let (verdict, allotments) = tick(&mut fleet, &tree, &host(500), &readings);
            prop_assert_eq!((verdict.unmet_bytes, verdict.page_out_bytes, verdict.kill), (0, 0, None));
            ordered.push(allotments);
            let Some(due) = round.checked_sub(1).and_then(|then| ordered.get(then)) else { continue };
            for (one, reading) in due.iter().zip(&readings) {
                let charge = tree.get(one.vm).unwrap().charge_bytes();
                let ceiling = one.high_bytes.unwrap_or(u64::MAX).min(one.max_bytes);
                let left = if reading.follows { charge - one.take_bytes } else { charge.min(ceiling) };
                tree.settle(one.vm, 2 + round as u64, left).unwrap();
            }
        }
        let left = tree.get(tree.root()).unwrap().charge_bytes();
        // What is not worth an order stays.
        prop_assert!(left <= capacity + plans.len() as u64 * MIB, "{} of {}", left, capacity);
        for (plan, reading) in plans.iter().zip(&readings) {
            prop_assert!(tree.get(reading.vm).unwrap().charge_bytes() >= plan.min.min(plan.held));
        }
    }

    /// On a host that stays at its end: nobody is told to swap out what is protected or has nowhere to go, and who is
    /// killed has more than is protected, is least of those who have, and is the only one until its memory is back.
    #[test]
    fn who_is_killed_is_alone_and_outside_its_protection(
        plans in prop::collection::vec(plan(), 1..8),
        swap_free_bytes in prop_oneof![Just(0), 0..1024 * MIB],
        settles_after in 1..10usize,
        kills: bool,
    ) {
        let (mut tree, mut readings) = build(&plans, 8192 * MIB, false);
        let mut fleet = Fleet::new(FleetTuning { kills, ..FleetTuning::default() });
        let host = Host { swap_free_bytes, ..host(5) };
        let (mut orphan, mut killed, mut quiet) = (None, 0, 0);
        for round in 0..60usize {
            let (verdict, allotments) = tick(&mut fleet, &tree, &host, &readings);
            let mut protection = Protection::default();
            protection.compute(&tree, tree.root(), true);
            let excess = |vm| tree.get(vm).unwrap().charge_bytes().saturating_sub(protection.get(vm).unwrap().min);
            for (one, reading) in allotments.iter().zip(&readings) {
                prop_assert!(one.page_out_bytes <= excess(one.vm));
                prop_assert!(one.page_out_bytes == 0 || (reading.pages_out && swap_free_bytes > 0 && round > 2));
            }
            quiet += 1;
            if let Some(kill) = verdict.kill {
                prop_assert!(kills && orphan.is_none() && quiet > 6, "{:?} after {}", kill, quiet);
                prop_assert!(excess(kill.vm) > 0 && kill.charge_bytes > kill.protected_bytes);
                let above_low = |vm| tree.get(vm).unwrap().charge_bytes() > protection.get(vm).unwrap().low;
                let weight = |vm| tree.get(vm).unwrap().limits().weight;
                let lesser = |reading: &&Reading| {
                    excess(reading.vm) > 0 && above_low(reading.vm) && weight(reading.vm) < kill.weight
                };
                prop_assert_eq!(readings.iter().find(lesser), None);
                readings.retain(|reading| reading.vm != kill.vm);
                tree.retire(kill.vm).unwrap();
                orphan = Some((kill.vm, round));
                killed += 1;
            }
            if let Some((vm, _)) = orphan.filter(|(_, since)| round >= since + settles_after) {
                tree.settle(vm, 1000, 0).unwrap();
                (orphan, quiet) = (None, 0);
            }
        }
        prop_assert!(kills || killed == 0);
    }

    #[test]
    fn the_same_trees_bring_about_the_same_allotments(plans in prop::collection::vec(plan(), 1..12), available in 0..100u64) {
        let (tree, readings) = build(&plans, 8192 * MIB, true);
        let run = || {
            let mut fleet = Fleet::new(FleetTuning::default());
            (0..5).map(|_| tick(&mut fleet, &tree, &host(available), &readings)).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }
}

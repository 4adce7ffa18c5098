//! Arbitration over whole trees.

#![expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]

use super::*;
use crate::zone::{Limits, Pool, Protection, Tree};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const NONE: [Cold; COLD_POINTS] = [Cold { age_ms: 0, bytes: 0 }; COLD_POINTS];

fn pool(capacity_bytes: u64) -> Tree {
    Tree::new(Pool { capacity_bytes, overcommit: true }).unwrap()
}

fn vm(tree: &mut Tree, group: &str, name: &str, limits: Limits, held: u64) -> Reading {
    let vm = tree.create_vm(group, name, limits).unwrap();
    tree.settle(vm, 1, held).unwrap();
    Reading { vm, ceiling_bytes: held, cold: NONE, yield_bytes_per_s: 0, follows: true }
}

fn host(available_permille: u64) -> Host {
    Host { total_bytes: 100_000 * MIB, available_bytes: 100 * MIB * available_permille, stall_ppm: 0 }
}

fn tick(fleet: &mut Fleet, tree: &Tree, host: &Host, readings: &[Reading]) -> (Verdict, Vec<Allotment>) {
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
    assert_eq!((verdict.deficit_bytes, verdict.directed_bytes), (100 * MIB, 25 * MIB));
    readings[0].yield_bytes_per_s = 0;
    let (verdict, _) = tick(&mut fleet, &tree, &host(500), &readings);
    assert_eq!(verdict.directed_bytes, 75 * MIB, "25 MiB are on their way");
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
    assert_eq!([0, 1].map(|one: usize| allotments[one].take_bytes), [100 * MIB; 2]);
    assert_eq!([0, 1].map(|one: usize| allotments[one].high_bytes), [Some(500 * MIB), None]);
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
}

fn plan() -> impl Strategy<Value = Plan> {
    let points =
        [(0..600_000u64, 0..4096 * MIB), (0..600_000u64, 0..4096 * MIB), (0..600_000u64, 0..4096 * MIB)];
    let limits = (0..1024 * MIB, 0..1024 * MIB, prop::option::of(2048 * MIB..8192 * MIB), 1..=10_000u32);
    (0..4usize, 0..4096 * MIB, limits, points, any::<bool>()).prop_map(
        |(group, held, limits, cold, follows)| {
            let (min, low, high, weight) = limits;
            Plan { group, held, min, low: low.max(min), high, weight, cold, follows }
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
        });
    }
    (tree, readings)
}

proptest! {
    #[test]
    fn under_pressure_no_target_rises_and_no_minimum_is_crossed(
        plans in prop::collection::vec(plan(), 1..12),
        hosts in prop::collection::vec((0..100u64, 0..4096 * MIB), 1..20),
        limited: bool,
    ) {
        let (mut tree, readings) = build(&plans, 8192 * MIB, limited);
        let mut fleet = Fleet::new(FleetTuning::default());
        let mut before: Option<Vec<u64>> = None;
        for (round, (available, held)) in hosts.into_iter().enumerate() {
            let who = &readings[round % readings.len()];
            tree.settle(who.vm, 2 + round as u64, held).unwrap();
            let (verdict, allotments) = tick(&mut fleet, &tree, &host(available), &readings);
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
                prop_assert!(one.take_bytes <= held.saturating_sub(protected), "{:?} of {}", one, held);
                prop_assert!(limited || one.high_bytes.is_none_or(|high| high >= min.min(one.target_bytes())));
            }
            let granted: u64 = allotments.iter().map(|one| one.grant_bytes).sum();
            prop_assert!(granted <= host(available).available_bytes);
        }
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

//! Arbitration: what the tree says of its nodes, and what nobody can make of it by words.

use super::tests::{MIB, host, pool, tick, vm};
use super::*;
use crate::zone::Limits;

/// After so many ticks on a host that has enough of its own.
fn after(ticks: usize, tree: &crate::zone::Tree, readings: &[Reading]) -> Vec<Allotment> {
    let mut fleet = Fleet::new(FleetTuning::default());
    (1..ticks).for_each(|_| drop(tick(&mut fleet, tree, &host(500), readings)));
    tick(&mut fleet, tree, &host(500), readings).1
}

#[test]
fn a_groups_weight_is_that_of_all_in_it() {
    let mut tree = pool(1000 * MIB);
    let weight = |weight| Limits { weight, ..Limits::default() };
    tree.create_group("services", weight(400)).unwrap();
    tree.create_group("services/old", weight(50)).unwrap();
    let readings =
        [("services", 100), ("services/old", 100), ("services", 50), ("", 100)].map(|(group, of)| {
            vm(&mut tree, group, &format!("vm{group}{of}").replace('/', "-"), weight(of), 600 * MIB)
        });
    let lambdas: Vec<_> = after(20, &tree, &readings).iter().map(|one| one.lambda_permille).collect();
    assert!(lambdas[0] > 1000, "{lambdas:?}");
    assert_eq!(lambdas, [lambdas[0], lambdas[3] / 2, lambdas[3] / 2, lambdas[3]]);
    assert_eq!(lambdas[0], lambdas[3] / 4);
}

#[test]
fn a_light_weight_is_no_pressure_where_nothing_presses() {
    let mut tree = pool(1000 * MIB);
    let readings = [vm(&mut tree, "", "a", Limits { weight: 1, ..Limits::default() }, 100 * MIB)];
    let one = after(1, &tree, &readings)[0];
    assert_eq!((one.lambda_permille, one.pressed_by), (1000, None));
}

#[test]
fn what_one_claims_to_give_spares_nobody_else() {
    let mut tree = pool(1000 * MIB);
    let mut readings = [("small", 100), ("large", 800), ("other", 1100)]
        .map(|(name, mib)| vm(&mut tree, "", name, Limits::default(), mib * MIB));
    // 1000 MiB too much, and 20 to spare.
    readings[0].yield_bytes_per_s = u64::MAX;
    let taken =
        |readings: &[Reading]| after(1, &tree, readings).iter().map(|one| one.take_bytes / MIB).sum::<u64>();
    assert_eq!(taken(&readings), 920, "no more than it has");
    readings[1].yield_bytes_per_s = u64::MAX;
    assert_eq!(taken(&readings), 920 - 5 * 32, "no more than any law gives");
}

#[test]
fn what_was_claimed_and_does_not_come_is_counted_no_longer() {
    let mut tree = pool(1000 * MIB);
    let mut readings = [("liar", 600), ("honest", 500)]
        .map(|(name, mib)| vm(&mut tree, "", name, Limits::default(), mib * MIB));
    readings[0].yield_bytes_per_s = u64::MAX;
    let mut fleet = Fleet::new(FleetTuning::default());
    let mut taken =
        || tick(&mut fleet, &tree, &host(500), &readings).1.iter().map(|one| one.take_bytes).sum::<u64>();
    let early: Vec<u64> = (0..4).map(|_| taken()).collect();
    assert_eq!(early, [0; 4], "100 MiB too much, and 160 claimed");
    assert!(taken() >= 100 * MIB);
}

#[test]
fn who_is_seen_to_give_back_what_it_claims_is_left_to_do_so() {
    let mut tree = pool(1000 * MIB);
    let mut readings = [("gives", 900), ("grows", 200)]
        .map(|(name, mib)| vm(&mut tree, "", name, Limits::default(), mib * MIB));
    readings[0].yield_bytes_per_s = 32 * MIB;
    let mut fleet = Fleet::new(FleetTuning::default());
    for ticks in 1..20 {
        tree.settle(readings[0].vm, ticks + 1, (900 - 32 * ticks) * MIB).unwrap();
        tree.settle(readings[1].vm, ticks + 1, (200 + 32 * ticks) * MIB).unwrap();
        let taken = tick(&mut fleet, &tree, &host(500), &readings).1.iter().any(|one| one.take_bytes > 0);
        assert!(!taken, "100 MiB too much, 160 claimed and 128 seen: {ticks}");
    }
}

#[test]
fn layers_of_its_own_are_no_excess_and_nobody_is_asked_for_them() {
    let mut tree = pool(1000 * MIB);
    let limits = Limits { max: Some(256 * MIB), ..Limits::default() };
    let readings = [vm(&mut tree, "", "a", limits, 20 * MIB)];
    let layer = tree.map(readings[0].vm, readings[0].vm, "a:layer").unwrap();
    tree.settle(layer, 1, 300 * MIB).unwrap();
    let one = after(50, &tree, &readings)[0];
    assert_eq!((one.lambda_permille, one.take_bytes, one.imposed_bytes), (1000, 0, None));
    // A pool that lacks more than all can give asks for the rest only.
    let other = Reading { follows: false, ..vm(&mut tree, "", "b", Limits::default(), 900 * MIB) };
    let all = after(1, &tree, &[readings[0], other]);
    assert!(all[0].take_bytes <= 20 * MIB && all[1].take_bytes >= 220 * MIB, "{all:?}");
}

#[test]
fn a_ceiling_of_a_daemon_before_is_not_lifted_while_memory_is_short() {
    let mut tree = pool(100_000 * MIB);
    let mut readings = [vm(&mut tree, "", "a", Limits::default(), 600 * MIB)];
    readings[0].ceiling_bytes = 300 * MIB;
    let mut fleet = Fleet::new(FleetTuning::default());
    let (verdict, all) = tick(&mut fleet, &tree, &host(30), &readings);
    assert!(verdict.short && all[0].target_bytes() <= 300 * MIB, "{all:?}");
    readings[0].ceiling_bytes = 0;
    let all = tick(&mut Fleet::new(FleetTuning::default()), &tree, &host(30), &readings).1;
    assert!(all[0].target_bytes() > 300 * MIB, "it has not said: {all:?}");
}

//! What must hold of Ballast's law and of the simulator itself, on small fleets.

use super::arbiters::Nobody;
use super::compare::{Contender, Order, Scale, arbitrate};
use super::guest::agent::Lie;
use super::laws::Ours;
use super::mixes::{MIB, Mix, TUNING_SEEDS, cycle, plain};
use super::series::Series;
use super::verdict::{Verdict, saved_at};
use super::world::{Plan, Tenant, World};

fn alone(tenant: Tenant, seconds: u64) -> (World<Ours>, Series) {
    let plan = Plan { tenants: vec![tenant], seconds, measured_from_s: 0, capacity: 4096.0 * MIB };
    let mut world = World::new(plan, 1, Box::new(Nobody), || Ours::new(1000));
    let mut series = Series::new(0);
    world.run(Some(&mut series));
    (world, series)
}

fn verdict(plan: Plan, order: Order) -> Verdict {
    Contender::Ours.run(Contender::Ours.usual(), plan, 1, order, None)
}

#[test]
fn runs_repeat_byte_for_byte() {
    let run = || {
        let mut series = Series::new(1);
        let plan = Mix::Churn.plan(1, 8, 1200);
        let verdict = Contender::Ours.run(1.0, plan, 1, Order::Ballast, Some(&mut series));
        format!("{verdict:?} {series:?}")
    };
    assert_eq!(run(), run());
}

#[test]
fn no_guest_holds_less_than_it_has_a_right_to() {
    let mut plan = Mix::Bursts.plan(1, 10, 1300);
    for tenant in &mut plan.tenants {
        tenant.min = tenant.spec.total * 0.4;
    }
    plan.capacity *= 0.5;
    let mins: Vec<f64> = plan.tenants.iter().map(|tenant| tenant.min).collect();
    let mut world = World::new(plan, 1, Order::Ballast.arbiter(), || Ours::new(1000));
    while !world.is_over() {
        world.tick();
        for (machine, min) in world.machines().zip(&mins) {
            assert!(machine.left_by_balloon() + 1.0 >= *min, "{} of {min}", machine.left_by_balloon());
        }
    }
}

#[test]
fn pressure_on_the_host_raises_no_sum_of_ceilings() {
    let mut plan = Mix::Calm.plan(1, 10, 900);
    plan.capacity *= 0.4;
    let mut world = World::new(plan, 1, Order::Ballast.arbiter(), || Ours::new(1000));
    world.run(None);
    assert_eq!(world.totals.grew_when_short, 0);
}

#[test]
fn a_host_that_loses_three_tenths_is_followed_within_ten_seconds() {
    const STEP_S: u64 = 900;
    let mut plan = Mix::Calm.plan(1, 20, 1200);
    for tenant in plan.tenants.iter_mut().step_by(2) {
        tenant.min = tenant.spec.total * 0.3;
    }
    let mins: Vec<f64> = plan.tenants.iter().map(|tenant| tenant.min).collect();
    let mut world = World::new(plan, 1, Order::Ballast.arbiter(), || Ours::new(1000));
    (0..STEP_S).for_each(|_| world.tick());
    // A host that just has room for them, as its pool is a sixteenth less, and then one with three tenths less.
    let held = world.totals.footprint;
    let before: Vec<f64> = world.machines().map(|machine| machine.used()).collect();
    world.set_capacity(0.7 * held * 16.0 / 15.0);
    let mut met_s = None;
    for second in 1..=60 {
        world.tick();
        if world.totals.footprint <= 0.7 * held {
            met_s = met_s.or(Some(second));
        }
        for ((machine, min), before) in world.machines().zip(&mins).zip(&before) {
            let reserve = 0.016 * machine.spec.total;
            assert!(machine.left_by_balloon() + 1.0 >= *min, "{} of {min}", machine.left_by_balloon());
            assert!(machine.used() + reserve >= min.min(*before), "{} of {min}", machine.used());
        }
    }
    assert!(
        met_s.is_some_and(|second| second <= 10),
        "{met_s:?}: {} of {}",
        world.totals.footprint,
        0.7 * held
    );
    assert!(world.machines().all(|machine| machine.counters.oom_kill == 0.0));
}

#[test]
fn steady_load_turns_no_more_than_twice_in_ten_minutes() {
    let (world, _) = alone(plain(500.0 * MIB), 3600);
    let reversals = world.meters().map(|meter| meter.reversals).max();
    assert!(reversals <= Some(12), "{reversals:?} in an hour");
}

#[test]
fn a_liar_costs_nine_honest_ones_little() {
    for lie in [Lie::Zero, Lie::Endless] {
        let mut honest = Mix::Calm.plan(1, 10, 1800);
        honest.capacity *= 0.5;
        let mut lied_to = honest.clone();
        lied_to.tenants[9].manners.lie = Some(lie);
        let footprint = |plan: Plan| {
            let mut world = World::new(plan, 1, Order::Ballast.arbiter(), || Ours::new(1000));
            world.run(None);
            let nine: Vec<_> = world.meters().take(9).cloned().collect();
            let kept: f64 = nine.iter().map(|meter| 1.0 - meter.stall()).sum();
            (nine.iter().map(|meter| meter.footprint).sum::<f64>(), kept)
        };
        let (before, after) = (footprint(honest), footprint(lied_to));
        assert!(after.0 >= 0.95 * before.0, "{lie:?}: {} of {}", after.0, before.0);
        assert!(after.1 >= 0.95 * before.1, "{lie:?}: {} of {}", after.1, before.1);
    }
}

/// Stall and saving of a law at some values, on ten guests for an hour.
fn line(mix: Mix, contender: Contender, values: &[f64]) -> Vec<(f64, f64)> {
    let run = |contender: Contender, value: f64| {
        contender.run(value, mix.plan(1, 10, 3600), 1, Order::Nobody, None)
    };
    let none = run(Contender::Nothing, 0.0);
    values
        .iter()
        .map(|value| run(contender, *value).compared_with(&none))
        .map(|it| (it.stall, it.saved))
        .collect()
}

#[test]
fn with_streams_it_saves_ten_points_more_than_tmo() {
    let ours = line(Mix::Streams, Contender::Ours, &[0.1, 0.2, 0.5, 1.0]);
    let (stall, tmo) = line(Mix::Streams, Contender::Tmo, &[1.0])[0];
    let saved = saved_at(&ours, stall).unwrap_or_default();
    assert!(saved >= tmo + 0.10, "{saved} against {tmo} at {stall}: {ours:?}");
}

#[test]
fn without_streams_it_saves_a_point_less_at_most() {
    let ours = line(Mix::Calm, Contender::Ours, &[0.1, 0.2, 0.5, 1.0, 2.0]);
    for (stall, tmo) in line(Mix::Calm, Contender::Tmo, &[1.0, 5.0, 20.0, 100.0]) {
        let saved = saved_at(&ours, stall).unwrap_or_default();
        assert!(saved >= tmo - 0.01, "{saved} against {tmo} at {stall}: {ours:?}");
    }
}

#[test]
fn equal_age_refaults_a_third_of_what_proportional_shares_do_and_the_daemon_half() {
    let scale = Scale { guests: 15, seconds: 1800, seeds: &TUNING_SEEDS[..1] };
    let rows = arbitrate(Mix::Calm, 0.7, scale);
    let refaults =
        |wanted| rows.iter().find(|(order, _)| *order == wanted).map(|(_, verdict)| verdict.refaults_per_s);
    let (age, shares) = (refaults(Order::EqualAge), refaults(Order::Proportional));
    assert!(age.unwrap() * 3.0 <= shares.unwrap(), "{age:?} against {shares:?}");
    // The daemon knows what laws tell it, no more.
    let ours = refaults(Order::Ballast);
    assert!(ours.unwrap() * 2.0 <= shares.unwrap(), "{ours:?} against {shares:?}");
}

/// Stall of the last tenth of a run.
fn late_stall(series: &Series) -> f64 {
    let late = &series.moments[series.moments.len() * 9 / 10..];
    late.iter().map(|moment| moment.stall).sum::<f64>() / late.len() as f64
}

#[test]
fn a_cold_start_is_no_thrash() {
    let mut tenant = plain(500.0 * MIB);
    tenant.stays_s = (1.0, f64::INFINITY);
    let (_, series) = alone(tenant, 1800);
    assert!(late_stall(&series) < 0.01, "{}", late_stall(&series));
    assert!(series.moments.iter().all(|moment| moment.ceiling >= 1024.0 * MIB - 1.0));
}

#[test]
fn one_pass_after_a_trim_is_no_thrash() {
    let mut tenant = plain(300.0 * MIB);
    tenant.spec.workload.stream.pages_per_s = 20.0 * MIB;
    (tenant.spec.workload.stream.period_s, tenant.spec.workload.stream.duty) = (3600.0, 0.05);
    tenant.spec.workload.stream.offset_s = 1800.0;
    let (_, series) = alone(tenant, 3600);
    let end = series.moments.last().unwrap();
    assert!(end.footprint < 700.0 * MIB, "{} MiB", end.footprint / MIB);
    assert!(late_stall(&series) < 0.01, "{}", late_stall(&series));
}

#[test]
fn a_cycle_larger_than_memory_is_seen_and_not_trimmed_further() {
    let mut tenant = plain(100.0 * MIB);
    tenant.spec.cycle = cycle(1.2 * 1024.0 * MIB, 60.0);
    let (_, series) = alone(tenant, 1800);
    let end = series.moments.last().unwrap();
    assert!(late_stall(&series) > 0.05, "the model must thrash: {}", late_stall(&series));
    assert!(end.footprint > 800.0 * MIB, "trimmed while it thrashes: {} MiB", end.footprint / MIB);
}

#[test]
fn bursts_get_their_memory_without_a_kill() {
    let verdict = verdict(Mix::Bursts.plan(1, 10, 1300), Order::Nobody);
    assert_eq!(verdict.kills, 0.0);
}

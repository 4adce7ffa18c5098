//! Which laws and arbiters are compared, each with the values that it is swept over, and how a run of one is made. Pure.

use super::arbiters::{Arbiter, Ballast, EqualAge, EqualSize, Nobody, Proportional, Tax};
use super::laws::{Age, Fixed, Law, Mom, Nothing, Ours, Senpai, Threshold, Tmo};
use super::mixes::Mix;
use super::series::Series;
use super::verdict::Verdict;
use super::world::{Plan, World};

/// A law.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Guests take what they may.
    Nothing,
    /// Ballast's, swept over both settings, as pressure moves them: stall budget in permille, age 300 s divided by it.
    Ours,
    /// The balloon leaves each a share of its memory.
    Fixed,
    /// A limit by the refault rate, a second.
    Threshold,
    /// Senpai, swept over its pressure in ms in six seconds.
    Senpai,
    /// TMO, swept over the gain.
    Tmo,
    /// TMO that also recycles.
    Recycling,
    /// Whatever MGLRU shows to be idle, swept over the age in seconds.
    Age,
    /// MOM's rules, swept over the host's free share that they are told.
    Mom,
}

impl Contender {
    /// All that are swept.
    pub const ALL: [Self; 8] = [
        Self::Ours,
        Self::Tmo,
        Self::Recycling,
        Self::Senpai,
        Self::Age,
        Self::Threshold,
        Self::Fixed,
        Self::Mom,
    ];

    /// As a user writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Ours => "ballast",
            Self::Fixed => "fixed",
            Self::Threshold => "threshold",
            Self::Senpai => "senpai",
            Self::Tmo => "tmo",
            Self::Recycling => "tmo+recycling",
            Self::Age => "age",
            Self::Mom => "mom",
        }
    }

    /// What it is swept over, with the unit.
    #[must_use]
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Ours => "stall budget, permille, and age, 300 s divided by it",
            Self::Fixed => "share of size",
            Self::Threshold => "refaults/s",
            Self::Senpai => "pressure, ms in 6 s",
            Self::Tmo | Self::Recycling => "gain",
            Self::Age => "age, s",
            Self::Mom => "host free, share",
        }
    }

    /// The values that it is swept over.
    #[must_use]
    pub fn values(self) -> &'static [f64] {
        match self {
            Self::Nothing => &[0.0],
            Self::Ours => &[0.1, 0.2, 0.5, 1.0, 2.0, 5.0],
            Self::Fixed => &[0.9, 0.8, 0.7, 0.6, 0.5],
            Self::Threshold => &[1.0, 3.0, 10.0, 30.0, 100.0],
            Self::Senpai => &[1.0, 2.0, 5.0, 10.0, 20.0],
            Self::Tmo => &[1.0, 5.0, 20.0, 100.0],
            Self::Recycling => &[2.0, 5.0, 20.0, 100.0],
            Self::Age => &[1800.0, 600.0, 300.0, 120.0, 60.0],
            Self::Mom => &[0.15, 0.10, 0.05, 0.02],
        }
    }

    /// The value that its makers, or we, run it with.
    #[must_use]
    pub fn usual(self) -> f64 {
        match self {
            Self::Nothing => 0.0,
            Self::Ours | Self::Tmo => 1.0,
            Self::Fixed => 0.7,
            Self::Threshold | Self::Senpai => 10.0,
            Self::Recycling => 5.0,
            Self::Age => 300.0,
            Self::Mom => 0.1,
        }
    }

    /// Runs a plan under it, and records one guest if asked.
    #[must_use]
    pub fn run(
        self,
        value: f64,
        plan: Plan,
        seed: u64,
        order: Order,
        series: Option<&mut Series>,
    ) -> Verdict {
        match self {
            Self::Nothing => go(plan, seed, order, series, || Nothing),
            Self::Ours => go(plan, seed, order, series, || Ours::scaled(value)),
            Self::Fixed => go(plan, seed, order, series, || Fixed::new(value)),
            Self::Threshold => go(plan, seed, order, series, || Threshold::new(value)),
            Self::Senpai => go(plan, seed, order, series, || Senpai::new(value * 1000.0)),
            Self::Tmo => go(plan, seed, order, series, || Tmo::new(value)),
            Self::Recycling => go(plan, seed, order, series, || Tmo::recycling(value)),
            Self::Age => go(plan, seed, order, series, || Age::new(value)),
            Self::Mom => go(plan, seed, order, series, || Mom::new(value)),
        }
    }
}

/// A way to divide the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// None: there is room for all.
    Nobody,
    /// Ballast's: what the daemon runs.
    Ballast,
    /// By age, with perfect knowledge.
    EqualAge,
    /// By size.
    Proportional,
    /// The same for all.
    EqualSize,
    /// By size, with a tax on what is idle.
    Tax,
}

impl Order {
    /// All that are compared.
    pub const ALL: [Self; 5] =
        [Self::Ballast, Self::EqualAge, Self::Proportional, Self::EqualSize, Self::Tax];

    /// As a user reads it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "none",
            Self::Ballast => "ballast",
            Self::EqualAge => "equal age (all-knowing)",
            Self::Proportional => "proportional",
            Self::EqualSize => "equal size",
            Self::Tax => "ESX idle tax 75 %",
        }
    }

    /// Made anew.
    #[must_use]
    pub fn arbiter(self) -> Box<dyn Arbiter> {
        match self {
            Self::Nobody => Box::new(Nobody),
            Self::Ballast => Box::new(Ballast::default()),
            Self::EqualAge => Box::new(EqualAge),
            Self::Proportional => Box::new(Proportional),
            Self::EqualSize => Box::new(EqualSize),
            Self::Tax => Box::new(Tax),
        }
    }

    /// The law that works under it: Ballast's needs Ballast's law, and the others command the balloon.
    #[must_use]
    pub fn contender(self) -> Contender {
        if self == Self::Ballast { Contender::Ours } else { Contender::Nothing }
    }
}

fn go<L: Law>(
    plan: Plan,
    seed: u64,
    order: Order,
    series: Option<&mut Series>,
    law: impl Fn() -> L,
) -> Verdict {
    let mut world = World::new(plan, seed, order.arbiter(), law);
    world.run(series);
    Verdict::new(world.meters(), &world.totals)
}

/// How large runs are.
#[derive(Clone, Copy, Debug)]
pub struct Scale<'a> {
    /// Guests in each.
    pub guests: usize,
    /// Length of each.
    pub seconds: u64,
    /// Each is run once with each of these.
    pub seeds: &'a [u64],
}

/// A law with one value of its parameter on one mix.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// The law.
    pub contender: Contender,
    /// The value.
    pub value: f64,
    /// The mean over all seeds.
    pub verdict: Verdict,
}

/// Runs laws over all their values on a mix.
#[must_use]
pub fn sweep(mix: Mix, contenders: &[Contender], scale: Scale<'_>) -> Vec<Point> {
    let none = each(mix, Contender::Nothing, 0.0, scale);
    let mut points =
        vec![Point { contender: Contender::Nothing, value: 0.0, verdict: compare(&none, &none) }];
    for contender in contenders {
        for value in contender.values() {
            let verdict = compare(&each(mix, *contender, *value, scale), &none);
            points.push(Point { contender: *contender, value: *value, verdict });
        }
    }
    points
}

fn each(mix: Mix, contender: Contender, value: f64, scale: Scale<'_>) -> Vec<Verdict> {
    let run = |seed: &u64| {
        contender.run(value, mix.plan(*seed, scale.guests, scale.seconds), *seed, Order::Nobody, None)
    };
    scale.seeds.iter().map(run).collect()
}

fn compare(verdicts: &[Verdict], none: &[Verdict]) -> Verdict {
    let compared: Vec<Verdict> =
        verdicts.iter().zip(none).map(|(verdict, none)| verdict.compared_with(none)).collect();
    Verdict::mean(&compared)
}

/// The points of one law as pairs of stall and saving, both shares.
#[must_use]
pub fn frontier(points: &[Point], contender: Contender) -> Vec<(f64, f64)> {
    let mine = points.iter().filter(|point| point.contender == contender);
    mine.map(|point| (point.verdict.stall, point.verdict.saved)).collect()
}

/// Runs all arbiters on a host with `share` of what the guests of a mix hold when nobody hinders them.
#[must_use]
pub fn arbitrate(mix: Mix, share: f64, scale: Scale<'_>) -> Vec<(Order, Verdict)> {
    let held: Vec<Verdict> = each(mix, Contender::Nothing, 0.0, scale);
    let run = |order: Order| {
        let verdicts: Vec<Verdict> = scale
            .seeds
            .iter()
            .zip(&held)
            .map(|(seed, none)| {
                let mut plan = mix.plan(*seed, scale.guests, scale.seconds);
                let measured_s = (plan.seconds - plan.measured_from_s) as f64;
                plan.capacity = share * none.gib_min * 60.0 * 262_144.0 / measured_s;
                order.contender().run(order.contender().usual(), plan, *seed, order, None).compared_with(none)
            })
            .collect();
        (order, Verdict::mean(&verdicts))
    };
    Order::ALL.into_iter().map(run).collect()
}

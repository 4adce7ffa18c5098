//! The mixes of guests that laws are compared on. Fixed before any law was tuned on them: who changes one, measures all
//! again.
//!
//! Sizes follow what is published of fleets: a third of memory cold for two minutes (Lagar-Cavilla et al., ASPLOS'19),
//! a third for five (Weiner et al., ASPLOS'22), idle guests in the majority. Pure.

use super::decay::{BINS, Row, intervals, sum};
use super::guest::agent::{Lie, Manners};
use super::guest::evict::Lists;
use super::guest::machine::Spec;
use super::guest::pages::Cycle;
use super::guest::workload::{Activity, Burst, Stream, Workload};
use super::random::Random;
use super::world::{Plan, Tenant};

/// Seeds that laws may be tuned on.
pub const TUNING_SEEDS: [u64; 3] = [1, 2, 3];

/// Seeds for the published table only.
pub const FINAL_SEEDS: [u64; 3] = [101, 102, 103];

/// A MiB in pages.
pub const MIB: f64 = 256.0;

/// A kind of fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Reuse, long phases of idleness, and one burst a guest.
    Calm,
    /// As calm, and two guests in five stream.
    Streams,
    /// Each guest allocates a third of its memory every ten minutes for one or two.
    Bursts,
    /// Busy and idle in turn, each with a period between five seconds and half an hour.
    Squares,
    /// Days of an hour.
    Diurnal,
    /// As streams, and three agents in ten lie, are lossy or fall silent.
    Liars,
    /// As streams, and guests come, go and reboot, and change what they work on.
    Churn,
}

impl Mix {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Calm, Self::Streams, Self::Bursts, Self::Squares, Self::Diurnal, Self::Liars, Self::Churn];

    /// As a user writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Streams => "streams",
            Self::Bursts => "bursts",
            Self::Squares => "squares",
            Self::Diurnal => "diurnal",
            Self::Liars => "liars",
            Self::Churn => "churn",
        }
    }

    /// What it is, in a line.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Calm => "reuse, long idle phases, one burst a guest",
            Self::Streams => "calm, and two guests in five stream",
            Self::Bursts => "a third of memory allocated every ten minutes",
            Self::Squares => "busy and idle in turn, 5 s to 30 min",
            Self::Diurnal => "days of an hour",
            Self::Liars => "streams, and three agents in ten lie, lose or fall silent",
            Self::Churn => "streams, and guests come, go, reboot and change work",
        }
    }

    /// A fleet of `guests` on a host that has room for all.
    #[must_use]
    pub fn plan(self, seed: u64, guests: usize, seconds: u64) -> Plan {
        let tenants: Vec<Tenant> =
            (0..guests).map(|index| self.tenant(seed, index, seconds as f64)).collect();
        let capacity = tenants.iter().map(|tenant| tenant.spec.total).sum::<f64>() * 1.1;
        Plan { tenants, seconds, measured_from_s: seconds / 2, capacity }
    }

    fn tenant(self, seed: u64, index: usize, seconds: f64) -> Tenant {
        let mut random = Random::new(seed ^ 0x5eed_0000, index as u64);
        let total = random.octaves(512.0 * MIB, 3.0).round();
        let base = random.between(60.0, 110.0) * MIB + total * 0.016;
        let room = total - base;
        let bursty = self == Self::Bursts;
        let used = room * if bursty { random.between(0.3, 0.5) } else { random.between(0.5, 0.85) };
        let file = random.between(0.3, 0.7);
        let demand = [shape(&mut random, used * file), shape(&mut random, used * (1.0 - file))];
        let generations = index.is_multiple_of(2);
        let spec = Spec {
            total,
            base,
            demand,
            cycle: None,
            workload: self.workload(&mut random, total, index),
            written: false,
            lists: Lists { generations, wrong: 0.1, once_first: if generations { 0.95 } else { 0.98 } },
            refetch_s: random.octaves(80e-6, 1.0),
            swap_in_s: random.octaves(20e-6, 1.0),
            swap: true,
            dirty: 0.2,
        };
        let mut tenant = Tenant {
            spec,
            manners: Manners::default(),
            stays_s: (0.0, f64::INFINITY),
            reboots_s: None,
            min: 0.0,
            group: index % 3,
        };
        match self {
            Self::Liars => tenant.manners = manners(&mut random, index, seconds),
            Self::Churn => {
                match index % 4 {
                    0 => tenant.stays_s = (random.between(0.0, 0.8) * seconds, f64::INFINITY),
                    1 => tenant.stays_s = (0.0, random.between(0.2, 1.0) * seconds),
                    2 => tenant.reboots_s = Some(random.between(0.1, 0.9) * seconds),
                    _ => {}
                }
                tenant.spec.workload.turn_over = (random.between(300.0, 1500.0), random.between(0.1, 0.5));
            }
            _ => {}
        }
        tenant
    }

    fn workload(self, random: &mut Random, total: f64, index: usize) -> Workload {
        let period_s = match self {
            Self::Squares => random.octaves(5.0, 8.5),
            _ => random.octaves(1200.0, 2.0),
        };
        let offset_s = random.unit() * period_s;
        let activity = match (self, index % 10) {
            (Self::Squares, _) => {
                Activity::Square { period_s, offset_s, duty: random.between(0.3, 0.7), low: 0.03 }
            }
            (Self::Diurnal, _) => {
                Activity::Diurnal { period_s: 3600.0, offset_s: random.between(0.0, 900.0), low: 0.05 }
            }
            (_, 0..3) => Activity::Steady(1.0),
            (_, 3..7) => Activity::Square { period_s, offset_s, duty: random.between(0.3, 0.8), low: 0.03 },
            _ => Activity::Steady(0.03),
        };
        let streams = matches!(self, Self::Streams | Self::Liars | Self::Churn) && index % 5 < 2;
        let stream = if streams {
            Stream {
                pages_per_s: random.octaves(1.0 * MIB, 5.0),
                period_s: random.octaves(60.0, 3.0),
                offset_s: random.unit() * 600.0,
                duty: random.between(0.3, 1.0),
            }
        } else {
            Stream::default()
        };
        let burst = if self == Self::Bursts {
            Burst {
                pages: total * random.between(0.25, 0.35),
                first_s: random.between(60.0, 660.0),
                period_s: 600.0,
                ramp_s: 2.0,
                length_s: random.between(60.0, 120.0),
            }
        } else {
            Burst {
                pages: total * random.between(0.05, 0.10),
                first_s: random.between(3600.0, 7000.0),
                period_s: 0.0,
                ramp_s: 2.0,
                length_s: 120.0,
            }
        };
        Workload { activity, stream, burst, turn_over: (0.0, 0.0) }
    }
}

fn manners(random: &mut Random, index: usize, seconds: f64) -> Manners {
    match index % 20 {
        0 | 1 => Manners { lie: Some(Lie::Zero), ..Manners::default() },
        2 => Manners { lie: Some(Lie::Endless), ..Manners::default() },
        3 | 4 => Manners { late: true, loss: 0.2, ..Manners::default() },
        5 => Manners { silent_from_s: Some(random.between(0.1, 0.6) * seconds), ..Manners::default() },
        _ => Manners::default(),
    }
}

/// `pages` by reuse: something hot, something warm and a cold rest, each unevenly spread over its bins.
fn shape(random: &mut Random, pages: f64) -> Row {
    let (hot, warm) = (random.between(0.15, 0.45), random.between(0.1, 0.3));
    let parts = [hot, warm, 1.0 - hot - warm];
    let intervals = intervals();
    let part = |bin: usize| usize::from(intervals[bin] > 10.0) + usize::from(intervals[bin] > 300.0);
    let mut row: Row = std::array::from_fn(|_| (0.05 + random.unit() * random.unit()) as f32);
    for which in 0..3 {
        let members: Row = std::array::from_fn(|bin| if part(bin) == which { row[bin] } else { 0.0 });
        let factor = pages * parts[which] / sum(&members);
        (0..BINS).filter(|bin| part(*bin) == which).for_each(|bin| row[bin] *= factor as f32);
    }
    row
}

/// A guest for experiments on one alone: 1 GiB, of which `hot` is used every few seconds, and nothing else unless told.
#[must_use]
pub fn plain(hot: f64) -> Tenant {
    let row: Row = std::array::from_fn(|bin| if bin < 8 { (hot / 16.0) as f32 } else { 0.0 });
    let demand = [row, row];
    let workload = Workload {
        activity: Activity::Steady(1.0),
        stream: Stream::default(),
        burst: Burst::default(),
        turn_over: (0.0, 0.0),
    };
    let spec = Spec {
        total: 1024.0 * MIB,
        base: 80.0 * MIB,
        demand,
        cycle: None,
        workload,
        written: false,
        lists: Lists { generations: false, wrong: 0.1, once_first: 0.98 },
        refetch_s: 100e-6,
        swap_in_s: 30e-6,
        swap: true,
        dirty: 0.0,
    };
    Tenant {
        spec,
        manners: Manners::default(),
        stays_s: (0.0, f64::INFINITY),
        reboots_s: None,
        min: 0.0,
        group: 0,
    }
}

/// File pages read round and round.
#[must_use]
pub fn cycle(pages: f64, round_s: f64) -> Option<Cycle> {
    Some(Cycle { pages, round_ms: (round_s * 1000.0) as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_the_same_each_time_and_another_by_seed() {
        for mix in Mix::ALL {
            let text = |seed| format!("{:?}", mix.plan(seed, 20, 7200).tenants);
            assert_eq!(text(1), text(1));
            assert_ne!(text(1), text(2));
        }
    }

    #[test]
    fn about_a_third_of_what_guests_use_is_cold() {
        let plan = Mix::Calm.plan(TUNING_SEEDS[0], 200, 7200);
        let (mut cold, mut all) = (0.0, 0.0);
        let unused = crate::simulate::decay::survive(&crate::simulate::decay::rates(), 300.0);
        for tenant in &plan.tenants {
            for row in &tenant.spec.demand {
                cold += crate::simulate::decay::dot(row, &unused);
                all += sum(row);
            }
        }
        let share = cold / all;
        assert!((0.25..0.5).contains(&share), "{share}");
    }
}

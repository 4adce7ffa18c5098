//! Guests of the experiments in the box ([`crate::experiment`]), as the model has them: to compare the two. Pure.

use super::compare::{Contender, Order};
use super::decay::{BINS, Row, intervals};
use super::guest::workload::Stream;
use super::mixes::{MIB, plain};
use super::series::Series;
use super::verdict::Verdict;
use super::world::{Plan, Tenant};
use crate::experiment::load::{HOT_MIB, STORE_MIB, TAPE_MIB, ZIPF_EXPONENT};

/// What both loads ask for in a second: their pauses bound it.
const REQUESTS_PER_S: f64 = 199.0;
/// A load warms up for so long before it is measured, as in the box.
const WARM_S: f64 = 60.0;
/// What Debian's 6.1 cloud kernel and the agent take of a guest of 512 MiB, page cache at its most.
const BASE_MIB: f64 = 73.0;
/// What the scan reads in a second.
const SCAN_MIB_PER_S: f64 = 2.0;

/// Experiments whose use of memory the model can express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Experiment {
    /// A store larger than memory, looked up by Zipf's law.
    Kv,
    /// A hot set beside a single pass over much more.
    Scan,
}

/// What one run came to, over the measured time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Integral of what the host holds.
    pub mib_s: f64,
    /// What it holds at the end.
    pub end_mib: f64,
    /// Refaults.
    pub refaults: f64,
    /// Share of time that the guest lost to memory.
    pub stall: f64,
}

impl Experiment {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Kv, Self::Scan];

    /// As a user writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Scan => "scan",
        }
    }

    /// What it is, in a line.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Kv => "a store of 640 MiB in a guest of 512, looked up by Zipf's law",
            Self::Scan => "a hot set of 96 MiB beside a single pass over 768 MiB",
        }
    }

    /// Runs it under a law, measured for so many minutes.
    #[must_use]
    pub fn run(self, contender: Contender, minutes: u64, seed: u64) -> Outcome {
        let seconds = WARM_S as u64 + 60 * minutes;
        let plan = Plan {
            tenants: vec![self.guest()],
            seconds,
            measured_from_s: WARM_S as u64,
            capacity: 4096.0 * MIB,
        };
        let mut series = Series::new(0);
        let verdict: Verdict = contender.run(contender.usual(), plan, seed, Order::Nobody, Some(&mut series));
        let measured_s = seconds as f64 - WARM_S;
        Outcome {
            mib_s: verdict.gib_min * 60.0 * 1024.0,
            end_mib: series.moments.last().map_or(0.0, |moment| moment.footprint / MIB),
            refaults: verdict.refaults_per_s * measured_s,
            stall: verdict.stall,
        }
    }

    /// On classic lists, as [`plain`] has them: Debian's 6.1 has the multi-generational LRU off.
    fn guest(self) -> Tenant {
        let mut tenant = plain(0.0);
        tenant.spec.total = 512.0 * MIB;
        tenant.spec.base = BASE_MIB * MIB;
        tenant.spec.demand = [self.file(), [0.0; BINS]];
        tenant.spec.written = true;
        if self == Self::Scan {
            let length_s = TAPE_MIB as f64 / SCAN_MIB_PER_S;
            tenant.spec.workload.stream = once(SCAN_MIB_PER_S * MIB, WARM_S, length_s);
        }
        tenant
    }

    /// Its file pages by how often they are used.
    fn file(self) -> Row {
        let mut row = [0.0; BINS];
        match self {
            Self::Kv => {
                let pages = (STORE_MIB as f64 * MIB) as u64;
                let weight = |rank: u64| (rank as f64).powf(-ZIPF_EXPONENT);
                let all: f64 = (1..=pages).map(weight).sum();
                (1..=pages).for_each(|rank| add(&mut row, 1.0, all / (weight(rank) * REQUESTS_PER_S)));
            }
            Self::Scan => {
                let pages = HOT_MIB as f64 * MIB;
                add(&mut row, pages, pages / REQUESTS_PER_S);
            }
        }
        row
    }
}

/// A stream that begins then, takes so long and does not come again.
fn once(pages_per_s: f64, at_s: f64, length_s: f64) -> Stream {
    const NEVER_S: f64 = 1e6;
    Stream { pages_per_s, period_s: NEVER_S, offset_s: NEVER_S - at_s, duty: length_s / NEVER_S }
}

/// Adds pages that are used every `interval_s` to the two bins around that, so that their mean is that on a scale of ratios.
fn add(row: &mut Row, pages: f64, interval_s: f64) {
    let intervals = intervals().map(f64::from);
    let (first, last) = (intervals[0], intervals[BINS - 1]);
    let place = (interval_s.clamp(first, last) / first).ln() / (intervals[1] / first).ln();
    let below = (place as usize).min(BINS - 2);
    let above = place - below as f64;
    row[below] += (pages * (1.0 - above)) as f32;
    row[below + 1] += (pages * above) as f32;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::decay::sum;

    #[test]
    fn all_pages_are_in_bins_around_their_intervals() {
        let kv = Experiment::Kv.file();
        assert!((sum(&kv) / (STORE_MIB as f64 * MIB) - 1.0).abs() < 1e-3);
        let scan = Experiment::Scan.file();
        assert!((sum(&scan) / (HOT_MIB as f64 * MIB) - 1.0).abs() < 1e-6);
        let used: Vec<f32> =
            intervals().into_iter().zip(scan).filter(|it| it.1 > 0.0).map(|it| it.0).collect();
        assert!(used.len() == 2 && used[0] < 123.0 && used[1] > 123.0, "{used:?}");
    }

    #[test]
    fn a_law_holds_less_and_refaults_more() {
        for experiment in Experiment::ALL {
            let run = |contender| experiment.run(contender, 16, 1);
            let (off, auto) = (run(Contender::Nothing), run(Contender::Ours));
            assert!(auto.mib_s < off.mib_s && auto.refaults >= off.refaults, "{off:?} {auto:?}");
        }
    }

    /// What `ci/bench reclaim` came to with Debian's 6.1 cloud kernel: MiB·s and refaults.
    const KERNEL: [(Experiment, u64, Contender, f64, f64); 4] = [
        (Experiment::Kv, 30, Contender::Nothing, 918_901.0, 26_187.0),
        (Experiment::Kv, 30, Contender::Ours, 494_488.0, 62_456.0),
        (Experiment::Scan, 16, Contender::Nothing, 460_906.0, 10_758.0),
        (Experiment::Scan, 16, Contender::Ours, 206_070.0, 54_665.0),
    ];

    #[test]
    fn it_is_with_the_model_as_with_a_kernel() {
        for (experiment, minutes, contender, mib_s, refaults) in KERNEL {
            let model = experiment.run(contender, minutes, 1);
            let apart = |model: f64, kernel: f64| (model / kernel - 1.0).abs();
            assert!(apart(model.mib_s, mib_s) <= 0.1, "{experiment:?} {contender:?}: {model:?}");
            assert!(apart(model.refaults, refaults) <= 0.25, "{experiment:?} {contender:?}: {model:?}");
        }
    }
}

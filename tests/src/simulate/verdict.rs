//! What a run says of a law: figures over all guests. Pure.

use super::meter::{LONGEST_RECOVERY_S, Meter};
use super::world::Totals;

/// The figures of one run, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Integral of all footprints over the measured time, in GiB times minutes.
    pub gib_min: f64,
    /// Share of that which the same guests save compared with no law; not a number until [`Self::compared_with`].
    pub saved: f64,
    /// Share of time that a guest lost to memory, in the mean.
    pub stall: f64,
    /// The same of the guest of whom 99 in a hundred are better off.
    pub stall_p99: f64,
    /// Refaults of all guests, a second.
    pub refaults_per_s: f64,
    /// Seconds from a burst or the start of work until less than a twentieth is lost, in the mean.
    pub recovery_s: f64,
    /// The same of 95 in a hundred.
    pub recovery_p95_s: f64,
    /// Turns of the footprint by more than 3 % of memory, per guest in ten minutes.
    pub reversals: f64,
    /// Jain's index of the shares of time that guests keep: 1 is fair.
    pub fairness: f64,
    /// Kills for want of memory.
    pub kills: f64,
    /// Part of the time in which guests together held more than the host has.
    pub overcommitted: f64,
}

impl Verdict {
    /// Of a run.
    pub fn new<'a>(meters: impl Iterator<Item = &'a Meter>, totals: &Totals) -> Self {
        let meters: Vec<&Meter> = meters.filter(|meter| meter.seconds > 0.0).collect();
        let count = meters.len().max(1) as f64;
        let longest = meters.iter().map(|meter| meter.seconds).fold(1.0, f64::max);
        let total = |value: fn(&Meter) -> f64| meters.iter().map(|meter| value(meter)).sum::<f64>();
        let mut stalls: Vec<f64> = meters.iter().map(|meter| meter.stall()).collect();
        stalls.sort_by(f64::total_cmp);
        let kept = |meter: &&Meter| 1.0 - meter.stall();
        let (sum, squares) = meters
            .iter()
            .map(kept)
            .fold((0.0, 0.0), |(sum, squares), kept| (sum + kept, squares + kept * kept));
        let (recovery_s, recovery_p95_s) = recoveries(&meters);
        Self {
            gib_min: total(|meter| meter.footprint) / 60.0 / 262_144.0,
            saved: f64::NAN,
            stall: total(Meter::stall) / count,
            stall_p99: stalls.get((count * 0.99) as usize).or(stalls.last()).copied().unwrap_or_default(),
            refaults_per_s: total(|meter| meter.refaults) / longest,
            recovery_s,
            recovery_p95_s,
            reversals: total(|meter| f64::from(meter.reversals)) / total(|meter| meter.seconds).max(1.0)
                * 600.0,
            fairness: sum * sum / (count * squares).max(1e-9),
            kills: total(|meter| meter.kills),
            overcommitted: totals.overcommitted_s / longest,
        }
    }

    /// What is saved compared with the same guests under no law.
    #[must_use]
    pub fn compared_with(mut self, none: &Self) -> Self {
        self.saved = 1.0 - self.gib_min / none.gib_min.max(1e-9);
        self
    }

    /// The mean of several.
    #[must_use]
    pub fn mean(verdicts: &[Self]) -> Self {
        let mean =
            |value: fn(&Self) -> f64| verdicts.iter().map(value).sum::<f64>() / verdicts.len().max(1) as f64;
        Self {
            gib_min: mean(|verdict| verdict.gib_min),
            saved: mean(|verdict| verdict.saved),
            stall: mean(|verdict| verdict.stall),
            stall_p99: mean(|verdict| verdict.stall_p99),
            refaults_per_s: mean(|verdict| verdict.refaults_per_s),
            recovery_s: mean(|verdict| verdict.recovery_s),
            recovery_p95_s: mean(|verdict| verdict.recovery_p95_s),
            reversals: mean(|verdict| verdict.reversals),
            fairness: mean(|verdict| verdict.fairness),
            kills: mean(|verdict| verdict.kills),
            overcommitted: mean(|verdict| verdict.overcommitted),
        }
    }
}

fn recoveries(meters: &[&Meter]) -> (f64, f64) {
    let mut counts = [0_u32; LONGEST_RECOVERY_S + 1];
    for meter in meters {
        counts.iter_mut().zip(meter.recoveries).for_each(|(count, more)| *count += more);
    }
    let all = counts.iter().sum::<u32>();
    let weighted: f64 =
        (0_u32..).zip(counts).map(|(second, count)| f64::from(second) * f64::from(count)).sum();
    let mut seen = 0;
    let p95 = counts.iter().position(|count| {
        seen += count;
        f64::from(seen) >= 0.95 * f64::from(all)
    });
    (weighted / f64::from(all.max(1)), p95.unwrap_or_default() as f64)
}

/// What a law saves at a given stall, between the points of its frontier that enclose it; none where it has none.
#[must_use]
pub fn saved_at(frontier: &[(f64, f64)], stall: f64) -> Option<f64> {
    let low =
        frontier.iter().filter(|point| point.0 <= stall).max_by(|left, right| left.1.total_cmp(&right.1))?;
    let between = |point: &(f64, f64)| low.1 + (point.1 - low.1) * (stall - low.0) / (point.0 - low.0);
    let above = frontier.iter().filter(|point| point.0 > stall && point.1 > low.1);
    Some(above.map(between).fold(low.1, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontier_is_read_between_its_points() {
        let frontier = [(0.001, 0.2), (0.002, 0.4), (0.004, 0.3)];
        assert_eq!(saved_at(&frontier, 0.0005), None);
        assert!((saved_at(&frontier, 0.0015).unwrap() - 0.3).abs() < 1e-9);
        assert!((saved_at(&frontier, 0.01).unwrap() - 0.4).abs() < 1e-9);
    }
}

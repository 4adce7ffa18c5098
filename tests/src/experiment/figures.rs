//! What an experiment comes to: one row for each arm, beside the one where nothing is reclaimed. Pure.

use super::beat::{Beat, Phase};
use super::kept::Kept;
use super::lifts::Lift;
use super::recorded::{Deed, Recorded};
use balloon::recording_line::Error;
use comfy_table::{CellAlignment, Table, presets};
use serde::de::DeserializeOwned;

/// One arm as it ran.
#[derive(Clone, Debug)]
pub struct Run {
    /// How memory was reclaimed.
    pub arm: String,
    /// What the workload said.
    pub beats: Vec<Beat>,
    /// What the VMM recorded.
    pub recorded: Recorded,
    /// What a workload said of sets of pages.
    pub kept: Vec<Kept>,
    /// What a workload said of bursts.
    pub lifts: Vec<Lift>,
}

/// What is told of it. Deltas are of the time in which the workload worked.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Length of that time.
    pub seconds: f64,
    /// What the host held in it.
    pub mib_s: f64,
    /// What it held when the guest had booted and done nothing, if the workload says when that was.
    pub boot_mib: Option<u64>,
    /// What it held at the end, before the last burst.
    pub end_mib: Option<u64>,
    /// Requests that were served.
    pub requests: u64,
    /// What one took on average.
    pub mean_us: f64,
    /// 99 % took no longer.
    pub p99_us: Option<u64>,
    /// The longest.
    pub worst_us: u64,
    /// The burst at the end, if there was one.
    pub burst_us: Option<u64>,
    /// Pages that were evicted and came back.
    pub refaults: u64,
    /// Of them, those that had been in use when they were evicted.
    pub restores: u64,
    /// Share of time in which the workload waited for memory.
    pub stall: f64,
    /// What the law ordered to be reclaimed.
    pub ordered_mib: u64,
    /// What of it was.
    pub reclaimed_mib: u64,
}

impl Run {
    /// Reads the lines of the workload and the recording.
    ///
    /// # Errors
    /// The recording is none.
    pub fn parse(arm: &str, load: &str, recording: &str) -> Result<Self, Error> {
        let recorded = Recorded::parse(recording)?;
        let (beats, kept, lifts) = (lines(load), lines(load), lines(load));
        Ok(Self { arm: arm.into(), beats, recorded, kept, lifts })
    }

    /// From the first beat at work to the last of all, if the workload came to its end.
    #[must_use]
    pub fn work(&self) -> Option<(&Beat, &Beat)> {
        let first = self.beats.iter().find(|beat| beat.phase == Phase::Working)?;
        let last = self.beats.last().filter(|beat| beat.phase == Phase::Done)?;
        Some((first, last))
    }

    /// What it comes to; none if the workload did not come to its end.
    #[must_use]
    pub fn figures(&self) -> Option<Figures> {
        let (first, last) = self.work()?;
        let (from, to) = (first.at_ms, last.at_ms);
        let seconds = (to - from) as f64 / 1000.0;
        let requests = last.requests - first.requests;
        let deeds = || self.recorded.deeds.iter().filter(|(at, _)| (from..to).contains(at));
        let ordered = deeds().map(|(_, deed)| if let Deed::Ordered(bytes) = deed { *bytes } else { 0 });
        let reclaimed = deeds().map(|(_, deed)| if let Deed::Reclaimed(pages) = deed { *pages } else { 0 });
        let held_mib = |phase, otherwise| {
            let beat = self.beats.iter().find(|beat| beat.phase == phase).map(|beat| beat.at_ms);
            self.recorded.resident_at(beat.or(otherwise)?).map(|bytes| bytes >> 20)
        };
        let refaults = |beat: &Beat| beat.kernel.refault_file + beat.kernel.refault_anon;
        Some(Figures {
            seconds,
            mib_s: self.recorded.integral_mib_s(from, to),
            boot_mib: held_mib(Phase::Booted, None),
            end_mib: held_mib(Phase::Rested, Some(to)),
            requests,
            mean_us: (last.busy_us - first.busy_us) as f64 / requests.max(1) as f64,
            p99_us: last.latencies.map(|latencies| latencies.p99_us),
            worst_us: self.beats.iter().filter(|beat| beat.at_ms > from).map(|beat| beat.worst_us).max()?,
            burst_us: last.burst_us,
            refaults: refaults(last) - refaults(first),
            restores: last.kernel.restore - first.kernel.restore,
            stall: (last.kernel.memory_some_us - first.kernel.memory_some_us) as f64 / 1e6 / seconds,
            ordered_mib: ordered.sum::<u64>() >> 20,
            reclaimed_mib: reclaimed.sum::<u64>() >> 8,
        })
    }
}

/// Those of that kind; which it is, its fields say.
fn lines<T: DeserializeOwned>(text: &str) -> Vec<T> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// All arms; saving and slowdown are against the one that is called `off`.
#[must_use]
pub fn table(runs: &[Run]) -> String {
    const HEADER: [&str; 15] = [
        "arm",
        "MiB*s",
        "saved",
        "boot MiB",
        "end MiB",
        "requests/s",
        "slowdown",
        "mean us",
        "p99 us",
        "worst ms",
        "burst ms",
        "refaults",
        "restores",
        "stall",
        "reclaimed",
    ];
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(HEADER);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let rate = |figures: &Figures| figures.requests as f64 / figures.seconds;
    let off = runs.iter().find(|run| run.arm == "off").and_then(Run::figures);
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let known = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let millis = |us: u64| format!("{:.1}", us as f64 / 1000.0);
    for run in runs {
        let Some(figures) = run.figures() else {
            table.add_row([run.arm.clone(), "not measured: the workload did not come to its end".into()]);
            continue;
        };
        // Where runs are not of one length, what was held is compared by the second.
        let held = |figures: &Figures| figures.mib_s / figures.seconds;
        let saved = off.as_ref().map(|off| percent(1.0 - held(&figures) / held(off)));
        // A workload that only rests is none slower.
        let busy = off.as_ref().filter(|off| off.requests > 0);
        let slowdown = busy.map(|off| percent(rate(off) / rate(&figures) - 1.0));
        table.add_row([
            run.arm.clone(),
            format!("{:.0}", figures.mib_s),
            known(saved),
            known(figures.boot_mib.map(|mib| mib.to_string())),
            known(figures.end_mib.map(|mib| mib.to_string())),
            format!("{:.1}", rate(&figures)),
            known(slowdown),
            format!("{:.1}", figures.mean_us),
            known(figures.p99_us.map(|us| us.to_string())),
            millis(figures.worst_us),
            known(figures.burst_us.map(millis)),
            figures.refaults.to_string(),
            figures.restores.to_string(),
            format!("{:.3} %", figures.stall * 100.0),
            format!("{} of {} MiB", figures.reclaimed_mib, figures.ordered_mib),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::beat::Counters;
    use super::super::recorded::Moment;
    use super::*;

    fn run(arm: &str, resident_mib: u64, requests: u64, refaults: u64) -> Run {
        let kernel =
            Counters { refault_file: refaults, memory_some_us: 10 * refaults, ..Counters::default() };
        let beats = vec![
            Beat { at_ms: 500, requests: 7, phase: Phase::Warming, ..Beat::default() },
            Beat { at_ms: 1000, phase: Phase::Working, ..Beat::default() },
            Beat {
                at_ms: 11_000,
                requests,
                busy_us: 20 * requests,
                phase: Phase::Done,
                kernel,
                ..Beat::default()
            },
        ];
        let moment = Moment { at_ms: 0, resident_bytes: resident_mib << 20, ceiling_bytes: 512 << 20 };
        let deeds =
            vec![(500, Deed::Ordered(1 << 30)), (2000, Deed::Ordered(2 << 20)), (3000, Deed::Reclaimed(256))];
        Run {
            arm: arm.into(),
            beats,
            recorded: Recorded { moments: vec![moment], deeds, ..Recorded::default() },
            kept: Vec::new(),
            lifts: Vec::new(),
        }
    }

    #[test]
    fn figures_are_of_the_time_at_work() {
        let figures = run("auto", 100, 1000, 50).figures().unwrap();
        assert_eq!((figures.requests, figures.refaults, figures.end_mib), (1000, 50, Some(100)));
        assert_eq!((figures.ordered_mib, figures.reclaimed_mib), (2, 1));
        assert!((figures.mib_s - 1000.0).abs() < 1e-9);
        assert!((figures.mean_us - 20.0).abs() < 1e-9);
        assert!((figures.stall - 50e-6).abs() < 1e-12);
    }

    #[test]
    fn arms_are_compared_with_the_one_where_nothing_is_reclaimed() {
        let text = table(&[run("off", 400, 1000, 0), run("auto", 100, 800, 9)]);
        let auto = text.lines().find(|line| line.contains("auto")).unwrap();
        assert!(auto.contains("75.0 %") && auto.contains("25.0 %"), "{text}");
        let text = table(&[run("off", 400, 0, 0), run("auto", 100, 0, 0)]);
        assert!(text.contains("75.0 %") && !text.contains("NaN"), "{text}");
    }

    #[test]
    fn a_run_without_an_end_has_no_figures() {
        let mut cut = run("auto", 100, 800, 9);
        cut.beats.pop();
        assert!(cut.figures().is_none());
        assert!(table(&[cut]).contains("not measured"));
    }
}

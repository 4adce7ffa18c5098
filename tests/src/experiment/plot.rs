//! One arm over time as an SVG file: what the host held and allowed, refaults, and time lost.

use super::figures::Run;
use std::fs;
use std::path::Path;
use vmm::plot::{Axis, Colour, Legend, Line, Panel, draw};

type Failure = Box<dyn std::error::Error>;

/// Draws it.
///
/// # Errors
/// The file cannot be written.
pub fn over_time(file: &Path, title: &str, run: &Run) -> Result<(), Failure> {
    let minutes = |at_ms: u64| at_ms as f64 / 60_000.0;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (from, to) = run.work().map_or((0, 60_000), |(first, last)| (first.at_ms, last.at_ms));
    let span = minutes(from)..minutes(to.max(from + 60_000));
    let moments = || run.recorded.moments.iter().filter(|moment| (from..=to).contains(&moment.at_ms));
    let held = moments().map(|moment| (minutes(moment.at_ms), mib(moment.resident_bytes))).collect();
    let ceiling = moments().map(|moment| (minutes(moment.at_ms), mib(moment.ceiling_bytes))).collect();
    let rates = |of: fn(&super::beat::Beat) -> f64| -> Vec<(f64, f64)> {
        let at_work = run.beats.iter().filter(|beat| (from..=to).contains(&beat.at_ms));
        let pairs = at_work.clone().zip(at_work.skip(1));
        let seconds = |ms: u64| ms.max(1) as f64 / 1000.0;
        pairs
            .map(|(before, beat)| {
                (minutes(beat.at_ms), (of(beat) - of(before)) / seconds(beat.at_ms - before.at_ms))
            })
            .collect()
    };
    let refaults = rates(|beat| (beat.kernel.refault_file + beat.kernel.refault_anon) as f64);
    let stall = rates(|beat| beat.kernel.memory_some_us as f64 / 10_000.0);
    let panel = |height, words, unit, lines: Vec<Line>| {
        let values = lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value));
        let most = values.fold(0.1, f64::max) * 1.1;
        Panel { lines, ..Panel::new(height, Axis::new(words, span.clone()), Axis::new(unit, 0.0..most)) }
    };
    let memory = vec![
        Line::new("held by the host", Colour::Vermilion, held),
        Line::new("allowed", Colour::Grey, ceiling),
    ];
    let panels = [
        Panel { title: title.into(), legend: Some(Legend::Right), ..panel(400, "", "MiB", memory) },
        panel(190, "", "refaults/s", vec![Line::new("refaults", Colour::Blue, refaults)]),
        panel(210, "minutes", "waiting, %", vec![Line::new("waiting for memory", Colour::Purple, stall)]),
    ];
    fs::write(file, draw(1000, &panels, true)?)?;
    Ok(())
}

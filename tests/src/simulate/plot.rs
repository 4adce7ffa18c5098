//! Plots as SVG files: what laws save against what that costs, and one guest over time.

use super::compare::{Contender, Point, frontier};
use super::series::{Moment, Series};
use std::fs;
use std::path::Path;
use vmm::plot::{Axis, Colour, Legend, Line, Panel, draw};

/// Nobody runs guests that lose more than this share of their time: what is worse is left out.
const WORST: f64 = 0.02;

/// One of a moment's numbers.
type Value = fn(&Moment) -> f64;

type Failure = Box<dyn std::error::Error>;

/// Saving against mean stall, a line for each law.
///
/// # Errors
/// The file cannot be written.
pub fn frontiers(file: &Path, title: &str, points: &[Point]) -> Result<(), Failure> {
    let least =
        points.iter().map(|point| point.verdict.stall).filter(|stall| *stall > 1e-5).fold(0.01, f64::min);
    let shown = |stall: f64| stall <= WORST;
    let most = points
        .iter()
        .map(|point| point.verdict.stall)
        .filter(|stall| shown(*stall))
        .fold(2.0 * least, f64::max);
    let saved = points
        .iter()
        .filter(|point| shown(point.verdict.stall))
        .map(|point| point.verdict.saved)
        .fold(0.05, f64::max);
    let line = |(contender, colour): (Contender, Colour)| {
        let mut points: Vec<(f64, f64)> = frontier(points, contender)
            .iter()
            .map(|(stall, saved)| (stall.max(least) * 100.0, saved * 100.0))
            .collect();
        points.sort_by(|left, right| left.0.total_cmp(&right.0));
        let width = if contender == Contender::Ours { 4 } else { 2 };
        Line { width, has_dots: true, ..Line::new(contender.name(), colour, points) }
    };
    let stalls = Axis {
        is_log: true,
        label: |stall| format!("{stall:.3}"),
        ..Axis::new("time lost to memory, mean of guests, %", least * 80.0..most * 120.0)
    };
    let panel = Panel {
        title: title.into(),
        lines: Contender::ALL.into_iter().zip(Colour::ALL).map(line).collect(),
        legend: Some(Legend::Left),
        ..Panel::new(560, stalls, Axis::new("memory saved, %", 0.0..saved * 110.0))
    };
    fs::write(file, draw(900, &[panel], true)?)?;
    Ok(())
}

/// One guest over time: what is held for it and what it is allowed above, what it lost and refaulted below.
///
/// # Errors
/// The file cannot be written.
pub fn over_time(file: &Path, title: &str, series: &Series) -> Result<(), Failure> {
    let mib = |pages: f64| pages / 256.0;
    let minutes = |second: u64| second as f64 / 60.0;
    let end = minutes(series.moments.last().map_or(60, |moment| moment.second));
    let most =
        series.moments.iter().map(|moment| mib(moment.footprint.max(moment.used))).fold(1.0, f64::max) * 1.1;
    let lines: [(&str, Colour, Value); 3] = [
        ("held by the host", Colour::Vermilion, |moment| moment.footprint),
        ("used by the guest", Colour::Blue, |moment| moment.used),
        ("allowed", Colour::Grey, |moment| moment.ceiling),
    ];
    let line = |(name, colour, value): (&'static str, Colour, Value)| {
        let points =
            series.moments.iter().map(|moment| (minutes(moment.second), mib(value(moment)).min(most)));
        Line::new(name, colour, points.collect())
    };
    let stalls: Vec<(f64, f64)> =
        series.moments.iter().map(|moment| (minutes(moment.second), moment.stall * 100.0)).collect();
    let worst = stalls.iter().map(|(_, stall)| *stall).fold(1.0, f64::max) * 1.1;
    let panels = [
        Panel {
            title: title.into(),
            lines: lines.map(line).into(),
            legend: Some(Legend::Right),
            ..Panel::new(400, Axis::new("", 0.0..end), Axis::new("MiB", 0.0..most))
        },
        Panel {
            lines: vec![Line { width: 1, ..Line::new("time lost", Colour::Purple, stalls) }],
            ..Panel::new(240, Axis::new("minutes", 0.0..end), Axis::new("time lost, %", 0.0..worst))
        },
    ];
    fs::write(file, draw(1000, &panels, true)?)?;
    Ok(())
}

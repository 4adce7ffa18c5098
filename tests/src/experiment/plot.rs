//! One arm over time as an SVG file: what the host held and allowed, refaults, and time lost.

use super::figures::Run;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

type Failure = Box<dyn std::error::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Of Okabe and Ito, for those who see few colours too.
const VERMILION: RGBColor = RGBColor(213, 94, 0);
const BLUE: RGBColor = RGBColor(0, 114, 178);
const PURPLE: RGBColor = RGBColor(204, 121, 167);
const GREY: RGBColor = RGBColor(150, 150, 150);

/// Minutes and values of one line, with its name and colour.
type Line = (&'static str, RGBColor, Vec<(f64, f64)>);

/// Draws it.
///
/// # Errors
/// The file cannot be written.
pub fn over_time(file: &Path, title: &str, run: &Run) -> Result<(), Failure> {
    let root = SVGBackend::new(file, (1000, 800)).into_drawing_area();
    root.fill(&WHITE)?;
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
    let (upper, lower) = root.split_vertically(400);
    let (middle, lower) = lower.split_vertically(190);
    let both = [("held by the host", VERMILION, held), ("allowed", GREY, ceiling)];
    chart(&upper, title, "MiB", span.clone(), &both)?;
    chart(&middle, "", "refaults/s", span.clone(), &[("refaults", BLUE, refaults)])?;
    chart(&lower, "", "waiting, %", span, &[("waiting for memory", PURPLE, stall)])?;
    root.present()?;
    Ok(())
}

fn chart(
    area: &Area<'_>,
    title: &str,
    unit: &str,
    span: std::ops::Range<f64>,
    lines: &[Line],
) -> Result<(), Failure> {
    let values = lines.iter().flat_map(|(_, _, line)| line.iter().map(|(_, value)| *value));
    let most = values.fold(0.1, f64::max) * 1.1;
    let mut builder = ChartBuilder::on(area);
    builder.margin(10).x_label_area_size(30).y_label_area_size(60);
    if !title.is_empty() {
        builder.caption(title, ("sans-serif", 20));
    }
    let mut chart = builder.build_cartesian_2d(span, 0.0..most)?;
    chart.configure_mesh().x_desc("minutes").y_desc(unit).light_line_style(WHITE).draw()?;
    for (name, colour, line) in lines {
        chart
            .draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    Ok(())
}

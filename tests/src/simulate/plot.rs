//! Plots as SVG files: what laws save against what that costs, and one guest over time.

use super::compare::{Contender, Point, frontier};
use super::series::{Moment, Series};
use plotters::prelude::*;
use std::path::Path;

/// Colours that are told apart by those who see few of them too (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(150, 150, 150),
];

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
    let root = SVGBackend::new(file, (900, 560)).into_drawing_area();
    root.fill(&WHITE)?;
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
    let stalls = (least * 80.0..most * 120.0).log_scale();
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(54)
        .build_cartesian_2d(stalls, 0.0..saved * 110.0)?;
    chart
        .configure_mesh()
        .x_desc("time lost to memory, mean of guests, %")
        .y_desc("memory saved, %")
        .x_label_formatter(&|stall| format!("{stall:.3}"))
        .light_line_style(WHITE)
        .draw()?;
    for (contender, colour) in Contender::ALL.into_iter().zip(COLOURS) {
        let mut line: Vec<(f64, f64)> = frontier(points, contender)
            .iter()
            .map(|(stall, saved)| (stall.max(least) * 100.0, saved * 100.0))
            .collect();
        line.sort_by(|left, right| left.0.total_cmp(&right.0));
        let width = if contender == Contender::Ours { 4 } else { 2 };
        chart
            .draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(width)))?
            .label(contender.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(width)));
        chart.draw_series(line.into_iter().map(|at| Circle::new(at, 4, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    root.present()?;
    Ok(())
}

/// One guest over time: what is held for it and what it is allowed above, what it lost and refaulted below.
///
/// # Errors
/// The file cannot be written.
pub fn over_time(file: &Path, title: &str, series: &Series) -> Result<(), Failure> {
    let root = SVGBackend::new(file, (1000, 640)).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(400);
    let mib = |pages: f64| pages / 256.0;
    let minutes = |second: u64| second as f64 / 60.0;
    let end = minutes(series.moments.last().map_or(60, |moment| moment.second));
    let most =
        series.moments.iter().map(|moment| mib(moment.footprint.max(moment.used))).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(&upper)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(24)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end, 0.0..most)?;
    chart.configure_mesh().y_desc("MiB").light_line_style(WHITE).draw()?;
    let lines: [(&str, RGBColor, Value); 3] = [
        ("held by the host", COLOURS[0], |moment| moment.footprint),
        ("used by the guest", COLOURS[1], |moment| moment.used),
        ("allowed", COLOURS[7], |moment| moment.ceiling),
    ];
    for (name, colour, value) in lines {
        let line = series.moments.iter().map(|moment| (minutes(moment.second), mib(value(moment)).min(most)));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    let stalls: Vec<(f64, f64)> =
        series.moments.iter().map(|moment| (minutes(moment.second), moment.stall * 100.0)).collect();
    let worst = stalls.iter().map(|(_, stall)| *stall).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(&lower)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end, 0.0..worst)?;
    chart.configure_mesh().x_desc("minutes").y_desc("time lost, %").light_line_style(WHITE).draw()?;
    chart.draw_series(LineSeries::new(stalls, COLOURS[3].stroke_width(1)))?;
    root.present()?;
    Ok(())
}

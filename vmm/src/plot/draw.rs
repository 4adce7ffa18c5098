//! Panels drawn with `plotters`, and what it cannot: marks that a pointer makes speak. Pure.

#![forbid(unsafe_code)]

use super::{Axis, Legend, Line, Panel};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use std::fmt::{Display, Write};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A plot cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw: {0}")]
pub struct Error(String);

fn failed(error: impl Display) -> Error {
    Error(error.to_string())
}

/// Draws `panels`, each `width` pixels wide, on white or on nothing.
///
/// # Errors
/// A range is none.
pub fn draw(width: u32, panels: &[Panel], on_white: bool) -> Result<String, Error> {
    let height = panels.iter().map(|panel| panel.height).sum();
    let (mut svg, mut marks) = (String::new(), String::new());
    {
        let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        if on_white {
            root.fill(&WHITE).map_err(failed)?;
        }
        let mut rest = root.clone();
        for panel in panels {
            let (area, below) = rest.split_vertically(panel.height);
            if panel.x.is_log {
                chart(&area, panel, panel.x.range.clone().log_scale(), &mut marks)?;
            } else {
                chart(&area, panel, panel.x.range.clone(), &mut marks)?;
            }
            rest = below;
        }
        root.present().map_err(failed)?;
    }
    let end = svg.rfind("</svg>").ok_or_else(|| failed("there is no end"))?;
    svg.insert_str(end, &marks);
    Ok(svg)
}

fn chart<X>(area: &Area<'_>, panel: &Panel, x: X, marks: &mut String) -> Result<(), Error>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
{
    let Axis { words, range, label, .. } = &panel.y;
    let mut builder = ChartBuilder::on(area);
    builder.margin(10).margin_right(18);
    builder.x_label_area_size(if panel.x.words.is_empty() { 22 } else { 42 }).y_label_area_size(76);
    if !panel.title.is_empty() {
        builder.caption(&panel.title, ("sans-serif", 18));
    }
    let mut chart = builder.build_cartesian_2d(x, range.clone()).map_err(failed)?;
    let x_label = panel.x.label;
    chart
        .configure_mesh()
        .x_desc(panel.x.words)
        .y_desc(*words)
        .x_label_formatter(&|x| x_label(*x))
        .y_label_formatter(&|y| label(*y))
        .y_labels(usize::try_from(panel.height / 45).unwrap_or(5).max(3))
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 13))
        .max_light_lines(0)
        .bold_line_style(BLACK.mix(0.1))
        .axis_style(BLACK.mix(0.4))
        .draw()
        .map_err(failed)?;
    for Line { name, colour, width, has_dots, is_filled, points } in &panel.lines {
        let style = colour.rgb().stroke_width(*width);
        if let ([(from, _), ..], [.., (to, _)], true) = (&points[..], &points[..], is_filled) {
            let outline = points.iter().copied().chain([(*to, range.start), (*from, range.start)]);
            let area = Polygon::new(outline.collect::<Vec<_>>(), colour.rgb().mix(0.2).filled());
            chart.draw_series([area]).map_err(failed)?;
        }
        let series = chart.draw_series(LineSeries::new(points.iter().copied(), style)).map_err(failed)?;
        if panel.legend.is_some() {
            series.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
        if *has_dots {
            let dots = points.iter().map(|at| Circle::new(*at, 4, colour.rgb().filled()));
            chart.draw_series(dots).map_err(failed)?;
        }
    }
    if let Some(corner) = panel.legend.filter(|_| !panel.lines.is_empty()) {
        let position = match corner {
            Legend::Left => SeriesLabelPosition::UpperLeft,
            Legend::Right => SeriesLabelPosition::UpperRight,
        };
        chart
            .configure_series_labels()
            .position(position)
            .background_style(WHITE.mix(0.8))
            .label_font(("sans-serif", 13))
            .draw()
            .map_err(failed)?;
    }
    for mark in &panel.marks {
        let (x, y) = chart.backend_coord(&mark.at);
        // The second rectangle is what a pointer has to hit. Memory takes whatever is written.
        let _ = writeln!(
            marks,
            "<g class=\"mark\" transform=\"translate({x} {y})\"><title>{}</title>\
             <rect x=\"-1\" y=\"-7\" width=\"2\" height=\"14\" fill=\"{}\"/>\
             <rect x=\"-4\" y=\"-9\" width=\"8\" height=\"18\" fill-opacity=\"0\"/></g>",
            escaped(&mark.words),
            mark.colour.hex()
        );
    }
    Ok(())
}

/// `text` as text of HTML and SVG, and as the value of an attribute. What XML has no place for is replaced.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                escaped.push(char::REPLACEMENT_CHARACTER);
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

//! Plots as SVG: panels of lines, one above the other, on one scale of time or of anything else, and rectangles divided by
//! weight. Pure; axes, ticks and legends are `plotters`'.
//!
//! Called by `ballast report`, and by the simulator and the experiments of the tests.

#![forbid(unsafe_code)]

mod colour;
mod draw;
mod treemap;

pub use colour::{Colour, dark_style};
pub use draw::{Error, draw, escaped};
pub use treemap::{Frame, squarify};

use std::ops::Range;

/// A plot and its scales.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Above it; empty is none.
    pub title: String,
    /// Its height in pixels, with all words around it.
    pub height: u32,
    /// From left to right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// What is drawn, later ones over earlier ones.
    pub lines: Vec<Line>,
    /// Single moments, over all lines.
    pub marks: Vec<Mark>,
    /// Where the names of the lines stand; nowhere without.
    pub legend: Option<Legend>,
}

/// A scale.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it measures; empty is none.
    pub words: &'static str,
    /// From where to where.
    pub range: Range<f64>,
    /// By powers of ten.
    pub is_log: bool,
    /// How a number on it is written.
    pub label: fn(f64) -> String,
}

/// One thing over the scale.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: &'static str,
    /// Its colour.
    pub colour: Colour,
    /// Its width in pixels.
    pub width: u32,
    /// A dot at each point.
    pub has_dots: bool,
    /// The area down to nothing has its colour, too.
    pub is_filled: bool,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// A moment.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Where it is.
    pub at: (f64, f64),
    /// Its colour.
    pub colour: Colour,
    /// What a pointer over it shows, in any words.
    pub words: String,
}

/// A corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legend {
    /// The upper left one.
    Left,
    /// The upper right one.
    Right,
}

impl Axis {
    /// A scale of `range`, in equal steps, with numbers as they are.
    #[must_use]
    pub fn new(words: &'static str, range: Range<f64>) -> Self {
        Self { words, range, is_log: false, label: plain }
    }
}

impl Panel {
    /// One without lines.
    #[must_use]
    pub fn new(height: u32, x: Axis, y: Axis) -> Self {
        Self { title: String::new(), height, x, y, lines: Vec::new(), marks: Vec::new(), legend: None }
    }
}

impl Line {
    /// A line of the usual width.
    #[must_use]
    pub fn new(name: &'static str, colour: Colour, points: Vec<(f64, f64)>) -> Self {
        Self { name, colour, width: 2, has_dots: false, is_filled: false, points }
    }
}

/// A number with as many decimals as it needs.
fn plain(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel() -> Panel {
        let line = Line::new("held", Colour::Vermilion, vec![(0.0, 1.0), (10.0, 3.0)]);
        let mark = Mark { at: (5.0, 2.0), colour: Colour::Blue, words: "<b>&\"why\"".into() };
        Panel {
            title: "a <title>".into(),
            lines: vec![line],
            marks: vec![mark],
            legend: Some(Legend::Right),
            ..Panel::new(300, Axis::new("minutes", 0.0..10.0), Axis::new("MiB", 0.0..4.0))
        }
    }

    #[test]
    fn a_plot_is_one_image_of_all_panels() {
        let svg = draw(800, &[panel(), panel()], true).unwrap();
        assert!(svg.starts_with("<svg width=\"800\" height=\"600\""), "{}", &svg[..200]);
        assert!(svg.ends_with("</svg>\n") && svg.matches("</svg>").count() == 1);
        assert_eq!(svg.matches("<title>").count(), 2);
        assert!(svg.contains("&lt;b&gt;&amp;&quot;why&quot;") && !svg.contains("<b>"), "words are words");
        assert!(svg.contains("a &lt;title&gt;"));
        // The mark lies in the middle of its own panel.
        let marks: Vec<f64> = svg
            .split("class=\"mark\" transform=\"translate(")
            .skip(1)
            .map(|rest| rest.split([' ', ')']).nth(1).unwrap().parse().unwrap())
            .collect();
        assert!((50.0..250.0).contains(&marks[0]) && (marks[1] - marks[0] - 300.0).abs() < 1.0, "{marks:?}");
    }

    #[test]
    fn a_dark_page_has_a_colour_for_each_that_is_drawn() {
        let svg = draw(800, &[panel()], true).unwrap();
        let style = dark_style();
        for attribute in ["fill=\"#", "stroke=\"#"] {
            for rest in svg.split(attribute).skip(1) {
                let selector = format!("[{}{}\"]", attribute, rest.split('"').next().unwrap());
                assert!(style.contains(&selector), "{selector} in {style}");
            }
        }
    }

    #[test]
    fn nothing_can_be_drawn_and_so_can_a_logarithm() {
        let empty = Panel { lines: Vec::new(), ..panel() };
        assert!(draw(800, &[empty], false).is_ok());
        let log = Panel { x: Axis { is_log: true, ..Axis::new("", 0.001..10.0) }, ..panel() };
        assert!(draw(800, &[log], false).unwrap().contains("<polyline"));
        let filled = Line { is_filled: true, ..Line::new("held", Colour::Sky, vec![(0.0, 1.0), (9.0, 3.0)]) };
        let filled = Panel { lines: vec![filled], ..panel() };
        assert!(draw(800, &[filled], false).unwrap().contains("<polygon"));
        for (number, text) in [(0.0, "0"), (100.0, "100"), (0.25, "0.25")] {
            assert_eq!(plain(number), text);
        }
    }
}

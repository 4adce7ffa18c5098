//! Histories as an HTML page that needs nothing else: no scripts, no fonts, no other files. Pure.
//!
//! What comes from a recording of a microVM is numbers, and words of this program's own. Names of files, and of what a host's
//! recording tells of, are escaped.

#![forbid(unsafe_code)]

use super::curve::{Curve, Moment};
use super::history::History;
use super::host::HostHistory;
use super::host_section;
use crate::cli::format::printable;
use crate::plot::{Axis, Colour, Error, Legend, Line, Mark, Panel, dark_style, draw, escaped};
use balloon::size::Size;
use std::fmt::Write;
use std::ops::Range;

const STYLE: &str = include_str!("style.css");
/// Of all plots, in pixels of their own; a page makes them as wide as it is.
const WIDTH: u32 = 1000;
const MIB: f64 = (1 << 20) as f64;
const HOUR_MS: u64 = 3_600_000;

/// Rows of marks, upwards.
const ROWS: [&str; 3] = ["evict", "ceiling", "state"];

/// A page of all `hosts`, and then of all microVMs' `histories`, each with its name.
///
/// # Errors
/// A plot cannot be drawn.
pub fn page(hosts: &[(String, HostHistory)], histories: &[(String, History)]) -> Result<String, Error> {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>Ballast report</title>\n<style>\n",
    );
    // Memory takes whatever is written.
    let _ = write!(
        page,
        "{STYLE}@media (prefers-color-scheme: dark) {{\n{}}}\n</style>\n</head>\n<body>\n",
        dark_style()
    );
    page.push_str("<h1>Ballast report</h1>\n<p>What microVMs had of the host's memory");
    if !histories.is_empty() {
        page.push_str(", and what their reclaim laws decided. Marks below a plot of memory say why when a pointer is over them");
    }
    page.push_str(".</p>\n");
    for (name, host) in hosts {
        host_section::section(name, host, WIDTH, &mut page)?;
    }
    for (name, history) in histories {
        section(name, history, &mut page)?;
    }
    page.push_str("</body>\n</html>\n");
    Ok(page)
}

fn section(name: &str, history: &History, page: &mut String) -> Result<(), Error> {
    let _ = writeln!(page, "<section>\n<h2>{}</h2>\n<dl>", escaped(&printable(name)));
    for (what, figure) in figures(history) {
        let _ = writeln!(page, "<div><dt>{what}</dt><dd>{}</dd></div>", escaped(&figure));
    }
    page.push_str("</dl>\n");
    page.push_str(&draw(WIDTH, &panels(history), false)?);
    decisions(history, page);
    page.push_str("</section>\n");
    Ok(())
}

/// What it comes to.
fn figures(history: &History) -> Vec<(&'static str, String)> {
    let size = history.header.size_bytes as f64;
    let bytes = |bytes: f64| Size::from_bytes(bytes as u64 >> 20 << 20).to_string();
    let unknown = || "not recorded".to_owned();
    let saved = |held: f64| format!("{:.0} %", 100.0 * (1.0 - held / size.max(1.0)));
    let resident = history.resident.mean();
    let percent = |share: f64| format!("{:.3} %", share * 100.0);
    vec![
        ("length", clock(history.end_ms)),
        ("guest memory", bytes(size)),
        ("held on average", resident.map_or_else(unknown, bytes)),
        ("of it not held", resident.map_or_else(unknown, saved)),
        ("used on average", history.used.mean().map_or_else(unknown, bytes)),
        ("evicted by order", bytes(history.evicted as f64 * 4096.0)),
        ("refaulted", bytes(history.refaulted as f64 * 4096.0)),
        ("time stalled", history.stall.mean().map_or_else(unknown, percent)),
        ("decisions", history.decisions.to_string()),
    ]
}

fn panels(history: &History) -> Vec<Panel> {
    let (unit_ms, unit) = time_unit(history.end_ms);
    let end = (history.end_ms.max(1000) as f64) / unit_ms as f64;
    let x = |words| Axis::new(words, 0.0..end);
    let points = |curve: &Curve, scale: f64| -> Vec<(f64, f64)> {
        curve.points().map(|(at_ms, value)| (at_ms / unit_ms as f64, value * scale)).collect()
    };
    let line = |name, colour, curve: &Curve, scale| Line::new(name, colour, points(curve, scale));
    let most = [&history.resident, &history.ceiling, &history.used].map(Curve::most);
    let most = most.into_iter().fold(MIB, f64::max) / MIB;
    let memory = Panel {
        lines: vec![
            line("ceiling", Colour::Grey, &history.ceiling, 1.0 / MIB),
            line("used by the guest", Colour::Blue, &history.used, 1.0 / MIB),
            line("held by the host", Colour::Vermilion, &history.resident, 1.0 / MIB),
        ],
        legend: Some(Legend::Right),
        // Room for the legend above the highest line.
        ..Panel::new(320, x(""), Axis::new("MiB", above(most * 1.4)))
    };
    let refaults = Panel {
        lines: vec![line("refaults", Colour::Green, &history.refaults, 1.0)],
        ..Panel::new(150, x(""), Axis::new("refaults/s", above(history.refaults.most())))
    };
    let stall = Panel {
        lines: vec![line("stall", Colour::Purple, &history.stall, 100.0)],
        ..Panel::new(150, x(""), Axis::new("stalled, %", above(history.stall.most() * 100.0)))
    };
    let mut panels = vec![memory, marks(history, unit_ms, x("")), refaults, stall];
    if history.lambda.most() > 1.0 {
        panels.push(Panel {
            lines: vec![line("pressure", Colour::Orange, &history.lambda, 1.0)],
            ..Panel::new(150, x(""), Axis::new("pressure", above(history.lambda.most())))
        });
    }
    if let Some(last) = panels.last_mut() {
        (last.x.words, last.height) = (unit, last.height.saturating_add(20));
    }
    panels
}

/// In what a time of that length is counted, and its name.
pub(super) fn time_unit(length_ms: u64) -> (u64, &'static str) {
    if length_ms >= 3 * HOUR_MS { (HOUR_MS, "hours") } else { (60_000, "minutes") }
}

/// From nothing to somewhat more than `most`.
pub(super) fn above(most: f64) -> Range<f64> {
    0.0..(most * 1.08).max(0.1)
}

fn marks(history: &History, unit_ms: u64, x: Axis) -> Panel {
    let rows = [&history.evictions, &history.ceilings, &history.states];
    let colours = [Colour::Vermilion, Colour::Grey, Colour::Blue];
    let mut panel = Panel::new(96, x, Axis { label: row_name, ..Axis::new("", -0.5..2.5) });
    for ((row, moments), colour) in rows.into_iter().enumerate().zip(colours) {
        panel.marks.extend(moments.iter().map(|moment| Mark {
            at: (moment.at_ms as f64 / unit_ms as f64, row as f64),
            colour,
            words: format!("{}  {}", clock(moment.at_ms), words(moment)),
        }));
    }
    panel
}

fn row_name(number: f64) -> String {
    let row = number.round();
    let name = ROWS.iter().enumerate().find(|(at, _)| *at as f64 == row && (number - row).abs() < 0.01);
    name.map_or_else(String::new, |(_, name)| (*name).into())
}

/// Its own, and how many are not told apart from it.
fn words(moment: &Moment) -> String {
    match moment.more {
        0 => moment.words.clone(),
        more => format!("{} (and {more} more soon after)", moment.words),
    }
}

/// `1:02:03` after an hour, two minutes and three seconds.
pub(super) fn clock(at_ms: u64) -> String {
    let seconds = at_ms / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// The same for whoever has no pointer.
fn decisions(history: &History, page: &mut String) {
    let mut all: Vec<&Moment> = [&history.states, &history.ceilings, &history.evictions]
        .into_iter()
        .flat_map(|moments| moments.iter())
        .collect();
    all.sort_by_key(|moment| moment.at_ms);
    let _ =
        writeln!(page, "<details><summary>Decisions in words</summary>\n<table>\n<tr><th>at<th>what and why");
    for moment in all {
        let _ = writeln!(page, "<tr><td>{}<td>{}", clock(moment.at_ms), escaped(&words(moment)));
    }
    page.push_str("</table>\n</details>\n");
}

#[cfg(test)]
mod tests {
    use super::super::history::{Reader, tests::recording};
    use super::super::host::tests as host_recording;
    use super::*;

    fn history() -> History {
        let mut reader = Reader::default();
        for line in recording().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            reader.line(line).unwrap();
        }
        reader.end().unwrap()
    }

    #[test]
    fn a_page_has_all_that_it_shows() {
        let page = page(&[], &[("web".into(), history()), ("db".into(), history())]).unwrap();
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert_eq!((page.matches("<svg ").count(), page.matches("<h2>").count()), (2, 2));
        for words in [
            "held by the host",
            "refaults/s",
            "stalled, %",
            "pressure",
            "minutes",
            "<dd>1 GiB</dd>",
            "<dd>5:01</dd>",
        ] {
            assert!(page.contains(words), "no '{words}'");
        }
        assert!(page.contains("<title>0:") && page.contains("now trimming"), "marks say why");
        for foreign in ["<script", "http://", "https://", "src=", "@import", "url("] {
            let found = page.replace("http://www.w3.org/2000/svg", "").contains(foreign);
            assert!(!found, "{foreign}");
        }
    }

    #[test]
    fn a_name_is_no_markup() {
        let page = page(&[], &[("<img src=x onerror=alert(1)>\u{1b}[31m".into(), history())]).unwrap();
        assert!(page.contains("<h2>&lt;img src=x onerror=alert(1)&gt;"), "escaped");
        assert!(!page.contains("<img") && !page.contains('\u{1b}'));
    }

    #[test]
    fn hosts_come_first() {
        let host = host_recording::read(&host_recording::recording()).unwrap();
        let page = page(&[("host.trace".into(), host)], &[("web.trace".into(), history())]).unwrap();
        let headings: Vec<_> =
            page.split("<h2>").skip(1).filter_map(|rest| rest.split("</h2>").next()).collect();
        assert_eq!(headings, ["Host: host.trace", "web.trace"]);
        assert!(!page.replace("http://www.w3.org/2000/svg", "").contains("http:"));
    }

    #[test]
    fn a_recording_of_nothing_is_a_page_too() {
        let mut reader = Reader::default();
        reader.line(recording().split(|byte| *byte == b'\n').next().unwrap()).unwrap();
        let page = page(&[], &[("empty".into(), reader.end().unwrap())]).unwrap();
        assert!(page.contains("<dd>not recorded</dd>") && page.contains("<svg "));
    }

    #[test]
    fn times_are_read_like_a_clock() {
        assert_eq!(
            (clock(7000), clock(62_000), clock(3_723_000)),
            ("0:07".into(), "1:02".into(), "1:02:03".into())
        );
    }
}

//! A host's part of the page: what its microVMs had together, and maps of its zones. Pure.

#![forbid(unsafe_code)]

use super::curve::Curve;
use super::host::{HostHistory, held_bytes};
use super::map::{Part, map};
use super::page::{above, clock, time_unit};
use super::tree::{Tree, limit};
use crate::cli::format::printable;
use crate::plot::{Axis, Colour, Error, Legend, Line, Panel, draw, escaped};
use balloon::control::host_trace::Moment;
use balloon::size::Size;
use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MIB: f64 = (1 << 20) as f64;

/// Writes what `history` tells to `page`.
pub fn section(name: &str, history: &HostHistory, width: u32, page: &mut String) -> Result<(), Error> {
    // Memory takes whatever is written.
    let _ = writeln!(page, "<section>\n<h2>Host: {}</h2>\n<dl>", escaped(&printable(name)));
    for (what, figure) in figures(history) {
        let _ = writeln!(page, "<div><dt>{what}</dt><dd>{}</dd></div>", escaped(&figure));
    }
    page.push_str("</dl>\n");
    page.push_str(&draw(width, &panels(history), false)?);
    if let (Some(last), Some(highest)) = (&history.last, &history.highest) {
        if held_bytes(last) >= held_bytes(highest) {
            zones("the last moment, at which most was held", last, page);
        } else {
            zones("the last moment", last, page);
            zones("when most was held", highest, page);
        }
    }
    page.push_str("</section>\n");
    Ok(())
}

/// What it comes to.
fn figures(history: &HostHistory) -> Vec<(&'static str, String)> {
    let bytes = |bytes: f64| Size::from_bytes(bytes as u64 >> 20 << 20).to_string();
    let known = |figure: Option<String>| figure.unwrap_or_else(|| "not recorded".into());
    let pool = |moment: &Rc<Moment>| moment.pool;
    let began = UNIX_EPOCH.checked_add(Duration::from_millis(history.began_ms));
    // What no clock shows is none: the formatter knows years up to 9999.
    let began = began.filter(|_| history.began_ms < 253_402_300_800_000);
    vec![
        ("began, UTC", known(began.map(date))),
        ("length", clock(history.end_ms)),
        ("memory of the host", known(history.total.mean().map(bytes))),
        ("pool", known(history.capacity.mean().map(bytes))),
        ("held on average", known(history.held.mean().map(bytes))),
        ("held at most", known(history.highest.as_ref().map(|moment| bytes(held_bytes(moment) as f64)))),
        ("available at least", known(history.least_available_bytes.map(|least| bytes(least as f64)))),
        (
            "maximums at the end",
            known(history.last.as_ref().map(|last| bytes(pool(last).committed_bytes as f64))),
        ),
        (
            "minimums at the end",
            known(history.last.as_ref().map(|last| bytes(pool(last).protected_bytes as f64))),
        ),
        ("microVMs at most", history.most_vms.to_string()),
        ("refaulted", bytes(history.refaulted as f64 * 4096.0)),
        ("time stalled", known(history.stall.mean().map(|share| format!("{:.3} %", share * 100.0)))),
    ]
}

/// `2025-10-09 08:53`.
fn date(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.get(..16).unwrap_or(&text).replace('T', " ")
}

fn panels(history: &HostHistory) -> Vec<Panel> {
    let (unit_ms, unit) = time_unit(history.end_ms);
    let end = (history.end_ms.max(1000) as f64) / unit_ms as f64;
    let line = |name, colour, curve: &Curve, scale: f64| {
        let points = curve.points().map(|(at_ms, value)| (at_ms / unit_ms as f64, value * scale));
        Line::new(name, colour, points.collect())
    };
    // Lines of one scale, with room for the legend above the highest.
    let panel = |words, scale: f64, legend: f64, height, lines: &[(&'static str, Colour, &Curve)]| {
        let most = lines.iter().map(|(_, _, curve)| curve.most() * scale).fold(0.0, f64::max);
        let lines = lines.iter().map(|(name, colour, curve)| line(name, *colour, curve, scale));
        Panel {
            lines: lines.collect(),
            legend: (legend > 1.0).then_some(Legend::Right),
            ..Panel::new(height, Axis::new("", 0.0..end), Axis::new(words, above(most * legend)))
        }
    };
    let memory = |lines: &[(&'static str, Colour, &Curve)]| {
        let most = lines.iter().map(|(_, _, curve)| curve.most()).fold(MIB, f64::max);
        let is_large = most >= 4.0 * 1024.0 * MIB;
        let (words, unit) = if is_large { ("GiB", 1024.0 * MIB) } else { ("MiB", MIB) };
        let mut panel = panel(words, 1.0 / unit, 1.5, 320, lines);
        if let Some(held) = panel.lines.last_mut() {
            held.is_filled = true;
        }
        panel
    };
    let mut panels = vec![
        memory(&[
            ("all memory of the host", Colour::Black, &history.total),
            ("pool", Colour::Grey, &history.capacity),
            ("available", Colour::Blue, &history.available),
            ("held by the pool", Colour::Vermilion, &history.held),
        ]),
        memory(&[
            ("ceilings of all microVMs", Colour::Grey, &history.ceilings),
            ("targets", Colour::Blue, &history.targets),
            ("held", Colour::Vermilion, &history.charges),
        ]),
        panel("refaults/s", 1.0, 1.0, 150, &[("refaults", Colour::Green, &history.refaults)]),
        panel(
            "stalled, %",
            100.0,
            1.6,
            170,
            &[
                ("guests, on average", Colour::Sky, &history.guest_stall),
                ("the host", Colour::Purple, &history.stall),
            ],
        ),
        panel("pressure", 1.0, 1.0, 150, &[("pressure", Colour::Orange, &history.lambda)]),
    ];
    if history.swapped.most() > 0.0 {
        let lines = [
            ("swap that is free", Colour::Grey, &history.swap_free),
            ("swapped out", Colour::Purple, &history.swapped),
        ];
        panels.push(panel("MiB", 1.0 / MIB, 1.6, 170, &lines));
    }
    if let Some(last) = panels.last_mut() {
        (last.x.words, last.height) = (unit, last.height.saturating_add(20));
    }
    panels
}

/// The map of a moment, its key, and the same for whoever has no pointer.
fn zones(which: &str, moment: &Moment, page: &mut String) {
    let map = map(moment);
    let size = |bytes: u64| Size::from_bytes(bytes >> 20 << 20);
    let _ = write!(
        page,
        "<h3>Zones at {}, {which}</h3>\n<p>{} of the pool's {} are held.",
        clock(moment.now_ms),
        size(held_bytes(moment)),
        size(moment.pool.capacity_bytes)
    );
    if map.undrawn_bytes > 0 {
        let _ = write!(page, " What is free is not drawn: {}.", size(map.undrawn_bytes));
    }
    if moment.left_out > 0 {
        let _ = write!(page, " {} nodes were too many to be recorded.", moment.left_out);
    }
    if map.parts.is_empty() {
        return page.push_str("</p>\n");
    }
    page.push_str(" As much area as memory; a pointer over a part shows its limits.</p>\n");
    key(&map.parts, page);
    page.push_str(&map.svg);
    table(moment, page);
}

fn key(parts: &[Part], page: &mut String) {
    page.push_str("<p class=\"key\">");
    for part in parts {
        let _ = writeln!(
            page,
            "<span><svg width=\"14\" height=\"14\" viewBox=\"0 0 14 14\"><rect x=\"1\" y=\"1\" width=\"12\" height=\"12\" {}/></svg> \
             {}</span>",
            part.paint(1.0),
            part.words()
        );
    }
    page.push_str("</p>\n");
}

fn table(moment: &Moment, page: &mut String) {
    let tree = Tree::new(&moment.nodes);
    page.push_str("<details><summary>Zones in figures</summary>\n<table class=\"zones\">\n<tr>");
    for heading in ["zone", "kind", "held", "protected", "min", "low", "high", "max", "target", "ceiling"] {
        let _ = write!(page, "<th>{heading}");
    }
    for (at, node) in tree.held() {
        let guest = node.guest;
        let known = |bytes: u64| Some(bytes).filter(|bytes| *bytes > 0);
        let sizes = [
            Some(node.charge_bytes),
            known(node.protected_bytes),
            node.min_bytes,
            node.low_bytes,
            node.high_bytes,
            node.max_bytes,
            guest.and_then(|guest| guest.target_bytes),
            guest.and_then(|guest| known(guest.ceiling_bytes)),
        ];
        let orphan = if node.orphan { ", ended" } else { "" };
        let _ = write!(page, "\n<tr><td>{}<td>{}{orphan}", escaped(&tree.path(at)), node.kind);
        sizes.iter().for_each(|bytes| {
            let _ = write!(page, "<td>{}", limit(*bytes));
        });
    }
    page.push_str("\n</table>\n</details>\n");
}

#[cfg(test)]
mod tests {
    use super::super::host::Reader;
    use super::super::host::tests::{read, recording};
    use super::*;
    use balloon::control::host_trace::{Header, line};

    fn written(history: &HostHistory) -> String {
        let mut page = String::new();
        section("host <b>", history, 1000, &mut page).unwrap();
        page
    }

    #[test]
    fn a_host_is_plotted_and_mapped_at_its_end_and_at_its_height() {
        let page = written(&read(&recording()).unwrap());
        for words in [
            "<h2>Host: host &lt;b&gt;</h2>",
            "<dd>2025-10-09 08:53</dd>",
            "held by the pool",
            "available",
            "targets",
            "refaults/s",
            "guests, on average",
            "pressure",
            "<polygon",
            "Zones at 9:58, the last moment<",
            "Zones at 6:38, when most was held<",
            "<td>ci/test/cache<td>zone<td>69 MiB<td>-",
        ] {
            assert!(page.contains(words), "no '{words}'");
        }
        assert_eq!(page.matches("class=\"map\"").count(), 2);
        assert!(!page.contains("swapped out"), "nothing was");
    }

    #[test]
    fn one_moment_is_mapped_once_and_none_is_a_page_too() {
        let whole = recording();
        let one: Vec<u8> = whole.split_inclusive(|byte| *byte == b'\n').take(2).flatten().copied().collect();
        let page = written(&read(&one).unwrap());
        assert!(page.contains("Zones at 0:00, the last moment, at which most was held"));
        assert_eq!(page.matches("class=\"map\"").count(), 1);
        let idle = [line(&Header::new(0)), line(&Moment::default()), line(&Moment::default())];
        let page = written(&read(&idle.map(Option::unwrap).concat()).unwrap());
        assert!(page.contains("0 B of the pool's 0 B are held") && !page.contains("class=\"map\""));
        let mut reader = Reader::default();
        reader.line(line(&Header::new(u64::MAX)).unwrap().trim_ascii_end()).unwrap();
        let page = written(&reader.end().unwrap());
        assert!(page.contains("not recorded") && !page.contains("class=\"map\""));
    }
}

//! Draws `ballast top`. Pure: the state goes in, cells come out.
//!
//! No colours, only bold and reverse on the terminal's own: readable on every background, and `NO_COLOR` asks for nothing
//! more.

#![forbid(unsafe_code)]

use super::column::{Column, state};
use super::view::{HostLook, View, Vm};
use super::words::{percent, size, wrapped};
use crate::cli::format::{lasted, printable};
use crate::cli::pressure::{IN_FULL, IN_SHORT, pressure};
use balloon::control::api::ZoneKind;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, TableState, Wrap};
use std::time::Duration;

/// Rows of the table that are kept as long as there are rows for anything.
const TABLE_ROWS: u16 = 5;
/// Rows of the details: title, three lines of facts, the plot, a heading and some decisions.
const DETAIL_ROWS: u16 = 12;
/// Of them, the least that tell something.
const LEAST_DETAIL_ROWS: u16 = 6;
const PLOT_ROWS: u16 = 2;
/// Words in front of facts are so wide.
const LABEL_WIDTH: usize = 10;

const HELP: &[&str] = &[
    "up down j k   select a microVM; also page up, page down, home, end",
    "s > <         the column to sort by; r reverses the order",
    "space         pause; q leaves; h shows this",
    "",
    "STATE     what the reclaim law does",
    "CPU%      of one CPU, by the VMM: the guest's work and its own",
    "USED      what neither the balloon has nor the guest calls available",
    "TARGET    the footprint that the law wants",
    "RESIDENT  what the host holds of it",
    "SAVED     what the host does not hold of its size",
    "REFAULTS  pages a second evicted and needed again",
    "STALL%    share of time that the guest waits for memory",
    "ZONES     private ones, and image layers it shares",
];

/// Draws the state; `table` remembers how far the table was scrolled.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, table: &mut TableState) {
    let [header, body, footer] =
        Layout::vertical([Constraint::Length(3), Constraint::Fill(1), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Text::from(header_lines(view, header.width)), header);
    frame.render_widget(footer_line(view), footer);
    if view.shows_help() {
        let help = Text::from_iter(HELP.iter().map(|line| Line::raw(*line)));
        return frame.render_widget(Paragraph::new(help).block(titled(" help ")), body);
    }
    let details = body.height.saturating_sub(TABLE_ROWS + 1).min(DETAIL_ROWS);
    let details = if details < LEAST_DETAIL_ROWS { 0 } else { details };
    let [rows, details] = Layout::vertical([Constraint::Fill(1), Constraint::Length(details)]).areas(body);
    draw_table(frame, view, table, rows);
    if let Some(vm) = view.selected_vm().filter(|_| !details.is_empty()) {
        draw_details(frame, view, vm, details);
    }
}

fn titled(title: &str) -> Block<'_> {
    Block::new().borders(Borders::TOP).title(title.bold())
}

/// A word in bold, then facts.
fn fact(label: &str, facts: String) -> Line<'static> {
    Line::from(vec![Span::from(format!("{label:LABEL_WIDTH$}")).bold(), Span::from(facts)])
}

fn header_lines(view: &View, width: u16) -> Vec<Line<'static>> {
    let Some(host) = view.host() else { return vec![Line::raw("asking ...")] };
    let sum = |of: fn(&Vm) -> Option<u64>| view.vms().iter().filter_map(of).fold(0, u64::saturating_add);
    let sizes = sum(|vm| vm.usage.size_bytes);
    let (resident, saved) = (sum(|vm| vm.usage.resident_bytes), sum(|vm| vm.usage.saved_bytes));
    let count = match view.vms().len() {
        1 => "1 microVM".to_owned(),
        count => format!("{count} microVMs"),
    };
    let saving = format!(
        "resident {} of {}, saved {} ({} %)",
        size(resident),
        size(sizes),
        size(saved),
        percent(saved, sizes)
    );
    vec![
        fact("host", host_words(host)),
        fact("committed", committed_words(host, sizes, usize::from(width).saturating_sub(LABEL_WIDTH))),
        fact(&count, format!(" {saving}")),
    ]
}

fn host_words(host: &HostLook) -> String {
    let pressure = host
        .stall_ppm
        .map_or_else(|| "unknown".into(), |ppm| format!("{}.{:02} %", ppm / 10_000, ppm % 10_000 / 100));
    let (total, available) = (host.total_bytes, host.available_bytes);
    let part = percent(available, total);
    format!("{}, {} available ({part} %), memory pressure {pressure}", size(total), size(available))
}

/// What microVMs may use at most, against what there is for them: in few words where there is little room.
fn committed_words(host: &HostLook, sizes: u64, room: usize) -> String {
    let long = committed_in(host, sizes, "of the pool's", IN_FULL);
    if long.chars().count() <= room { long } else { committed_in(host, sizes, "of", IN_SHORT) }
}

fn committed_in(host: &HostLook, sizes: u64, of: &str, pressing: [&str; 3]) -> String {
    match &host.daemon {
        Some(daemon) => {
            let (committed, capacity) = (daemon.committed_bytes, daemon.capacity_bytes);
            let part = percent(committed, capacity);
            let mut words = format!("{} {of} {} ({part} %)", size(committed), size(capacity));
            for clause in pressure(daemon, pressing) {
                words.push_str(&format!(", {clause}"));
            }
            words
        }
        None => {
            format!("{} ({} % of the host), without ballastd", size(sizes), percent(sizes, host.total_bytes))
        }
    }
}

fn footer_line(view: &View) -> Line<'static> {
    let (column, reversed) = view.sort();
    let order = match (column.is_word(), reversed) {
        (true, false) => "ascending",
        (true, true) => "descending",
        (false, false) => "largest first",
        (false, true) => "smallest first",
    };
    let paused = if view.is_paused() { Span::from(" paused ").reversed() } else { Span::from("") };
    let gap = if view.is_paused() { " " } else { "" };
    let words =
        format!("{gap}by {}, {order}   h help  s < > sort  r reverse  space pause  q quit", column.heading());
    Line::from(vec![paused, Span::from(words)])
}

fn draw_table(frame: &mut Frame<'_>, view: &View, table: &mut TableState, area: Rect) {
    if view.host().is_some() && view.vms().is_empty() {
        let words = "No microVM runs. `ballast run -d IMAGE` starts one in the background.";
        return frame.render_widget(Paragraph::new(words).wrap(Wrap { trim: true }), area);
    }
    let columns = Column::fitting(area.width);
    let (sort, _) = view.sort();
    let aligned = |column: Column, text: String| {
        let line = Line::from(text);
        Cell::from(if column.is_word() { line } else { line.right_aligned() })
    };
    let headings = columns.iter().map(|column| {
        let style = if *column == sort { Modifier::BOLD | Modifier::UNDERLINED } else { Modifier::BOLD };
        aligned(*column, column.heading().into()).style(Style::new().add_modifier(style))
    });
    let rows = view
        .vms()
        .iter()
        .map(|vm| Row::new(columns.iter().map(|column| aligned(*column, printable(&column.cell(vm))))));
    let widths = columns.iter().map(|column| match column {
        Column::Name => Constraint::Fill(1),
        column => Constraint::Length(column.width()),
    });
    table.select(view.position());
    let widget = Table::new(rows, widths)
        .header(Row::new(headings))
        .column_spacing(1)
        .row_highlight_style(Style::new().reversed());
    frame.render_stateful_widget(widget, area, table);
}

fn draw_details(frame: &mut Frame<'_>, view: &View, vm: &Vm, area: Rect) {
    let title = format!(" {} {} {} ", printable(&vm.usage.name), vm.usage.id, state(vm));
    let block = titled(&title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [facts, plot, decisions] =
        Layout::vertical([Constraint::Length(2), Constraint::Length(PLOT_ROWS), Constraint::Fill(1)])
            .areas(inner);
    let lines = vec![fact("resident", memory_words(vm)), fact("zones", zone_words(vm))];
    frame.render_widget(Text::from(lines), facts);
    draw_plot(frame, view, plot);
    draw_decisions(frame, view, decisions);
}

fn memory_words(vm: &Vm) -> String {
    let usage = &vm.usage;
    let Some(all) = usage.size_bytes else { return "it does not say".into() };
    let resident = usage.resident_bytes.map_or_else(|| "unknown".into(), size);
    let mut words = format!("{resident} of {}", size(all));
    if let Some(saved) = usage.saved_bytes {
        words.push_str(&format!(", {} % saved", percent(saved, all)));
    }
    for (bytes, what) in [(usage.target_bytes, "target"), (usage.ceiling_bytes, "ceiling")] {
        words.push_str(&bytes.map(|bytes| format!(", {what} {}", size(bytes))).unwrap_or_default());
    }
    words
}

fn zone_words(vm: &Vm) -> String {
    let Some(zones) = &vm.zones else { return "it does not say".into() };
    let mut words: Vec<_> = zones
        .iter()
        .filter(|zone| zone.kind == ZoneKind::Private)
        .map(|zone| {
            let resident = zone.resident_bytes.map_or_else(|| "unknown".into(), size);
            format!("{} {resident} of {}", printable(&zone.name), size(zone.size_bytes))
        })
        .collect();
    let shared: Vec<_> = zones.iter().filter(|zone| zone.kind == ZoneKind::Shared).collect();
    if !shared.is_empty() {
        let sizes = shared.iter().fold(0u64, |sum, zone| sum.saturating_add(zone.size_bytes));
        let layers = if shared.len() == 1 { "layer" } else { "layers" };
        words.push(format!("{} shared {layers} of {}", shared.len(), size(sizes)));
    }
    words.join(", ")
}

/// Resident memory over time, the newest right, from nothing to the most there was.
fn draw_plot(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let [labels, bars] =
        Layout::horizontal([Constraint::Length(LABEL_WIDTH as u16), Constraint::Fill(1)]).areas(area);
    let newest: Vec<_> = view.residents().rev().take(usize::from(bars.width)).collect();
    let most = newest.iter().flatten().copied().max().unwrap_or(0);
    let label = Text::from(vec![Line::raw("history").bold(), Line::raw(size(most))]);
    frame.render_widget(label, labels);
    let plot = Sparkline::default().data(newest.into_iter().rev()).max(most.max(1));
    frame.render_widget(plot, bars);
}

/// The newest first, as many as there is room for.
fn draw_decisions(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let room = usize::from(area.width).saturating_sub(LABEL_WIDTH);
    let lines = view.decisions().iter().rev().flat_map(|decision| {
        let ago = lasted(Duration::from_millis(decision.age_ms));
        let words = printable(&format!("{}: {}", decision.order, decision.reason));
        let labels = std::iter::once(ago).chain(std::iter::repeat(String::new()));
        labels.zip(wrapped(&words, room)).map(|(label, line)| fact(&label, line)).collect::<Vec<_>>()
    });
    frame.render_widget(Text::from_iter(lines.take(area.height.into())), area);
}

//! Verdicts as tables for a terminal. Pure.

use super::compare::{Contender, Order, Point, frontier};
use super::experiment::Outcome;
use super::mixes::Mix;
use super::verdict::{Verdict, saved_at};
use comfy_table::{CellAlignment, Table, presets};

fn table(header: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.iter().map(|title| title.to_uppercase()));
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn fine(share: f64) -> String {
    format!("{:.3} %", share * 100.0)
}

fn figures(verdict: &Verdict) -> Vec<String> {
    vec![
        percent(verdict.saved),
        fine(verdict.stall),
        fine(verdict.stall_p99),
        format!("{:.0}", verdict.refaults_per_s),
        format!("{:.1} s", verdict.recovery_s),
        format!("{:.0} s", verdict.recovery_p95_s),
        format!("{:.2}", verdict.reversals),
        format!("{:.4}", verdict.fairness),
        format!("{:.0}", verdict.kills),
    ]
}

const FIGURES: [&str; 9] =
    ["saved", "stall", "stall p99", "refaults/s", "recovery", "p95", "reversals", "fairness", "kills"];

/// All points of a mix.
#[must_use]
pub fn points(points: &[Point]) -> String {
    let header: Vec<&str> = ["law", "at"].into_iter().chain(FIGURES).collect();
    let mut table = table(&header, 1);
    for point in points {
        let at = if point.contender == Contender::Nothing { String::new() } else { point.value.to_string() };
        let cells = [point.contender.name().to_string(), at];
        table.add_row(cells.into_iter().chain(figures(&point.verdict)));
    }
    table.to_string()
}

/// What arbiters did on a host of `share` of what guests would hold.
#[must_use]
pub fn arbitration(rows: &[(Order, Verdict)]) -> String {
    let header: Vec<&str> = ["division"].into_iter().chain(FIGURES).chain(["over capacity"]).collect();
    let mut table = table(&header, 1);
    for (order, verdict) in rows {
        let cells = [order.name().to_string()].into_iter().chain(figures(verdict));
        table.add_row(cells.chain([percent(verdict.overcommitted)]));
    }
    table.to_string()
}

/// What each law saves at the stall that TMO costs at each gain, mix by mix.
#[must_use]
pub fn at_equal_stall(mixes: &[(Mix, Vec<Point>)]) -> String {
    let mut table = table(&["mix", "stall of tmo", "tmo", "ballast", "points more"], 1);
    for (mix, points) in mixes {
        let ours = frontier(points, Contender::Ours);
        for (stall, saved) in frontier(points, Contender::Tmo) {
            let mine = saved_at(&ours, stall);
            let more =
                mine.map_or("never so low".to_string(), |mine| format!("{:+.1}", (mine - saved) * 100.0));
            let mine = mine.map_or("-".to_string(), percent);
            table.add_row([mix.name().to_string(), fine(stall), percent(saved), mine, more]);
        }
    }
    table.to_string()
}

/// Runs of one experiment, of which the first is under no law.
#[must_use]
pub fn outcomes(runs: &[(Contender, Outcome)]) -> String {
    let mut table = table(&["law", "MiB*s", "saved", "end MiB", "refaults", "stall"], 1);
    let without = runs.first().map_or(f64::NAN, |(_, outcome)| outcome.mib_s);
    for (contender, outcome) in runs {
        table.add_row([
            contender.name().to_string(),
            format!("{:.0}", outcome.mib_s),
            percent(1.0 - outcome.mib_s / without),
            format!("{:.0}", outcome.end_mib),
            format!("{:.0}", outcome.refaults),
            fine(outcome.stall),
        ]);
    }
    table.to_string()
}

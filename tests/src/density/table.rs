//! All ramps beside one another. Reading them is the only wiring.

use super::arm::Arm;
use super::figures::Ramp;
use super::kind::Kind;
use super::step::{Age, End, Step};
use super::told::Told;
use comfy_table::{CellAlignment, Table, presets};
use std::fs;
use std::io;
use std::path::Path;

/// How much longer one request in a hundred may take than with the first few microVMs where nothing is reclaimed.
const BOUNDS: [f64; 4] = [1.25, 1.5, 2.0, 3.0];

/// Reads the results of a directory, of as many arms as there are.
///
/// # Errors
/// One cannot be read or is none.
pub fn read(directory: &Path) -> io::Result<Vec<Ramp>> {
    let mut ramps = Vec::new();
    for arm in Arm::ALL {
        match fs::read_to_string(directory.join(format!("{}.jsonl", arm.name()))) {
            Ok(text) => ramps.push(Ramp::parse(arm, &text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ramps)
}

/// How many microVMs each held, and what that was like: with as many as free page reporting alone held, and with as many as it
/// held itself.
#[must_use]
pub fn table(ramps: &[Ramp]) -> String {
    let reporting = ramps.iter().find(|ramp| ramp.arm == Arm::Reporting);
    let equal = reporting.map_or(0, Ramp::most_held);
    let counts = |age| {
        let bounds = BOUNDS.map(|bound| format!("p99 within {bound}x"));
        let mut table =
            columns(["arm", "microVMs", "to reporting"].map(String::from).into_iter().chain(bounds));
        table.add_rows(Arm::ALL.map(|arm| match ramps.iter().find(|ramp| ramp.arm == arm) {
            Some(ramp) => count(ramp, reporting, age),
            None => vec![arm.name().into(), "not measured".into()],
        }));
        table
    };
    let (settled, any) = (counts(Age::Settled), counts(Age::Any));
    let like = |vms: &dyn Fn(&Ramp) -> usize| {
        let header = [
            "arm",
            "microVMs",
            "used, MiB",
            "MiB each",
            "idle p99, ms",
            "with starts",
            "store p99, ms",
            "with starts",
            "store requests/s",
            "unit or link, mean ms",
            "chunk, mean ms",
            "chunks/s",
            "stall",
            "refaults/s",
        ];
        let mut table = columns(header.map(String::from));
        let rows =
            ramps.iter().filter_map(|ramp| Some(like(ramp, ramp.steps.get(vms(ramp).checked_sub(1)?)?)));
        table.add_rows(rows);
        table
    };
    let (at_equal, at_own) = (like(&|_| equal), like(&Ramp::most_held));
    format!(
        "Held, p99 of those that have settled:\n\n{settled}\n\nHeld, p99 also of those that have just started:\n\n{any}\n\nWith {equal}, as many as reporting held:\n\n{at_equal}\n\nEach with as many as it held:\n\n{at_own}"
    )
}

fn columns(header: impl IntoIterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A `+` says that there was room for more.
fn count(ramp: &Ramp, reporting: Option<&Ramp>, age: Age) -> Vec<String> {
    let held = ramp.most_held();
    let is_open = matches!(ramp.end, None | Some(End::Enough));
    let times = |reporting: &Ramp| format!("{:.2}x", held as f64 / reporting.most_held().max(1) as f64);
    let mut row = vec![
        ramp.arm.name().into(),
        format!("{held}{}", if is_open { "+" } else { "" }),
        known(reporting.map(times)),
    ];
    row.extend(BOUNDS.map(|bound| {
        known(reporting.and_then(|of| ramp.held_within(bound, of, age)).map(|vms| vms.to_string()))
    }));
    row
}

fn like(ramp: &Ramp, step: &Step) -> Vec<String> {
    let told = |kind| ramp.told(step.vms, kind, Age::Any).unwrap_or_default();
    let p99 = |kind, age| {
        known(ramp.p99_us(step.vms, kind, age).map(|us| format!("{:.2}", f64::from(us) / 1000.0)))
    };
    let mean = |told: &Told| {
        let requests = u64::try_from(told.took_us.len()).unwrap_or(0);
        let sum: u64 = told.took_us.iter().map(|us| u64::from(*us)).sum();
        known((requests > 0).then(|| format!("{:.1}", sum as f64 / requests as f64 / 1000.0)))
    };
    let mut all = Told::default();
    Kind::ALL.map(told).iter().for_each(|told| all.add(told));
    vec![
        ramp.arm.name().into(),
        step.vms.to_string(),
        (step.used_bytes >> 20).to_string(),
        format!("{:.0}", step.used_bytes as f64 / f64::from(1 << 20) / step.vms.max(1) as f64),
        p99(Kind::Idle, Age::Settled),
        p99(Kind::Idle, Age::Any),
        p99(Kind::Store, Age::Settled),
        p99(Kind::Store, Age::Any),
        format!("{:.2}", told(Kind::Store).per_second()),
        mean(&ramp.told_until(step.vms, Kind::Compile).unwrap_or_default()),
        mean(&told(Kind::Scan)),
        format!("{:.3}", told(Kind::Scan).per_second()),
        format!("{:.3} %", all.stall() * 100.0),
        format!("{:.1}", all.refaults_per_second()),
    ]
}

fn known(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".into())
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::ramp;
    use super::*;

    #[test]
    fn arms_are_compared_and_what_did_not_run_is_said() {
        let mut ballast = ramp(Arm::Ballast, 24, |_| 130);
        ballast.end = Some(End::Enough);
        let text = table(&[ramp(Arm::Reporting, 12, |_| 100), ballast]);
        let row = |name: &str| text.lines().find(|line| line.starts_with(&format!("| {name}"))).unwrap();
        let cells = |name: &str| row(name).split('|').map(|cell| cell.trim().to_string()).collect::<Vec<_>>();
        assert_eq!(cells("ballast")[1..8], ["ballast", "23+", "2.09x", "0", "23", "23", "23"]);
        assert_eq!(cells("reporting")[1..5], ["reporting", "11", "1.00x", "11"]);
        assert!(row("tmo5").contains("not measured"), "{text}");
        assert!(text.contains("With 11, as many as reporting held"));
    }
}

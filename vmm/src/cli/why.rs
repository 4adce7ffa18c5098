//! `ballast why NAME`: what memory a microVM has, and the last decisions of its reclaim law, in words and numbers.

use super::client;
use super::daemon::Daemon;
use super::dirs::Dirs;
use super::format::{Format, lasted, printable, write_list};
use super::inspect::words::{ceiling, lines, numbers, policy, resident, size};
use super::output::Output;
use super::pressure::{IN_FULL, pressure};
use balloon::control::api::MemoryDocument;
use balloon::control::fleet::HostDocument;
use balloon::control::reclaim::{DecisionDocument, DecisionsDocument, ReclaimDocument};
use balloon::policy::Mode;
use clap::Args;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Tell why a running microVM has the memory that it has
#[derive(Args, Debug)]
pub struct WhyArgs {
    /// Name of the microVM
    name: String,
    /// How many decisions, the newest last
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    last: usize,
    /// How to write it; json is the decisions alone, with all numbers
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the verb.
///
/// # Errors
/// There is no such microVM, or nobody takes the list.
pub fn run(args: &WhyArgs) -> Result<ExitCode, Box<dyn Error>> {
    let state = Dirs::find()?.state;
    let vm = client::find(&state, &args.name)?;
    let document: DecisionsDocument = client::get(&vm, "/v1/decisions")?;
    let decisions = &document.decisions;
    let newest = decisions.get(decisions.len().saturating_sub(args.last)..).unwrap_or(decisions);
    let above = match args.format {
        Format::Table => {
            let (memory, reclaim) = (client::get(&vm, "/v1/memory")?, client::get(&vm, "/v1/reclaim")?);
            causes(&memory, &reclaim, Daemon::of(&state).host().as_ref()) + "\n"
        }
        Format::Json => String::new(),
    };
    let mut output = Output::lock();
    output.write_all(above.as_bytes())?;
    write_list(args.format, ["AGO", "WHAT", "WHY"], newest, row, &mut output)?;
    Ok(ExitCode::SUCCESS)
}

/// What it has now, and by what that is decided: the decisions are few, and old when all is well.
fn causes(memory: &MemoryDocument, reclaim: &ReclaimDocument, host: Option<&HostDocument>) -> String {
    let used = reclaim.guest_used_bytes.map_or_else(|| "an unknown part".into(), size);
    let mut rows = vec![
        ("uses", format!("{used} of {}", size(memory.size_bytes))),
        ("resident", resident(memory)),
        ("ceiling", ceiling(memory)),
    ];
    let spare = memory.resident_bytes.zip(reclaim.guest_used_bytes);
    let spare = spare.and_then(|(resident, used)| resident.checked_sub(used)).filter(|spare| *spare > 0);
    if let Some(spare) = spare {
        let what = "page cache, and free memory that the host has not had back";
        rows.insert(2, ("spare", format!("{} of that: {what}", size(spare))));
    }
    if reclaim.mode == Mode::Off {
        rows.push(("reclaim", "off: only limits move the ceiling".into()));
    } else {
        rows.extend([("policy", policy(reclaim)), ("reclaim", numbers(reclaim))]);
    }
    let pressing = host.map_or_else(Vec::new, |host| pressure(host, IN_FULL));
    if !pressing.is_empty() {
        rows.push(("pressure", pressing.join(", ")));
    }
    lines(&rows)
}

fn row(decision: &DecisionDocument) -> [String; 3] {
    let ago = lasted(Duration::from_millis(decision.age_ms));
    [ago, printable(&decision.order), printable(&decision.reason)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reclaim::owner::Owner;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_it_has_and_by_what_that_is_decided_stand_above() {
        let memory = MemoryDocument::fixed(512 * MIB, 100 * MIB);
        let off = Owner::off(512 * MIB).document(0);
        let held = "of 512 MiB\nresident  100 MiB of the host's memory\nceiling   512 MiB, fixed\n";
        let expected =
            format!("uses      an unknown part {held}reclaim   off: only limits move the ceiling\n");
        let host = HostDocument {
            pid: 1,
            capacity_bytes: 1 << 30,
            overcommit: true,
            main_bytes: 0,
            protected_bytes: 0,
            committed_bytes: 0,
            vms: 1,
            orphans: 0,
            available_bytes: 1 << 30,
            lambda_permille: 1000,
            deficit_bytes: 0,
            refuses: false,
        };
        assert_eq!(causes(&memory, &off, Some(&host)), expected);
        let auto = ReclaimDocument { mode: Mode::Auto, guest_used_bytes: Some(34 * MIB), ..off };
        let law = "\
policy    working-set age 300 s (default), stall budget 0.1 % (default)
reclaim   starting; target 512 MiB, stall 0.000 %, 0.000 refaults/s
";
        let spare = "spare     66 MiB of that: page cache, and free memory that the host has not had back\n";
        let held = held.replace("ceiling", &format!("{spare}ceiling"));
        assert_eq!(causes(&memory, &auto, None), format!("uses      34 MiB {held}{law}"));
        let pressed = HostDocument { lambda_permille: 2500, deficit_bytes: 64 * MIB, refuses: true, ..host };
        let words = "pressure  ages divided by 2.5, 64 MiB too much in use, starts are refused\n";
        assert_eq!(causes(&memory, &auto, Some(&pressed)), format!("uses      34 MiB {held}{law}{words}"));
    }
}

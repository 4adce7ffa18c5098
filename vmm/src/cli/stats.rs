//! `ballast stats`: what microVMs use, again and again.

use super::client;
use super::dirs::Dirs;
use super::format::{Format, write_list};
use super::output::Output;
use super::usage::{Looker, Usage};
use balloon::size::Size;
use clap::Args;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// From one look to the next.
const PERIOD: Duration = Duration::from_secs(2);
/// Between the two looks of a single table, without which there is no share of time.
const GLANCE: Duration = Duration::from_millis(500);
/// Homes the cursor and clears what is below it: the table stays in its place, and what was there before scrolls not away.
const AGAIN: &str = "\x1b[H\x1b[J";

/// Show what running microVMs use, every two seconds
#[derive(Args, Debug)]
#[command(after_help = "\
SAVED is what the host does not hold of a microVM's memory. REFAULTS are pages a second that the guest evicted and needed
again; STALL is the share of time that it waits for memory; both are what the reclaim law goes by.")]
pub struct StatsArgs {
    /// Names, IDs or beginnings of IDs; by default all that run
    names: Vec<String>,
    /// Show them once
    #[arg(long)]
    no_stream: bool,
    /// How to write the list; json is one document a look, on a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the verb.
///
/// # Errors
/// There is no such microVM, the state directory cannot be read, or nobody takes the list.
pub fn run(args: &StatsArgs) -> Result<ExitCode, Box<dyn Error>> {
    let state = Dirs::find()?.state;
    let mut looker = Looker::default();
    let mut first = true;
    let clears = !args.no_stream && args.format == Format::Table && std::io::stdout().is_terminal();
    loop {
        let known = match args.names.as_slice() {
            [] => client::running(&state)?,
            names => names.iter().map(|name| client::find(&state, name)).collect::<Result<_, _>>()?,
        };
        let usages: Vec<_> = looker.look(&known, |_| ()).into_iter().map(|(usage, _)| usage).collect();
        if std::mem::take(&mut first) && !known.is_empty() {
            thread::sleep(GLANCE);
            continue;
        }
        let mut output = Output::lock();
        if clears {
            output.write_all(AGAIN.as_bytes())?;
        }
        let headings = ["NAME", "CPU", "RESIDENT", "CEILING", "SAVED", "REFAULTS", "STALL", "LAW"];
        write_list(args.format, headings, &usages, row, &mut output)?;
        if args.no_stream {
            return Ok(ExitCode::SUCCESS);
        }
        drop(output);
        thread::sleep(PERIOD);
    }
}

fn row(usage: &Usage) -> [String; 8] {
    let size =
        |bytes: Option<u64>| bytes.map_or_else(|| "-".into(), |bytes| Size::from_bytes(bytes).to_string());
    let number = |value: Option<f64>, unit: &str| {
        value.map_or_else(|| "-".into(), |value| format!("{value:.1}{unit}"))
    };
    let saved = match (usage.saved_bytes, usage.size_bytes) {
        (Some(saved), Some(all @ 1..)) => {
            format!("{} ({} %)", size(Some(saved)), saved.saturating_mul(100) / all)
        }
        _ => "-".into(),
    };
    [
        usage.name.clone(),
        number(usage.cpu_percent, " %"),
        size(usage.resident_bytes),
        size(usage.ceiling_bytes),
        saved,
        number(usage.refaults_per_s, "/s"),
        usage.stall_percent.map_or_else(|| "-".into(), |percent| format!("{percent:.2} %")),
        usage.law.map_or_else(|| usage.state.to_string(), |law| law.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::ps::State;
    use super::*;
    use balloon::control::api::MemoryDocument;
    use balloon::policy;

    #[test]
    fn what_is_known_is_shown_and_what_is_not_is_not() {
        let mut usage = Usage::silent("web", "7", State::NoAnswer);
        assert_eq!(row(&usage), ["web", "-", "-", "-", "-", "-", "-", "no answer"]);
        let memory = MemoryDocument::fixed(256 << 20, 64 << 20);
        usage.saved_bytes = memory.resident_bytes.map(|bytes| memory.size_bytes - bytes);
        (usage.resident_bytes, usage.size_bytes) = (memory.resident_bytes, Some(memory.size_bytes));
        (usage.refaults_per_s, usage.stall_percent) = (Some(1.26), Some(0.05));
        (usage.law, usage.cpu_percent) = (Some(policy::State::Trimming), Some(50.0));
        let cells = ["web", "50.0 %", "64 MiB", "-", "192 MiB (75 %)", "1.3/s", "0.05 %", "trimming"];
        assert_eq!(row(&usage), cells);
    }
}

//! `ballast stats`: what microVMs use, again and again.

use super::client;
use super::dirs::Dirs;
use super::format::{Format, write_list};
use super::output::Output;
use super::state::Known;
use balloon::control::api::{MemoryDocument, VmDocument};
use balloon::control::reclaim::ReclaimDocument;
use balloon::policy::State;
use balloon::size::Size;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

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

/// What one microVM uses. What it does not say is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Usage {
    name: String,
    id: String,
    /// Of one CPU, by the VMM with all its threads: the guest's work and its own.
    cpu_percent: Option<f64>,
    size_bytes: Option<u64>,
    ceiling_bytes: Option<u64>,
    resident_bytes: Option<u64>,
    saved_bytes: Option<u64>,
    refaults_per_s: Option<f64>,
    stall_percent: Option<f64>,
    law: Option<State>,
    /// CPU time so far, in clock ticks, of which process.
    #[serde(skip)]
    ticks: Option<(u32, u64)>,
}

/// CPU time so far, in clock ticks, of which process, by ID.
type Ticks = BTreeMap<String, (u32, u64)>;

/// Runs the verb.
///
/// # Errors
/// There is no such microVM, the state directory cannot be read, or nobody takes the list.
pub fn run(args: &StatsArgs) -> Result<ExitCode, Box<dyn Error>> {
    let state = Dirs::find()?.state;
    let mut before: Option<(Instant, Ticks)> = None;
    let clears = !args.no_stream && args.format == Format::Table && std::io::stdout().is_terminal();
    loop {
        let known = match args.names.as_slice() {
            [] => client::running(&state)?,
            names => names.iter().map(|name| client::find(&state, name)).collect::<Result<_, _>>()?,
        };
        let now = Instant::now();
        let mut usages: Vec<_> = client::ask_all(&known, look).into_iter().map(|(_, usage)| usage).collect();
        let ticks = usages.iter().filter_map(|usage| Some((usage.id.clone(), usage.ticks?))).collect();
        let first = before.is_none();
        if let Some((at, before)) = &before {
            let lasted = now.duration_since(*at).as_secs_f64();
            usages.iter_mut().for_each(|usage| usage.work_since(before.get(&usage.id).copied(), lasted));
        }
        before = Some((now, ticks));
        if first && !known.is_empty() {
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

fn look(vm: &Known) -> Usage {
    let mut usage = Usage { name: vm.name.clone(), id: vm.id().into(), ..Usage::default() };
    let told: Result<(VmDocument, MemoryDocument, ReclaimDocument), _> = client::get(vm, "/v1/vm")
        .and_then(|document| Ok((document, client::get(vm, "/v1/memory")?, client::get(vm, "/v1/reclaim")?)));
    match told {
        Ok((document, memory, reclaim)) => {
            let text = std::fs::read_to_string(format!("/proc/{}/stat", document.pid)).unwrap_or_default();
            usage.ticks = cpu_ticks(&text).map(|ticks| (document.pid, ticks));
            usage.tell(&memory, &reclaim);
        }
        // It starts, ends or hangs, which `ballast ps` says.
        Err(error) => log::info!("{error}"),
    }
    usage
}

impl Usage {
    fn tell(&mut self, memory: &MemoryDocument, reclaim: &ReclaimDocument) {
        let heard = reclaim.samples_total > 0;
        self.size_bytes = Some(memory.size_bytes);
        self.ceiling_bytes = Some(memory.ceiling.bytes);
        self.resident_bytes = memory.resident_bytes;
        self.saved_bytes = memory.resident_bytes.map(|bytes| memory.size_bytes.saturating_sub(bytes));
        self.refaults_per_s = heard.then_some(reclaim.status.refault_millis as f64 / 1000.0);
        self.stall_percent = heard.then_some(reclaim.status.stall_ppm as f64 / 10_000.0);
        self.law = Some(reclaim.status.state);
    }

    /// Fills in its share of time, since it had used so many ticks `lasted` seconds ago.
    fn work_since(&mut self, before: Option<(u32, u64)>, lasted: f64) {
        if let (Some((pid, now)), Some((before_pid, before))) = (self.ticks, before)
            && pid == before_pid
        {
            let seconds = now.saturating_sub(before) as f64 / rustix::param::clock_ticks_per_second() as f64;
            self.cpu_percent = Some(seconds / lasted.max(0.001) * 100.0);
        }
    }
}

/// User and system time of `/proc/PID/stat`: fields 14 and 15; the name, in parentheses, may contain anything.
fn cpu_ticks(text: &str) -> Option<u64> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    user.checked_add(fields.next()?.parse().ok()?)
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
        usage.law.map_or_else(|| "no answer".into(), |law| law.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_shown_and_what_is_not_is_not() {
        let unknown = Usage { name: "web".into(), ..Usage::default() };
        assert_eq!(row(&unknown), ["web", "-", "-", "-", "-", "-", "-", "no answer"]);
        let mut usage = Usage { ticks: Some((7, 150)), ..unknown };
        let memory = MemoryDocument::fixed(256 << 20, 64 << 20);
        usage.saved_bytes = memory.resident_bytes.map(|bytes| memory.size_bytes - bytes);
        (usage.resident_bytes, usage.size_bytes) = (memory.resident_bytes, Some(memory.size_bytes));
        (usage.refaults_per_s, usage.stall_percent) = (Some(1.26), Some(0.05));
        usage.law = Some(State::Trimming);
        let hertz = rustix::param::clock_ticks_per_second();
        usage.work_since(Some((7, 150 - hertz)), 2.0);
        let cells = ["web", "50.0 %", "64 MiB", "-", "192 MiB (75 %)", "1.3/s", "0.05 %", "trimming"];
        assert_eq!(row(&usage), cells);
        // Another process says nothing about this one.
        let mut other = Usage { ticks: Some((8, 150)), ..Usage::default() };
        other.work_since(Some((7, 100)), 2.0);
        assert_eq!(other.cpu_percent, None);
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 98765 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("42 (a"), None);
        assert!(cpu_ticks(&std::fs::read_to_string("/proc/self/stat").unwrap()).is_some());
    }
}

//! `ballast ps`: microVMs, one a line. Those that run are asked over their own control sockets.

use super::client;
use super::dirs::Dirs;
use super::format::{Format, lasted, printable, write_list};
use super::inspect::words::guest_memory;
use super::output::Output;
use super::state::Known;
use balloon::control::api::{MemoryDocument, VmDocument};
use balloon::size::Size;
use balloon::wall_clock;
use clap::Args;
use serde::Serialize;
use std::error::Error;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// List microVMs
#[derive(Args, Debug)]
pub struct PsArgs {
    /// Those too that ran in the background and have ended
    #[arg(short, long)]
    all: bool,
    /// Only their IDs
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// How to write the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How a microVM does, as far as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    Running,
    Starting,
    Ending,
    NoAnswer,
    Exited,
}

impl State {
    /// That of one which was asked in vain.
    pub(super) fn of_silent(error: &client::Error) -> Self {
        match error {
            client::Error::Starting(_) => Self::Starting,
            client::Error::Ending(_) => Self::Ending,
            error => {
                log::info!("{error}");
                Self::NoAnswer
            }
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Ending => "ending",
            Self::NoAnswer => "no answer",
            Self::Exited => "exited",
        })
    }
}

#[derive(Serialize)]
struct Listed {
    name: String,
    id: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vm: Option<VmDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryDocument>,
}

/// Runs the verb.
///
/// # Errors
/// The state directory cannot be read, or nobody takes the list.
pub fn run(args: &PsArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut known = client::known(&Dirs::find()?.state)?;
    known.retain(|vm| args.all || vm.exit.is_none());
    if args.quiet {
        let mut output = Output::lock();
        known.iter().try_for_each(|vm| writeln!(output, "{}", printable(vm.id())))?;
        return Ok(ExitCode::SUCCESS);
    }
    let listed: Vec<_> = client::ask_all(&known, look).into_iter().map(|(_, listed)| listed).collect();
    let headings = ["NAME", "ID", "STATUS", "CPUS", "MEMORY", "RESIDENT", "IMAGE"];
    let now = wall_clock::since_1970();
    write_list(args.format, headings, &listed, |listed| row(listed, now), &mut Output::lock())?;
    Ok(ExitCode::SUCCESS)
}

fn look(vm: &Known) -> Listed {
    let mut listed = Listed {
        name: vm.name.clone(),
        id: vm.id().into(),
        state: State::Running,
        image: vm.record.as_ref().map(|record| record.image.clone()),
        exit_code: None,
        ended_at_ms: None,
        message: None,
        vm: None,
        memory: None,
    };
    if let Some(exit) = &vm.exit {
        let (exit_code, message) = (Some(exit.code), exit.message.clone());
        return Listed { state: State::Exited, exit_code, ended_at_ms: exit.ended_at_ms, message, ..listed };
    }
    let documents =
        client::get(vm, "/v1/vm").and_then(|document| Ok((document, client::get(vm, "/v1/memory")?)));
    match documents {
        Ok((document, memory)) => (listed.vm, listed.memory) = (Some(document), Some(memory)),
        Err(error) => listed.state = State::of_silent(&error),
    }
    listed
}

/// `now` is the time since 1970.
fn row(listed: &Listed, now: Duration) -> [String; 7] {
    let none = || "-".to_owned();
    let image = listed.image.as_deref().map_or_else(none, printable);
    let status = match listed.state {
        State::Running => {
            let up = listed.vm.as_ref().map_or(0, |vm| vm.uptime_ms);
            format!("up {}", lasted(Duration::from_millis(up)))
        }
        State::Starting | State::Ending | State::NoAnswer => listed.state.to_string(),
        State::Exited => {
            let ago = listed.ended_at_ms.map(|at| now.saturating_sub(Duration::from_millis(at)));
            let ago = ago.map(|ago| format!(" {} ago", lasted(ago))).unwrap_or_default();
            format!("exited ({}){ago}", listed.exit_code.unwrap_or_default())
        }
    };
    let (cpus, memory, resident) = match (&listed.vm, &listed.memory) {
        (Some(vm), Some(memory)) => (
            vm.cpus.to_string(),
            guest_memory(memory),
            memory.resident_bytes.map_or_else(none, |bytes| Size::from_bytes(bytes).to_string()),
        ),
        _ => (none(), none(), none()),
    };
    [listed.name.clone(), printable(&listed.id), status, cpus, memory, resident, image]
}

#[cfg(test)]
mod tests {
    use super::super::state::{Exit, Record};
    use super::*;

    fn known() -> Known {
        Known {
            name: "web".into(),
            record: Some(Record::new("0123456789ab".into(), "nginx".into(), Vec::new(), 0)),
            exit: None,
            pid: Some(7),
            directory: "/nowhere".into(),
            socket: "/nowhere/control.sock".into(),
        }
    }

    #[test]
    fn who_does_not_answer_is_listed_as_such() {
        let cells = row(&look(&known()), Duration::ZERO);
        assert_eq!(cells, ["web", "0123456789ab", "starting", "-", "-", "-", "nginx"]);
    }

    #[test]
    fn who_has_ended_is_listed_with_code_and_time() {
        let ended = Known { exit: Some(Exit::new(3, Some(60_000), "why")), ..known() };
        assert_eq!(row(&look(&ended), Duration::from_secs(300))[2], "exited (3) 4 min ago");
        let killed = Known { exit: Some(Exit::killed()), ..known() };
        assert_eq!(row(&look(&killed), Duration::from_secs(300))[2], "exited (137)");
    }

    #[test]
    fn who_answers_is_listed_with_guest_memory() {
        let memory = MemoryDocument { guest_bytes: 256 << 20, ..MemoryDocument::fixed(512 << 20, 100 << 20) };
        let vm = VmDocument {
            name: "web".into(),
            image: "nginx".into(),
            kernel_release: "6.1".into(),
            pid: 42,
            cpus: 2,
            memory_bytes: 512 << 20,
            started_at_ms: 0,
            uptime_ms: 61_000,
            arbiter: None,
        };
        let listed = Listed { state: State::Running, vm: Some(vm), memory: Some(memory), ..look(&known()) };
        let cells = row(&listed, Duration::ZERO);
        assert_eq!(cells[2..], ["up 1 min", "2", "256 MiB of 512 MiB", "100 MiB", "nginx"]);
    }
}

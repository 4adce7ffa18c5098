//! `ballast ps`: the running microVMs, one a line. Each is asked over its own control socket.

use super::client;
use super::dirs::Dirs;
use super::format::{Format, lasted, write_list};
use super::inspect::guest_memory;
use super::output::Output;
use super::state::Running;
use balloon::control::api::{MemoryDocument, VmDocument};
use balloon::size::Size;
use clap::Args;
use serde::Serialize;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

/// List running microVMs
#[derive(Args, Debug)]
pub struct PsArgs {
    /// How to write the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How a microVM does, as far as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Running,
    Starting,
    Ending,
    NoAnswer,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    state: State,
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
    let running = client::running(&Dirs::find()?.state)?;
    let listed: Vec<_> = client::ask_all(&running, look).into_iter().map(|(_, listed)| listed).collect();
    let headings = ["NAME", "PID", "UP", "CPUS", "MEMORY", "RESIDENT", "IMAGE"];
    write_list(args.format, headings, &listed, row, &mut Output::lock())?;
    Ok(ExitCode::SUCCESS)
}

fn look(vm: &Running) -> Listed {
    let documents =
        client::get(vm, "/v1/vm").and_then(|document| Ok((document, client::get(vm, "/v1/memory")?)));
    match documents {
        Ok((document, memory)) => {
            Listed { name: vm.name.clone(), state: State::Running, vm: Some(document), memory: Some(memory) }
        }
        Err(client::Error::Starting(_)) => silent(vm, State::Starting),
        Err(client::Error::Ending(_)) => silent(vm, State::Ending),
        Err(error) => {
            log::info!("{error}");
            silent(vm, State::NoAnswer)
        }
    }
}

fn silent(vm: &Running, state: State) -> Listed {
    Listed { name: vm.name.clone(), state, vm: None, memory: None }
}

fn row(listed: &Listed) -> [String; 7] {
    let (Some(vm), Some(memory)) = (&listed.vm, &listed.memory) else {
        let state = match listed.state {
            State::Running | State::NoAnswer => "no answer",
            State::Starting => "starting",
            State::Ending => "ending",
        };
        let none = || "-".to_owned();
        return [listed.name.clone(), none(), state.into(), none(), none(), none(), none()];
    };
    [
        listed.name.clone(),
        vm.pid.to_string(),
        lasted(Duration::from_millis(vm.uptime_ms)),
        vm.cpus.to_string(),
        guest_memory(memory),
        memory.resident_bytes.map_or_else(|| "-".into(), |bytes| Size::from_bytes(bytes).to_string()),
        super::format::printable(&vm.image),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_listed_as_such() {
        let vm = Running { name: "web".into(), pid: Some(7), socket: "/nowhere/control.sock".into() };
        assert_eq!(row(&look(&vm)), ["web", "-", "starting", "-", "-", "-", "-"]);
        assert_eq!(row(&silent(&vm, State::NoAnswer))[2], "no answer");
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
        let listed = Listed { name: "web".into(), state: State::Running, vm: Some(vm), memory: Some(memory) };
        assert_eq!(row(&listed), ["web", "42", "1 min", "2", "256 MiB of 512 MiB", "100 MiB", "nginx"]);
    }
}

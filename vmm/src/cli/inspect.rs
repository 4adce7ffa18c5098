//! `ballast inspect NAME`: what a microVM is and what its memory does.

mod report;
pub(super) mod words;

use super::client;
use super::dirs::Dirs;
use super::format::Format;
use super::output::Output;
use super::state::{Exit, Known, Record};
use balloon::control::api::{GuestStatistics, MemoryDocument, VmDocument};
use balloon::control::orders::LimitsDocument;
use balloon::control::reclaim::ReclaimDocument;
use balloon::wall_clock;
use clap::Args;
use serde::Serialize;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// Show a microVM: what it is, its limits and its memory, or how it ended
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// Name, ID or beginning of the ID of the microVM
    name: String,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What there is to say of a microVM.
#[derive(Serialize)]
struct Inspected {
    name: String,
    /// What was written down at its start; absent if another version of Ballast wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Record>,
    /// Absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<Exit>,
    /// Absent when it has ended.
    #[serde(flatten)]
    running: Option<Running>,
}

/// What it says of itself.
#[derive(Serialize)]
struct Running {
    vm: VmDocument,
    limits: LimitsDocument,
    memory: MemoryDocument,
    reclaim: ReclaimDocument,
    /// Absent if the guest does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics: Option<GuestStatistics>,
}

impl Running {
    fn ask(vm: &Known) -> Result<Self, client::Error> {
        let memory: MemoryDocument = client::get(vm, "/v1/memory")?;
        // A guest that cannot answer, or does not, is no failure of this.
        let statistics = memory.driver.serves().then(|| client::get(vm, "/v1/statistics").ok()).flatten();
        let (limits, reclaim) = (client::get(vm, "/v1/limits")?, client::get(vm, "/v1/reclaim")?);
        Ok(Self { vm: client::get(vm, "/v1/vm")?, limits, memory, reclaim, statistics })
    }
}

/// Runs the verb.
///
/// # Errors
/// There is no such microVM, or it runs and does not answer.
pub fn run(args: &InspectArgs) -> Result<ExitCode, Box<dyn Error>> {
    let state = Dirs::find()?.state;
    let vm = match client::find(&state, &args.name) {
        Err(client::Error::Over { .. }) => client::find_known(&state, &args.name)?,
        found => found?,
    };
    let running = vm.exit.is_none().then(|| Running::ask(&vm)).transpose()?;
    let inspected = Inspected { name: vm.name, record: vm.record, exit: vm.exit, running };
    let text = match args.format {
        Format::Json => serde_json::to_string_pretty(&inspected)? + "\n",
        Format::Table => report::table(&inspected, wall_clock::ms_since_1970()),
    };
    Output::lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

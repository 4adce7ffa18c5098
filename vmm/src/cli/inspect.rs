//! `ballast inspect NAME`: what a microVM is and what its memory does.

mod report;

pub(super) use report::guest_memory;

use super::client;
use super::dirs::Dirs;
use super::format::Format;
use super::output::Output;
use balloon::control::api::{GuestStatistics, MemoryDocument, VmDocument};
use balloon::control::reclaim::ReclaimDocument;
use clap::Args;
use serde::Serialize;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// Show a running microVM and its memory
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// Name of the microVM
    name: String,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What there is to say of a microVM.
#[derive(Serialize)]
struct Inspected {
    vm: VmDocument,
    memory: MemoryDocument,
    reclaim: ReclaimDocument,
    /// Absent if the guest does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics: Option<GuestStatistics>,
}

/// Runs the verb.
///
/// # Errors
/// There is no such microVM, or it does not answer.
pub fn run(args: &InspectArgs) -> Result<ExitCode, Box<dyn Error>> {
    let vm = client::find(&Dirs::find()?.state, &args.name)?;
    let memory: MemoryDocument = client::get(&vm, "/v1/memory")?;
    // A guest that cannot answer, or does not, is no failure of this.
    let statistics = memory.driver.serves().then(|| client::get(&vm, "/v1/statistics").ok()).flatten();
    let inspected = Inspected {
        vm: client::get(&vm, "/v1/vm")?,
        memory,
        reclaim: client::get(&vm, "/v1/reclaim")?,
        statistics,
    };
    let text = match args.format {
        Format::Json => serde_json::to_string_pretty(&inspected)? + "\n",
        Format::Table => report::table(&inspected),
    };
    Output::lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

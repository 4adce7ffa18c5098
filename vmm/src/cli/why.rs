//! `ballast why NAME`: the last decisions of a microVM's reclaim law, in words and numbers.

use super::client;
use super::dirs::Dirs;
use super::format::{Format, lasted, printable, write_list};
use super::output::Output;
use balloon::control::reclaim::{DecisionDocument, DecisionsDocument};
use clap::Args;
use std::error::Error;
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
    /// How to write the list; json has all numbers
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the verb.
///
/// # Errors
/// There is no such microVM, or nobody takes the list.
pub fn run(args: &WhyArgs) -> Result<ExitCode, Box<dyn Error>> {
    let vm = client::find(&Dirs::find()?.state, &args.name)?;
    let document: DecisionsDocument = client::get(&vm, "/v1/decisions")?;
    let decisions = &document.decisions;
    let newest = decisions.get(decisions.len().saturating_sub(args.last)..).unwrap_or(decisions);
    write_list(args.format, ["AGO", "WHAT", "WHY"], newest, row, &mut Output::lock())?;
    Ok(ExitCode::SUCCESS)
}

fn row(decision: &DecisionDocument) -> [String; 3] {
    let ago = lasted(Duration::from_millis(decision.age_ms));
    [ago, printable(&decision.order), printable(&decision.reason)]
}

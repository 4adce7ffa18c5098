//! `ballast rm NAME...`: removes microVMs that have ended, and their logs.

use super::dirs::Dirs;
use super::format::Format;
use super::lifetime::Lifetime;
use super::state::{self, Known};
use super::{client, each, stop};
use clap::Args;
use std::error::Error;
use std::process::ExitCode;

/// Remove microVMs that have ended, and their logs
#[derive(Args, Debug)]
pub struct RmArgs {
    /// Running ones too: they are ended at once
    #[arg(short, long)]
    force: bool,
    /// How to say what came of it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Names, IDs or beginnings of IDs
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("microVM '{0}' runs: `ballast stop {0}` first, or remove it with -f")]
struct Runs(String);

/// Runs the verb and prints each name, as docker does.
///
/// # Errors
/// The state directory cannot be found.
pub fn run(args: &RmArgs) -> Result<ExitCode, Box<dyn Error>> {
    let state = Dirs::find()?.state;
    each::name(&args.names, args.format, |name| remove(&client::find_known(&state, name)?, args.force))
}

fn remove(vm: &Known, force: bool) -> Result<(), Box<dyn Error>> {
    if vm.exit.is_none() {
        if !force {
            return Err(Runs(vm.name.clone()).into());
        }
        stop::end(&mut Lifetime::of(vm)?)?;
    }
    // Nobody else's: a name that was used anew meanwhile is a running microVM's.
    if state::forget(&vm.directory)? { Ok(()) } else { Err(Runs(vm.name.clone()).into()) }
}

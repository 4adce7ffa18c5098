//! `ballast simulate`: executes `ballast-simulate`, which carries the simulator so that `ballast` need not.

use super::install;
use clap::Args;
use std::error::Error;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Compare reclaim policies on simulated fleets of microVMs
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub struct SimulateArgs {
    /// Options of the simulator; --help lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<OsString>,
}

/// Becomes the simulator, and so returns only if that fails.
///
/// # Errors
/// It is not installed, or cannot be executed.
pub fn run(args: &SimulateArgs) -> Result<ExitCode, Box<dyn Error>> {
    let program = install::simulator()?;
    let failed = Command::new(&program).args(&args.options).exec();
    Err(format!("cannot execute {}: {failed}", program.display()).into())
}

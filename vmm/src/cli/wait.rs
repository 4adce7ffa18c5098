//! `ballast wait NAME...`: waits until microVMs have ended, and prints their exit codes.

use super::client;
use super::dirs::Dirs;
use super::lifetime::Lifetime;
use super::output::Output;
use clap::Args;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// Wait until microVMs have ended, and print their exit codes
#[derive(Args, Debug)]
pub struct WaitArgs {
    /// Names, IDs or beginnings of IDs
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Runs the verb.
///
/// # Errors
/// There is no such microVM.
pub fn run(args: &WaitArgs) -> Result<ExitCode, Box<dyn Error>> {
    let state = Dirs::find()?.state;
    let find = |name: &String| Ok(Lifetime::of(&client::find_known(&state, name)?)?);
    // All of them before the first is waited for: one to be removed at its end is known no longer then.
    let lifetimes = args.names.iter().map(find).collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    for mut lifetime in lifetimes {
        if let Some(exit) = lifetime.wait(None)? {
            writeln!(Output::lock(), "{}", exit.code)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

//! `ballast doctor`: what this host has and lacks for running microVMs, and what to do about it.
//!
//! [`probe`] collects facts from the host, [`judge`] turns them into findings, [`report`] into text. The latter
//! two are pure.

mod facts;
mod judge;
mod probe;
mod procfs;
mod report;

use super::dirs::Dirs;
use super::output::Output;
use clap::{Args, ValueEnum};
use judge::Finding;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Find out whether this host can run microVMs, and what to do if not
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Guest kernel to check instead of the one that would be used
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Directory of its modules
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Runs the verb. The exit code is 0 if `ballast run` would work and 1 if something stands against it.
///
/// # Errors
/// No directory can be named for this user, or the report cannot be written.
pub fn run(args: &DoctorArgs) -> Result<ExitCode, Box<dyn Error>> {
    let facts = probe::probe(&Dirs::find()?, args.kernel.clone(), args.modules.clone());
    let findings = judge::judge(&facts);
    let text = match args.format {
        Format::Json => report::json(&findings)?,
        Format::Table => {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            report::table(&findings, std::io::stdout().is_terminal() && !plain)
        }
    };
    Output::lock().write_all(text.as_bytes())?;
    Ok(if Finding::all_ready(&findings) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

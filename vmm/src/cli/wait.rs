//! `ballast wait NAME...`: waits until microVMs have ended, and prints their exit codes.

use super::client;
use super::dirs::Dirs;
use super::format::Format;
use super::lifetime::Lifetime;
use super::output::Output;
use clap::Args;
use serde::Serialize;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// Wait until microVMs have ended, and print their exit codes
#[derive(Args, Debug)]
pub struct WaitArgs {
    /// How to say what came of it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Names, IDs or beginnings of IDs
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// One that has ended, as JSON.
#[derive(Serialize)]
struct Ended<'a> {
    name: &'a str,
    /// Of its command; nothing if nobody noted it.
    code: Option<u8>,
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
    let mut ended = Vec::new();
    for (name, mut lifetime) in args.names.iter().zip(lifetimes) {
        let code = lifetime.wait(None)?.map(|exit| exit.code);
        match (args.format, code) {
            (Format::Table, Some(code)) => writeln!(Output::lock(), "{code}")?,
            (Format::Table, None) => {}
            (Format::Json, code) => ended.push(Ended { name, code }),
        }
    }
    if args.format == Format::Json {
        serde_json::to_writer(&mut Output::lock(), &ended)?;
        writeln!(Output::lock())?;
    }
    Ok(ExitCode::SUCCESS)
}

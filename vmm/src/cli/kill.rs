//! `ballast kill NAME...`: sends a signal to workloads, or ends microVMs at once.

use super::dirs::Dirs;
use super::format::Format;
use super::lifetime::Lifetime;
use super::{client, each, signal_name};
use clap::Args;
use std::error::Error;
use std::process::ExitCode;

/// End microVMs at once, or send a signal to their commands
#[derive(Args, Debug)]
pub struct KillArgs {
    /// Signal for the command: HUP, SIGHUP or 1. KILL ends the microVM whatever its guest does
    #[arg(short, long, default_value = "KILL", value_parser = signal_name::parse)]
    signal: u8,
    /// How to say what came of it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Names, IDs or beginnings of IDs
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Runs the verb and prints each name, as docker does.
///
/// # Errors
/// The state directory cannot be found.
pub fn run(args: &KillArgs) -> Result<ExitCode, Box<dyn Error>> {
    let state = Dirs::find()?.state;
    each::name(&args.names, args.format, |name| {
        let vm = client::find(&state, name)?;
        if i32::from(args.signal) == libc::SIGKILL {
            Lifetime::of(&vm)?.kill()?;
        } else {
            client::signal(&vm, args.signal)?;
        }
        Ok(())
    })
}

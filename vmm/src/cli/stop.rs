//! `ballast stop NAME...`: asks workloads to end, and ends those that do not.

use super::client::{self, Error as Asked};
use super::dirs::Dirs;
use super::each;
use super::format::Format;
use super::lifetime::Lifetime;
use super::state::{Known, STOP_SIGNAL};
use clap::Args;
use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

/// Ask the commands of microVMs to end, and end those that do not
#[derive(Args, Debug)]
pub struct StopArgs {
    /// Seconds that a command has to end by itself
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 10)]
    time: u32,
    /// How to say what came of it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Names, IDs or beginnings of IDs
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Time in which who looks after a microVM ends it and cleans up.
const CLEANING: Duration = Duration::from_secs(30);

/// Runs the verb and prints each name, as docker does.
///
/// # Errors
/// The state directory cannot be found.
pub fn run(args: &StopArgs) -> Result<ExitCode, Box<dyn Error>> {
    let state = Dirs::find()?.state;
    let patience = Duration::from_secs(args.time.into());
    each::name(&args.names, args.format, |name| {
        let vm = client::find_known(&state, name)?;
        if vm.exit.is_none() {
            stop(&vm, patience)?;
        }
        Ok(())
    })
}

/// Asks the workload to end, and ends its microVM after `patience`.
fn stop(vm: &Known, patience: Duration) -> io::Result<()> {
    let mut lifetime = Lifetime::of(vm)?;
    let signal = vm.record.as_ref().map_or(STOP_SIGNAL, |record| record.stop_signal);
    match client::signal(vm, signal) {
        // One that has ended by itself has what it wrote delivered, and its own exit code.
        Ok(()) | Err(Asked::Ending(_)) => {}
        // There is no workload yet: the start is given up.
        Err(Asked::Starting(_) | Asked::Refused(_)) => lifetime.signal(libc::SIGTERM)?,
        // One that cannot be asked gets no time to think about it.
        Err(error) => {
            log::info!("{error}");
            return end(&mut lifetime);
        }
    }
    if lifetime.wait(Some(patience))?.is_none() {
        return end(&mut lifetime);
    }
    Ok(())
}

/// Ends a microVM whatever its guest does, and waits for that.
pub(super) fn end(lifetime: &mut Lifetime) -> io::Result<()> {
    lifetime.kill()?;
    if lifetime.wait(Some(CLEANING))?.is_none() {
        // The VMM dies with it, and the next start sweeps what is left.
        lifetime.signal(libc::SIGKILL)?;
        lifetime.wait(None)?;
    }
    Ok(())
}

//! `ballastd`: the arbiter of one host's microVMs; see [`balloon::daemon`].

use balloon::{daemon, file_size_limit, logging, state};
use clap::Parser;
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Divide this host's memory among the microVMs that run on it
///
/// Serves the state directory ($BALLAST_STATE, else /run/ballast for root, else $XDG_RUNTIME_DIR/ballast) until it is
/// ended; its socket there, ballastd.sock, speaks HTTP, with metrics at /metrics. SIGHUP has it read its configuration anew.
/// What `ballast events` tells it logs, too, with BALLAST_LOG=info. It can be ended and started again at any time: microVMs go on without it.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// Pool and groups, in TOML; without it the pool is the host's memory less a sixteenth
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write what the host has, and what each group, microVM and zone holds, down to FILE every 2 s, for `ballast report`
    ///
    /// It ends at 256 MiB, a day of twenty microVMs, or when the disk takes no more; the daemon then goes on
    /// without. An earlier recording is kept as FILE.1.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Say what the configuration comes to on this host, or what is wrong with it, and end
    #[arg(long)]
    dry_run: bool,
}

fn main() -> ExitCode {
    logging::start("ballastd", || {});
    file_size_limit::ignore_signal();
    match start(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::print_chain("ballastd", &*error);
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let config = arguments.config.as_deref();
    if arguments.dry_run {
        let text = daemon::run::dry_run(config)?;
        return match io::stdout().write_all(text.as_bytes()) {
            // Whoever has read enough is told nothing.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => {
                Ok(written
                    .map_err(|error| format!("cannot write what the configuration comes to: {error}"))?)
            }
        };
    }
    let state = state::own_directory().ok_or_else(|| {
        format!("no place for Ballast's state: set {}, or {}", state::VARIABLE, state::USUAL_VARIABLE)
    })?;
    daemon::run::run(&state, config, arguments.record.as_deref(), |words| {
        // Nobody may be listening.
        let _ = writeln!(io::stderr(), "ballastd: {words}");
    })?;
    Ok(())
}

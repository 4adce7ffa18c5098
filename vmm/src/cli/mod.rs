//! The command line of `ballast`: one file a verb. Only [`main`] is called from outside.

mod charging;
pub mod client;
mod completion;
pub mod daemon;
mod dirs;
pub mod doctor;
mod each;
mod events;
mod exec;
pub mod format;
pub mod host_cgroup;
pub mod image;
pub mod inspect;
pub mod install;
mod kill;
pub mod launch;
mod lifetime;
pub mod log;
mod logs;
pub mod mounts;
pub mod output;
mod prepare;
mod pressure;
pub mod ps;
pub mod reclaim_argument;
mod recorder;
mod recording;
mod replay;
mod report;
mod rm;
pub mod run;
pub mod run_args;
mod run_settings;
pub mod session;
mod set;
pub mod signal_name;
pub mod signals;
mod simulate;
mod since;
pub mod state;
mod stats;
mod stop;
pub mod streams;
pub mod supervisor;
pub mod terminal;
pub mod timings;
mod top;
pub mod trim;
mod usage;
pub mod volume;
mod wait;
mod why;
pub mod workload;
pub mod zone_argument;
pub mod zone_tree;
mod zones;

use balloon::logging::readable;
use clap::{CommandFactory, Parser, Subcommand};
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

/// The exit code of every failure that is Ballast's and not the workload's, as docker's.
pub const FAILED: u8 = 125;

/// Run containers as microVMs, each trimmed to its working set
#[derive(Parser, Debug)]
#[command(name = "ballast", version, disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Run(Box<run_args::RunArgs>),
    Ps(ps::PsArgs),
    Exec(exec::ExecArgs),
    Logs(logs::LogsArgs),
    Stop(stop::StopArgs),
    Kill(kill::KillArgs),
    Wait(wait::WaitArgs),
    Rm(rm::RmArgs),
    Inspect(inspect::InspectArgs),
    Set(set::SetArgs),
    Trim(trim::TrimArgs),
    Zones(zones::ZonesArgs),
    Stats(stats::StatsArgs),
    Top(top::TopArgs),
    Events(events::EventsArgs),
    Why(why::WhyArgs),
    Replay(replay::ReplayArgs),
    Report(report::ReportArgs),
    /// Import, list and remove images
    #[command(subcommand)]
    Image(image::ImageVerb),
    /// Make, list and remove volumes
    #[command(subcommand)]
    Volume(volume::VolumeVerb),
    Doctor(doctor::DoctorArgs),
    Completion(completion::CompletionArgs),
    Simulate(simulate::SimulateArgs),
}

/// Runs `ballast` and gives its exit code.
#[must_use]
pub fn main() -> ExitCode {
    balloon::logging::start("ballast", terminal::restore);
    balloon::file_size_limit::ignore_signal();
    if let Some(code) = crate::image::helper_main() {
        return code;
    }
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help and version are asked for; everything else is a mistake of the caller.
            if error.use_stderr() {
                let _ = io::stderr().write_all(mistake(&error).as_bytes());
                return ExitCode::from(FAILED);
            }
            return match error.print().and_then(|()| io::stdout().flush()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    let _ = writeln!(io::stderr(), "ballast: cannot write to standard output: {error}");
                    ExitCode::from(FAILED)
                }
                _ => ExitCode::SUCCESS,
            };
        }
    };
    match dispatch(line.verb) {
        Ok(code) => code,
        Err(error) => {
            balloon::logging::print_chain("ballast", &*error);
            ExitCode::from(FAILED)
        }
    }
}

/// What is wrong with a command line. It repeats what was typed, which may change no terminal, and so has no
/// colours either.
fn mistake(error: &clap::Error) -> String {
    readable(&error.render().to_string())
}

fn dispatch(verb: Verb) -> Result<ExitCode, Box<dyn Error>> {
    match verb {
        Verb::Run(args) => run::run(&args),
        Verb::Ps(args) => ps::run(&args),
        Verb::Exec(args) => exec::run(&args),
        Verb::Logs(args) => logs::run(&args),
        Verb::Stop(args) => stop::run(&args),
        Verb::Kill(args) => kill::run(&args),
        Verb::Wait(args) => wait::run(&args),
        Verb::Rm(args) => rm::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Set(args) => set::run(&args),
        Verb::Trim(args) => trim::run(&args),
        Verb::Zones(args) => zones::run(&args),
        Verb::Stats(args) => stats::run(&args),
        Verb::Top(args) => top::run(&args),
        Verb::Events(args) => events::run(&args),
        Verb::Why(args) => why::run(&args),
        Verb::Replay(args) => replay::run(&args),
        Verb::Report(args) => report::run(&args),
        Verb::Image(verb) => image::run(&verb),
        Verb::Volume(verb) => volume::run(&verb),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Completion(args) => completion::run(&args),
        Verb::Simulate(args) => simulate::run(&args),
    }
}

/// The whole command line, for completion scripts and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Line::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_told_without_what_changes_a_terminal() {
        for word in ["-mx\x1b]0;t\x07", "-mx\x07\x08\u{9b}1m", "--\x1b[1m"] {
            let text = mistake(&Line::try_parse_from(["ballast", "run", word, "i"]).unwrap_err());
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        }
    }

    #[test]
    fn the_command_line_is_sound_and_its_defaults_can_be_read() {
        command().debug_assert();
        for line in [
            "run i",
            "ps",
            "inspect web",
            "exec web ls -l",
            "logs web",
            "stop web",
            "kill web",
            "wait web",
            "rm web",
            "zones",
            "stats",
            "top",
            "events",
            "why web",
            "replay t",
            "trim --all",
            "image import f",
            "image ls",
            "volume create x",
            "volume ls",
            "doctor",
            "simulate --help",
        ] {
            let words = ["ballast"].into_iter().chain(line.split(' '));
            let refused = Line::try_parse_from(words).err().map(|error| error.to_string());
            assert_eq!(refused, None, "{line}");
        }
    }
}

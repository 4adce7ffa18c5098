//! `ballast run`: from the command line to the workload's exit code.

use super::daemon::Daemon;
use super::dirs::Dirs;
use super::format::printable;
use super::host_cgroup::{self, Ending, Home, HostCgroup, Obstacle};
use super::launch::{self, Machine};
use super::output::eprint;
use super::prepare::{Attachments, prepare};
use super::recorder::Recorder;
use super::run_args::RunArgs;
use super::run_settings::{self, BALLOON_VARIABLE, check, limits};
use super::session::{Conclusion, Session, conclude};
use super::signals::Signals;
use super::state::{Exit, Record, Registration};
use super::streams::{self, Undelivered};
use super::supervisor::{self, Logging, Supervisor};
use super::terminal::RawMode;
use super::{doctor, install, timings};
use crate::report::{Outcome, monotonic_us};
use balloon::control::fleet::StartRequest;
use balloon::wall_clock;
use balloon::zone::{Scope, Share};
use std::error::Error as StdError;
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// Runs the verb.
///
/// # Errors
/// The microVM could not be started; the message says why and what to do.
pub fn run(args: &RunArgs) -> Result<ExitCode, Box<dyn StdError>> {
    let start_us = monotonic_us();
    check(args)?;
    if args.detach && !args.supervised {
        return supervisor::start(args);
    }
    let supervisor = args.supervised.then(Supervisor::begin).transpose()?;
    let attachments = Attachments::parse(args)?;
    let balloon_features = run_settings::balloon_features(std::env::var_os(BALLOON_VARIABLE).as_deref())?;
    let dirs = Dirs::find()?;
    dirs.make()?;
    let mut registration = Registration::new(&dirs.state, args.name.as_deref())?;
    let record = record(args, &registration, &dirs);
    // Until it can be looked after nothing of it is to stay.
    registration.record(&Record { remove: true, ..record.clone() })?;
    let scope = admit(args, &dirs.state, &registration)?;
    let prepared = prepare(args, &attachments, &dirs, &registration, &scope)?;

    // From here on signals are the workload's; until here they end this program, which leaves nothing half done.
    let signals = Signals::block()?;
    registration.record(&Record { stop_signal: prepared.stop_signal, ..record.clone() })?;
    let mut logging =
        supervisor.map(|supervisor| supervisor.log(args, &record, registration.directory())).transpose()?;
    let (guest_ends, pumps) = match &logging {
        Some(logging) => streams::start_logged(logging.writer(), args.interactive)?,
        None => streams::start(args.interactive)?,
    };
    let raw = (args.tty && logging.is_none()).then(RawMode::set).transpose()?;
    let listener = registration.listen()?;
    let (recorder, recording) = args.record.as_deref().map(Recorder::start).transpose()?.unzip();
    let reclaim = run_settings::reclaim(args, recording);
    let (machine, store) = prepared.machine(args, balloon_features, guest_ends, listener, reclaim)?;
    let cgroup = claim_cgroup(&machine)?;
    let vmm = launch::start(&install::vmm()?, machine, cgroup.as_ref())?;
    let mut session = Session::new(vmm);
    session.follow(&signals, logging.as_mut())?;
    // Its ends of the pipes close with it.
    let status = session.wait()?;
    // With the VMM its mappings are gone: who was the last of a scope leaves no copy of the image.
    store.sweep_scopes();
    let by_daemon = registration.why_killed().map(|why| Ending::Daemon { why });
    let ending = by_daemon.or_else(|| cgroup.as_ref().and_then(HostCgroup::ending));
    drop(cgroup);
    let delivered = match session.outcome {
        Some(Outcome::Interrupted { .. }) => Ok(()),
        _ => pumps.finish(&signals),
    };
    drop(raw);
    if let Some(recorder) = recorder {
        eprint(&recorder.end());
    }

    if args.timings {
        eprint(&timings::table(start_us, &session.milestones));
    }
    let conclusion = match delivered {
        Err(Undelivered::Interrupted(signal)) => Conclusion::quiet(signal.saturating_add(128)),
        Ok(()) | Err(Undelivered::Write { .. }) => conclude(session.outcome.take(), status, ending),
    };
    eprint(&conclusion.words);
    let exit = Exit::new(conclusion.code, Some(wall_clock::ms_since_1970()), conclusion.words.trim_end());
    if logging.as_ref().is_none_or(Logging::has_started) {
        registration.end(&exit);
    } else {
        registration.fail(&exit);
    }
    match delivered {
        // Whoever waits for the workload hears how that ended; this program's reader has not all of it.
        Err(error @ Undelivered::Write { .. }) => Err(error.into()),
        Ok(()) | Err(Undelivered::Interrupted(_)) => Ok(ExitCode::from(conclusion.code)),
    }
}

/// What is written down of it.
fn record(args: &RunArgs, registration: &Registration, dirs: &Dirs) -> Record {
    let text = |word: &OsStr| word.to_string_lossy().into_owned();
    let command = args.command().iter().map(|word| text(word)).collect();
    let record =
        Record::new(registration.id().into(), text(args.image()), command, wall_clock::ms_since_1970());
    if !args.detach {
        return record;
    }
    let log = Some(supervisor::log_directory(&dirs.data, registration));
    Record { detached: true, remove: args.rm, log, ..record }
}

/// Has the microVM admitted by `ballastd`, if there is one or what is wanted needs one; and says within what it shares
/// its image.
fn admit(args: &RunArgs, state: &Path, registration: &Registration) -> Result<Scope, Box<dyn StdError>> {
    let needs = [
        ("--group", args.group.is_some()),
        ("--share group", args.share == Some(Share::Group)),
        ("--memory-min", args.memory_min.is_some()),
        ("--memory-low", args.memory_low.is_some()),
    ];
    let need = needs.into_iter().find_map(|(option, is_there)| is_there.then_some(option));
    let group = args.group.clone().unwrap_or_default();
    let name = registration.name().to_owned();
    let request = StartRequest { name: name.clone(), group, limits: limits(args)?, share: args.share };
    let scope = Daemon::of(state).admit(&request, need)?;
    Ok(scope.unwrap_or(if args.share == Some(Share::Vm) { Scope::Vm(name) } else { Scope::Host }))
}

/// The cgroup for the VMM of `machine`. Without one it starts all the same, which is said where one was asked for, or
/// should have been had.
fn claim_cgroup(machine: &Machine) -> Result<Option<HostCgroup>, launch::Error> {
    let without = |reason: String| {
        eprint(&format!("ballast: the microVM has no limit on the host: {}\n", printable(&reason)));
        Ok(None)
    };
    let asked = std::env::var_os(host_cgroup::VARIABLE).is_some_and(|value| !value.is_empty());
    match host_cgroup::find() {
        Ok(place) => {
            let limit = machine.host_limit()?;
            let made = Home::make(&place).and_then(|home| {
                home.sweep();
                home.claim(&machine.name, limit)
            });
            made.map(Some).or_else(|error| without(doctor::chain(&error)))
        }
        Err(obstacle) if asked && obstacle != Obstacle::Off => {
            without(format!("{obstacle}; {}", obstacle.remedy()))
        }
        Err(_) => Ok(None),
    }
}

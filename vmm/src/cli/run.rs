//! `ballast run`: from the command line to the workload's exit code.

use super::daemon::Daemon;
use super::dirs::Dirs;
use super::format::printable;
use super::host_cgroup::{self, Home, HostCgroup, Obstacle};
use super::launch::{self, Disk, Layer, Machine, Reclaim};
use super::output::eprint;
use super::run_args::RunArgs;
use super::session::{Conclusion, Session, conclude};
use super::signals::Signals;
use super::state::{Exit, Record, Registration, STOP_SIGNAL};
use super::streams::{self, Undelivered};
use super::supervisor::{self, Logging, Supervisor};
use super::terminal::{self, RawMode};
use super::{doctor, install, signal_name, timings, workload, zone_argument};
use crate::config::ZoneConfig;
use crate::image::Store;
use crate::image::progress_bars::ProgressBars;
use crate::image::reference::ImageRef;
use crate::kernel;
use crate::report::{Outcome, monotonic_us};
use crate::volume::argument::ArgumentError;
use crate::volume::{self, DiskArgument, OpenDisk, VolumeArgument, Volumes};
use balloon::BLOCK_BYTES;
use balloon::control::fleet::StartRequest;
use balloon::device::{FEATURE_NAMES, OFFERED, named_features};
use balloon::size::Size;
use balloon::zone::{Limits, Scope, Share};
use proto::{Spec, WindowSize};
use std::error::Error as StdError;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

/// Below this a stock kernel does not boot.
const LEAST_MEMORY: u64 = 96 << 20;

/// Lists the balloon's features to offer, to find out whether a failure is theirs.
const BALLOON_VARIABLE: &str = "BALLAST_BALLOON";

/// What is wrong with the command line itself.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("-t needs a terminal, and standard input is none: leave -t away")]
    NoTerminal,
    #[error("{0} of memory are too few for a guest kernel: use at least {least}", least = Size::from_bytes(LEAST_MEMORY))]
    TooLittleMemory(Size),
    #[error(
        "standard input cannot be both the image and the command's input: import the image first, or leave -i away"
    )]
    TwoInputs,
    #[error("{0} of memory are more than any host has: lower -m")]
    TooMuchMemory(Size),
    #[error(
        "${BALLOON_VARIABLE} is a list of the balloon's features that the guest is offered, with commas between: {}",
        FEATURE_NAMES.map(|(name, _)| name).join(", ")
    )]
    BalloonFeatures,
    #[error(transparent)]
    Workload(#[from] workload::Error),
    #[error(transparent)]
    Zone(#[from] zone_argument::ArgumentError),
    #[error(transparent)]
    KernelParameters(#[from] kernel::ParameterError),
}

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
    let balloon_features = balloon_features(std::env::var_os(BALLOON_VARIABLE).as_deref())?;
    let dirs = Dirs::find()?;
    dirs.make()?;
    let mut registration = Registration::new(&dirs.state, args.name.as_deref())?;
    let record = record(args, &registration, &dirs);
    registration.record(&record)?;
    let scope = admit(args, &dirs.state, &registration)?;
    let prepared = prepare(args, &attachments, &dirs, &registration, &scope)?;
    registration.record(&Record { stop_signal: prepared.stop_signal, ..record.clone() })?;

    // From here on signals are the workload's; until here they end this program, which leaves nothing half done.
    let signals = Signals::block()?;
    let mut logging =
        supervisor.map(|supervisor| supervisor.log(args, &record, registration.directory())).transpose()?;
    let (guest_ends, pumps) = match &logging {
        Some(logging) => streams::start_logged(logging.writer(), args.interactive)?,
        None => streams::start(args.interactive)?,
    };
    let raw = (args.tty && logging.is_none()).then(RawMode::set).transpose()?;
    let listener = registration.listen()?;
    let (machine, store) = prepared.machine(args, balloon_features, guest_ends, listener)?;
    let cgroup = claim_cgroup(&machine)?;
    let vmm = launch::start(&install::vmm()?, machine, cgroup.as_ref())?;
    let mut session = Session::new(vmm);
    session.follow(&signals, logging.as_mut())?;
    // Its ends of the pipes close with it.
    let status = session.wait()?;
    // With the VMM its mappings are gone: who was the last of a scope leaves no copy of the image.
    store.sweep_scopes();
    let ending = cgroup.as_ref().and_then(HostCgroup::ending);
    drop(cgroup);
    let delivered = match session.outcome {
        Some(Outcome::Interrupted { .. }) => Ok(()),
        _ => pumps.finish(&signals),
    };
    drop(raw);

    if args.timings {
        eprint(&timings::table(start_us, &session.milestones));
    }
    let conclusion = match delivered {
        Ok(()) => conclude(session.outcome.take(), status, ending),
        Err(Undelivered::Interrupted(signal)) => Conclusion::quiet(signal.saturating_add(128)),
        Err(error) => return Err(error.into()),
    };
    eprint(&conclusion.words);
    // What did not start is not kept: whoever waited for it knows.
    if logging.as_ref().is_none_or(Logging::has_started) {
        registration.end(&Exit::new(conclusion.code, Some(now_ms()), conclusion.words.trim_end()));
    }
    Ok(ExitCode::from(conclusion.code))
}

/// What is written down of it.
fn record(args: &RunArgs, registration: &Registration, dirs: &Dirs) -> Record {
    let text = |word: &OsString| word.to_string_lossy().into_owned();
    let command = args.command.iter().map(text).collect();
    let record = Record::new(registration.id().into(), text(&args.image), command, now_ms());
    if !args.detach {
        return record;
    }
    let log = Some(supervisor::log_directory(&dirs.data, registration));
    Record { detached: true, remove: args.rm, log, ..record }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// Everything that can be refused before anything is looked for or made.
fn check(args: &RunArgs) -> Result<(), Refusal> {
    if args.tty && !args.detach && !std::io::stdin().is_terminal() {
        return Err(Refusal::NoTerminal);
    }
    if args.memory.bytes() < LEAST_MEMORY {
        return Err(Refusal::TooLittleMemory(args.memory));
    }
    if args.interactive && args.image == "-" {
        return Err(Refusal::TwoInputs);
    }
    workload::check(args)?;
    kernel::command_line(args.boot_log, zones(args)?.len(), &args.kernel_arg)?;
    Ok(())
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

/// Its limits in the zone tree: all of guest memory is its max.
fn limits(args: &RunArgs) -> Result<Limits, Refusal> {
    let max = zones(args)?.iter().fold(0, |sum: u64, zone| sum.saturating_add(zone.bytes));
    Ok(Limits {
        min: args.memory_min.map(Size::bytes),
        low: args.memory_low.map(Size::bytes),
        high: args.memory_high.map(Size::bytes),
        max: Some(max),
        ..Limits::default()
    })
}

/// The features that `list` names; all if there is no list.
fn balloon_features(list: Option<&OsStr>) -> Result<u64, Refusal> {
    let Some(list) = list else { return Ok(OFFERED) };
    list.to_str().and_then(named_features).ok_or(Refusal::BalloonFeatures)
}

/// Memory of the guest in bytes, in whole blocks.
fn memory_bytes(args: &RunArgs) -> Result<u64, Refusal> {
    let bytes = args.memory.bytes().checked_next_multiple_of(BLOCK_BYTES);
    bytes.ok_or(Refusal::TooMuchMemory(args.memory))
}

/// The zones that its memory is divided into.
fn zones(args: &RunArgs) -> Result<Vec<ZoneConfig>, Refusal> {
    let zones = zone_argument::zones(memory_bytes(args)?, &args.zone)?;
    workload_zone(args, &zones)?;
    Ok(zones)
}

/// The number of the zone that the command runs in.
fn workload_zone(args: &RunArgs, zones: &[ZoneConfig]) -> Result<usize, Refusal> {
    Ok(args.in_zone.as_deref().map_or(Ok(0), |name| zone_argument::find_zone(zones, name))?)
}

/// What the user wants to have attached.
struct Attachments {
    volumes: Vec<VolumeArgument>,
    disks: Vec<DiskArgument>,
}

impl Attachments {
    fn parse(args: &RunArgs) -> Result<Self, ArgumentError> {
        let disks = args.disk.iter().map(|disk| DiskArgument::parse(disk));
        Ok(Self {
            volumes: VolumeArgument::parse_all(&args.volume)?,
            disks: disks.collect::<Result<_, _>>()?,
        })
    }
}

/// Everything that is ready before the VMM starts.
struct Prepared {
    name: String,
    kernel: kernel::GuestKernel,
    layers: Vec<Layer>,
    store: Store,
    disks: Vec<Disk>,
    spec: Vec<u8>,
    stop_signal: u8,
}

fn prepare(
    args: &RunArgs,
    attachments: &Attachments,
    dirs: &Dirs,
    registration: &Registration,
    scope: &Scope,
) -> Result<Prepared, Box<dyn StdError>> {
    let search = kernel::Search::on_this_host(args.kernel.clone(), args.modules.clone(), &dirs.data);
    let source = kernel::find(&search)?;
    let kernel = kernel::prepare(&source, &install::agent()?, &dirs.data.join("cache"))?;
    for notice in &kernel.notices {
        eprint(&format!("ballast: {}\n", printable(notice)));
    }

    let store = super::image::open_store(dirs)?;
    let image = store.resolve(&ImageRef::parse(&args.image), &ProgressBars::on_stderr())?;
    store.sweep_scopes();
    let layers = store.scoped(image.layers, &dirs.state, scope)?;

    let stop_signal = image.config.stop_signal.as_deref().and_then(|name| signal_name::parse(name).ok());
    let tty = args.tty.then(|| terminal::size().unwrap_or((24, 80)));
    let tty = tty.map(|(rows, cols)| WindowSize { rows, cols });
    let mut spec: Spec =
        workload::specify(args, &image.config, registration.name(), tty, |name| std::env::var_os(name))?;
    let zones = zones(args)?;
    spec.zone = u8::try_from(workload_zone(args, &zones)?)?;
    spec.memory_bytes = zones.iter().fold(0, |sum, zone| sum.saturating_add(zone.bytes));
    spec.zones = zones.into_iter().map(|zone| zone.name).collect();
    spec.layers = layers.iter().map(|layer| layer.uuid).collect();
    // What the agent would not take is refused before a volume is made for it.
    spec.encode()?;
    let disks = open_disks(attachments, dirs, &mut spec)?;

    Ok(Prepared {
        name: registration.name().into(),
        kernel,
        layers: layers.into_iter().map(|layer| Layer { file: layer.file, name: layer.name }).collect(),
        store,
        disks,
        spec: spec.encode()?,
        // What an image says there may be nonsense.
        stop_signal: stop_signal.unwrap_or(STOP_SIGNAL),
    })
}

/// Opens volumes, which the agent mounts, and disks, which the workload finds as they are behind the volumes. Disks
/// are opened first: a volume that is missing is made.
fn open_disks(
    attachments: &Attachments,
    dirs: &Dirs,
    spec: &mut Spec,
) -> Result<Vec<Disk>, Box<dyn StdError>> {
    let opened = attachments.disks.iter().map(|disk| volume::disk::open(&disk.path, disk.read_only));
    let opened = opened.collect::<Result<Vec<_>, _>>()?;
    let mut disks = Vec::new();
    let mut add = |open: OpenDisk| {
        if let Some(notice) = &open.notice {
            eprint(&format!("ballast: {}\n", printable(notice)));
        }
        let serial = format!("disk{}", disks.len());
        disks.push(Disk { file: open.file, serial: serial.clone(), read_only: open.read_only });
        serial
    };
    let volumes = Volumes::new(&dirs.data);
    for VolumeArgument { name, place, read_only } in &attachments.volumes {
        let serial = add(volumes.open(name, *read_only)?);
        spec.volumes.push(proto::Volume { serial, path: place.clone(), read_only: *read_only });
    }
    for disk in opened {
        add(disk);
    }
    Ok(disks)
}

impl Prepared {
    fn machine(
        self,
        args: &RunArgs,
        balloon_features: u64,
        streams: streams::GuestEnds,
        listener: UnixListener,
    ) -> Result<(Machine, Store), Box<dyn StdError>> {
        let zones = zones(args)?;
        let command_line = kernel::command_line(args.boot_log, zones.len(), &args.kernel_arg)?;
        let machine = Machine {
            name: self.name,
            group: args.group.clone().unwrap_or_default(),
            limits: limits(args)?,
            image: args.image.to_string_lossy().into_owned(),
            listener,
            zones,
            cpus: args.cpus,
            kernel: self.kernel.elf,
            kernel_release: self.kernel.release,
            initramfs: self.kernel.initramfs,
            command_line,
            layers: self.layers,
            disks: self.disks,
            spec: self.spec,
            streams,
            balloon_features,
            reclaim: reclaim(args),
            boot_log: args.boot_log,
        };
        Ok((machine, self.store))
    }
}

/// The reclaim law that is wanted.
fn reclaim(args: &RunArgs) -> Reclaim {
    Reclaim {
        mode: args.reclaim.into(),
        working_set_age_ms: args.working_set_age.ms,
        stall_budget_ppm: args.stall_budget.ppm,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use balloon::device::features;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn features_of_the_balloon_are_listed_or_all() {
        let listed = |list: &str| balloon_features(Some(OsStr::new(list))).ok();
        assert_eq!(balloon_features(None).ok(), Some(OFFERED));
        assert_eq!(listed(""), Some(0));
        assert_eq!(listed("reporting,statistics"), Some(features::REPORTING | features::STATS_VQ));
        assert_eq!(listed("reporting,hinting"), None);
        let refusal = balloon_features(Some(OsStr::from_bytes(b"\xff"))).unwrap_err().to_string();
        assert!(
            refusal.starts_with("$BALLAST_BALLOON is a list") && refusal.contains("page-poison"),
            "{refusal}"
        );
    }
}

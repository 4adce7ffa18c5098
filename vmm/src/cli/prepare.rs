//! Finds, makes and opens everything that a microVM needs, before its VMM starts.

use super::dirs::Dirs;
use super::format::printable;
use super::launch::{Disk, Layer, Machine, Reclaim};
use super::output::eprint;
use super::run_args::RunArgs;
use super::run_settings::{limits, workload_zone, zones};
use super::state::{Registration, STOP_SIGNAL};
use super::{install, signal_name, streams, terminal, workload};
use crate::image::Store;
use crate::image::progress_bars::ProgressBars;
use crate::image::reference::ImageRef;
use crate::kernel;
use crate::volume::argument::ArgumentError;
use crate::volume::{self, DiskArgument, OpenDisk, VolumeArgument, Volumes};
use balloon::zone::Scope;
use proto::{Spec, WindowSize};
use std::error::Error;
use std::os::unix::net::UnixListener;

/// What the user wants to have attached.
pub(super) struct Attachments {
    volumes: Vec<VolumeArgument>,
    disks: Vec<DiskArgument>,
}

impl Attachments {
    pub(super) fn parse(args: &RunArgs) -> Result<Self, ArgumentError> {
        let disks = args.disk.iter().map(|disk| DiskArgument::parse(disk));
        Ok(Self {
            volumes: VolumeArgument::parse_all(&args.volume)?,
            disks: disks.collect::<Result<_, _>>()?,
        })
    }
}

/// Everything that is ready before the VMM starts.
pub(super) struct Prepared {
    name: String,
    kernel: kernel::GuestKernel,
    layers: Vec<Layer>,
    store: Store,
    disks: Vec<Disk>,
    spec: Vec<u8>,
    /// What the image wants to be stopped with.
    pub(super) stop_signal: u8,
}

pub(super) fn prepare(
    args: &RunArgs,
    attachments: &Attachments,
    dirs: &Dirs,
    registration: &Registration,
    scope: &Scope,
) -> Result<Prepared, Box<dyn Error>> {
    let search = kernel::Search::on_this_host(args.kernel.clone(), args.modules.clone(), &dirs.data);
    let source = kernel::find(&search)?;
    let kernel = kernel::prepare(&source, &install::agent()?, &dirs.data.join("cache"))?;
    for notice in &kernel.notices {
        eprint(&format!("ballast: {}\n", printable(notice)));
    }

    let store = super::image::open_store(dirs)?;
    let image = store.resolve(&ImageRef::parse(args.image()), &ProgressBars::on_stderr())?;
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
fn open_disks(attachments: &Attachments, dirs: &Dirs, spec: &mut Spec) -> Result<Vec<Disk>, Box<dyn Error>> {
    let opened = attachments.disks.iter().map(|disk| volume::disk::open(&disk.path, disk.read_only));
    let opened = opened.collect::<Result<Vec<_>, _>>()?;
    let mut disks = Vec::new();
    let mut add = |open: OpenDisk| {
        if let Some(notice) = &open.notice {
            eprint(&format!("ballast: {}\n", printable(notice)));
        }
        let serial = format!("disk{}", disks.len());
        let OpenDisk { file, name, read_only, memory_bytes, .. } = open;
        disks.push(Disk { file, name, serial: serial.clone(), read_only, memory_bytes });
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
    pub(super) fn machine(
        self,
        args: &RunArgs,
        balloon_features: u64,
        streams: streams::GuestEnds,
        listener: UnixListener,
        reclaim: Reclaim,
    ) -> Result<(Machine, Store), Box<dyn Error>> {
        let zones = zones(args)?;
        let command_line = kernel::command_line(args.boot_log, zones.len(), args.tracing, &args.kernel_arg)?;
        let machine = Machine {
            name: self.name,
            group: args.group.clone().unwrap_or_default(),
            limits: limits(args)?,
            image: args.image().to_string_lossy().into_owned(),
            listener,
            zones,
            cpus: args.cpus,
            kernel: self.kernel.elf,
            kernel_shared: self.kernel.shared,
            kernel_release: self.kernel.release,
            initramfs: self.kernel.initramfs,
            command_line,
            layers: self.layers,
            disks: self.disks,
            spec: self.spec,
            streams,
            balloon_features,
            reclaim,
            boot_log: args.boot_log,
        };
        Ok((machine, self.store))
    }
}

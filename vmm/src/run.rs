//! Builds one microVM from its configuration and runs it to its end. Wiring: every part is a local here.

use crate::cgroup::HostCgroup;
use crate::config::{ReclaimConfig, VmConfig};
use crate::control::agent::Linked;
use crate::control::ballooned::Ballooned;
use crate::control::host_nodes::HostNodes;
use crate::control::limits::Held;
use crate::control::orders::Orders;
use crate::control::paging::Paging;
use crate::control::service::MicroVm;
use crate::control::ticks::{TickEvents, Ticks};
use crate::from_config::{document, hello, owner, private_zones, shared_zones, small_regions, zone};
use crate::link::Link;
use crate::machine::layout::Ram;
use crate::machine::memory::{self, SharedZone, Zone};
use crate::machine::serial::{self, SerialPort};
use crate::machine::stop::{PowerRegisters, Stop, StopSignal};
use crate::machine::vcpu::{self, Buses};
use crate::machine::vm::{self, Vm};
use crate::machine::{acpi, boot, layout};
use crate::reclaim::beat::Beat;
use crate::reclaim::host::Files;
use crate::report::{Milestone, Outcome, Report};
use crate::seccomp::{self, Filters};
use crate::streams::{self, HostEnds, OrderEvents, Settled, Streams};
use crate::virtio::attach::{self, QueueEvents, Slots};
use crate::virtio::balloon::{self, Balloon, BalloonEvents};
use crate::virtio::block::Block;
use crate::virtio::block::file::FileBackend;
use crate::virtio::console::Console;
use crate::virtio::mmio::Transport;
use crate::virtio::pmem::Pmem;
use crate::virtio::rng::Rng;
use ::balloon::control::server::Server;
use ::balloon::device::STATISTICS_DEADLINE_MS;
use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use kvm_ioctls::Kvm;
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

/// A microVM could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM refuses.
    #[error(transparent)]
    Vm(#[from] vm::Error),
    /// Memory cannot be mapped.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// The memory cannot be managed.
    #[error(transparent)]
    Balloon(#[from] balloon::Error),
    /// The kernel cannot be loaded.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// A device cannot be attached.
    #[error(transparent)]
    Attach(#[from] attach::Error),
    /// The zones do not fit the address space.
    #[error("the zones of memory do not fit the guest's address space: make them smaller")]
    Zones,
    /// The image's layers do not fit the address space.
    #[error("the image's layers do not fit the guest's address space")]
    Layers,
    /// The host refuses something small.
    #[error("cannot {doing}")]
    Host {
        /// What was being done.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// The threads cannot be confined.
    #[error(transparent)]
    Seccomp(#[from] seccomp::Error),
    /// The event loop fails.
    #[error("the event loop failed")]
    EventLoop(#[from] event_manager::Error),
    /// Two devices share I/O ports.
    #[error(transparent)]
    Ports(#[from] crate::bus::Overlap),
}

/// A disk's thread moves descriptors, not data.
const DISK_STACK_BYTES: usize = 256 << 10;

fn host(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Host { doing, source }
}

/// Takes over a descriptor named by the configuration.
///
/// # Safety
/// `fd` is open, and nothing else in this process uses it.
unsafe fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller promises it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Runs the microVM to its end and reports how it ended to `ballast`.
///
/// # Errors
/// The microVM could not be built; nothing was reported then.
///
/// # Safety
/// Every descriptor in `config` is open, named once, and used by nothing else in this process.
pub unsafe fn run(config: &VmConfig) -> Result<(), Error> {
    // SAFETY: this function's own contract, here and for every descriptor below.
    let file = |fd: RawFd| File::from(unsafe { adopt(fd) });
    // SAFETY: as above.
    let kvm = unsafe { Kvm::from_raw_fd(config.kvm) };
    let control = UnixDatagram::from(OwnedFd::from(file(config.control)));
    let filters = Filters::compile()?;
    let milestone = |name| streams::send_report(&control, &Report::Milestone(Milestone::now(name, None)));
    milestone("vmm-started");

    let sizes: Vec<u64> = config.zones.iter().map(|zone| zone.bytes).collect();
    let ram = Ram::lay(&sizes).ok_or(Error::Zones)?;
    let zones: Vec<Zone> = config.zones.iter().map(zone).collect();
    let memory = memory::map_ram(&ram, &zones)?;
    let mut kernel = file(config.kernel);
    if let Some(part) = config.kernel_shared {
        memory::map_image(&memory, &kernel, part)?;
    }
    memory::place(&memory, &ram, &zones)?;
    let mut vm = Vm::new(&kvm, config.cpus)?;
    vm.add_ram(&memory)?;

    // They stay open to the end: each is locked by whoever uses it, and a mapping keeps no lock on an overlayfs.
    let layer_files: Vec<File> = config.layers.iter().map(|layer| file(layer.file)).collect();
    let layers: Vec<SharedZone> = layer_files.iter().map(SharedZone::map).collect::<Result<_, _>>()?;
    let sizes: Vec<u64> = layers.iter().map(SharedZone::bytes).collect();
    let starts = ram.pmem_starts(&sizes).ok_or(Error::Layers)?;
    for (zone, start) in layers.iter().zip(&starts) {
        vm.add_shared_zone(*start, zone)?;
    }

    let stop = Arc::new(StopSignal::new().map_err(host("create an event"))?);
    let mut buses = Buses::default();
    buses.ports.insert(
        u64::from(PowerRegisters::PORT),
        PowerRegisters::PORTS,
        Arc::new(PowerRegisters(Arc::clone(&stop))),
    )?;
    if config.boot_log {
        add_serial(&vm, &mut buses)?;
    }

    let mut slots = Slots::default();
    let mut events: EventManager<Box<dyn MutEventSubscriber>> = EventManager::new()?;
    let console = transport(Console::default(), &memory)?;
    slots.attach(&vm, &mut buses, &console)?;
    let rng = transport(Rng::new(host_random), &memory)?;
    slots.attach(&vm, &mut buses, &rng)?;
    events.add_subscriber(Box::new(QueueEvents(rng)));
    let mut balloon = Balloon::over(&memory, config.balloon_features, config.kernel_shared)?;
    for region in small_regions(config, &ram) {
        balloon.device().backing_mut().keep_small_pages(region);
    }
    balloon.device().backing_mut().keep_small_ranges(0, 0..layout::SPARSE_RANGES);
    let balloon = transport(balloon, &memory)?;
    slots.attach(&vm, &mut buses, &balloon)?;
    for (zone, start) in layers.iter().zip(&starts) {
        let pmem = transport(Pmem::new(*start, zone.bytes()), &memory)?;
        slots.attach(&vm, &mut buses, &pmem)?;
        events.add_subscriber(Box::new(QueueEvents(pmem)));
    }

    let shared = memory::read_only_memory(&layers, &starts)?;
    for disk in &config.disks {
        let backend = FileBackend::new(file(disk.file)).map_err(host("open a disk"))?;
        let device = Block::new(backend, &disk.name, &disk.serial, disk.read_only, Arc::clone(&shared));
        let block = transport(device, &memory)?;
        slots.attach(&vm, &mut buses, &block)?;
        spawn_loop(&disk.serial, QueueEvents(block), Arc::clone(&stop), filters.clone())?;
    }

    let acpi = acpi::tables(config.cpus, &ram, &boot::virtio_nodes(slots.taken()), config.boot_log)
        .ok_or(boot::Error::Acpi)?;
    let entry = boot::load(
        &memory,
        &mut boot::Payload {
            kernel: &mut kernel,
            mapped: config.kernel_shared,
            initramfs: &mut file(config.initramfs),
            command_line: &config.command_line,
            ram: &ram,
            acpi: &acpi,
        },
    )?;
    milestone("kernel-loaded");

    let mut spec = Vec::new();
    file(config.spec).read_to_end(&mut spec).map_err(host("read the workload's specification"))?;
    let ends = HostEnds {
        stdin: config.stdio.stdin.map(file),
        stdout: file(config.stdio.stdout),
        stderr: file(config.stdio.stderr),
        control: control.try_clone().map_err(host("share the control socket"))?,
    };
    let settled = Settled::default();
    let (outcome, limit) = (Settled::clone(&settled), Duration::from_secs(config.start_limit_s));
    let link = Rc::new(RefCell::new(Link::new(&spec)));
    let event = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(host("create an event"));
    let share = |event: &EventFd| event.try_clone().map_err(host("create an event"));
    let (ordered, answered) = (event()?, event()?);
    let held = Held::new(config.limits, config.memory_bytes());
    let order_events =
        OrderEvents { ordered: share(&ordered)?, answered: share(&answered)?, max_bytes: held.max_bytes() };
    let ordered = Rc::new(ordered);
    let law_agent = Linked { link: Rc::clone(&link), ordered: Rc::clone(&ordered) };
    let agent = Linked { link: Rc::clone(&link), ordered };
    let streams = Streams::new(console, link, order_events, ends, Arc::clone(&stop), outcome, limit)
        .map_err(host("create a timer"))?;
    events.add_subscriber(Box::new(streams));
    // SAFETY: as above.
    let host_cgroup = config.host_cgroup.as_ref().map(|cgroup| Rc::new(unsafe { HostCgroup::adopt(cgroup) }));
    let private = private_zones(config, &ram);
    let ranges: Vec<_> = private.iter().map(|zone| memory::host_ranges(&memory, &zone.regions)).collect();
    let paging = Paging::new(ranges.concat());
    let nodes = HostNodes::new(ranges);
    let ballooned = Ballooned::new(Arc::clone(&balloon), private, share(&answered)?)
        .with_host(host_cgroup.clone())
        .with_nodes(nodes)
        .with_paging(paging)
        .with_shared(shared_zones(config, &layers));
    let ticks = Ticks::new().map_err(host("create a timer"))?;
    events.add_subscriber(Box::new(TickEvents { ticks: ticks.clone(), event: share(&answered)? }));
    events.add_subscriber(Box::new(Beat::new(share(&answered)?).map_err(host("create a timer"))?));
    let last = share(&answered)?;
    let balloon = BalloonEvents::new(balloon, answered).map_err(host("create a timer"))?;
    events.add_subscriber(Box::new(balloon));
    let listener = UnixListener::from(OwnedFd::from(file(config.listener)));
    let guest_limit = Duration::from_millis(STATISTICS_DEADLINE_MS);
    let host_limit = Box::new(move |max_bytes| match &host_cgroup {
        Some(cgroup) => cgroup.set_guest_max(max_bytes).map(drop),
        None => Ok(()),
    });
    let orders = Orders::new(Box::new(agent), held, host_limit);
    let ReclaimConfig { host_pressure, host_meminfo, recording, .. } = config.reclaim;
    let recording = recording.map(file);
    let host_files = Files { pressure: host_pressure.map(file), meminfo: host_meminfo.map(file) };
    let service = MicroVm::new(document(config), hello(config), Box::new(ballooned), guest_limit)
        .map_err(host("create an event"))?
        .with_agent(orders, ticks)
        .with_reclaim(owner(config, recording), Box::new(law_agent), host_files);
    let arbiter = service.arbiter();
    let server = Server::new(listener, service).map_err(host("serve the control socket"))?;
    events.add_subscriber(Box::new(server));

    let vcpus =
        (0..config.cpus).map(|cpu| vm.add_vcpu(cpu, config.cpus, entry)).collect::<Result<Vec<_>, _>>()?;
    let buses = Arc::new(buses);
    for (cpu, vcpu) in (0..).zip(vcpus) {
        vcpu::spawn(cpu, vcpu, Arc::clone(&buses), Arc::clone(&stop), filters.clone())
            .map_err(host("start a vCPU thread"))?;
    }

    filters.apply("main")?;
    let outcome: Outcome = loop {
        events.run()?;
        if let Some(outcome) = settled.take() {
            break outcome;
        }
    };
    // The daemon has it with one more turn of the loop; nobody waits for the daemon.
    arbiter.borrow_mut().set_end(outcome.end());
    if last.write(1).is_ok() {
        let _ = events.run_with_timeout(0);
    }
    // `ballast` is waited for.
    control.set_nonblocking(false).map_err(host("wait for ballast"))?;
    streams::send_report(&control, &Report::Ended(outcome));
    drop(layer_files);
    Ok(())
}

fn transport<D: crate::virtio::device::Device>(
    device: D,
    memory: &crate::virtio::device::Memory,
) -> Result<Arc<Transport<D>>, Error> {
    Transport::new(device, Arc::clone(memory)).map(Arc::new).map_err(host("create a device's events"))
}

fn add_serial(vm: &Vm, buses: &mut Buses) -> Result<(), Error> {
    let interrupt = EventFd::new(libc::EFD_NONBLOCK).map_err(host("create an event"))?;
    vm.add_interrupt(&interrupt, layout::SERIAL_GSI)?;
    let port = SerialPort::new(interrupt, io::stderr());
    buses.ports.insert(u64::from(layout::SERIAL_PORT), serial::PORTS, Arc::new(port))?;
    Ok(())
}

/// Serves a device that waits for the host's storage on a thread of its own, so that nobody waits with it. A guest
/// whose disk is no longer served would wait for ever: then the machine stops.
fn spawn_loop(
    name: &str,
    subscriber: impl MutEventSubscriber + Send + 'static,
    stop: Arc<StopSignal>,
    filters: Filters,
) -> Result<(), Error> {
    let serve = move || -> Result<(), Error> {
        let mut events = EventManager::new()?;
        events.add_subscriber(subscriber);
        filters.apply("disk")?;
        loop {
            events.run()?;
        }
    };
    let thread = std::thread::Builder::new().name(name.into()).stack_size(DISK_STACK_BYTES);
    let run = move || {
        if let Err(error) = serve() {
            stop.stop(Stop::Device(format!("its disk is no longer served: {error}")));
        }
    };
    thread.spawn(run).map(drop).map_err(host("start a disk's thread"))
}

/// Random bytes from the host's kernel.
fn host_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest @ [_, ..]) = bytes.get_mut(filled..) {
        // SAFETY: `rest` is valid for writes of its length.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

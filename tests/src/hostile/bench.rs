//! A microVM made of the VMM's own parts in this process, so that a test sees behind the guest: KVM, the bus, the
//! balloon behind its registers and eventfds, an event loop, the control socket. Only the memory is the test's:
//! between canaries, one region anonymous but for what is mapped from a file, and one a memfd.

use super::abuse::Abuse;
use super::clients::{Clients, memory_of};
use super::driver::{Driver, PAGE, VICTIMS};
use super::interpreter::{CODE, MAILBOX, PROGRAM, RECORD_BYTES, SECOND_ENTRY, STATE};
use super::machine::{Machine, image, registers};
use super::meter::{Metered, Most};
use super::program::Program;
use crate::fuzz::fenced::Fenced;
use balloon::backing::Host;
use balloon::control::api::VmDocument;
use balloon::control::link::Hello;
use balloon::control::server::Server;
use balloon::device::{MemoryReport, STATISTICS_DEADLINE_MS};
use balloon::zone::Limits;
use event_manager::{EventManager, MutEventSubscriber, RemoteEndpoint, SubscriberOps};
use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_mp_state};
use kvm_ioctls::{Kvm, VcpuFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};
use vmm::bus::BusDevice;
use vmm::control::ballooned::Ballooned;
use vmm::control::service::MicroVm;
use vmm::machine::registers::{general, set_long_mode, write_tables};
use vmm::machine::stop::{Stop, StopSignal};
use vmm::machine::vcpu::{self, Buses};
use vmm::machine::vm::Vm;
use vmm::seccomp::Filters;
use vmm::virtio::attach::Slots;
use vmm::virtio::balloon::{Balloon, BalloonEvents, monotonic_ms};
use vmm::virtio::device::Memory;
use vmm::virtio::mmio::Transport;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const MIB: u64 = 1 << 20;
/// Two regions, between which there is nothing but the devices.
pub const MACHINE: Machine =
    Machine { regions: [(0, 256 * MIB), (4096 * MIB, 16 * MIB)], balloon: registers(0) };
/// What of the pages that nobody misses is mapped from a file at first, as the constants of a kernel are.
const IMAGE_BYTES: u64 = 4 * MIB;
/// The least that a ceiling leaves the guest.
const FLOOR_BYTES: u64 = 16 * MIB;
/// A program ends long before: the guest itself gives up after 20 s.
const LIMIT: Duration = Duration::from_secs(60);
/// An [`EventManager`] of the VMM's kind.
type Loop = EventManager<Box<dyn MutEventSubscriber>>;

/// Where a vCPU waits for its next program.
struct Mailbox {
    ended: Mutex<Sender<()>>,
    next: Mutex<Receiver<()>>,
}

impl BusDevice for Mailbox {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        // A test that is over has no more programs: the vCPU rests for good.
        if self.ended.lock().unwrap().send(()).is_err() || self.next.lock().unwrap().recv().is_err() {
            loop {
                thread::park();
            }
        }
    }

    fn write(&self, _offset: u64, _data: &[u8]) {}
}

/// The test's end of a mailbox.
struct Post {
    ended: Receiver<()>,
    next: Sender<()>,
}

/// The microVM.
pub struct Bench {
    fenced: Fenced,
    memory: Memory,
    transport: Arc<Transport<Balloon<Host>>>,
    most: Arc<Most>,
    stop: Arc<StopSignal>,
    posts: Vec<Post>,
    events: RemoteEndpoint<Box<dyn MutEventSubscriber>>,
    socket: PathBuf,
    clients: Option<Clients>,
    _directory: tempfile::TempDir,
}

impl Bench {
    /// Starts it with so many vCPUs, one or two; each waits for its first program.
    #[must_use]
    pub fn start(cpus: u8) -> Self {
        let fenced = Fenced::new(MACHINE.regions, VICTIMS, IMAGE_BYTES);
        let memory = fenced.memory();
        write_tables(&memory).unwrap();
        memory.write_slice(&image(), GuestAddress(CODE)).unwrap();

        let kvm = Kvm::new().expect("the hostile guest needs /dev/kvm, open for reading and writing");
        let mut vm = Vm::new(&kvm, cpus).unwrap();
        vm.add_ram(&memory).unwrap();
        let stop = Arc::new(StopSignal::new().unwrap());
        let mut buses = Buses::default();
        let image = Some(fenced.image());
        let device = Balloon::with_image(Host::probe(), &memory, FLOOR_BYTES, monotonic_ms, image).unwrap();
        let transport = Arc::new(Transport::new(device, memory.clone()).unwrap());
        Slots::default().attach(&vm, &mut buses, &transport).unwrap();
        let posts = MAILBOX.iter().take(cpus.into()).map(|port| {
            let ((ended, has_ended), (next, has_next)) = (channel(), channel());
            let mailbox = Mailbox { ended: Mutex::new(ended), next: Mutex::new(has_next) };
            buses.ports.insert((*port).into(), 4, Arc::new(mailbox)).unwrap();
            Post { ended: has_ended, next }
        });
        let posts = posts.collect();

        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let most = Arc::<Most>::default();
        let events = start_loop(UnixListener::bind(&socket).unwrap(), &transport, &most);
        let bench = Self {
            fenced,
            memory,
            transport,
            most,
            stop,
            posts,
            events,
            clients: Some(Clients::start(&socket)),
            socket,
            _directory: directory,
        };
        let mut first = Program::default();
        first.next();
        let buses = Arc::new(buses);
        for cpu in 0..cpus {
            bench.place(cpu.into(), &first);
            let vcpu = vm.add_vcpu(cpu, cpus, CODE).unwrap();
            if cpu > 0 {
                start_at(&vcpu, SECOND_ENTRY);
            }
            let stop = Arc::clone(&bench.stop);
            vcpu::spawn(cpu, vcpu, Arc::clone(&buses), stop, Filters::default()).unwrap();
        }
        (0..cpus.into()).for_each(|cpu| bench.wait(cpu, "the start"));
        bench
    }

    fn place(&self, cpu: usize, program: &Program) {
        let bytes = program.bytes(PROGRAM[cpu]);
        let room = if cpu == 0 { PROGRAM[1] - PROGRAM[0] } else { super::interpreter::END - PROGRAM[1] };
        assert!(bytes.len() as u64 <= room, "a program of {} bytes is too long", bytes.len());
        self.memory.write_slice(&bytes, GuestAddress(PROGRAM[cpu])).unwrap();
        self.memory.write_slice(&[0; 24], GuestAddress(STATE[cpu])).unwrap();
    }

    fn wait(&self, cpu: usize, what: &str) {
        if self.posts[cpu].ended.recv_timeout(LIMIT).is_err() {
            panic!("{what}: no end in {LIMIT:?}; the machine stopped: {:?}", self.stop.reason());
        }
    }

    /// Lets a vCPU begin a program.
    pub fn begin(&self, cpu: usize, program: &Program) {
        self.place(cpu, program);
        self.posts[cpu].next.send(()).unwrap();
    }

    /// Waits for the end of a vCPU's program, all of whose expectations must have held.
    pub fn finish(&self, cpu: usize, program: &Program, name: &str) {
        self.wait(cpu, name);
        let state = |offset| self.memory.read_obj::<u64>(GuestAddress(STATE[cpu] + offset)).unwrap();
        let (behind, seen, failures) = (state(0), state(8), state(16));
        if failures > 0 {
            let record = program.record_before(behind - PROGRAM[cpu]);
            let number = (behind - PROGRAM[cpu]) / RECORD_BYTES as u64 - 1;
            panic!("{name}: the guest saw {seen:#x} in step {number}, {record:x?}; {failures} such failures");
        }
    }

    /// Runs a program on the first vCPU.
    pub fn run(&self, program: &Program, name: &str) {
        self.begin(0, program);
        self.finish(0, program, name);
        self.settle();
    }

    /// Waits until the event loop has served all kicks so far.
    pub fn settle(&self) {
        for _ in 0..2 {
            self.events.call_blocking(|_| Ok::<_, event_manager::Error>(())).unwrap();
        }
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the balloon says.
    #[must_use]
    pub fn report(&self) -> MemoryReport {
        self.transport.memory_report()
    }

    /// Why the machine stopped, if it did.
    #[must_use]
    pub fn stopped(&self) -> Option<&Stop> {
        self.stop.reason()
    }

    /// One abuse after another, each with everything that must hold after it.
    pub fn endures(&self, abuses: &[Abuse]) {
        for abuse in abuses {
            let before = self.report().protocol_errors.by_kind();
            self.run(&abuse.attempt(MACHINE), abuse.name);
            let after = self.report().protocol_errors.by_kind();
            for ((kind, after), (_, before)) in after.into_iter().zip(before) {
                assert!(
                    abuse.allows(kind, after - before),
                    "{}: {kind} grew by {}",
                    abuse.name,
                    after - before
                );
            }
            self.holds(abuse.name);
            self.serves_a_good_driver(abuse.name);
        }
    }

    /// What holds whatever the guest does.
    pub fn holds(&self, name: &str) {
        assert_eq!(self.stopped(), None, "{name}: the machine stopped");
        self.holds_beside(name);
    }

    fn holds_beside(&self, name: &str) {
        self.fenced.check();
        self.transport.with_device(|balloon| balloon.device().books().check()).unwrap();
        assert!(self.clients.as_ref().is_none_or(Clients::are_content), "{name}: see the client's panic");
        let report = self.report();
        assert_eq!(report.guest_owned + report.ballooned + report.reported, report.size, "{name}");
        assert_eq!(report.release_failures.calls, 0, "{name}: the host refused what it should take");
        assert!(self.most.is_bounded(), "{name}: a pass of {:?}", self.most);
    }

    /// What holds whatever the guest has done to itself.
    pub fn holds_for_a_dead_guest(&self, name: &str) {
        let stopped = self.stopped();
        assert!(matches!(stopped, None | Some(Stop::TripleFault(_))), "{name}: {stopped:?}");
        self.settle();
        self.holds_beside(name);
    }

    /// After a reset the device serves a good driver as if nothing had been, and everybody is told so.
    pub fn serves_a_good_driver(&self, name: &str) {
        let run = |does: fn(&mut Driver)| {
            let mut driver = Driver::new(MACHINE);
            does(&mut driver);
            driver.program.next();
            self.run(&driver.program, &format!("a good driver after {name}"));
        };
        // What is under way ends with a reset: only then nobody but the good driver can be blamed.
        run(Driver::reset);
        let before = self.report().protocol_errors;
        run(Driver::behave);
        let report = self.report();
        assert_eq!(report.ballooned, PAGE, "{name}: {report:?}");
        assert_eq!(report.protocol_errors, before, "{name}: a good driver is blamed");
        assert_eq!(memory_of(&self.socket)["ballooned_bytes"], PAGE, "{name}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(clients) = self.clients.take()
            && !thread::panicking()
        {
            assert!(clients.answers() > 0, "nobody was answered");
            clients.end();
        }
    }
}

/// Serves devices and control socket in a thread of its own, as the VMM's main thread does, for good.
fn start_loop(
    listener: UnixListener,
    transport: &Arc<Transport<Balloon<Host>>>,
    most: &Arc<Most>,
) -> RemoteEndpoint<Box<dyn MutEventSubscriber>> {
    let answered = EventFd::new(EFD_NONBLOCK).unwrap();
    let (memory, answers) = (Arc::clone(transport), answered.try_clone().unwrap());
    let events = BalloonEvents::new(Arc::clone(transport), answered).unwrap();
    let metered = Metered { events, transport: Arc::clone(transport), most: Arc::clone(most) };
    let (endpoint, has_endpoint) = channel();
    let serve = move || {
        let mut events = Loop::new().unwrap();
        events.add_subscriber(Box::new(metered));
        let limit = Duration::from_millis(STATISTICS_DEADLINE_MS);
        let document = document();
        let hello = Hello {
            name: document.name.clone(),
            pid: document.pid,
            group: String::new(),
            limits: Limits::default(),
            memory_bytes: document.memory_bytes,
            zones: Vec::new(),
            inherits: true,
        };
        let vm = MicroVm::new(document, hello, Box::new(Ballooned::new(memory, Vec::new(), answers)), limit)
            .unwrap();
        events.add_subscriber(Box::new(Server::new(listener, vm).unwrap()));
        endpoint.send(events.remote_endpoint()).unwrap();
        loop {
            events.run().unwrap();
        }
    };
    thread::Builder::new().name("events".into()).spawn(serve).unwrap();
    has_endpoint.recv().unwrap()
}

fn document() -> VmDocument {
    VmDocument {
        name: "hostile".into(),
        image: "hostile".into(),
        kernel_release: "0".into(),
        pid: std::process::id(),
        cpus: 1,
        memory_bytes: MACHINE.regions.iter().map(|(_, bytes)| bytes).sum(),
        started_at_ms: 0,
        uptime_ms: 0,
        arbiter: None,
    }
}

/// Starts a vCPU that would wait for its INIT.
fn start_at(vcpu: &VcpuFd, entry: u64) {
    let mut sregs = vcpu.get_sregs().unwrap();
    set_long_mode(&mut sregs);
    vcpu.set_sregs(&sregs).unwrap();
    vcpu.set_regs(&general(entry)).unwrap();
    vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).unwrap();
}

//! The hostile guest as a kernel of the real `ballast-vmm`, which is started as `ballast` starts it.

use super::driver::{PAGE, VICTIMS};
use super::interpreter::{CODE, PROGRAM};
use super::machine::{Machine, image, registers};
use super::program::Program;
use crate::ballast::program;
use crate::process::mappings;
use crate::run::{Ended, Run, Running};
use balloon::device::OFFERED;
use balloon::policy::Mode;
use balloon::resident::Mapping;
use balloon::zone::Limits;
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs::OpenOptions;
use std::io::{Seek, Write};
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use vmm::config::{ImagePart, ReclaimConfig, StdioConfig, VmConfig, ZoneConfig};
use vmm::machine::layout::{MMIO_END, MMIO_START};
use vmm::report::{MAX_BYTES, Outcome, Report};

const MIB: u64 = 1 << 20;
/// RAM behind the hole for devices: a size that no other mapping of the VMM has.
const HIGH_BYTES: u64 = 48 * MIB;
/// Enough for two regions. The host holds only what the guest touches. Console and entropy come before the balloon.
pub const MACHINE: Machine =
    Machine { regions: [(0, MMIO_START), (MMIO_END, HIGH_BYTES)], balloon: registers(2) };

/// A running VMM.
pub struct Vmm {
    running: Running,
    control: UnixDatagram,
    socket: PathBuf,
    /// Addresses of the guest's memory.
    ram: OnceLock<Vec<Range<u64>>>,
    /// The other ends of what it was given.
    _ends: Vec<OwnedFd>,
    _directory: tempfile::TempDir,
}

/// What the VMM inherits.
#[derive(Default)]
struct Inherited(Vec<OwnedFd>);

impl Inherited {
    fn add(&mut self, fd: impl Into<OwnedFd>) -> RawFd {
        let fd = fd.into();
        rustix::io::fcntl_setfd(&fd, FdFlags::empty()).unwrap();
        let number = fd.as_raw_fd();
        self.0.push(fd);
        number
    }

    fn content(&mut self, bytes: &[u8]) -> RawFd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        self.add(file)
    }
}

impl Vmm {
    /// Starts the VMM with `hostile` as its guest's kernel, which has an hour to do its worst. The page that it uses most,
    /// and some behind it, are mapped from the kernel's file.
    #[must_use]
    pub fn start(hostile: &Program) -> Self {
        Self::start_for(hostile, 3600)
    }

    /// As [`Self::start`], with so many seconds: as a guest that starts no workload in that time.
    #[must_use]
    pub fn start_for(hostile: &Program, start_limit_s: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let mut inherited = Inherited::default();
        let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        let kvm = kvm.expect("the hostile guest needs /dev/kvm, open for reading and writing");
        let (control, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let theirs = UnixDatagram::from(theirs);
        theirs.set_nonblocking(true).unwrap();
        let (stdout, their_stdout) = std::io::pipe().unwrap();
        let (stderr, their_stderr) = std::io::pipe().unwrap();
        let (kernel, shared) = with_constants(elf(hostile));
        let config = VmConfig {
            name: "hostile".into(),
            group: String::new(),
            limits: Limits::default(),
            image: "hostile".into(),
            zones: vec![ZoneConfig::only(MMIO_START + HIGH_BYTES)],
            cpus: 1,
            kvm: inherited.add(kvm),
            kernel: inherited.content(&kernel),
            kernel_shared: Some(shared),
            kernel_release: "0".into(),
            initramfs: inherited.content(b"none"),
            command_line: String::new(),
            layers: Vec::new(),
            disks: Vec::new(),
            stdio: StdioConfig {
                stdin: None,
                stdout: inherited.add(OwnedFd::from(their_stdout)),
                stderr: inherited.add(OwnedFd::from(their_stderr)),
            },
            spec: inherited.content(b""),
            control: inherited.add(OwnedFd::from(theirs)),
            listener: inherited.add(UnixListener::bind(&socket).unwrap()),
            balloon_features: OFFERED,
            reclaim: ReclaimConfig {
                mode: Mode::Off,
                working_set_age_ms: None,
                stall_budget_ppm: None,
                host_pressure: None,
                host_meminfo: None,
                recording: None,
            },
            host_cgroup: None,
            start_limit_s,
            boot_log: true,
        };
        let config = inherited.content(&serde_json::to_vec(&config).unwrap());
        let mut run = Run::new(&program("ballast-vmm"));
        run.command.arg(config.to_string());
        let running = run.start();
        Self {
            running,
            control: control.into(),
            socket,
            ram: OnceLock::new(),
            _ends: vec![stdout.into(), stderr.into()],
            _directory: directory,
        }
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits until the guest has written `text` to its serial port.
    pub fn wait_for(&self, text: &str) {
        self.running.wait_for_error(text);
    }

    /// What the guest wrote to its serial port so far, and the VMM's own messages, a line each.
    #[must_use]
    pub fn texts(&self) -> (String, Vec<String>) {
        const PREFIX: &str = "ballast-vmm: ";
        let all = self.running.errors();
        let (mut guest, mut messages) = (String::new(), Vec::new());
        let mut rest = all.as_str();
        // The guest writes byte by byte, the VMM a line at once: also in the middle of the guest's.
        while let Some((before, message)) = rest.split_once(PREFIX) {
            let (message, after) = message.split_once('\n').unwrap_or((message, ""));
            guest.push_str(before);
            messages.push(message.to_owned());
            rest = after;
        }
        guest.push_str(rest);
        (guest, messages)
    }

    /// Bytes of the host's memory that it holds beside the guest's: proportional set size. First to be asked before
    /// the guest has a balloon, which divides the mappings of its memory.
    #[must_use]
    pub fn own_pss(&self) -> u64 {
        let mappings = mappings(self.running.pid());
        let ram = self.ram.get_or_init(|| {
            let sizes = MACHINE.regions.map(|(_, bytes)| bytes);
            (0..mappings.len()).filter_map(|first| whole(&mappings[first..], &sizes)).collect()
        });
        assert_eq!(ram.len(), MACHINE.regions.len(), "which mappings are the guest's memory? {mappings:?}");
        let own = mappings.iter().filter(|mapping| !ram.iter().any(|ram| ram.contains(&mapping.start)));
        own.map(|mapping| mapping.pss).sum()
    }

    /// Waits for its end, and gives what it reported of it.
    #[must_use]
    pub fn end(self) -> (Ended, Option<Outcome>) {
        let ended = self.running.end();
        let mut buffer = vec![0; MAX_BYTES];
        let mut outcome = None;
        while let Ok(length @ 1..) = self.control.recv(&mut buffer) {
            if let Ok(Report::Ended(how)) = serde_json::from_slice(&buffer[..length]) {
                outcome = Some(how);
            }
        }
        (ended, outcome)
    }
}

/// The addresses of the mappings that `mappings` begins with, which follow one another, if together they have one of
/// `sizes`: what is mapped from the kernel's file divides its region.
fn whole(mappings: &[Mapping], sizes: &[u64]) -> Option<Range<u64>> {
    let start = mappings.first()?.start;
    let mut end = start;
    let ends = mappings.iter().map_while(|mapping| {
        let follows = mapping.start == end;
        end = mapping.end;
        follows.then_some(end)
    });
    ends.map(|end| start..end).find(|range| sizes.contains(&(range.end - range.start)))
}

/// The same kernel, and behind it bytes that are never zero and may be mapped instead of read.
fn with_constants(mut file: Vec<u8>) -> (Vec<u8>, ImagePart) {
    let offset = (file.len() as u64).next_multiple_of(PAGE);
    let part = ImagePart { offset, address: VICTIMS, bytes: 8 * PAGE };
    file.resize(offset as usize, 0);
    file.resize((offset + part.bytes) as usize, 0xa5);
    (file, part)
}

/// A kernel that holds the interpreter, its page tables and the program.
fn elf(program: &Program) -> Vec<u8> {
    const OFFSET: u64 = 0x1000;
    let mut content = image();
    content.resize((PROGRAM[0] - CODE) as usize, 0);
    content.extend(program.bytes(PROGRAM[0]));
    assert!(CODE + content.len() as u64 <= PROGRAM[1], "the program is too long");
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    file.extend([CODE, 64, 0].map(u64::to_le_bytes).concat());
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    let bytes = content.len() as u64;
    file.extend([OFFSET, CODE, CODE, bytes, bytes, 0x1000].map(u64::to_le_bytes).concat());
    file.resize(OFFSET as usize, 0);
    file.append(&mut content);
    file
}

//! Starts `ballast-vmm` with everything open that it needs, and nothing else.

use super::host_cgroup::{self, HostCgroup};
use crate::cgroup::room::HostLimit;
use crate::config::{
    DiskConfig, HostCgroupConfig, ImagePart, LayerConfig, ReclaimConfig, StdioConfig, VmConfig, ZoneConfig,
};
use balloon::policy::Mode;
use balloon::zone::Limits;
use rustix::fs::{Access, Advice, MemfdFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Seconds after which a guest that has not started its workload never will. Stock kernels take some even under nested
/// emulation.
const START_LIMIT_S: u64 = 120;

/// What one piece of advice has the host read: of more it reads no more than its read-ahead window (mm/readahead.c,
/// `force_page_cache_ra`), by default this. Where all is in its cache already a piece costs it a microsecond.
const READ_AHEAD: u64 = 128 << 10;
/// No kernel and no initramfs is larger.
const MOST_READ_AHEAD: u64 = 256 << 20;

/// A microVM could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no KVM, or it may not be used.
    #[error("cannot open /dev/kvm; `ballast doctor` says what is missing")]
    Kvm(#[source] io::Error),
    /// A file that was just made or found cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The VMM cannot be executed.
    #[error("cannot execute {}: is Ballast installed whole?", path.display())]
    Execute {
        /// Which.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The cgroup that was made for it cannot be used.
    #[error("cannot use the microVM's cgroup on the host: set ${}=off to do without", host_cgroup::VARIABLE)]
    Cgroup(#[from] host_cgroup::Error),
    /// The VMM may not be moved there.
    #[error(
        "cannot enter the microVM's cgroup on the host: set ${}=off to do without",
        host_cgroup::VARIABLE
    )]
    Enter(#[source] io::Error),
    /// The host refuses something small.
    #[error("cannot {doing}")]
    Host {
        /// What was being done.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

fn host(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Host { doing, source }
}

/// A whole microVM, in files and paths.
#[derive(Debug)]
pub struct Machine {
    /// The name in messages.
    pub name: String,
    /// The path of its group in the zone tree.
    pub group: String,
    /// Its limits there.
    pub limits: Limits,
    /// The image, as the user named it.
    pub image: String,
    /// The control socket, listening.
    pub listener: UnixListener,
    /// Guest memory.
    pub zones: Vec<ZoneConfig>,
    /// Number of vCPUs.
    pub cpus: u8,
    /// ELF kernel.
    pub kernel: PathBuf,
    /// What of it is mapped copy-on-write.
    pub kernel_shared: Option<ImagePart>,
    /// Its release.
    pub kernel_release: String,
    /// Initramfs.
    pub initramfs: PathBuf,
    /// Kernel command line.
    pub command_line: String,
    /// EROFS files, lowest layer first.
    pub layers: Vec<Layer>,
    /// Volumes and disks.
    pub disks: Vec<Disk>,
    /// The encoded workload specification.
    pub spec: Vec<u8>,
    /// The VMM's ends of the workload's streams.
    pub streams: super::streams::GuestEnds,
    /// The balloon's features that are offered to the guest.
    pub balloon_features: u64,
    /// The reclaim law.
    pub reclaim: Reclaim,
    /// Show the kernel's messages from the first line on.
    pub boot_log: bool,
}

/// A reclaim law, as users want it.
#[derive(Debug)]
pub struct Reclaim {
    /// What it may use.
    pub mode: Mode,
    /// Memory that is used at least that often is kept; nothing is as its group says, or by default.
    pub working_set_age_ms: Option<u64>,
    /// Share of time that the guest may lose to memory stalls, in millionths; nothing likewise.
    pub stall_budget_ppm: Option<u64>,
    /// The pipe to whoever writes down what it is told and decides, if anybody does.
    pub recording: Option<OwnedFd>,
}

impl Machine {
    /// The most memory that the host is to let its VMM have.
    ///
    /// # Errors
    /// A layer's size cannot be read.
    pub fn host_limit(&self) -> Result<HostLimit, Error> {
        let size: u64 = self.zones.iter().fold(0, |sum, zone| zone.bytes.saturating_add(sum));
        let layers = self.layers.iter().map(|layer| layer.file.metadata().map(|layer| layer.len()));
        let shared = layers.sum::<Result<u64, _>>().map_err(host("read the size of an image layer"))?;
        let written = self.disks.iter().fold(0, |sum, disk| disk.memory_bytes.saturating_add(sum));
        Ok(HostLimit::new(size, shared, written, u64::from(self.cpus), self.disks.len() as u64))
    }
}

/// An image layer, open.
#[derive(Debug)]
pub struct Layer {
    /// The file.
    pub file: File,
    /// The first digits of its key.
    pub name: String,
}

/// A disk, open and locked.
#[derive(Debug)]
pub struct Disk {
    /// The file.
    pub file: File,
    /// What messages call it.
    pub name: String,
    /// What the guest reads as serial number.
    pub serial: String,
    /// The guest may not write.
    pub read_only: bool,
    /// How much of this host's memory the guest can fill with what it writes.
    pub memory_bytes: u64,
}

/// A started VMM.
#[derive(Debug)]
pub struct Vmm {
    /// Its process.
    pub child: Child,
    /// The socket shared with it.
    pub control: UnixDatagram,
}

/// Descriptors that the VMM inherits; they stay open here until it is started.
#[derive(Default)]
struct Inherited(Vec<OwnedFd>);

impl Inherited {
    fn add(&mut self, fd: impl Into<OwnedFd>) -> RawFd {
        let fd = fd.into();
        let number = fd.as_raw_fd();
        self.0.push(fd);
        number
    }

    /// Opens a file that the VMM reads whole and once: its pages in the host's cache are charged here and
    /// not to the microVM, and are there sooner.
    fn open_ahead(&mut self, path: &Path) -> Result<RawFd, Error> {
        let file = File::open(path).map_err(|source| Error::Open { path: path.into(), source })?;
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        for offset in (0..bytes.min(MOST_READ_AHEAD)).step_by(READ_AHEAD as usize) {
            // Advice: without it the VMM waits for the disk itself.
            let _ = rustix::fs::fadvise(&file, offset, NonZeroU64::new(READ_AHEAD), Advice::WillNeed);
        }
        Ok(self.add(file))
    }

    fn memfd(&mut self, name: &str, content: &[u8]) -> Result<RawFd, Error> {
        let doing = "hand the configuration to ballast-vmm";
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map_err(|e| host(doing)(e.into()))?;
        let mut file = File::from(fd);
        file.write_all(content).and_then(|()| file.rewind()).map_err(host(doing))?;
        Ok(self.add(file))
    }
}

impl Inherited {
    fn cgroup(&mut self, cgroup: &HostCgroup) -> Result<HostCgroupConfig, Error> {
        Ok(HostCgroupConfig {
            memory_max: self.add(cgroup.open("memory.max", true)?),
            memory_current: self.add(cgroup.open("memory.current", false)?),
            memory_events: self.add(cgroup.open("memory.events", false)?),
            memory_stat: self.add(cgroup.open("memory.stat", false)?),
            limit: cgroup.limit(),
        })
    }
}

impl Inherited {
    /// What the host does not tell of itself, the law does without.
    fn reclaim(&mut self, of: Reclaim) -> ReclaimConfig {
        let mut open = |path: &str| File::open(path).ok().map(|file| self.add(file));
        ReclaimConfig {
            mode: of.mode,
            working_set_age_ms: of.working_set_age_ms,
            stall_budget_ppm: of.stall_budget_ppm,
            host_pressure: open("/proc/pressure/memory"),
            host_meminfo: open("/proc/meminfo"),
            recording: of.recording.map(|pipe| self.add(pipe)),
        }
    }
}

/// Starts `program` on `machine`, in `cgroup` from its first byte on. The VMM dies with this process, however that ends.
///
/// # Errors
/// Something cannot be opened or executed; nothing runs then.
pub fn start(program: &Path, machine: Machine, cgroup: Option<&HostCgroup>) -> Result<Vmm, Error> {
    let mut fds = Inherited::default();
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm").map_err(Error::Kvm)?;
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(|e| host("create the control socket")(e.into()))?;
    let theirs = UnixDatagram::from(theirs);
    theirs.set_nonblocking(true).map_err(host("set up the control socket"))?;

    let config = VmConfig {
        name: machine.name,
        group: machine.group,
        limits: machine.limits,
        image: machine.image,
        zones: machine.zones,
        cpus: machine.cpus,
        kvm: fds.add(kvm),
        kernel: fds.open_ahead(&machine.kernel)?,
        kernel_shared: machine.kernel_shared,
        kernel_release: machine.kernel_release,
        initramfs: fds.open_ahead(&machine.initramfs)?,
        command_line: machine.command_line,
        layers: machine
            .layers
            .into_iter()
            .map(|layer| LayerConfig { file: fds.add(layer.file), name: layer.name })
            .collect(),
        disks: machine
            .disks
            .into_iter()
            .map(|disk| DiskConfig {
                file: fds.add(disk.file),
                name: disk.name,
                serial: disk.serial,
                read_only: disk.read_only,
            })
            .collect(),
        stdio: StdioConfig {
            stdin: machine.streams.stdin.map(|fd| fds.add(fd)),
            stdout: fds.add(machine.streams.stdout),
            stderr: fds.add(machine.streams.stderr),
        },
        spec: fds.memfd("ballast-spec", &machine.spec)?,
        control: fds.add(theirs),
        listener: fds.add(machine.listener),
        balloon_features: machine.balloon_features,
        reclaim: fds.reclaim(machine.reclaim),
        host_cgroup: cgroup.map(|cgroup| fds.cgroup(cgroup)).transpose()?,
        start_limit_s: START_LIMIT_S,
        boot_log: machine.boot_log,
    };
    let text = serde_json::to_vec(&config).map_err(|e| host("describe the microVM")(e.into()))?;
    let config = fds.memfd("ballast-config", &text)?;
    let entrance = cgroup.map(HostCgroup::entrance).transpose()?;
    let child = execute(program, config, &fds, entrance.as_ref())?;
    Ok(Vmm { child, control: UnixDatagram::from(ours) })
}

fn execute(program: &Path, config: RawFd, fds: &Inherited, entrance: Option<&File>) -> Result<Child, Error> {
    let keep: Vec<RawFd> = fds.0.iter().map(AsRawFd::as_raw_fd).collect();
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    let mut command = Command::new(program);
    command.arg(config.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
    let entrance = entrance.map(AsRawFd::as_raw_fd);
    let prepare = move || {
        // First of all, as charges do not move with a process; what is executed has all of its memory afterwards.
        if let Some(entrance) = entrance {
            // SAFETY: one byte of a constant is read; the descriptor is open in the parent and so here.
            if unsafe { libc::write(entrance, b"0".as_ptr().cast(), 1) } != 1 {
                return Err(io::Error::last_os_error());
            }
        }
        for fd in &keep {
            // SAFETY: fcntl on a number of ours touches no memory.
            if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // Who ends all processes of a service (systemd) or a session asks us, and we the workload.
        super::signals::ignore_requests_to_end()?;
        super::signals::unblock_all()?;
        // A session of its own: the terminal's Ctrl-C is for the workload, which gets it from us.
        // SAFETY: setsid touches no memory.
        unsafe { libc::setsid() };
        // SAFETY: as above.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have died before the line above.
        // SAFETY: as above.
        if unsafe { libc::getppid() } != parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: `prepare` only makes async-signal-safe calls and allocates nothing.
    unsafe { command.pre_exec(prepare) };
    command.spawn().map_err(|source| {
        // Which step in the child failed it does not say.
        let executable = rustix::fs::access(program, Access::EXEC_OK).is_ok();
        if entrance.is_some() && executable {
            return Error::Enter(source);
        }
        Error::Execute { path: program.into(), source }
    })
}

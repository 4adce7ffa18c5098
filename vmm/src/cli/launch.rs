//! Starts `ballast-vmm` with everything open that it needs, and nothing else.

use crate::config::{DiskConfig, LayerConfig, StdioConfig, VmConfig, ZoneConfig};
use balloon::zone::Limits;
use rustix::fs::MemfdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Seconds after which a guest that has not started its workload never will. Stock kernels take some even under nested
/// emulation.
const START_LIMIT_S: u64 = 120;

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
    /// Its release.
    pub kernel_release: String,
    /// Initramfs.
    pub initramfs: PathBuf,
    /// Kernel command line.
    pub command_line: String,
    /// EROFS files, lowest layer first.
    pub layers: Vec<File>,
    /// Volumes and disks.
    pub disks: Vec<Disk>,
    /// The encoded workload specification.
    pub spec: Vec<u8>,
    /// The VMM's ends of the workload's streams.
    pub streams: super::streams::GuestEnds,
    /// The balloon's features that are offered to the guest.
    pub balloon_features: u64,
    /// Show the kernel's messages from the first line on.
    pub boot_log: bool,
}

/// A disk, open and locked.
#[derive(Debug)]
pub struct Disk {
    /// The file.
    pub file: File,
    /// What the guest reads as serial number.
    pub serial: String,
    /// The guest may not write.
    pub read_only: bool,
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

    fn open(&mut self, path: &Path) -> Result<RawFd, Error> {
        let file = File::open(path).map_err(|source| Error::Open { path: path.into(), source })?;
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

/// Starts `program` on `machine`. The VMM dies with this process, however that ends.
///
/// # Errors
/// Something cannot be opened or executed; nothing runs then.
pub fn start(program: &Path, machine: Machine) -> Result<Vmm, Error> {
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
        kernel: fds.open(&machine.kernel)?,
        kernel_release: machine.kernel_release,
        initramfs: fds.open(&machine.initramfs)?,
        command_line: machine.command_line,
        layers: machine.layers.into_iter().map(|file| LayerConfig { file: fds.add(file) }).collect(),
        disks: machine
            .disks
            .into_iter()
            .map(|disk| DiskConfig {
                file: fds.add(disk.file),
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
        start_limit_s: START_LIMIT_S,
        boot_log: machine.boot_log,
    };
    let text = serde_json::to_vec(&config).map_err(|e| host("describe the microVM")(e.into()))?;
    let config = fds.memfd("ballast-config", &text)?;
    let child = execute(program, config, &fds)?;
    Ok(Vmm { child, control: UnixDatagram::from(ours) })
}

fn execute(program: &Path, config: RawFd, fds: &Inherited) -> Result<Child, Error> {
    let keep: Vec<RawFd> = fds.0.iter().map(AsRawFd::as_raw_fd).collect();
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    let mut command = Command::new(program);
    command.arg(config.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
    let prepare = move || {
        for fd in &keep {
            // SAFETY: fcntl on a number of ours touches no memory.
            if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
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
    command.spawn().map_err(|source| Error::Execute { path: program.into(), source })
}

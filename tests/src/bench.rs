//! The two VMMs that benchmarks compare, on one kernel and initramfs, and what measuring takes.

use balloon::policy::Mode;
use balloon::zone::Limits;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use vmm::cli::launch::{self, Machine, Reclaim, Vmm};
use vmm::cli::streams::GuestEnds;
use vmm::config::ZoneConfig;

/// Why a benchmark cannot go on.
pub type Error = Box<dyn std::error::Error>;

/// The least that comparisons of the field boot with.
pub const PLAIN: &str = "panic=-1 reboot=t";

/// With a clock, which is off by default: a kernel that is not told of its absence waits for it more than a second.
const QEMU_MACHINE: &str = "microvm,acpi=on,rtc=on,isa-serial=off";
/// Longer than any run takes: a guest that hangs must not hang the benchmark.
const LIMIT: Duration = Duration::from_secs(600);

/// A guest of one vCPU that both VMMs can run.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its kernel.
    pub elf: PathBuf,
    /// Its initramfs.
    pub initramfs: PathBuf,
    /// Its memory.
    pub memory_mib: u64,
    /// Ballast's host may use huge pages for it; QEMU leaves that to the host.
    pub huge_pages: bool,
    /// A directory with QEMU, its libraries and firmware.
    pub qemu: PathBuf,
    /// The directory of Ballast's programs.
    pub programs: PathBuf,
}

impl Guest {
    /// QEMU's smallest machine, with nothing in it that the guest does not need. Its standard output is what the
    /// guest writes to port 0xe9.
    #[must_use]
    pub fn qemu(&self, command_line: &str) -> Command {
        // Through its own copy of the dynamic loader: nothing is opened outside of this directory.
        let mut command = Command::new(self.qemu.join("ld-linux-x86-64.so.2"));
        command
            .arg("--library-path")
            .arg(&self.qemu)
            .arg(self.qemu.join("qemu-system-x86_64"))
            .arg("-L")
            .arg(&self.qemu)
            .args(["-M", QEMU_MACHINE, "-accel", "kvm", "-cpu", "host", "-m", &self.memory_mib.to_string()])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-debugcon", "stdio", "-append", command_line])
            .arg("-kernel")
            .arg(&self.elf)
            .arg("-initrd")
            .arg(&self.initramfs)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Ballast's VMM, its control socket at `socket`, whose balloon offers these features. With `serial`, what the guest
    /// writes to the first serial port comes out on the caller's standard error.
    ///
    /// # Errors
    /// The host cannot start it.
    pub fn ballast(
        &self,
        command_line: &str,
        socket: &Path,
        balloon_features: u64,
        serial: bool,
    ) -> Result<Vmm, Error> {
        let (_stdout, stdout) = std::io::pipe()?;
        let (_stderr, stderr) = std::io::pipe()?;
        let machine = Machine {
            name: "bench".into(),
            group: String::new(),
            limits: Limits::default(),
            image: String::new(),
            listener: UnixListener::bind(socket)?,
            zones: vec![ZoneConfig {
                huge_pages: self.huge_pages,
                ..ZoneConfig::only(self.memory_mib << 20)
            }],
            cpus: 1,
            kernel: self.elf.clone(),
            kernel_shared: None,
            kernel_release: String::new(),
            initramfs: self.initramfs.clone(),
            command_line: command_line.into(),
            layers: Vec::new(),
            disks: Vec::new(),
            spec: Vec::new(),
            streams: GuestEnds { stdin: None, stdout: stdout.into(), stderr: stderr.into() },
            balloon_features,
            reclaim: Reclaim {
                mode: Mode::Off,
                working_set_age_ms: None,
                stall_budget_ppm: None,
                recording: None,
            },
            boot_log: serial,
        };
        Ok(launch::start(&self.programs.join("ballast-vmm"), machine, None)?)
    }
}

/// Sorts `values` and gives the middle one.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Ends a VMM that takes too long, unless dropped before.
#[derive(Debug)]
pub struct Watchdog(#[allow(dead_code, reason = "dropped to say that all is well")] mpsc::Sender<()>);

impl Watchdog {
    /// Watches `child` from now on.
    #[must_use]
    pub fn new(child: &Child) -> Self {
        let pid = Pid::from_child(child);
        let (sender, well) = mpsc::channel();
        std::thread::spawn(move || {
            if well.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                // It may just have ended.
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        Self(sender)
    }
}

//! The agent's first steps: kernel file systems for its own use, standard streams, and its own protection.

#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::error::{Doing, Error};
use crate::mount::FileSystem;

/// Mounts what the agent reads and writes itself. The workload gets its own.
pub fn mount_kernel_file_systems() -> Result<(), Error> {
    for (kind, path) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("cgroup2", "/sys/fs/cgroup")]
    {
        if kind != "cgroup2" {
            fs::create_dir_all(path).doing(|| format!("making {path}"))?;
        }
        FileSystem { kind, ..FileSystem::default() }
            .mount(path)
            .doing(|| format!("mounting {kind} on {path}"))?;
    }
    Ok(())
}

/// Points standard input to /dev/null and the outputs to the kernel's log.
///
/// When the kernel starts PID 1 there may be no console yet, and then these descriptors are not open.
pub fn open_standard_streams() -> Result<(), Error> {
    let null = Stream::open("/dev/null", OFlags::RDWR)?;
    null.duplicate_to(0)?;
    let log = Stream::open("/dev/kmsg", OFlags::WRONLY)?;
    log.duplicate_to(1)?;
    log.duplicate_to(2)
}

struct Stream(Option<OwnedFd>);

impl Stream {
    fn open(path: &str, flags: OFlags) -> Result<Self, Error> {
        rustix::fs::open(path, flags, Mode::empty())
            .map(|fd| Self(Some(fd)))
            .doing(|| format!("opening {path}"))
    }

    fn duplicate_to(&self, number: RawFd) -> Result<(), Error> {
        let Some(fd) = self.0.as_ref().filter(|fd| fd.as_raw_fd() != number) else { return Ok(()) };
        let duplicated = match number {
            0 => dup2_stdin(fd),
            1 => dup2_stdout(fd),
            _ => dup2_stderr(fd),
        };
        duplicated.doing(|| format!("setting file descriptor {number}"))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The lowest numbers may have been given to the stream itself: then it stays open for good.
        if let Some(fd) = self.0.take_if(|fd| fd.as_raw_fd() <= 2) {
            std::mem::forget(fd);
        }
    }
}

/// Has the kernel take the short way, at the price of interrupting all CPUs, when it waits for every CPU to
/// pass through its scheduler. Moving a process to a control group or setting up a device waits for that,
/// about 10 ms each time, and nothing runs yet that could be disturbed.
pub fn expedite_rcu(expedite: bool) {
    // Only a matter of time: a kernel without this switch works as well.
    let _ = fs::write("/sys/kernel/rcu_expedited", if expedite { "1" } else { "0" });
}

/// Of a zone of memory, all CPUs together keep one part in so many in their lists of free pages. The kernel's least, four
/// batches or about 1 MiB for a CPU, is what a guest below a GiB gets; before Linux 5.14 any had half as much more.
const LIST_FRACTION: &str = "1024";

/// Keeps free memory where free page reporting and the balloon's driver find it.
///
/// Each CPU holds back freed pages in lists of its own: up to the zone's low watermark, from Linux 6.7 on up to an eighth
/// of the zone after a burst of allocations (`zone_highsize()` and `nr_pcp_alloc()` in mm/page_alloc.c). Pages there are
/// not reported, do not count as free against the watermarks, and are not fetched for the driver.
pub fn bound_free_lists() {
    // A kernel before 5.14 has no such switch, and small lists.
    let _ = fs::write("/proc/sys/vm/percpu_pagelist_high_fraction", LIST_FRACTION);
}

/// For each kind of address: milliseconds between two looks of the kernel at neighbours whose state somebody else manages
/// (`neigh_managed_work()` in net/core/neighbour.c; Linux takes a time from 6.0 on).
const NEIGHBOUR_LOOKS: [&str; 2] = [
    "/proc/sys/net/ipv4/neigh/default/interval_probe_time_ms",
    "/proc/sys/net/ipv6/neigh/default/interval_probe_time_ms",
];

/// Has the kernel look seldom for neighbours, of which a guest without network has none: every five seconds, it would wake
/// for each kind.
pub fn look_seldom_for_neighbours() {
    for path in NEIGHBOUR_LOOKS {
        // A kernel that cannot be told, or has no such addresses.
        let _ = fs::write(path, "3600000");
    }
}

/// Keeps the kernel from ever choosing the agent when memory is short, and its pages where they are.
///
/// The pages are locked as they are touched: what the agent never uses takes no memory.
pub fn protect() -> Result<(), Error> {
    fs::write("/proc/self/oom_score_adj", "-1000").doing(|| "protecting the agent from the OOM killer")?;
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .doing(|| "locking the agent's memory")
}

/// Gives back the memory of the agent's program: files of the initramfs live in memory until they are removed.
pub fn remove_program() -> Result<(), Error> {
    fs::remove_file("/init").doing(|| "removing /init")
}

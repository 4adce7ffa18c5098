//! The workload's memory: limits it, trims it, moves it between zones. Every call may take the kernel long.
//!
//! Nothing is assumed of the kernel's version: what it says afterwards is what is reported.

#![forbid(unsafe_code)]

use std::fs;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use proto::{Done, ORDER_LIMIT_S, Order, Stopped};

use crate::capabilities::COMPACT;
use crate::cgroup::{self, Group, Workload};
use crate::error::{Doing, Error};
use crate::evict;
use crate::reclaim::{self, Trimmable};

/// Looks at what is free. Free page reporting takes up to 32 blocks at a time, 128 MiB, off the free lists until the host
/// has taken note of them (`PAGE_REPORTING_CAPACITY` in mm/page_reporting.c): of several looks the one counts that sees
/// most.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// The workload's memory.
#[derive(Debug)]
pub struct Memory<'a> {
    workload: &'a Workload,
    /// All of guest memory.
    memory_bytes: u64,
    /// What of it the kernel and the agent had before the workload began, as one look saw it.
    kernel_bytes: u64,
}

impl<'a> Memory<'a> {
    /// The memory of a workload that has not begun, in a guest of `memory_bytes`.
    pub fn new(workload: &'a Workload, memory_bytes: u64) -> Result<Self, Error> {
        let kernel_bytes = memory_bytes.saturating_sub(unused_bytes(&read("/proc/meminfo")?)?);
        Ok(Self { workload, memory_bytes, kernel_bytes })
    }

    /// Carries out an order. The error is a refusal; then nothing has changed but that memory may have been reclaimed.
    pub fn obey(&self, order: Order) -> Result<Done, Error> {
        match order {
            Order::Limit { zone, max_bytes } => self.limit(zone, max_bytes),
            Order::Trim { zone, bytes } => {
                let group = self.group(zone)?;
                let trimmed = reclaim::trim(&Timed::of(&group, None), bytes)?;
                compact(group.node());
                Ok(Done::Trimmed(trimmed))
            }
            Order::Move { pid, zone } => self.move_process(pid, zone),
            Order::Reclaim { bytes, kind, older_than_ms } => {
                evict::reclaim(&self.group(None)?, bytes, kind, older_than_ms)
            }
            Order::Age => evict::age(),
            Order::Reporting { order, compact } => evict::report(order, compact),
        }
    }

    /// Lets the guest, or one zone of the workload's, use so much.
    pub fn limit(&self, zone: Option<u8>, max_bytes: Option<u64>) -> Result<Done, Error> {
        let group = self.group(zone)?;
        let max_bytes = match (zone, max_bytes) {
            (None, Some(max)) => Some(self.workload_share(max)?),
            _ => max_bytes,
        };
        if let Some(max) = max_bytes {
            make_room(&group, max)?;
        }
        group.set_max(max_bytes)?;
        Ok(Done::Limited { max_bytes: group.max_bytes()?, current_bytes: group.current_bytes()? })
    }

    /// What is left for the workload of `max_bytes` for the guest.
    ///
    /// The kernel and the agent keep what they had before the workload began. Of the pages that the kernel keeps free
    /// it gets those above the middle between its `min` and its `low` watermark: there it already reclaims in the
    /// background, as for a guest of that size, and does not yet take the guest to be out of memory, upon which the
    /// balloon would give back what the limit denies. `low` is 1.25 `min` (`__setup_per_zone_wmarks()` in
    /// mm/page_alloc.c), and `min_free_kbytes` is the sum of `min`.
    fn workload_share(&self, max_bytes: u64) -> Result<u64, Error> {
        let min_free = read("/proc/sys/vm/min_free_kbytes")?;
        let min_free: u64 = min_free.trim().parse().map_err(|_| Error::new("reading min_free_kbytes"))?;
        let kernel = self.held_bytes()?.saturating_add(min_free.saturating_mul(1024) / 8 * 9);
        max_bytes.checked_sub(kernel).filter(|share| *share > 0).ok_or_else(|| {
            Error::new(format!(
                "the guest cannot do with {}: its kernel and the agent hold {}",
                mib(max_bytes),
                mib(kernel)
            ))
        })
    }

    /// What the kernel and the agent hold: what they had before the workload began, or less if less of guest memory is now
    /// neither free, nor page cache, nor the workload's.
    fn held_bytes(&self) -> Result<u64, Error> {
        let mut least = self.kernel_bytes;
        let Some(group) = self.workload.group(None) else { return Ok(least) };
        for look in 0..LOOKS {
            if look > 0 {
                thread::sleep(BETWEEN_LOOKS);
            }
            let unused = unused_bytes(&read("/proc/meminfo")?)?;
            let cached = reclaim::file_bytes(&group.statistics()?);
            let workload = group.current_bytes()?.saturating_sub(cached);
            least = least.min(self.memory_bytes.saturating_sub(unused).saturating_sub(workload));
        }
        Ok(least)
    }

    fn move_process(&self, pid: u32, zone: u8) -> Result<Done, Error> {
        let zones = self.workload.divisions();
        let Some(group) = self.group(Some(zone)).ok().filter(|group| group.node().is_some()) else {
            return Err(match zones {
                0 => Error::new("this microVM has one zone: there is nowhere to move to"),
                _ => no_zone(zone, zones),
            });
        };
        let cgroups = match fs::read_to_string(format!("/proc/{pid}/cgroup")) {
            Ok(cgroups) => cgroups,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::new(format!("there is no process {pid} in the guest")));
            }
            Err(error) => return Err(error).doing(|| format!("looking at process {pid}")),
        };
        if !cgroup::is_workload(&cgroups) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Err(Error::new(format!(
                "process {pid} ({}) is not the workload's: it belongs to the guest's kernel or to Ballast",
                name.trim()
            )));
        }
        group.adopt(pid)?;
        // One that has ended since maps nothing, and was moved all the same.
        let maps = fs::read_to_string(format!("/proc/{pid}/numa_maps")).unwrap_or_default();
        let (there_bytes, elsewhere_bytes) = mapped_bytes(&maps, zone);
        Ok(Done::Moved { there_bytes, elsewhere_bytes })
    }

    fn group(&self, zone: Option<u8>) -> Result<Group, Error> {
        self.workload
            .group(zone)
            .ok_or_else(|| no_zone(zone.unwrap_or_default(), self.workload.divisions().max(1)))
    }
}

fn no_zone(zone: u8, zones: usize) -> Error {
    Error::new(format!("there is no zone {zone}: this microVM has {zones}, counted from 0"))
}

/// Reclaims until the group uses less than `max`, so that the kernel need kill nobody when that becomes its limit.
fn make_room(group: &Group, max: u64) -> Result<(), Error> {
    let timed = Timed::of(group, None);
    loop {
        let current = group.current_bytes()?;
        let Some(above) = current.checked_sub(max).filter(|above| *above > 0) else { return Ok(()) };
        let trimmed = reclaim::trim(&timed, Some(above))?;
        let current = group.current_bytes()?;
        if current > max && (trimmed.stopped != Stopped::Reached || trimmed.reclaimed_bytes == 0) {
            let why = match trimmed.stopped {
                Stopped::NoSwap => "the rest is anonymous memory, which its limit may not push into swap",
                Stopped::Ineffective => "the guest's kernel does not reclaim",
                Stopped::OutOfTime => "the guest's kernel is still reclaiming",
                Stopped::Reached | Stopped::NothingLeft => "the rest is in use",
            };
            return Err(Error::new(format!(
                "the workload uses {} and would have to do with {}; {} could be reclaimed: {why}",
                mib(current),
                mib(max),
                mib(trimmed.reclaimed_bytes),
            )));
        }
    }
}

/// Joins free pages to blocks, which are what free page reporting gives to the host. Evicting frees single pages.
///
/// Dentries and inodes are not dropped: reclaim of the control group has shrunk those that it charges by their age
/// (`shrink_slab()`), and to drop the others would cost the kernel and the agent those that they use.
fn compact(node: Option<u8>) {
    let path = match node {
        Some(node) => format!("/sys/devices/system/node/node{node}/compact"),
        None => COMPACT.into(),
    };
    // A kernel without compaction reports what is whole by chance.
    let _ = fs::write(path, "1");
}

/// A group, how long one order may work on it, and what the kernel is told with each request.
pub struct Timed<'a> {
    group: &'a Group,
    key: Option<&'a str>,
    deadline: Instant,
}

impl<'a> Timed<'a> {
    /// With nothing but the size of what to reclaim, or with `key` of `memory.reclaim`.
    pub fn of(group: &'a Group, key: Option<&'a str>) -> Self {
        Self { group, key, deadline: Instant::now() + Duration::from_secs(ORDER_LIMIT_S) }
    }
}

impl Trimmable for Timed<'_> {
    fn statistics(&self) -> Result<String, Error> {
        self.group.statistics()
    }

    fn current_bytes(&self) -> Result<u64, Error> {
        self.group.current_bytes()
    }

    fn reclaim(&self, bytes: u64) -> Result<bool, Error> {
        self.group.reclaim(bytes, self.key)
    }

    fn has_swap(&self) -> bool {
        let free = |meminfo: String| field_bytes(&meminfo, "SwapFree:").unwrap_or(0);
        self.group.may_swap() && read("/proc/meminfo").is_ok_and(|meminfo| free(meminfo) > 0)
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

fn read(path: &str) -> Result<String, Error> {
    fs::read_to_string(path).doing(|| format!("reading {path}"))
}

/// What neither the kernel nor the agent holds: free memory and page cache.
fn unused_bytes(meminfo: &str) -> Result<u64, Error> {
    let parts = ["MemFree:", "Active(file):", "Inactive(file):"];
    let bytes: Option<Vec<u64>> = parts.iter().map(|name| field_bytes(meminfo, name)).collect();
    bytes
        .map(|bytes| bytes.into_iter().fold(0, u64::saturating_add))
        .ok_or_else(|| Error::new("reading /proc/meminfo: it does not say how much is free"))
}

fn field_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// What `/proc/PID/numa_maps` says to lie on a node and on the others.
fn mapped_bytes(numa_maps: &str, node: u8) -> (u64, u64) {
    let (mut there, mut elsewhere) = (0u64, 0u64);
    for line in numa_maps.lines() {
        let words = || line.split_ascii_whitespace();
        let kib = words().find_map(|word| word.strip_prefix("kernelpagesize_kB=")?.parse::<u64>().ok());
        let page_bytes = kib.unwrap_or(4).saturating_mul(1024);
        // After the address and the policy, where a file's name may be anything: `file=...`.
        for word in words().skip(2).filter(|word| !word.starts_with("file=")) {
            let Some((number, pages)) = word.strip_prefix('N').and_then(|rest| rest.split_once('=')) else {
                continue;
            };
            let (Ok(number), Ok(pages)) = (number.parse::<u8>(), pages.parse::<u64>()) else { continue };
            let sum = if number == node { &mut there } else { &mut elsewhere };
            *sum = sum.saturating_add(pages.saturating_mul(page_bytes));
        }
    }
    (there, elsewhere)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unused_is_free_or_cache() {
        let meminfo =
            "MemTotal: 100 kB\nMemFree:          70 kB\nActive(file):  3 kB\nInactive(file): 2 kB\n";
        assert_eq!(unused_bytes(meminfo).unwrap(), 75 * 1024);
        assert!(unused_bytes("MemFree: 1 kB\n").is_err());
        assert_eq!(field_bytes("SwapFree:        0 kB\n", "SwapFree:"), Some(0));
    }

    #[test]
    fn mapped_pages_are_told_by_node_and_by_size() {
        let maps = "\
55d0 default file=/bin/busybox mapped=2 mapmax=3 N0=2 kernelpagesize_kB=4
7f00 default anon=10 dirty=10 active=0 N0=1 N1=9 kernelpagesize_kB=4
7f80 default anon=2 dirty=2 N1=2 kernelpagesize_kB=2048
7fa0 default file=/N1=7 mapped=1 N0=1 kernelpagesize_kB=4
7fff default
";
        assert_eq!(mapped_bytes(maps, 1), (9 * 4096 + (4 << 20), 4 * 4096));
        assert_eq!(mapped_bytes("", 0), (0, 0));
    }
}

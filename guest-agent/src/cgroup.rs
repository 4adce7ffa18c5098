//! Two control groups: a protected one for the agent, one with the user's limits for the workload.

#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};

use rustix::io::Errno;
use rustix::process::Pid;

use crate::error::{Doing, Error};

const ROOT: &str = "/sys/fs/cgroup";
const AGENT: &str = "/sys/fs/cgroup/agent";
/// All of the workload.
pub const WORKLOAD: &str = "/sys/fs/cgroup/workload";
/// Before the names of zones, which are the user's: none is a file of the kernel's.
const ZONE_PREFIX: &str = "zone-";

const SWAP_MAX: &str = "memory.swap.max";

/// Memory that the kernel leaves to the agent before it reclaims from it: about twice of what it holds.
const AGENT_MEMORY_MIN_BYTES: u32 = 4 * 1024 * 1024;

/// The workload's control group, and below it one for each zone of memory where there are several.
#[derive(Debug)]
pub struct Workload {
    /// Of the group that the workload begins in.
    processes: File,
    /// Names of the zones that have groups of their own, by their nodes' numbers.
    zones: Vec<String>,
}

/// Makes both groups and puts the agent into its own.
pub fn create() -> Result<Workload, Error> {
    // Each by itself: which ones there are depends on the kernel.
    for controller in ["+memory", "+pids", "+cpu", "+cpuset", "+io"] {
        let _ = fs::write(format!("{ROOT}/cgroup.subtree_control"), controller);
    }
    for group in [AGENT, WORKLOAD] {
        fs::create_dir(group).doing(|| format!("making cgroup {group}"))?;
    }
    fs::write(format!("{AGENT}/cgroup.procs"), "0").doing(|| "moving the agent into its cgroup")?;
    fs::write(format!("{AGENT}/memory.min"), AGENT_MEMORY_MIN_BYTES.to_string())
        .doing(|| "protecting the agent's memory")?;
    for group in [AGENT, WORKLOAD] {
        // A kernel without swap has no such file.
        let _ = fs::write(format!("{group}/{SWAP_MAX}"), "0");
    }
    Ok(Workload { processes: open_processes(WORKLOAD)?, zones: Vec::new() })
}

fn open_processes(group: &str) -> Result<File, Error> {
    let file = OpenOptions::new().write(true).open(format!("{group}/cgroup.procs"));
    file.doing(|| format!("opening cgroup {group}"))
}

impl Workload {
    /// Writing "0" to it moves the writer into the group.
    pub const fn processes(&self) -> &File {
        &self.processes
    }

    /// Divides the group into one for each zone, whose number is its node's; the workload begins in number `first`.
    /// A process uses the memory of its group's zone only (cpusets).
    pub fn divide(&mut self, zones: &[String], first: u8) -> Result<(), Error> {
        if zones.len() < 2 {
            return Ok(());
        }
        for controller in ["+cpuset", "+memory"] {
            fs::write(format!("{WORKLOAD}/cgroup.subtree_control"), controller)
                .doing(|| format!("dividing the workload into zones: this kernel refuses {controller}"))?;
        }
        for (node, name) in zones.iter().enumerate() {
            let group = format!("{WORKLOAD}/{ZONE_PREFIX}{name}");
            fs::create_dir(&group).doing(|| format!("making cgroup {group}"))?;
            fs::write(format!("{group}/cpuset.mems"), node.to_string()).doing(|| {
                format!("giving zone {name} the memory of node {node}: does the kernel know nodes?")
            })?;
        }
        if let Some(name) = zones.get(usize::from(first)) {
            self.processes = open_processes(&format!("{WORKLOAD}/{ZONE_PREFIX}{name}"))?;
        }
        self.zones = zones.to_vec();
        Ok(())
    }

    /// Limits the number of its processes and threads.
    pub fn limit_pids(&self, limit: u32) -> Result<(), Error> {
        fs::write(format!("{WORKLOAD}/pids.max"), limit.to_string())
            .doing(|| format!("limiting the workload to {limit} processes"))
    }

    /// The group of all of it, or that of one zone; `None` if there is no such zone. An undivided workload is its only
    /// zone.
    pub fn group(&self, zone: Option<u8>) -> Option<Group> {
        let Some(node) = zone.filter(|node| *node > 0 || !self.zones.is_empty()) else {
            return Some(Group { path: WORKLOAD.into(), node: None });
        };
        let name = self.zones.get(usize::from(node))?;
        Some(Group { path: format!("{WORKLOAD}/{ZONE_PREFIX}{name}"), node: Some(node) })
    }

    /// How many zones it is divided into; 0 is not at all.
    pub fn divisions(&self) -> usize {
        self.zones.len()
    }

    /// Whether the kernel killed one of its processes for lack of memory.
    pub fn was_oom_killed(&self) -> bool {
        fs::read_to_string(format!("{WORKLOAD}/memory.events")).is_ok_and(|events| oom_kills(&events) > 0)
    }
}

/// A control group of the workload's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    path: String,
    node: Option<u8>,
}

impl Group {
    /// The node that it is bound to; `None`: it uses all.
    pub const fn node(&self) -> Option<u8> {
        self.node
    }

    /// `memory.current`, in bytes.
    pub fn current_bytes(&self) -> Result<u64, Error> {
        let text = self.read("memory.current")?;
        text.trim().parse().map_err(|_| Error::new(format!("reading memory.current of {}", self.path)))
    }

    /// `memory.max`, in bytes; `None` is unlimited.
    pub fn max_bytes(&self) -> Result<Option<u64>, Error> {
        Ok(self.read("memory.max")?.trim().parse().ok())
    }

    /// Sets `memory.max`. What is in use above it the kernel reclaims before this returns, or it kills.
    pub fn set_max(&self, bytes: Option<u64>) -> Result<(), Error> {
        let value = bytes.map_or_else(|| "max".into(), |bytes| bytes.to_string());
        fs::write(self.file("memory.max"), &value)
            .doing(|| format!("setting memory.max of {} to {value}", self.path))
    }

    /// `memory.stat`.
    pub fn statistics(&self) -> Result<String, Error> {
        self.read("memory.stat")
    }

    /// Lets it swap or not. Only the agent's own reclaim may have it do so.
    pub fn allow_swap(&self, allow: bool) -> Result<(), Error> {
        fs::write(self.file(SWAP_MAX), if allow { "max" } else { "0" })
            .doing(|| format!("letting {} swap: does the kernel know swap?", self.path))
    }

    /// Whether it may.
    pub fn may_swap(&self) -> bool {
        self.read(SWAP_MAX).is_ok_and(|max| max.trim() != "0")
    }

    /// Whether [`Self::reclaim`] can be told what to prefer.
    pub fn takes_swappiness(&self) -> bool {
        self.reclaim(0, Some("swappiness=60")).is_ok()
    }

    /// Has the kernel reclaim, with a further `key` where it knows one; says whether it says that it did all of it.
    pub fn reclaim(&self, bytes: u64, key: Option<&str>) -> Result<bool, Error> {
        match fs::write(self.file("memory.reclaim"), format!("{bytes} {}", key.unwrap_or_default()).trim()) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::new("the guest's kernel cannot be asked to reclaim: it is older than Linux 5.19"))
            }
            Err(error) => Err(error).doing(|| format!("reclaiming from {}", self.path)),
        }
    }

    /// Its `cgroup.procs`: writing "0" to it moves the writer into the group.
    pub fn open_processes(&self) -> Result<File, Error> {
        open_processes(&self.path)
    }

    /// Moves a process into it, with its pages where the group has a node of its own.
    pub fn adopt(&self, pid: u32) -> Result<(), Error> {
        fs::write(self.file("cgroup.procs"), pid.to_string())
            .doing(|| format!("moving process {pid} to {}", self.path))
    }

    fn read(&self, name: &str) -> Result<String, Error> {
        fs::read_to_string(self.file(name)).doing(|| format!("reading {name} of {}", self.path))
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }
}

/// Moves the caller to where a process of the workload's is.
pub fn join(pid: Pid) -> io::Result<()> {
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero()))?;
    let path = path(&cgroups).filter(|path| is_workload_path(path)).ok_or(ErrorKind::NotFound)?;
    fs::write(format!("{ROOT}{path}/cgroup.procs"), "0")
}

/// Whether `/proc/PID/cgroup` is that of a process of the workload's.
pub fn is_workload(cgroups: &str) -> bool {
    path(cgroups).is_some_and(is_workload_path)
}

/// What `/proc/PID/cgroup` says.
fn path(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Whether a control group, by its path from the root of the hierarchy, is the workload's.
pub fn is_workload_path(path: &str) -> bool {
    let own = WORKLOAD.strip_prefix(ROOT).unwrap_or(WORKLOAD);
    path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Processes that were killed for lack of memory, by `memory.events`.
pub fn oom_kills(events: &str) -> u64 {
    let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    kills.and_then(|kills| kills.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workload_is_told_from_kernel_and_agent() {
        for theirs in ["0::/workload\n", "12:pids:/\n0::/workload/zone-ram\n", "0::/workload/zone-a/own\n"] {
            assert!(is_workload(theirs), "{theirs}");
        }
        for other in ["0::/\n", "0::/agent\n", "0::/workload2\n", "1:pids:/workload\n", ""] {
            assert!(!is_workload(other), "{other}");
        }
    }

    #[test]
    fn groups_are_the_workloads_or_its_zones() {
        let workload = |zones: &[&str]| Workload {
            processes: File::open("/dev/null").unwrap(),
            zones: zones.iter().map(|name| (*name).into()).collect(),
        };
        let path = |workload: &Workload, zone| workload.group(zone).map(|group| group.path);
        let whole = Some(WORKLOAD.to_owned());
        assert_eq!([None, Some(0)].map(|zone| path(&workload(&[]), zone)), [whole.clone(), whole.clone()]);
        assert_eq!(path(&workload(&[]), Some(1)), None);
        let divided = workload(&["ram", "cache"]);
        assert_eq!(path(&divided, None), whole);
        assert_eq!(path(&divided, Some(1)), Some("/sys/fs/cgroup/workload/zone-cache".into()));
        assert_eq!(path(&divided, Some(2)), None);
    }

    #[test]
    fn oom_kills_are_seen_among_the_events() {
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 7\noom 1\noom_kill 0\noom_group_kill 0\n"), 0);
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(oom_kills(""), 0);
    }
}

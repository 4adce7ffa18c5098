//! Two control groups: a protected one for the agent, one with the user's limits for the workload.

#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};

use crate::error::{Doing, Error};

const ROOT: &str = "/sys/fs/cgroup";
const AGENT: &str = "/sys/fs/cgroup/agent";
const WORKLOAD: &str = "/sys/fs/cgroup/workload";
/// Before the names of zones, which are the user's: none is a file of the kernel's.
const ZONE_PREFIX: &str = "zone-";

/// Memory that the kernel leaves to the agent before it reclaims from it: about twice of what it holds.
const AGENT_MEMORY_MIN_BYTES: u32 = 4 * 1024 * 1024;

/// The workload's control group, and below it one for each zone of memory where there are several.
#[derive(Debug)]
pub struct Workload {
    /// Of the group that the workload begins in.
    processes: File,
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
    Ok(Workload { processes: open_processes(WORKLOAD)? })
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
        Ok(())
    }

    /// Limits the number of its processes and threads.
    pub fn limit_pids(&self, limit: u32) -> Result<(), Error> {
        fs::write(format!("{WORKLOAD}/pids.max"), limit.to_string())
            .doing(|| format!("limiting the workload to {limit} processes"))
    }

    /// Whether the kernel killed one of its processes for lack of memory.
    pub fn was_oom_killed(&self) -> bool {
        fs::read_to_string(format!("{WORKLOAD}/memory.events")).is_ok_and(|events| has_oom_kill(&events))
    }
}

fn has_oom_kill(events: &str) -> bool {
    events.lines().filter_map(|line| line.split_once(' ')).any(|(key, n)| key == "oom_kill" && n != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oom_kills_are_seen_among_the_events() {
        assert!(!has_oom_kill("low 0\nhigh 0\nmax 7\noom 1\noom_kill 0\noom_group_kill 0\n"));
        assert!(has_oom_kill("low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 0\n"));
        assert!(!has_oom_kill(""));
    }
}

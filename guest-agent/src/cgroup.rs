//! Two control groups: a protected one for the agent, one with the user's limits for the workload.

#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};

use crate::error::{Doing, Error};

const ROOT: &str = "/sys/fs/cgroup";
const AGENT: &str = "/sys/fs/cgroup/agent";
const WORKLOAD: &str = "/sys/fs/cgroup/workload";

/// Memory that the kernel leaves to the agent before it reclaims from it: about twice of what it holds.
const AGENT_MEMORY_MIN_BYTES: u32 = 4 * 1024 * 1024;

/// The workload's control group.
#[derive(Debug)]
pub struct Workload {
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
    let processes = OpenOptions::new()
        .write(true)
        .open(format!("{WORKLOAD}/cgroup.procs"))
        .doing(|| format!("opening cgroup {WORKLOAD}"))?;
    Ok(Workload { processes })
}

impl Workload {
    /// Writing "0" to it moves the writer into the group.
    pub const fn processes(&self) -> &File {
        &self.processes
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

//! Other processes, as `/proc` shows them.

use crate::run::until;
use balloon::resident::{Mapping, parse_smaps};
use rustix::process::Pid;
use std::cell::Cell;
use std::fs;

/// Waits for a child of `parent` that executes `name`.
#[must_use]
pub fn child_named(parent: Pid, name: &str) -> Pid {
    let found = Cell::new(None);
    until(
        || {
            found.set(
                children(parent).into_iter().find(|child| field(*child, "Name:").as_deref() == Some(name)),
            );
            found.get().is_some()
        },
        || format!("process {parent} has no child {name}"),
    );
    found.get().unwrap()
}

/// Waits until the process is gone, or at least dead.
pub fn wait_until_gone(pid: Pid) {
    let state = || field(pid, "State:");
    until(|| state().is_none_or(|state| state.starts_with('Z')), || format!("process {pid} still runs"));
}

/// What the process has mapped.
#[must_use]
pub fn mappings(pid: Pid) -> Vec<Mapping> {
    parse_smaps(&fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap())
}

fn children(parent: Pid) -> Vec<Pid> {
    let parent = parent.to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|pid| field(*pid, "PPid:").as_deref() == Some(&parent))
        .collect()
}

/// A field of `/proc/PID/status`; nothing once the process is gone.
fn field(pid: Pid, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

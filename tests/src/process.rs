//! Other processes, as `/proc` shows them.

use crate::run::until;
use balloon::resident::{Mapping, parse_smaps};
use rustix::process::{Pid, Signal};
use std::cell::Cell;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Waits for a child of `parent` that executes `name`.
#[must_use]
pub fn child_named(parent: Pid, name: &str) -> Pid {
    child_named_or(parent, name, String::new)
}

/// As [`child_named`]; without one the test fails with `words`, at once if `parent` has ended.
pub(crate) fn child_named_or(parent: Pid, name: &str, words: impl Fn() -> String) -> Pid {
    let found = Cell::new(None);
    let find = || {
        let executes = |child: &Pid| field(*child, "Name:").as_deref() == Some(name);
        found.set(children(parent).into_iter().find(executes));
        found.get().is_some()
    };
    until(|| find() || has_ended(parent), || format!("process {parent} has no child {name}; {}", words()));
    found.get().unwrap_or_else(|| panic!("process {parent} ended without a child {name}; {}", words()))
}

/// Waits until the process is gone, or at least dead.
pub fn wait_until_gone(pid: Pid) {
    until(|| has_ended(pid), || format!("process {pid} still runs"));
}

fn has_ended(pid: Pid) -> bool {
    field(pid, "State:").is_none_or(|state| state.starts_with('Z'))
}

/// Whether the process has another one open, as who waits for its end.
#[must_use]
pub fn holds_another(pid: Pid) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|link| link.to_string_lossy().contains("pidfd"))
}

/// Whether the process has a file below `directory` open.
#[must_use]
pub fn has_open(pid: Pid, directory: &Path) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let directory = directory.canonicalize().unwrap();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|file| file.starts_with(&directory) && file != directory)
}

/// Whether a signal waits for the process to take it.
#[must_use]
pub fn is_pending(pid: Pid, signal: Signal) -> bool {
    let pending = field(pid, "ShdPnd:").map_or(0, |mask| u64::from_str_radix(&mask, 16).unwrap());
    pending & (1 << (signal.as_raw() - 1)) != 0
}

/// What the process has mapped.
#[must_use]
pub fn mappings(pid: Pid) -> Vec<Mapping> {
    parse_smaps(&fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap())
}

/// What of its memory the host has swapped out, in bytes.
#[must_use]
pub fn swapped_bytes(pid: Pid) -> u64 {
    bytes(pid, "VmSwap:")
}

/// What it holds that belongs to no file, in bytes.
#[must_use]
pub fn anonymous_bytes(pid: Pid) -> u64 {
    bytes(pid, "RssAnon:")
}

fn bytes(pid: Pid, name: &str) -> u64 {
    let text = field(pid, name).unwrap_or_default();
    text.trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// Waits until no process is left that was started with this variable: with its end all that it held open is closed.
pub fn wait_until_none_has_variable(name: &str, value: &Path) {
    let variable = [name.as_bytes(), b"=", value.as_os_str().as_bytes()].concat();
    let has = |pid: &Pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|other| other == variable)
    };
    let holders = || all().into_iter().filter(has).collect::<Vec<_>>();
    until(|| holders().is_empty(), || format!("processes {:?} are left", holders()));
}

fn children(parent: Pid) -> Vec<Pid> {
    let parent = parent.to_string();
    all().into_iter().filter(|pid| field(*pid, "PPid:").as_deref() == Some(&parent)).collect()
}

fn all() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// A field of `/proc/PID/status`; nothing once the process is gone.
fn field(pid: Pid, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

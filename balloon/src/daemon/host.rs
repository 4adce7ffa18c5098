//! What the host says of itself and of processes: `proc(5)`. Wiring around parsers that are pure.

#![forbid(unsafe_code)]

use std::fs;
use std::io;

/// A process that no other one is taken for: numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the host did.
    pub start_ticks: u64,
}

/// What the host holds for a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Memory that no other process has: its anonymous pages and its page tables. Of a VMM guest memory above all.
    pub private_bytes: u64,
}

/// A process and who started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The process.
    pub process: Process,
    /// Number of its parent.
    pub parent: u32,
}

/// What there is of the process `pid`. A dead one whose parent has not waited for it yet is none.
#[must_use]
pub fn status(pid: u32) -> Option<Status> {
    parse_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether the process lives.
#[must_use]
pub fn is_alive(process: Process) -> bool {
    status(process.pid).is_some_and(|status| status.process == process)
}

/// What the host holds for it; nothing when it is dead.
#[must_use]
pub fn held(process: Process) -> Held {
    let text = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
    if is_alive(process) { parse_status(&text) } else { Held::default() }
}

/// All memory of the host, in bytes.
///
/// # Errors
/// The host does not say.
pub fn memory_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    kib(&text, "MemTotal").ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Fields 3, 4 and 22; the name, in parentheses, may contain anything.
fn parse_stat(pid: u32, text: &str) -> Option<Status> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(Status { process: Process { pid, start_ticks }, parent })
}

fn parse_status(text: &str) -> Held {
    let field = |name| kib(text, name).unwrap_or(0);
    Held { private_bytes: field("RssAnon").saturating_add(field("VmPTE")) }
}

/// The line `name:  N kB`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";
        let process = Process { pid: 42, start_ticks: 98_765 };
        assert_eq!(parse_stat(42, stat), Some(Status { process, parent: 7 }));
        assert_eq!(parse_stat(42, &stat.replace(" S 7", " Z 7")), None);
        assert_eq!(parse_stat(42, "42 (a"), None);
        let own = status(std::process::id()).unwrap().process;
        assert!(is_alive(own) && held(own).private_bytes > 0);
        let earlier = Process { start_ticks: own.start_ticks - 1, ..own };
        assert!(!is_alive(earlier) && held(earlier) == Held::default());
    }

    #[test]
    fn private_memory_is_what_goes_with_the_process() {
        let text = "Name:\tx\nRssAnon:\t    100 kB\nRssFile:\t  7 kB\nVmPTE:\t 4 kB\n";
        assert_eq!(parse_status(text), Held { private_bytes: 104 << 10 });
        assert_eq!(parse_status(""), Held::default());
    }
}

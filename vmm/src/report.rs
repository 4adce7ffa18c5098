//! What `ballast-vmm` and `ballast` say to each other while the microVM runs: a JSON document a datagram.
//!
//! Pure: the sockets belong to [`crate::streams`] and to the command line.

use balloon::control::link::End;
use serde::{Deserialize, Serialize};

/// Longest datagram in either direction: room for the tail of the guest's kernel messages.
pub const MAX_BYTES: usize = 64 << 10;

/// From the VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// Something that the user should know.
    Notice(String),
    /// A point on the way to the workload's first instruction.
    Milestone(Milestone),
    /// The workload runs.
    Started,
    /// The last word: how the run ended.
    Ended(Outcome),
}

/// What the kernel writes of a panic's reason.
pub const PANIC: &str = "Kernel panic - not syncing: ";

/// What the kernel writes before the registers and the trace of a fault that may end in a panic.
const FAULTS: [&str; 5] = ["BUG: ", "Oops: ", "general protection fault", "Out of memory", "divide error"];

/// Lines between a fault and the panic that it caused: its registers, its trace, the list of its modules.
const FAULT_LINES: usize = 80;

/// Lines shown before the one that names the trouble.
const LINES_BEFORE: usize = 6;

/// The `most` lines of the kernel's messages that say most: of a panic those around its cause and the panic itself,
/// which registers and a trace follow; otherwise the last.
#[must_use]
pub fn telling(kernel_log: &str, most: usize) -> Vec<&str> {
    let lines: Vec<&str> = kernel_log.lines().collect();
    let Some(panic) = lines.iter().position(|line| line.contains(PANIC)) else {
        return lines[lines.len().saturating_sub(most)..].to_vec();
    };
    let is_fault = |line: &&str| FAULTS.iter().any(|fault| line.contains(fault));
    let earliest = panic.saturating_sub(FAULT_LINES);
    let cause = lines[earliest..panic].iter().position(is_fault).map_or(panic, |at| earliest + at);
    let first = cause.saturating_sub(LINES_BEFORE.min(most / 2));
    let mut told = lines[first..lines.len().min(first + most)].to_vec();
    if panic >= first + most {
        told.truncate(most.saturating_sub(1));
        told.push(lines[panic]);
    }
    told
}

/// When something happened, in microseconds of the host's monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestone {
    /// What happened.
    pub name: String,
    /// When the VMM learnt of it.
    pub host_us: u64,
    /// The guest's own clock then, if the guest said it.
    pub guest_us: Option<u64>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The workload ended.
    Exited {
        /// The exit code that a shell shows.
        code: u8,
        /// The guest's kernel killed one of its processes for lack of memory, of which the guest could use so much.
        out_of_memory_at_bytes: Option<u64>,
    },
    /// The workload could not be started.
    NotStarted {
        /// 125, 126 or 127.
        code: u8,
        /// Why.
        message: String,
    },
    /// A signal came before the workload had started.
    Interrupted {
        /// Its number.
        signal: u8,
    },
    /// The microVM failed.
    Failed {
        /// What happened and what to do.
        message: String,
        /// The last lines of the guest kernel's messages.
        kernel_log: String,
    },
}

/// To the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// The user's terminal has a new size.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// A signal for the workload.
    Signal {
        /// Its number.
        number: u8,
    },
}

impl Outcome {
    /// What the daemon is told of it.
    #[must_use]
    pub fn end(&self) -> End {
        match *self {
            Self::Exited { code, out_of_memory_at_bytes } => {
                End::Exited { code, out_of_memory: out_of_memory_at_bytes.is_some() }
            }
            Self::NotStarted { code, .. } => End::NotStarted { code },
            Self::Interrupted { signal } => End::NotStarted { code: signal.saturating_add(128) },
            Self::Failed { .. } => End::Failed,
        }
    }
}

impl Milestone {
    /// `name` happened now.
    #[must_use]
    pub fn now(name: &str, guest_us: Option<u64>) -> Self {
        Self { name: name.into(), host_us: monotonic_us(), guest_us }
    }
}

/// The host's monotonic clock in microseconds, the same in every process.
#[must_use]
pub fn monotonic_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec for the kernel to fill; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use balloon::logging::readable;

    #[test]
    fn whatever_the_guests_kernel_says_fits_a_report() {
        for worst in ['\0', '\x1b', '"', '\\', '\u{fffd}', '\n'] {
            let kernel_log = readable(&worst.to_string().repeat(16 << 10));
            let outcome = Outcome::Failed { message: "x".repeat(1 << 10), kernel_log };
            assert!(serde_json::to_vec(&Report::Ended(outcome)).unwrap().len() <= MAX_BYTES, "{worst:?}");
        }
        assert_eq!(readable("a\x1b[2J\r\n"), "a\u{fffd}[2J\n");
        assert_eq!(readable("a\r\r\nb\rc\r"), "a\nb\u{fffd}c");
    }

    #[test]
    fn a_panic_is_shown_with_what_led_to_it_and_not_with_what_follows() {
        let numbered = |word: &str, n: usize| (0..n).map(|i| format!("{word} {i}\n")).collect::<String>();
        assert_eq!(telling(&numbered("line", 30), 20)[0], "line 10");
        assert_eq!(telling("one\n", 20), ["one"]);
        assert!(telling("", 20).is_empty());
        let panic = format!("[ 1.0] {PANIC}sysrq triggered crash");
        let plain =
            numbered("before", 50) + &panic + "\n" + &numbered("trace", 40) + "---[ end " + PANIC + "]---\n";
        let told = telling(&plain, 20);
        assert_eq!((told.len(), told[0], told[6], told[19]), (20, "before 44", panic.as_str(), "trace 12"));
        let oops = numbered("before", 50) + "BUG: null\n" + &numbered("register", 40) + &panic + "\ntrace\n";
        let told = telling(&oops, 20);
        assert_eq!((told.len(), told[0], told[6], told[19]), (20, "before 44", "BUG: null", panic.as_str()));
    }
}

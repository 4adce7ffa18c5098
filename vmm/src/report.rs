//! What `ballast-vmm` and `ballast` say to each other while the microVM runs: a JSON document a datagram.
//!
//! Pure: the sockets belong to [`crate::streams`] and to the command line.

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
    /// The last word: how the run ended.
    Ended(Outcome),
}

/// Text of the guest without what could change a terminal. It also bounds a report: of a control character JSON
/// makes six bytes, of its replacement three.
#[must_use]
pub fn readable(text: &str) -> String {
    let shown = |c: char| matches!(c, '\t' | '\n') || !c.is_control();
    text.chars().map(|c| if shown(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
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
        /// The guest's kernel killed one of its processes for lack of memory.
        oom_killed: bool,
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

    #[test]
    fn whatever_the_guests_kernel_says_fits_a_report() {
        for worst in ['\0', '\x1b', '"', '\\', '\u{fffd}', '\n'] {
            let kernel_log = readable(&worst.to_string().repeat(16 << 10));
            let outcome = Outcome::Failed { message: "x".repeat(1 << 10), kernel_log };
            assert!(serde_json::to_vec(&Report::Ended(outcome)).unwrap().len() <= MAX_BYTES, "{worst:?}");
        }
        assert_eq!(readable("a\x1b[2J\r\n"), "a\u{fffd}[2J\u{fffd}\n");
    }
}

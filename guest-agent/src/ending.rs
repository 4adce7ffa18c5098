//! How a workload ends, and how long that may take.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use proto::ExitStatus;
use rustix::process::WaitStatus;

use crate::error::Error;

/// How long killed processes may take to be gone. Only one that waits for a disk takes any time.
pub const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
    /// The workload ended; its output is in the ports.
    Exited {
        /// How its main process ended.
        status: ExitStatus,
        /// Bytes of its standard output.
        stdout_bytes: u64,
        /// Bytes of its standard error.
        stderr_bytes: u64,
    },
    /// The host is gone, or makes no sense.
    HostLost(Error),
}

/// The workload has ended, or has nobody left to run for.
#[derive(Debug)]
pub struct Ending {
    /// Who lives on then is left behind.
    pub deadline: Instant,
    /// Why there is no host any more.
    pub host_lost: Option<Error>,
}

impl Ending {
    /// One that begins now.
    pub fn new(host_lost: Option<Error>) -> Self {
        Self { deadline: Instant::now() + KILL_DEADLINE, host_lost }
    }
}

/// How a process ended; nothing for one that was only stopped.
pub fn exit_status(status: WaitStatus) -> Option<ExitStatus> {
    let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
    let signal = status.terminating_signal().and_then(|number| u8::try_from(number).ok());
    signal.map(ExitStatus::Signal).or(code.map(ExitStatus::Code))
}

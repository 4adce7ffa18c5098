//! What the streams lead to on the host's side, and how `ballast` is told of it.

use crate::report::Report;
use std::cell::Cell;
use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;
use vmm_sys_util::eventfd::EventFd;

/// The host's ends, all non-blocking.
pub struct HostEnds {
    /// Read end of standard input.
    pub stdin: Option<File>,
    /// Write end of standard output.
    pub stdout: File,
    /// Write end of standard error.
    pub stderr: File,
    /// The socket shared with `ballast`.
    pub control: UnixDatagram,
}

/// What passes between the link and those who order something of the agent.
pub struct OrderEvents {
    /// Readable when there are orders to send.
    pub ordered: EventFd,
    /// Written when an order is answered.
    pub answered: EventFd,
    /// Guest memory that may be used.
    pub max_bytes: Rc<Cell<u64>>,
}

/// Says `report` to `ballast`; one that does not listen misses it.
pub fn send_report(control: &UnixDatagram, report: &Report) {
    match serde_json::to_vec(report) {
        Ok(bytes) => drop(control.send(&bytes)),
        Err(error) => log::error!("cannot encode a report: {error}"),
    }
}

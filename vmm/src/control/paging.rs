//! Has the host swap out guest memory when `ballastd` says so. Wiring between the link and [`balloon::page_out`].
//!
//! The VMM does it, not the daemon: it needs no right over another process for its own memory, and what it is told is a
//! lease like all else that it is told.

use super::host_nodes::TURN;
use balloon::backing::HostRange;
use balloon::page_out::{Host, Pager};
use std::time::Instant;

/// The memory that can be swapped out, and what is under way.
#[derive(Debug, Default)]
pub struct Paging {
    pager: Pager,
    host: Option<Host>,
}

impl Paging {
    /// Of these ranges.
    #[must_use]
    pub fn new(ranges: Vec<HostRange>) -> Self {
        Self { pager: Pager::new(ranges), host: Some(Host::probe()) }
    }

    /// So much is to be swapped out.
    pub fn begin(&mut self, bytes: u64) {
        self.pager.ask(bytes);
    }

    /// Goes on for a [`TURN`]; then the event loop has a pass for everything else. Whether something is left.
    pub fn go_on(&mut self) -> bool {
        let Some(host) = &mut self.host else { return false };
        let began = Instant::now();
        while !self.pager.is_idle() {
            if let Err(error) = self.pager.step(host) {
                log::warn!("the host does not swap out guest memory: {error}");
            }
            if began.elapsed() >= TURN {
                break;
            }
        }
        !self.pager.is_idle()
    }
}

//! Moves zones between nodes of the host for the control socket. Wiring between it and [`balloon::numa`].

use balloon::backing::HostRange;
use balloon::numa::{Host, Mover, Placed, prefer};
use std::io;
use std::time::{Duration, Instant};

/// So long a move goes on without a break; then the event loop has as long for everything else.
pub const TURN: Duration = Duration::from_millis(4);

/// A zone cannot be moved to a node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One at a time: each copies as fast as it may.
    #[error("another zone of this microVM is on its way to another node: try again when it is there")]
    Busy,
    /// The host's answer.
    #[error(
        "the host gives no memory of that node ({0}): `ls /sys/devices/system/node` shows which nodes there are, \
         `cpuset.mems.effective` of the VMM's cgroup which of them it may use"
    )]
    Host(#[from] io::Error),
}

/// The private zones by what they are made of, and the move under way.
#[derive(Debug, Default)]
pub struct HostNodes {
    zones: Vec<Vec<HostRange>>,
    host: Host,
    under_way: Option<Mover>,
}

impl HostNodes {
    /// Zones made of these ranges, in their order.
    #[must_use]
    pub fn new(zones: Vec<Vec<HostRange>>) -> Self {
        Self { zones, ..Self::default() }
    }

    /// Has a zone taken from `node`, or from any, instead of `before`; what it holds is moved there by
    /// [`Self::go_on`].
    ///
    /// # Errors
    /// There is no such node, or a move is under way; nothing changed.
    pub fn begin(&mut self, zone: usize, node: Option<u32>, before: Option<u32>) -> Result<(), Error> {
        if self.under_way.is_some() {
            return Err(Error::Busy);
        }
        let ranges = self.zones.get(zone).cloned().unwrap_or_default();
        match node {
            None => prefer(&mut self.host, &ranges, None, before)?,
            Some(node) => self.under_way = Some(Mover::begin(&mut self.host, ranges, node, before)?),
        }
        Ok(())
    }

    /// Moves on for a [`TURN`]. Where the zone lies, once all of it has been tried; nothing if nothing is to be moved.
    pub fn go_on(&mut self) -> Option<io::Result<Placed>> {
        let mover = self.under_way.as_mut()?;
        let began = Instant::now();
        loop {
            if let Some(end) = mover.step(&mut self.host).transpose() {
                self.under_way = None;
                return Some(end);
            }
            if began.elapsed() >= TURN {
                return None;
            }
        }
    }
}

//! What the control socket asks of a VM's memory. Pure; the VMM's wiring implements it.

#![forbid(unsafe_code)]

pub use super::host_nodes::Error as NodeError;
pub use crate::virtio::balloon::Refusal;
use balloon::control::api::{GuestStatistics, HostDocument, MemoryDocument, ZoneDocument, ZonesDocument};
use balloon::numa::Placed;
use balloon::policy::HostReading;
use std::io;
use vmm_sys_util::eventfd::EventFd;

/// A ceiling that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// So many bytes, until another word.
    Bytes(u64),
    /// As Ballast sees fit.
    Auto,
}

/// The memory of a running VM. All calls are made on the thread of the event loop and return at once.
pub trait Memory {
    /// What there is to say now, but for [`Self::charge`]. Called for each request and each lease: what is costly to find
    /// out is kept for a while.
    fn snapshot(&mut self) -> MemoryDocument;

    /// What the host charges the VMM for, where it has a cgroup of its own. Of all that is said the host takes longest to
    /// find this out.
    fn charge(&mut self) -> Option<HostDocument>;

    /// Likewise of the zones that it is divided into.
    fn zones(&mut self) -> ZonesDocument;

    /// The zones that it shares with others.
    fn shared_zones(&mut self) -> Vec<ZoneDocument> {
        Vec::new()
    }

    /// Has a private zone, by its number, taken from a node of the host from now on, or from any. What it holds on others
    /// is moved by [`Self::move_on`].
    ///
    /// # Errors
    /// There is no such node, or a zone is on its way; nothing changed.
    fn set_node(&mut self, zone: usize, node: Option<u32>) -> Result<(), NodeError>;

    /// Moves on, for some milliseconds. Where the zone lies once all of it has been tried; nothing before that, or if no
    /// zone is on its way.
    fn move_on(&mut self) -> Option<io::Result<Placed>>;

    /// Has the host swap out so much of guest memory, instead of what is left of the order before: by [`Self::page_out_on`].
    fn page_out(&mut self, bytes: u64);

    /// Goes on with that, for some milliseconds; [`Self::statistics_event`] is readable again while something is left.
    fn page_out_on(&mut self);

    /// Sets the ceiling. Whether to take [`Ceiling::Auto`] without a driver is the implementer's to say: one that
    /// was set by hand for a driver that is gone must be possible to undo.
    ///
    /// # Errors
    /// There is no driver to reach it, or no such ceiling; nothing changed. The driver's state comes first: without
    /// one no ceiling is better than another.
    fn set_ceiling(&mut self, ceiling: Ceiling) -> Result<(), Refusal>;

    /// Sets the highest ceiling, and lowers the ceiling to it, but never below the floor: whoever asks has seen to it that
    /// the guest can do with it. It raises none; that is for [`Self::follow_ceiling`].
    ///
    /// # Errors
    /// There is no such ceiling; nothing changed.
    fn set_max(&mut self, bytes: u64) -> Result<(), Refusal>;

    /// What the guest itself needs to live: the floor without what the microVM is promised. It costs nothing to ask.
    fn guest_floor_bytes(&self) -> u64;

    /// The microVM is promised so much: no ceiling goes below.
    fn set_min(&mut self, bytes: u64);

    /// The ceiling that a user set, until that is undone.
    fn ceiling_by_hand(&self) -> Option<u64>;

    /// Sets the ceiling that the reclaim law wants, within floor and max. One that a user set is the law's business, too:
    /// it knows the limits that hold all the same.
    ///
    /// # Errors
    /// There is no such ceiling; nothing changed.
    fn follow_ceiling(&mut self, bytes: u64) -> Result<(), Refusal>;

    /// What the reclaim law goes by: the last reading, with nothing read anew.
    fn reading(&mut self) -> HostReading;

    /// Asks the guest for new statistics, or joins a request that is under way, however old.
    ///
    /// # Errors
    /// The guest cannot answer.
    fn request_statistics(&mut self) -> Result<(), Refusal>;

    /// Whether the guest was asked and has not answered. It may never.
    fn statistics_pending(&self) -> bool;

    /// The last statistics that came, if any did. [`GuestStatistics::stale`] says that they are no answer to the
    /// last request.
    fn statistics(&mut self) -> Option<GuestStatistics>;

    /// Readable when statistics have come or will not come; drained by the socket's server.
    fn statistics_event(&self) -> Option<&EventFd>;
}

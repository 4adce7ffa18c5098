//! What the control socket asks of a VM's memory. Pure; the VMM's wiring implements it.

#![forbid(unsafe_code)]

use super::api::{GuestStatistics, MemoryDocument};
use vmm_sys_util::eventfd::EventFd;

/// A ceiling that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// So many bytes, until another word. Between floor and max: [`crate::control::routes`] has seen to it.
    Bytes(u64),
    /// As Ballast sees fit.
    Auto,
}

/// A request about memory that cannot be met now. The message is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Nobody in the guest can move memory.
    #[error("the guest has no balloon driver, or none yet: its memory is fixed")]
    NoDriver,
    /// There is a driver, and it does not speak of statistics.
    #[error("the guest's balloon driver offers no statistics")]
    NoStatistics,
    /// The driver has only just started.
    #[error("the guest's balloon driver has not made its statistics ready yet: ask again in a moment")]
    NotReady,
}

/// The memory of a running VM. All calls are made on the thread of the event loop and return at once.
pub trait Memory {
    /// Everything there is to say now. Called for each request: what is costly to find out is kept for a while.
    fn snapshot(&mut self) -> MemoryDocument;

    /// Sets the ceiling. Whether to take [`Ceiling::Auto`] without a driver is the implementer's to say: one that
    /// was set by hand for a driver that is gone must be possible to undo.
    ///
    /// # Errors
    /// There is no driver to reach it; nothing changed.
    fn set_ceiling(&mut self, ceiling: Ceiling) -> Result<(), Unavailable>;

    /// Asks the guest for new statistics, or joins a request that is under way, however old.
    ///
    /// # Errors
    /// The guest cannot answer.
    fn request_statistics(&mut self) -> Result<(), Unavailable>;

    /// Whether the guest was asked and has not answered. It may never.
    fn statistics_pending(&self) -> bool;

    /// The last statistics that came, if any did. [`GuestStatistics::stale`] says that they are no answer to the
    /// last request.
    fn statistics(&mut self) -> Option<GuestStatistics>;

    /// Readable when statistics have come or will not come; drained by the socket's server.
    fn statistics_event(&self) -> Option<&EventFd>;
}

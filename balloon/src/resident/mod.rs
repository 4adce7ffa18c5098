//! What of a VM's memory the host really holds: the truth beside the books.
//!
//! [`Scanner`] asks the host's page tables, region by region, a bounded number of pages a step: a reading of a
//! large VM spreads over many passes of the event loop. What it finds resident corrects the page books
//! ([`Books::reconcile`](crate::frames::Books::reconcile)). [`smaps`] reads what `/proc/PID/smaps` says of a
//! whole process, for tests and measurements. [`PageCache`] tells how much of mapped files the host holds. [`MoveCounter`] tells
//! whether a reading may be another than the last.

mod host;
mod moves;
mod page_cache;
mod scanner;
pub mod smaps;

pub use host::{Extent, Host, Survey};
pub use moves::{CountMoves, MoveCounter, Moves};
pub use page_cache::{FileMapping, PageCache};
pub use scanner::{Residency, Scanner};
pub use smaps::{FileId, Mapping, parse_smaps};

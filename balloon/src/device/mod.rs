//! The virtio-balloon (virtio 1.3, 5.5), as bytes and ranges: no queues, no descriptors, no clock, no addresses
//! of this process.
//!
//! [`Balloon`] is what the VMM's virtio layer drives: it hands over what the driver wrote into buffers, lets the
//! device [settle](Balloon::settle) a pass of a queue at once, and then returns the buffers. It tells the time
//! in milliseconds of any clock that never goes back.
//!
//! ```text
//!   absent --DRIVER_OK--> present --reset--> absent     the target outlives both; `actual`, poison,
//!                                                       statistics and the balloon's pages do not
//! ```
//!
//! A VM without a driver is an ordinary VM: the target is stored for the driver that may come, every request
//! answers at once that nobody is there, and [`Balloon::driver`] says so.
//!
//! What is deliberately missing is free page hinting (`VIRTIO_BALLOON_F_FREE_PAGE_HINT`): a hint may be outdated
//! when the host acts on it, which then discards pages the guest has already taken back.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

mod balloon;
mod batch;
mod config;
#[cfg(test)]
mod cost_tests;
mod errors;
mod floor;
mod host;
#[cfg(test)]
mod model;
mod queues;
mod reminder;
mod report;
mod statistics;
#[cfg(test)]
mod tests;

pub use balloon::{Balloon, PAGES_PER_REPORT, PASS_COST, PASS_PAGES, PFNS_PER_DESCRIPTOR};
pub use config::CONFIG_BYTES;
pub use errors::ProtocolErrors;
pub use floor::LEAST_FLOOR_BYTES;
pub use host::{CeilingError, PROGRESS_DEADLINE_MS};
pub use queues::{FEATURE_NAMES, OFFERED, QUEUE_SIZES, Queue, features, index, named_features, queue};
pub use report::{DriverState, MemoryReport};
pub use statistics::{RequestError, STATISTICS_BYTES, STATISTICS_DEADLINE_MS, Statistics, Values};

//! virtio-blk (virtio 1.3, 5.2): a volume or disk image of the host as the guest's disk.
//!
//! ```text
//! queue::drain -> chain -> buffers -> request::parse -> lookup -> backend
//!                                          |  refusal     | outside memory   | host error
//!                                          +--------------+------------------+--> status, counted
//! ```
//!
//! The device waits for its disk, so it runs on a thread of its own. Whatever the guest sends, each chain
//! comes back once, with the status as its last byte wherever there is room for one.

pub mod backend;
pub mod bounce;
pub mod counters;
pub mod device;
pub mod direct;
pub mod file;
pub mod limits;
pub mod lookup;
pub mod request;

#[cfg(test)]
mod tests;

pub use device::{Block, SERIAL_BYTES};

//! virtio-console with several ports (virtio 1.3, 5.3): kernel messages, the agent's link and the workload's
//! three streams.
//!
//! [`device`] moves bytes, [`control`] does the handshake, [`ports`] says which queue is whose. The host's
//! descriptors belong to [`crate::streams`].

pub mod control;
pub mod device;
pub mod ports;

pub use device::Console;
pub use ports::Port;

#[cfg(test)]
mod tests;

//! virtio over MMIO: the transport's registers, the devices behind it and the layer that attaches both to a VM.

pub mod attach;
pub mod balloon;
pub mod block;
pub mod buffers;
pub mod config_space;
pub mod console;
pub mod device;
#[cfg(test)]
pub(crate) mod driver;
pub mod mmio;
pub mod pmem;
pub mod queue;
pub mod rng;

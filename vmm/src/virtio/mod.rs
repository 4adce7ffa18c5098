//! virtio over MMIO: the transport's registers, the devices behind it and the layer that attaches both to a VM.

pub mod attach;
pub mod console;
pub mod device;
pub mod mmio;

//! What a virtio device is to the transport in front of it and to the attach layer around it.
//!
//! A device is told what the driver did and gives back [`Effects`]; it holds no interrupt, no eventfd and no
//! lock. The attach layer owns those, calls the device with its queues, and carries the effects out. A device
//! therefore runs in a unit test with nothing but a piece of memory.

use std::sync::Arc;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

/// Guest memory as devices see it: RAM only, never a shared zone, so that no descriptor can make a device
/// write into a read-only mapping.
pub type Memory = Arc<GuestMemoryMmap<()>>;

/// What the attach layer must do after a device has run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Effects {
    /// Used buffers were added that the driver wants to hear of: raise the queue interrupt.
    pub interrupt: bool,
    /// Work was left for the next pass of the event loop because this pass's budget is spent.
    pub again: bool,
    /// The configuration space changed by itself: raise the configuration interrupt.
    pub config: bool,
}

impl Effects {
    /// Both effects together.
    pub fn and(self, other: Self) -> Self {
        Self {
            interrupt: self.interrupt || other.interrupt,
            again: self.again || other.again,
            config: self.config || other.config,
        }
    }
}

/// The driver broke a virtqueue itself (not one of its requests): the device needs a reset (virtio 1.3, 2.1.1).
#[derive(Debug, thiserror::Error)]
pub enum BrokenQueue {
    /// The queue's own ring is inconsistent or outside memory.
    #[error("virtqueue {index}: {source}")]
    Ring {
        /// Which queue.
        index: usize,
        /// What is wrong with it.
        source: virtio_queue::Error,
    },
}

/// A virtio device behind the transport.
pub trait Device: Send {
    /// The device id of virtio 1.3 section 5.
    fn id(&self) -> u32;

    /// The device's own feature bits; the transport adds `VIRTIO_F_VERSION_1` and `VIRTIO_F_RING_EVENT_IDX`.
    fn features(&self) -> u64;

    /// The largest size of each queue, a power of two; their number is the number of queues.
    fn queue_sizes(&self) -> &[u16];

    /// Fills `data` from the configuration space at `offset`; bytes beyond its end read zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// The driver wrote `data` into the configuration space at `offset`; what is not writable is ignored.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// The driver set DRIVER_OK with these `features`, a subset of those offered.
    fn activate(&mut self, features: u64);

    /// The driver reset the device: everything learnt from it is forgotten.
    fn reset(&mut self);

    /// The driver kicked queue `index`. `queues` holds all queues; those the driver did not set up are not
    /// [ready](virtio_queue::QueueT::ready). Does bounded work and reports in [`Effects::again`] what is left.
    ///
    /// # Errors
    /// The queue itself is broken. Requests that are merely wrong are answered, counted and skipped.
    fn serve(&mut self, index: usize, queues: &mut [Queue], memory: &Memory) -> Result<Effects, BrokenQueue>;
}

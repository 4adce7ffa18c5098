//! One pass over a queue of pages: chains in, page numbers and ranges for the device out.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use crate::virtio::buffers::{self, Buffer, Buffers};
use crate::virtio::queue::{Batch, Chain};
use balloon::backing::Kernel;
use balloon::device::{self, PFNS_PER_DESCRIPTOR};
use std::slice;
use vm_memory::GuestMemoryMmap;

/// Bytes of the longest array of page numbers that is read.
const ARRAY_BYTES: usize = PFNS_PER_DESCRIPTOR * 4;

/// One pass over the inflate, the deflate or the reporting queue.
pub(super) struct Pass<'a, K> {
    pub(super) device: &'a mut device::Balloon<K>,
    pub(super) buffers: &'a mut Buffers,
    pub(super) memory: &'a GuestMemoryMmap<()>,
    pub(super) queue: device::Queue,
    /// Most descriptors of a chain.
    pub(super) limit: usize,
    pub(super) now_ms: u64,
}

impl<K: Kernel> Pass<'_, K> {
    fn gather_array(&mut self, buffer: Buffer) {
        let mut bytes = [0; ARRAY_BYTES];
        let len = usize::try_from(buffer.len).unwrap_or(usize::MAX).min(ARRAY_BYTES);
        let (bytes, _) = bytes.split_at_mut(len);
        if buffers::read(self.memory, slice::from_ref(&buffer), 0, bytes) {
            self.device.gather_numbers(bytes, buffer.len.into());
        } else {
            self.device.unusable_buffer();
        }
    }
}

impl<K: Kernel> Batch for Pass<'_, K> {
    fn wants_more(&mut self) -> bool {
        self.device.begin_chain()
    }

    fn gather(&mut self, chain: Chain<'_>) {
        if self.buffers.collect(chain, self.limit).is_err() {
            return self.device.malformed_chain();
        }
        let (readable, writable) = (self.buffers.readable().len(), self.buffers.writable().len());
        if self.queue == device::Queue::Reporting {
            (0..readable).for_each(|_| self.device.unusable_buffer());
            for buffer in self.buffers.writable() {
                self.device.gather_range(buffer.address.0, buffer.len.into());
            }
        } else {
            (0..writable).for_each(|_| self.device.unusable_buffer());
            for number in 0..readable {
                if let Some(buffer) = self.buffers.readable().get(number) {
                    self.gather_array(*buffer);
                }
            }
        }
    }

    fn settle(&mut self) -> bool {
        self.device.settle(self.queue, self.now_ms)
    }

    fn abandon(&mut self) {
        self.device.abandon();
    }
}

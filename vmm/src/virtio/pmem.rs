//! virtio-pmem (virtio 1.3, 5.19): tells the guest where a read-only image layer is mapped.
//!
//! The mapping itself is a memory slot of the machine; the device only names it. The guest reads it without
//! the device's help and asks it for nothing but flushes, which have nothing to do: the file never changes.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::buffers::{self, Buffers};
use super::config_space;
use super::device::{BrokenQueue, Device, Effects, Memory};
use super::queue::{Chain, Outcome, drain};
use virtio_bindings::virtio_ids::VIRTIO_ID_PMEM;
use virtio_queue::Queue;

const QUEUE_SIZE: u16 = 64;

/// A request costs a copy of four bytes each way.
const REQUESTS_PER_PASS: usize = QUEUE_SIZE as usize;

/// `VIRTIO_PMEM_REQ_TYPE_FLUSH` of 5.19.6.
const REQUEST_FLUSH: u32 = 0;

const RESPONSE_OK: u32 = 0;
const RESPONSE_FAILED: u32 = 1;

/// A read-only persistent memory device.
#[derive(Debug)]
pub struct Pmem {
    config: [u8; 16],
    buffers: Buffers,
    refused: u64,
}

impl Pmem {
    /// A device for `size_bytes` bytes of guest-physical memory from `start` on.
    #[must_use]
    pub fn new(start: u64, size_bytes: u64) -> Self {
        let mut config = [0; 16];
        let (first, second) = config.split_at_mut(8);
        first.copy_from_slice(&start.to_le_bytes());
        second.copy_from_slice(&size_bytes.to_le_bytes());
        Self { config, buffers: Buffers::default(), refused: 0 }
    }

    /// Requests that were no flushes or malformed, since the device was made.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn answer(&mut self, chain: Chain<'_>, memory: &Memory) -> u32 {
        let limit = usize::from(QUEUE_SIZE);
        let mut request = [0; 4];
        let well_formed = self.buffers.collect(chain, limit).is_ok()
            && buffers::total(self.buffers.readable()) == 4
            && buffers::read(memory, self.buffers.readable(), 0, &mut request);
        let flush = well_formed && u32::from_le_bytes(request) == REQUEST_FLUSH;
        let response = if flush { RESPONSE_OK } else { RESPONSE_FAILED };
        let answered = buffers::write(memory, self.buffers.writable(), 0, &response.to_le_bytes());
        if !(flush && answered) {
            self.refused = self.refused.saturating_add(1);
        }
        if answered { 4 } else { 0 }
    }
}

impl Device for Pmem {
    fn id(&self) -> u32 {
        VIRTIO_ID_PMEM
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        config_space::read(&self.config, offset, data);
    }

    fn activate(&mut self, _features: u64) {}

    fn reset(&mut self) {}

    fn serve(&mut self, index: usize, queues: &mut [Queue], memory: &Memory) -> Result<Effects, BrokenQueue> {
        let Some(queue) = queues.get_mut(index) else { return Ok(Effects::default()) };
        drain(index, queue, memory, REQUESTS_PER_PASS, |chain| Outcome::Used(self.answer(chain, memory)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::driver::{Driver, memory, readable, writable};
    use virtio_queue::desc::split::Descriptor;

    /// Serves one chain whose request is `request`; returns the used length, the answer and the count.
    fn serve(request: u32, chain: &[Descriptor]) -> (u32, u32, u64) {
        let mut driver = Driver::new(&memory(1 << 16), 0x1000, QUEUE_SIZE);
        let mut queues = [driver.queue(true)];
        let mut pmem = Pmem::new(0, 0);
        driver.write(0x8000, &request.to_le_bytes());
        driver.write(0x9000, &[0xff; 4]);
        driver.offer(5, chain);
        let effects = pmem.serve(0, &mut queues, driver.memory()).unwrap();
        assert_eq!(effects, Effects { interrupt: true, again: false, ..Effects::default() });
        let used = driver.take_used();
        assert_eq!((used.len(), used[0].0), (1, 5));
        (used[0].1, u32::from_le_bytes(driver.read(0x9000, 4).try_into().unwrap()), pmem.refused())
    }

    #[test]
    fn a_flush_succeeds() {
        assert_eq!(serve(0, &[readable(0x8000, 4), writable(0x9000, 4)]), (4, 0, 0));
        let split = [readable(0x8000, 1), readable(0x8001, 3), writable(0x9000, 3), writable(0x9003, 1)];
        assert_eq!(serve(0, &split), (4, 0, 0));
    }

    #[test]
    fn anything_else_is_refused_and_counted() {
        assert_eq!(serve(1, &[readable(0x8000, 4), writable(0x9000, 4)]), (4, 1, 1));
        assert_eq!(serve(0, &[readable(0x8000, 3), writable(0x9000, 4)]), (4, 1, 1), "short request");
        assert_eq!(serve(0, &[writable(0x9000, 4)]), (4, 1, 1), "no request");
        assert_eq!(serve(0, &[readable(0x8000, 4)]), (0, u32::MAX, 1), "nowhere to answer");
        assert_eq!(serve(0, &[readable(0x8000, 4), writable(0x9000, 3)]).0, 0, "short answer");
        assert_eq!(serve(0, &[readable(1 << 40, 4), writable(0x9000, 4)]), (4, 1, 1), "outside memory");
        assert_eq!(serve(0, &[readable(0x8000, 4), writable(1 << 40, 4)]), (0, u32::MAX, 1));
    }

    #[test]
    fn names_its_range() {
        let pmem = Pmem::new(0x1_0000_0000, 0x20_0000);
        let mut config = [0; 16];
        pmem.read_config(0, &mut config);
        assert_eq!(config, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0]);
        assert_eq!((pmem.id(), pmem.features(), pmem.queue_sizes()), (27, 0, [64].as_slice()));
    }
}

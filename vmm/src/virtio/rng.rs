//! virtio-rng (virtio 1.3, 5.4): random bytes for the guest.
//!
//! The source of randomness is handed in, so the device is tested with bytes that are known.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::buffers::{self, Buffers};
use super::device::{BrokenQueue, Device, Effects, Memory};
use super::queue::{Chain, Outcome, drain};
use std::io;
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::Queue;

const QUEUE_SIZE: u16 = 64;

/// The driver asks for as much as its pool takes, far below this; a guest that asks for more gets this much
/// and may ask again.
const BYTES_PER_REQUEST: u64 = 64 << 10;

/// Together with [`BYTES_PER_REQUEST`], about a millisecond of `getrandom`.
const REQUESTS_PER_PASS: usize = 4;

/// How much is drawn at once, on the stack.
const CHUNK_BYTES: usize = 4 << 10;

/// Where random bytes come from.
pub trait Source: Send {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// The host has no randomness to give.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()>;
}

impl<F: FnMut(&mut [u8]) -> io::Result<()> + Send> Source for F {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self(bytes)
    }
}

/// What went wrong, since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Chains that were malformed, had device-readable parts, nothing to fill or left memory.
    pub requests: u64,
    /// The source failed.
    pub source: u64,
}

/// An entropy device.
#[derive(Debug)]
pub struct Rng<S> {
    source: S,
    buffers: Buffers,
    faults: Faults,
}

impl<S: Source> Rng<S> {
    /// A device that hands on what `source` yields.
    pub fn new(source: S) -> Self {
        Self { source, buffers: Buffers::default(), faults: Faults::default() }
    }

    /// What went wrong so far.
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Fills the writable part of `chain`, up to the limit of a request; returns the bytes written.
    fn answer(&mut self, chain: Chain<'_>, memory: &Memory) -> u32 {
        let collected = self.buffers.collect(chain, usize::from(QUEUE_SIZE));
        let wanted = buffers::total(self.buffers.writable()).min(BYTES_PER_REQUEST);
        let mut faulty = collected.is_err() || !self.buffers.readable().is_empty() || wanted == 0;
        let mut chunk = [0; CHUNK_BYTES];
        let mut written = 0u32;
        while let Some(left) = wanted.checked_sub(u64::from(written)).filter(|&left| left > 0) {
            let (bytes, _) =
                chunk.split_at_mut(usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES));
            if self.source.fill(bytes).is_err() {
                self.faults.source = self.faults.source.saturating_add(1);
                break;
            }
            if !buffers::write(memory, self.buffers.writable(), written, bytes) {
                faulty = true;
                break;
            }
            written = written.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
        self.faults.requests = self.faults.requests.saturating_add(u64::from(faulty));
        written
    }
}

impl<S: Source> Device for Rng<S> {
    fn id(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, _features: u64) {}

    fn reset(&mut self) {}

    fn serve(&mut self, index: usize, queues: &mut [Queue], memory: &Memory) -> Result<Effects, BrokenQueue> {
        let Some(queue) = queues.get_mut(index) else { return Ok(Effects::default()) };
        drain(index, queue, memory, REQUESTS_PER_PASS, |chain| Outcome::Used(self.answer(chain, memory)))
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::virtio::driver::{Driver, memory, readable, writable};

    /// Counts upwards, so that a byte missing or repeated shows.
    fn counting() -> impl Source {
        let mut next = 0u8;
        move |bytes: &mut [u8]| {
            for byte in bytes {
                *byte = next;
                next = next.wrapping_add(1);
            }
            Ok(())
        }
    }

    fn set_up() -> (Driver, [Queue; 1]) {
        let driver = Driver::new(&memory(1 << 20), 0x1000, QUEUE_SIZE);
        let queues = [driver.queue(true)];
        (driver, queues)
    }

    #[test]
    fn fills_all_writable_buffers_in_order() {
        let (mut driver, mut queues) = set_up();
        let mut rng = Rng::new(counting());
        driver.offer(0, &[writable(0x10000, 5000), writable(0x20000, 3)]);
        let _ = rng.serve(0, &mut queues, driver.memory()).unwrap();
        assert_eq!(driver.take_used(), [(0, 5003)]);
        let expected: Vec<u8> = (0..5003u32).map(|i| i as u8).collect();
        assert_eq!(driver.read(0x10000, 5000), expected[..5000]);
        assert_eq!(driver.read(0x20000, 4), [&expected[5000..], &[0]].concat());
        assert_eq!(rng.faults(), Faults::default());
    }

    #[test]
    fn a_request_and_a_pass_are_bounded() {
        let (mut driver, mut queues) = set_up();
        let mut rng = Rng::new(counting());
        for head in 0..6 {
            driver.offer(head, &[writable(0x10000, 0x20000)]);
        }
        assert!(rng.serve(0, &mut queues, driver.memory()).unwrap().again);
        assert_eq!(driver.take_used(), [(0, 65536), (1, 65536), (2, 65536), (3, 65536)]);
        assert!(!rng.serve(0, &mut queues, driver.memory()).unwrap().again);
        assert_eq!(driver.take_used().len(), 2);
    }

    #[test]
    fn wrong_requests_are_counted_and_returned() {
        let (mut driver, mut queues) = set_up();
        let mut rng = Rng::new(counting());
        driver.offer(0, &[readable(0x8000, 8)]);
        driver.offer(1, &[readable(0x8000, 8), writable(0x9000, 8)]);
        driver.offer(3, &[writable((1 << 20) - 4, 8)]);
        let _ = rng.serve(0, &mut queues, driver.memory()).unwrap();
        assert_eq!(driver.take_used(), [(0, 0), (1, 8), (3, 0)]);
        assert_eq!(rng.faults(), Faults { requests: 3, source: 0 });
    }

    #[test]
    fn a_failing_source_delivers_what_it_gave() {
        let (mut driver, mut queues) = set_up();
        let mut calls = 0;
        let mut rng = Rng::new(move |bytes: &mut [u8]| {
            calls += 1;
            bytes.fill(7);
            if calls == 2 { Err(io::Error::from(io::ErrorKind::Other)) } else { Ok(()) }
        });
        driver.offer(0, &[writable(0x10000, 10000)]);
        let _ = rng.serve(0, &mut queues, driver.memory()).unwrap();
        assert_eq!(driver.take_used(), [(0, 4096)]);
        assert_eq!(rng.faults(), Faults { requests: 0, source: 1 });
    }
}

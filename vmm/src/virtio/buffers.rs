//! The buffers that a descriptor chain describes: the part the device reads, then the part it writes.
//!
//! Between the ring ([`queue`](super::queue)), which knows heads, and a device, which knows the meaning of
//! bytes. A chain is hostile until [`Buffers::collect`] has seen its end; the addresses in it stay unchecked
//! until memory is accessed.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryMmap};

/// One buffer in guest memory, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Its first byte.
    pub address: GuestAddress,
    /// Its length in bytes.
    pub len: u32,
}

impl Buffer {
    /// The buffer without its first `bytes` bytes, or nothing if none would be left.
    fn after(self, bytes: u32) -> Option<Self> {
        let len = self.len.checked_sub(bytes).filter(|&len| len > 0)?;
        Some(Self { address: self.address.checked_add(u64::from(bytes))?, len })
    }
}

/// A chain that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedChain {
    /// It does not end where it says: a loop, an unreadable or nested table, more than 4 GiB.
    #[error("descriptor chain breaks off")]
    Cut,
    /// It has more descriptors than the queue (virtio 1.3, 2.7.5.2).
    #[error("descriptor chain is longer than its queue")]
    TooLong,
    /// A device-readable descriptor follows a device-writable one (virtio 1.3, 2.7.4.2).
    #[error("device-readable descriptor after a device-writable one")]
    Order,
}

/// The buffers of one chain. Kept and refilled from chain to chain, so that no chain allocates.
#[derive(Debug, Default)]
pub struct Buffers {
    readable: Vec<Buffer>,
    writable: Vec<Buffer>,
}

impl Buffers {
    /// Replaces the contents with the buffers of `chain`, which has at most `limit` descriptors. Empty
    /// descriptors carry nothing and are left out.
    ///
    /// # Errors
    /// The chain is malformed; the buffers are then empty, since where it would have ended is unknown.
    pub fn collect(
        &mut self,
        chain: impl Iterator<Item = Descriptor>,
        limit: usize,
    ) -> Result<(), MalformedChain> {
        let result = self.fill(chain, limit);
        if result.is_err() {
            self.clear();
        }
        result
    }

    fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
    }

    fn fill(&mut self, chain: impl Iterator<Item = Descriptor>, limit: usize) -> Result<(), MalformedChain> {
        self.clear();
        // `DescriptorChain` ends without a word where a chain is broken: its last descriptor tells.
        let mut ended = false;
        let mut writing = false;
        for (count, descriptor) in chain.enumerate() {
            if count >= limit {
                return Err(MalformedChain::TooLong);
            }
            ended = !descriptor.has_next();
            if writing && !descriptor.is_write_only() {
                return Err(MalformedChain::Order);
            }
            writing = descriptor.is_write_only();
            let buffer = Buffer { address: descriptor.addr(), len: descriptor.len() };
            if buffer.len > 0 {
                if writing { &mut self.writable } else { &mut self.readable }.push(buffer);
            }
        }
        if ended { Ok(()) } else { Err(MalformedChain::Cut) }
    }

    /// What the device reads, in order.
    #[must_use]
    pub fn readable(&self) -> &[Buffer] {
        &self.readable
    }

    /// What the device writes, in order.
    #[must_use]
    pub fn writable(&self) -> &[Buffer] {
        &self.writable
    }

    /// Takes the last byte that the device writes out of the buffers.
    pub fn take_last_writable(&mut self) -> Option<GuestAddress> {
        let last = self.writable.last_mut()?;
        let len = last.len.checked_sub(1)?;
        let address = last.address.checked_add(u64::from(len));
        last.len = len;
        if len == 0 {
            self.writable.pop();
        }
        address
    }
}

/// The bytes in `buffers` together: at most 4 GiB, for so long may a chain be.
#[must_use]
pub fn total(buffers: &[Buffer]) -> u64 {
    buffers.iter().fold(0, |sum, buffer| sum.saturating_add(u64::from(buffer.len)))
}

/// `buffers` from byte `offset` on.
pub fn skip(buffers: &[Buffer], offset: u32) -> impl Iterator<Item = Buffer> {
    let mut left = offset;
    buffers.iter().filter_map(move |buffer| {
        let rest = buffer.after(left);
        left = left.saturating_sub(buffer.len);
        rest
    })
}

/// Fills `data` from `buffers`, starting at their byte `offset`, and returns whether all of it could be
/// filled: the buffers were long enough and in memory.
#[must_use]
pub fn read(memory: &GuestMemoryMmap<()>, buffers: &[Buffer], offset: u32, data: &mut [u8]) -> bool {
    let mut rest = data;
    for buffer in skip(buffers, offset) {
        let count = usize::try_from(buffer.len).unwrap_or(usize::MAX).min(rest.len());
        let (now, later) = rest.split_at_mut(count);
        if memory.read_slice(now, buffer.address).is_err() {
            return false;
        }
        rest = later;
    }
    rest.is_empty()
}

/// Writes `data` to `buffers`, starting at their byte `offset`, and returns whether all of it could be
/// written: the buffers were long enough and in memory.
#[must_use]
pub fn write(memory: &GuestMemoryMmap<()>, buffers: &[Buffer], offset: u32, data: &[u8]) -> bool {
    let mut rest = data;
    for buffer in skip(buffers, offset) {
        let count = usize::try_from(buffer.len).unwrap_or(usize::MAX).min(rest.len());
        let (now, later) = rest.split_at(count);
        if memory.write_slice(now, buffer.address).is_err() {
            return false;
        }
        rest = later;
    }
    rest.is_empty()
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::virtio::driver::{Driver, memory, readable, writable};
    use proptest::prelude::*;
    use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT};
    use virtio_queue::QueueOwnedT;

    const NEXT: u16 = VRING_DESC_F_NEXT as u16;

    /// Collects what a driver offered at entry 0 of a queue of 8.
    fn collect(prepare: impl Fn(&mut Driver)) -> (Result<(), MalformedChain>, Buffers) {
        let mut driver = Driver::new(&memory(1 << 20), 0x1000, 8);
        prepare(&mut driver);
        let mut queue = driver.queue(false);
        let chain = queue.iter(&**driver.memory()).unwrap().next().unwrap();
        let mut buffers = Buffers::default();
        (buffers.collect(chain, 8), buffers)
    }

    fn buffer(address: u64, len: u32) -> Buffer {
        Buffer { address: GuestAddress(address), len }
    }

    #[test]
    fn parts_are_kept_apart_and_empty_descriptors_dropped() {
        let (result, mut buffers) = collect(|driver| {
            driver.offer(
                0,
                &[
                    readable(1, 2),
                    readable(9, 0),
                    readable(3, 4),
                    writable(5, 6),
                    writable(7, 1),
                    writable(8, 0),
                ],
            );
        });
        assert_eq!(result, Ok(()));
        assert_eq!(buffers.readable(), [buffer(1, 2), buffer(3, 4)]);
        assert_eq!(buffers.writable(), [buffer(5, 6), buffer(7, 1)]);
        assert_eq!(buffers.take_last_writable(), Some(GuestAddress(7)));
        assert_eq!(buffers.take_last_writable(), Some(GuestAddress(10)));
        assert_eq!(buffers.writable(), [buffer(5, 5)]);
    }

    #[test]
    fn broken_chains_are_told_from_short_ones() {
        let broken = |descriptors: &[Descriptor]| {
            collect(|driver| {
                for (i, descriptor) in descriptors.iter().enumerate() {
                    driver.store(i as u16, *descriptor);
                }
                driver.publish(0);
            })
            .0
            .unwrap_err()
        };
        let loops = Descriptor::new(0x4000, 1, NEXT, 0);
        assert_eq!(broken(&[loops]), MalformedChain::Cut);
        let leaves_the_table = Descriptor::new(0x4000, 1, NEXT, 8);
        assert_eq!(broken(&[leaves_the_table]), MalformedChain::Cut);
        let unreadable_table = Descriptor::new(1 << 40, 16, VRING_DESC_F_INDIRECT as u16, 0);
        assert_eq!(broken(&[unreadable_table]), MalformedChain::Cut);
        let four_gib = Descriptor::new(0, u32::MAX, NEXT, 1);
        assert_eq!(broken(&[four_gib, readable(0, 1)]), MalformedChain::Cut);
        let backwards = [Descriptor::new(0, 1, 2 | NEXT, 1), readable(0, 1)];
        assert_eq!(broken(&backwards), MalformedChain::Order);
    }

    #[test]
    fn an_indirect_table_is_no_way_around_the_limit() {
        let (result, buffers) = collect(|driver| {
            for i in 0..100u16 {
                let flags = if i < 99 { NEXT } else { 0 };
                let entry = Descriptor::new(0x8000, 1, flags, i + 1);
                driver.memory().write_obj(entry, GuestAddress(0x4000 + 16 * u64::from(i))).unwrap();
            }
            driver.store(0, Descriptor::new(0x4000, 1600, VRING_DESC_F_INDIRECT as u16, 0));
            driver.publish(0);
        });
        assert_eq!(result, Err(MalformedChain::TooLong));
        assert_eq!((buffers.readable(), buffers.writable()), ([].as_slice(), [].as_slice()));
    }

    proptest! {
        #[test]
        fn scattered_bytes_read_and_write_as_one_run(
            lens in prop::collection::vec(1u32..40, 0..6),
            offset in 0u32..100,
            data in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let memory = memory(1 << 16);
            let buffers: Vec<_> =
                lens.iter().enumerate().map(|(i, &len)| buffer(0x1000 * (i as u64 + 1), len)).collect();
            let fits = data.is_empty() || u64::from(offset) + data.len() as u64 <= total(&buffers);
            prop_assert_eq!(write(&memory, &buffers, offset, &data), fits);
            let mut all = vec![0; total(&buffers) as usize];
            prop_assert!(read(&memory, &buffers, 0, &mut all));
            if fits && !data.is_empty() {
                let start = offset as usize;
                prop_assert_eq!(&all[start..start + data.len()], &data[..]);
                prop_assert!(all[..start].iter().all(|&byte| byte == 0));
                let mut back = vec![0; data.len()];
                prop_assert!(read(&memory, &buffers, offset, &mut back));
                prop_assert_eq!(back, data);
            }
            let skipped: Vec<_> = skip(&buffers, offset).collect();
            prop_assert_eq!(total(&skipped), total(&buffers).saturating_sub(u64::from(offset)));
        }

        #[test]
        fn bytes_outside_memory_are_refused(start in (1u64 << 16) - 8..1 << 16, beyond in 1u32..100) {
            let memory = memory(1 << 16);
            let buffers = [buffer(start, ((1u64 << 16) - start) as u32 + beyond)];
            let mut data = vec![0; buffers[0].len as usize];
            prop_assert!(!read(&memory, &buffers, 0, &mut data));
            prop_assert!(!write(&memory, &buffers, 0, &data));
            let at_the_end = [buffer(u64::MAX - 3, 8)];
            prop_assert!(!read(&memory, &at_the_end, 2, &mut [0; 4]));
        }
    }
}

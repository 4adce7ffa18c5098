//! A driver of the balloon as a program: how a good one brings the device up and hands pages over, in pieces small
//! enough that a bad one is written with them. Every abuse begins on a device that lives.

use super::interpreter::{END, PROGRAM, RECORD_BYTES, VALUE_OFFSET};
use super::machine::Machine;
use super::program::Program;
use virtio_bindings::virtio_mmio::*;

/// Numbers of the queues when all features are negotiated.
pub const INFLATE: usize = 0;
/// Pages leave the balloon.
pub const DEFLATE: usize = 1;
/// Statistics.
pub const STATISTICS: usize = 2;
/// Free pages.
pub const REPORTING: usize = 3;
/// Largest size of each queue.
pub const SIZES: [u16; 4] = balloon::device::QUEUE_SIZES;

/// Status bits (virtio 1.3, 2.1).
pub const ACKNOWLEDGED: u32 = 1;
/// With those before it.
pub const DRIVER: u32 = 3;
/// With those before it.
pub const FEATURES_OK: u32 = 11;
/// With those before it.
pub const DRIVER_OK: u32 = 15;
/// The device's own bit.
pub const NEEDS_RESET: u32 = 64;

/// VIRTIO_F_VERSION_1, without which the device does not live.
pub const VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_RING_EVENT_IDX.
pub const EVENT_IDX: u64 = 1 << 29;
/// What the driver accepts unless it says otherwise.
pub const FEATURES: u64 = balloon::device::OFFERED | VERSION_1;

/// Flags of descriptors (virtio 1.3, 2.7.5).
pub const NEXT: u16 = 1;
/// The device writes.
pub const WRITE: u16 = 2;
/// The buffer holds descriptors.
pub const INDIRECT: u16 = 4;

/// Bytes of a page.
pub const PAGE: u64 = balloon::PAGE_BYTES;
/// Where page numbers, statistics and other buffers are put.
pub const BUFFERS: u64 = END + 0x1_0000;
/// Pages that nobody misses, 8 MiB of them.
pub const VICTIMS: u64 = END + 0x40_0000;
/// The first of them by number.
pub const VICTIM: u32 = (VICTIMS / PAGE) as u32;

const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;

/// Where a queue lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Entries.
    pub size: u32,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
}

impl Ring {
    /// Where a good driver puts queue `queue`.
    #[must_use]
    pub fn good(queue: usize) -> Self {
        let base = END + queue as u64 * PAGE;
        Self { size: SIZES[queue].into(), descriptors: base, available: base + AVAILABLE, used: base + USED }
    }
}

/// A driver that is being written.
#[derive(Clone, Debug)]
pub struct Driver {
    /// What it does so far.
    pub program: Program,
    /// What it runs on.
    pub machine: Machine,
    rings: [Ring; 4],
    published: [u16; 4],
}

impl Driver {
    /// A driver that has done nothing yet.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        Self { program: Program::default(), machine, rings: [0, 1, 2, 3].map(Ring::good), published: [0; 4] }
    }

    // Registers.

    /// Where register `offset` is.
    #[must_use]
    pub fn register(&self, offset: u32) -> u64 {
        self.machine.balloon + u64::from(offset)
    }

    /// Where byte `offset` of the configuration space is.
    #[must_use]
    pub fn config(&self, offset: u64) -> u64 {
        self.machine.balloon + u64::from(VIRTIO_MMIO_CONFIG) + offset
    }

    /// Writes a register.
    pub fn set(&mut self, register: u32, value: u32) {
        self.program.write(4, self.register(register), value.into());
    }

    /// Expects a register to read `value`.
    pub fn reads(&mut self, register: u32, value: u32) {
        self.program.expect(4, self.register(register), value.into(), u64::MAX);
    }

    /// Resets the device and sees that it is.
    pub fn reset(&mut self) {
        self.set(VIRTIO_MMIO_STATUS, 0);
        self.reads(VIRTIO_MMIO_STATUS, 0);
        self.rings = [0, 1, 2, 3].map(Ring::good);
        self.published = [0; 4];
    }

    /// From reset to FEATURES_OK with `features`.
    pub fn negotiate(&mut self, features: u64) {
        self.set(VIRTIO_MMIO_STATUS, ACKNOWLEDGED);
        self.set(VIRTIO_MMIO_STATUS, DRIVER);
        self.agree(features);
    }

    /// From DRIVER to FEATURES_OK with `features`.
    pub fn agree(&mut self, features: u64) {
        for half in 0..2 {
            self.set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            self.set(VIRTIO_MMIO_DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        self.set(VIRTIO_MMIO_STATUS, FEATURES_OK);
    }

    /// Describes a queue to the device and makes it ready.
    pub fn place(&mut self, queue: usize, ring: Ring) {
        self.describe(queue, ring);
        self.set(VIRTIO_MMIO_QUEUE_READY, 1);
    }

    /// Describes a queue.
    pub fn describe(&mut self, queue: usize, ring: Ring) {
        self.rings[queue] = ring;
        self.set(VIRTIO_MMIO_QUEUE_SEL, queue as u32);
        self.set(VIRTIO_MMIO_QUEUE_NUM, ring.size);
        for (low, high, address) in [
            (VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, ring.descriptors),
            (VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, ring.available),
            (VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH, ring.used),
        ] {
            self.set(low, address as u32);
            self.set(high, (address >> 32) as u32);
        }
    }

    /// Clears the good rings.
    pub fn clear_rings(&mut self) {
        for Ring { size, descriptors, available, used } in [0, 1, 2, 3].map(Ring::good) {
            self.program.fill(descriptors, 0, 0, 4 * size);
            self.program.fill(available, 0, 0, 2 + size / 2);
            self.program.fill(used, 0, 0, 2 + 2 * size);
        }
    }

    /// From reset to a device that lives, with the queues that `features` bring.
    pub fn bring_up_with(&mut self, features: u64) {
        let queues = (0..4).filter(|index| balloon::device::queue(features, *index).is_some()).count();
        self.clear_rings();
        self.negotiate(features);
        self.reads(VIRTIO_MMIO_STATUS, FEATURES_OK);
        (0..queues).for_each(|queue| self.place(queue, Ring::good(queue)));
        self.go_live();
        self.lives();
    }

    /// As [`Self::bring_up_with`] of all [`FEATURES`].
    pub fn bring_up(&mut self) {
        self.bring_up_with(FEATURES);
    }

    /// From reset to DRIVER_OK with `ring` as queue `queue` and the others as they should be. Whether the device
    /// lives then is not looked at.
    pub fn bring_up_on(&mut self, queue: usize, ring: Ring) {
        self.reset();
        self.clear_rings();
        self.negotiate(FEATURES);
        for number in 0..4 {
            self.place(number, if number == queue { ring } else { Ring::good(number) });
        }
        self.go_live();
    }

    /// Sets DRIVER_OK.
    pub fn go_live(&mut self) {
        self.set(VIRTIO_MMIO_STATUS, DRIVER_OK);
    }

    /// Expects the device to live.
    pub fn lives(&mut self) {
        self.reads(VIRTIO_MMIO_STATUS, DRIVER_OK);
    }

    /// Waits for the device to demand a reset.
    pub fn demands_reset(&mut self) {
        let status = self.register(VIRTIO_MMIO_STATUS);
        self.program.await_value(4, status, NEEDS_RESET.into(), NEEDS_RESET.into());
    }

    // Queues.

    /// Writes descriptor `index` of `queue`.
    pub fn descriptor(&mut self, queue: usize, index: u16, buffer: (u64, u32), flags: u16, next: u16) {
        let at = self.rings[queue].descriptors + 16 * u64::from(index);
        self.descriptor_at(at, buffer, flags, next);
    }

    /// Writes a descriptor anywhere.
    pub fn descriptor_at(&mut self, at: u64, (address, len): (u64, u32), flags: u16, next: u16) {
        self.program.write(8, at, address);
        self.program.write(8, at + 8, u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48);
    }

    /// Writes `buffers` (address, length, flags) as a chain from descriptor `head` on.
    pub fn chain(&mut self, queue: usize, head: u16, buffers: &[(u64, u32, u16)]) {
        for (index, &(address, len, flags)) in (head..).zip(buffers) {
            let last = usize::from(index - head) + 1 == buffers.len();
            let (flags, next) = if last { (flags, 0) } else { (flags | NEXT, index + 1) };
            self.descriptor(queue, index, (address, len), flags, next);
        }
    }

    /// Puts `head` into the available ring.
    pub fn publish(&mut self, queue: usize, head: u16) {
        let Ring { size, available, .. } = self.rings[queue];
        let slot = u64::from(self.published[queue]) % u64::from(size);
        self.program.write(2, available + 4 + 2 * slot, head.into());
        self.set_available(queue, self.published[queue].wrapping_add(1));
    }

    /// Writes the index of the available ring.
    pub fn set_available(&mut self, queue: usize, index: u16) {
        self.published[queue] = index;
        self.program.write(2, self.rings[queue].available + 2, index.into());
    }

    /// How many chains of `queue` have been published.
    #[must_use]
    pub fn published(&self, queue: usize) -> u16 {
        self.published[queue]
    }

    /// Kicks a queue.
    pub fn kick(&mut self, queue: usize) {
        self.set(VIRTIO_MMIO_QUEUE_NOTIFY, queue as u32);
    }

    /// Waits until the device has returned `count` chains of `queue`.
    pub fn returned(&mut self, queue: usize, count: u16) {
        let index = self.rings[queue].used + 2;
        self.program.await_value(2, index, count.into(), u64::MAX);
    }

    /// Publishes `head`, kicks, and waits until all published is returned, this one last and with nothing written.
    pub fn hand_over(&mut self, queue: usize, head: u16) {
        self.publish(queue, head);
        self.kick(queue);
        self.returned(queue, self.published[queue]);
        let Ring { size, used, .. } = self.rings[queue];
        let slot = (u64::from(self.published[queue]) + u64::from(size) - 1) % u64::from(size);
        self.program.expect(8, used + 4 + 8 * slot, head.into(), u64::MAX);
    }

    /// Hands `buffers` over as one chain from descriptor 0 on.
    pub fn send(&mut self, queue: usize, buffers: &[(u64, u32, u16)]) {
        self.chain(queue, 0, buffers);
        self.hand_over(queue, 0);
    }

    /// Hands the same chain over `count` times, one after another as fast as the device takes it. The queue must
    /// have handed over nothing so far.
    pub fn storm(&mut self, queue: usize, buffers: &[(u64, u32, u16)], count: u16) {
        self.chain(queue, 0, buffers);
        let Ring { size, available, used, .. } = self.rings[queue];
        self.program.fill(available + 4, 0, 0, size / 2);
        let notify = self.register(VIRTIO_MMIO_QUEUE_NOTIFY);
        // The program counts up what its own last step waits for.
        let awaited = PROGRAM[0] + ((self.program.len() + 3) * RECORD_BYTES) as u64 + VALUE_OFFSET;
        self.program.repeat(count.into(), |program| {
            program.add(2, available + 2, 1);
            program.write(4, notify, queue as u64);
            program.add(8, awaited, 1);
            program.await_value(2, used + 2, 0, u64::MAX);
        });
        self.published[queue] = count;
    }

    /// Hands the numbers of `pages` over.
    pub fn send_pages(&mut self, queue: usize, pages: &[u32]) {
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        self.program.put(BUFFERS, &bytes);
        self.send(queue, &[(BUFFERS, bytes.len() as u32, 0)]);
    }

    /// Hands `count` pages from `first` on over, `step` apart, at most 4096.
    pub fn send_run(&mut self, queue: usize, first: u32, step: u32, count: u32) {
        self.program.fill(BUFFERS, first, step, count);
        let chunks = (0..count).step_by(256).map(|from| {
            let pages = (count - from).min(256);
            (BUFFERS + 4 * u64::from(from), 4 * pages, 0)
        });
        let chain: Vec<_> = chunks.collect();
        self.send(queue, &chain);
    }

    /// Reports `bytes` bytes from `address` on.
    pub fn report(&mut self, address: u64, bytes: u32) {
        self.send(REPORTING, &[(address, bytes, WRITE)]);
    }

    // Memory.

    /// Stores something in a page that is not zero.
    pub fn mark(&mut self, page: u32) {
        self.program.write(8, u64::from(page) * PAGE, 0x6b72_616d);
    }

    /// Expects a page that was marked to have been given back.
    pub fn is_gone(&mut self, page: u32) {
        self.program.expect(8, u64::from(page) * PAGE, 0, u64::MAX);
    }

    /// Expects a page that was marked to be as it was.
    pub fn is_kept(&mut self, page: u32) {
        self.program.expect(8, u64::from(page) * PAGE, 0x6b72_616d, u64::MAX);
    }

    /// What a good driver does after anything: reset, bring the device up, inflate one page, which reads zero
    /// then.
    pub fn behave(&mut self) {
        self.reset();
        self.bring_up();
        self.mark(VICTIM);
        self.send_pages(INFLATE, &[VICTIM]);
        self.is_gone(VICTIM);
    }
}

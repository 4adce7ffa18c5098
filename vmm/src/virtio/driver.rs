//! The driver's side of a split virtqueue (virtio 1.3, 2.7) and of a device's start, for the tests of devices.
//!
//! `virtio_queue::mock` lets its rings overlap from half of their entries on; this one does not, and it
//! speaks both kinds of notification suppression.

use super::device::Memory;
use crate::bus::BusDevice;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use virtio_bindings::virtio_mmio::*;
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, VRING_USED_F_NO_NOTIFY};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// One region of `bytes` bytes at address 0.
pub fn memory(bytes: usize) -> Memory {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)]).unwrap())
}

/// A device-readable descriptor.
pub fn readable(address: u64, len: u32) -> Descriptor {
    Descriptor::new(address, len, 0, 0)
}

/// A device-writable descriptor.
pub fn writable(address: u64, len: u32) -> Descriptor {
    Descriptor::new(address, len, VRING_DESC_F_WRITE as u16, 0)
}

/// Writes a register.
pub fn set(registers: &impl BusDevice, register: u32, value: u32) {
    registers.write(register.into(), &value.to_le_bytes());
}

/// Reads a register.
pub fn get(registers: &impl BusDevice, register: u32) -> u32 {
    let mut value = [0; 4];
    registers.read(register.into(), &mut value);
    u32::from_le_bytes(value)
}

/// Takes the device behind `registers` from any state to DRIVER_OK, with `features`, version 1 and a queue for each
/// of `drivers` (virtio 1.3, 3.1.1).
pub fn bring_up(registers: &impl BusDevice, features: u64, drivers: &[Driver]) {
    let features = features | 1 << virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
    for status in [0, 1, 3] {
        set(registers, VIRTIO_MMIO_STATUS, status);
    }
    for (half, value) in [(0, features as u32), (1, (features >> 32) as u32)] {
        set(registers, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
        set(registers, VIRTIO_MMIO_DRIVER_FEATURES, value);
    }
    set(registers, VIRTIO_MMIO_STATUS, 11);
    for (index, driver) in (0..).zip(drivers) {
        set(registers, VIRTIO_MMIO_QUEUE_SEL, index);
        set(registers, VIRTIO_MMIO_QUEUE_NUM, driver.size.into());
        set(registers, VIRTIO_MMIO_QUEUE_DESC_LOW, driver.base as u32);
        set(registers, VIRTIO_MMIO_QUEUE_AVAIL_LOW, driver.avail() as u32);
        set(registers, VIRTIO_MMIO_QUEUE_USED_LOW, driver.used() as u32);
        set(registers, VIRTIO_MMIO_QUEUE_READY, 1);
    }
    set(registers, VIRTIO_MMIO_STATUS, LIVE);
    assert_eq!(get(registers, VIRTIO_MMIO_STATUS), LIVE);
}

/// The status of a device that lives.
pub const LIVE: u32 = 15;

/// A driver of one queue.
pub struct Driver {
    memory: Memory,
    base: u64,
    size: u16,
    offered: u16,
    seen: u16,
}

impl Driver {
    /// Lays a queue of `size` entries out from `base` on, which must be 16-byte aligned.
    pub fn new(memory: &Memory, base: u64, size: u16) -> Self {
        Self { memory: memory.clone(), base, size, offered: 0, seen: 0 }
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    fn avail(&self) -> u64 {
        self.base + 16 * u64::from(self.size)
    }

    fn used(&self) -> u64 {
        (self.avail() + 6 + 2 * u64::from(self.size)).next_multiple_of(4)
    }

    /// The device's view of the queue, ready.
    pub fn queue(&self, event_idx: bool) -> Queue {
        let mut queue = Queue::new(self.size).unwrap();
        let halves = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
        let (low, high) = halves(self.base);
        queue.set_desc_table_address(low, high);
        let (low, high) = halves(self.avail());
        queue.set_avail_ring_address(low, high);
        let (low, high) = halves(self.used());
        queue.set_used_ring_address(low, high);
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        queue
    }

    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    fn used_index(&self) -> u16 {
        u16::from_le(self.memory.load(GuestAddress(self.used() + 2), Ordering::Acquire).unwrap())
    }

    fn read_u16(&self, address: u64) -> u16 {
        u16::from_le(self.memory.read_obj(GuestAddress(address)).unwrap())
    }

    /// Stores descriptor `index` of the table as it is.
    pub fn store(&self, index: u16, descriptor: Descriptor) {
        self.memory.write_obj(descriptor, GuestAddress(self.base + 16 * u64::from(index))).unwrap();
    }

    /// Stores `descriptors` as one chain from table entry `head` on, linked, and publishes it.
    pub fn offer(&mut self, head: u16, descriptors: &[Descriptor]) {
        for (i, descriptor) in descriptors.iter().enumerate() {
            let index = head + i as u16;
            let mut linked = *descriptor;
            if i + 1 < descriptors.len() {
                linked.set_flags(descriptor.flags() | VRING_DESC_F_NEXT as u16);
                linked.set_next(index + 1);
            }
            self.store(index, linked);
        }
        self.publish(head);
    }

    /// Puts `head` into the available ring.
    pub fn publish(&mut self, head: u16) {
        let slot = self.avail() + 4 + 2 * u64::from(self.offered % self.size);
        self.write(slot, &head.to_le_bytes());
        self.set_avail_index(self.offered.wrapping_add(1));
    }

    /// Writes the index of the available ring.
    pub fn set_avail_index(&mut self, index: u16) {
        self.offered = index;
        self.memory.store(index.to_le(), GuestAddress(self.avail() + 2), Ordering::Release).unwrap();
    }

    /// Writes the flags of the available ring.
    pub fn set_avail_flags(&self, flags: u16) {
        self.write(self.avail(), &flags.to_le_bytes());
    }

    /// Asks for an interrupt once used entry `index` is written.
    pub fn set_used_event(&self, index: u16) {
        self.write(self.avail() + 4 + 2 * u64::from(self.size), &index.to_le_bytes());
    }

    /// The number of chains published so far, modulo 2^16.
    pub fn offered(&self) -> u16 {
        self.offered
    }

    /// The number of chains not seen to come back.
    pub fn outstanding(&self) -> u16 {
        self.offered.wrapping_sub(self.seen)
    }

    /// Offers up to `count` one-descriptor chains, as many as the ring has room for, and says whether the
    /// device must be kicked for them (virtio 1.3, 2.7.10).
    pub fn offer_any(&mut self, count: u16, event_idx: bool) -> bool {
        let old = self.offered;
        for _ in 0..count.min(self.size - self.outstanding()) {
            let head = self.offered % self.size;
            self.offer(head, &[readable(0x8000, 1)]);
        }
        let added = self.offered.wrapping_sub(old);
        if added == 0 {
            return false;
        }
        fence(Ordering::SeqCst);
        if event_idx {
            let event = self.read_u16(self.used() + 4 + 8 * u64::from(self.size));
            self.offered.wrapping_sub(event).wrapping_sub(1) < added
        } else {
            self.read_u16(self.used()) & VRING_USED_F_NO_NOTIFY as u16 == 0
        }
    }

    /// The (head, length) pairs that came back since the last call, oldest first.
    pub fn take_used(&mut self) -> Vec<(u32, u32)> {
        let mut taken = Vec::new();
        while self.seen != self.used_index() {
            let entry = self.read(self.used() + 4 + 8 * u64::from(self.seen % self.size), 8);
            let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
            taken.push((word(0), word(4)));
            self.seen = self.seen.wrapping_add(1);
        }
        taken
    }

    /// Takes what came back and asks to hear of the next used buffer.
    pub fn reclaim(&mut self) {
        self.take_used();
        self.set_used_event(self.seen);
    }
}

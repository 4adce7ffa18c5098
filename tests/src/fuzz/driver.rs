//! A hostile driver: brings a device up as it should, then writes rings, descriptors, registers and memory as
//! the input says. Whatever it did, after a reset the device comes up again.

use super::bytes::Bytes;
use std::sync::Arc;
use virtio_bindings::virtio_mmio::*;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};
use vmm::bus::BusDevice;
use vmm::virtio::device::{Device, Memory};
use vmm::virtio::mmio::Transport;

/// Bytes in each of the two regions, between which there is nothing.
const REGION: u64 = 64 << 10;
const SECOND_REGION: u64 = 1 << 20;
/// Entries of each queue.
const SIZE: u16 = 16;
/// Queue `i` lies at `i` times this: descriptors, available ring, used ring.
const QUEUE_BYTES: u64 = 0x400;
const AVAILABLE: u64 = 0x100;
const USED: u64 = 0x200;

const ACKNOWLEDGED: u32 = 1;
const DRIVER: u32 = 3;
const FEATURES_OK: u32 = 11;
const DRIVER_OK: u32 = 15;

/// Guest memory: two regions of zeroes.
#[must_use]
pub fn memory() -> Memory {
    let region = REGION as usize;
    Arc::new(
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), region), (GuestAddress(SECOND_REGION), region)])
            .unwrap(),
    )
}

/// Drives `device` by `input`; `host` is what the device's owner does meanwhile.
pub fn drive<D: Device>(
    device: D,
    memory: Memory,
    input: &mut Bytes<'_>,
    mut host: impl FnMut(&mut D, &mut Bytes<'_>),
) {
    let queues = device.queue_sizes().len();
    let transport = Transport::new(device, memory.clone()).unwrap();
    let guest = Guest { transport: &transport, memory: &memory, queues, second_region: SECOND_REGION };
    guest.bring_up(u64::MAX);
    let mut published = vec![0_u16; queues];
    while !input.is_empty() {
        let operation = input.u8();
        let queue = usize::from(input.u8()) % queues;
        match operation % 8 {
            0 | 1 => guest.write_descriptor(queue, input),
            2 => {
                let head = input.u16() % (SIZE + 1);
                guest.publish(queue, head, &mut published[queue]);
            }
            3 => {
                published[queue] = input.u16();
                guest.put(guest.at(queue) + AVAILABLE + 2, &published[queue].to_le_bytes());
            }
            4 => {
                let at = guest.address(input);
                let length = usize::from(input.u8());
                guest.put(at, input.take(length));
            }
            5 => transport.serve(queue),
            6 => transport.write(u64::from(input.u16() % 0x140), &input.u32().to_le_bytes()),
            _ => transport.with_live(
                |device, _, _| {
                    host(device, input);
                    Ok(vmm::virtio::device::Effects::default())
                },
                queue,
            ),
        }
    }
    (0..queues).for_each(|queue| transport.serve(queue));
    guest.reset();
    guest.bring_up(u64::MAX);
}

/// A driver of `queues` queues in `memory`, whose second region begins at `second_region`.
pub struct Guest<'a, D> {
    pub transport: &'a Transport<D>,
    pub memory: &'a Memory,
    pub queues: usize,
    pub second_region: u64,
}

impl<D: Device> Guest<'_, D> {
    /// Resets the device.
    pub fn reset(&self) {
        self.set(VIRTIO_MMIO_STATUS, 0);
    }

    /// Resets nothing; sets the device up from its state after reset (virtio 1.3, 3.1.1), with those of its
    /// features that are in `features` too, and expects it to live.
    pub fn bring_up(&self, features: u64) {
        // The device insists on VIRTIO_F_VERSION_1.
        let features = features | 1 << 32;
        self.set(VIRTIO_MMIO_STATUS, ACKNOWLEDGED);
        self.set(VIRTIO_MMIO_STATUS, DRIVER);
        for half in 0..2 {
            self.set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
            self.set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            let wanted = (features >> (32 * half)) as u32;
            self.set(VIRTIO_MMIO_DRIVER_FEATURES, self.get(VIRTIO_MMIO_DEVICE_FEATURES) & wanted);
        }
        self.set(VIRTIO_MMIO_STATUS, FEATURES_OK);
        for queue in 0..self.queues {
            let at = self.at(queue) as u32;
            self.memory.write_slice(&[0; QUEUE_BYTES as usize], GuestAddress(at.into())).unwrap();
            self.set(VIRTIO_MMIO_QUEUE_SEL, queue as u32);
            self.set(VIRTIO_MMIO_QUEUE_NUM, SIZE.into());
            for (low, high, address) in [
                (VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, at),
                (VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, at + AVAILABLE as u32),
                (VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH, at + USED as u32),
            ] {
                self.set(low, address);
                self.set(high, 0);
            }
            self.set(VIRTIO_MMIO_QUEUE_READY, 1);
        }
        self.set(VIRTIO_MMIO_STATUS, DRIVER_OK);
        assert_eq!(self.get(VIRTIO_MMIO_STATUS), DRIVER_OK, "the device does not come up");
    }

    pub fn write_descriptor(&self, queue: usize, input: &mut Bytes<'_>) {
        let index = u64::from(input.u8()) % u64::from(SIZE);
        let mut descriptor = [0; 16];
        descriptor[..8].copy_from_slice(&self.address(input).to_le_bytes());
        // Mostly short, so that chains are also good ones.
        let length = if input.u8().is_multiple_of(8) { input.u32() } else { input.u8().into() };
        descriptor[8..12].copy_from_slice(&length.to_le_bytes());
        descriptor[12] = input.u8() & 7;
        descriptor[14] = input.u8() % (SIZE as u8 + 1);
        self.put(self.at(queue) + 16 * index, &descriptor);
    }

    /// An address: mostly in a region or at its edge.
    pub fn address(&self, input: &mut Bytes<'_>) -> u64 {
        match input.u8() % 4 {
            0 => input.u64(),
            1 => self.second_region + u64::from(input.u16()),
            _ => u64::from(input.u16()),
        }
    }

    /// Writes `descriptors` (address, length, whether the device writes) as a chain from entry 0 of `queue` on.
    pub fn write_chain(&self, queue: usize, descriptors: &[(u64, u32, bool)]) {
        for (index, &(address, length, writable)) in (0_u16..).zip(descriptors) {
            let more = usize::from(index) + 1 < descriptors.len();
            let mut descriptor = [0; 16];
            descriptor[..8].copy_from_slice(&address.to_le_bytes());
            descriptor[8..12].copy_from_slice(&length.to_le_bytes());
            descriptor[12] = u8::from(more) | u8::from(writable) << 1;
            descriptor[14..].copy_from_slice(&(index + 1).to_le_bytes());
            self.put(self.at(queue) + 16 * u64::from(index), &descriptor);
        }
    }

    /// Publishes `head` as entry number `published` of `queue`'s available ring.
    pub fn publish(&self, queue: usize, head: u16, published: &mut u16) {
        self.put(self.at(queue) + AVAILABLE + 4 + 2 * u64::from(*published % SIZE), &head.to_le_bytes());
        *published = published.wrapping_add(1);
        self.put(self.at(queue) + AVAILABLE + 2, &published.to_le_bytes());
    }

    fn at(&self, queue: usize) -> u64 {
        queue as u64 * QUEUE_BYTES
    }

    /// Writes what lies in memory of `bytes`.
    pub fn put(&self, at: u64, bytes: &[u8]) {
        let _ = self.memory.write(bytes, GuestAddress(at));
    }

    pub fn set(&self, register: u32, value: u32) {
        self.transport.write(register.into(), &value.to_le_bytes());
    }

    fn get(&self, register: u32) -> u32 {
        let mut value = [0; 4];
        self.transport.read(register.into(), &mut value);
        u32::from_le_bytes(value)
    }
}

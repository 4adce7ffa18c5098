//! The registers under a hostile driver: any sequence of accesses of any width, on a device that consumes what it
//! is given. What reads constant stays constant, and a reset brings everything back.

use super::bytes::Bytes;
use super::driver::memory;
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_STATUS, VIRTIO_MMIO_VERSION};
use virtio_queue::Queue;
use vmm::bus::BusDevice;
use vmm::virtio::device::{BrokenQueue, Device, Effects, Memory};
use vmm::virtio::mmio::Transport;
use vmm::virtio::queue::{Outcome, drain};

/// Returns every chain unread.
struct Sink;

impl Device for Sink {
    fn id(&self) -> u32 {
        4
    }

    fn features(&self) -> u64 {
        1
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64, 256]
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, features: u64) {
        assert_ne!(features & (1 << 32), 0, "a device lives without VIRTIO_F_VERSION_1");
    }

    fn reset(&mut self) {}

    fn serve(&mut self, index: usize, queues: &mut [Queue], memory: &Memory) -> Result<Effects, BrokenQueue> {
        drain(index, &mut queues[index], memory, 64, |_| Outcome::Used(0))
    }
}

pub fn run(input: &[u8]) {
    let transport = Transport::new(Sink, memory()).unwrap();
    let mut input = Bytes(input);
    while !input.is_empty() {
        let operation = input.u8();
        // Mostly an aligned register of four bytes.
        let offset = if operation & 0x80 == 0 { u64::from(input.u8()) * 4 } else { input.u64() };
        let width = if operation & 0x40 == 0 { 4 } else { usize::from(input.u8() % 9) };
        match operation % 4 {
            0 => transport.read(offset, &mut [0; 8][..width]),
            1 => transport.serve(usize::from(input.u8() % 2)),
            _ => {
                // Small numbers are the ones with a meaning.
                let value = if operation & 0x20 == 0 { input.u8().into() } else { input.u64() };
                transport.write(offset, &value.to_le_bytes()[..width]);
            }
        }
    }
    let read = |register: u32| {
        let mut value = [0; 4];
        transport.read(register.into(), &mut value);
        u32::from_le_bytes(value)
    };
    transport.write(VIRTIO_MMIO_STATUS.into(), &0_u32.to_le_bytes());
    assert_eq!(read(VIRTIO_MMIO_MAGIC_VALUE), 0x7472_6976);
    assert_eq!(read(VIRTIO_MMIO_VERSION), 2);
    assert_eq!(read(VIRTIO_MMIO_STATUS), 0);
}

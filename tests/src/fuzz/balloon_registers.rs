//! The configuration space and the registers of a balloon: any access of any width at any time. What the host set
//! stays, what is written is bounded, what lies beyond the end reads zero.

use super::bytes::Bytes;
use super::driver::Guest;
use super::fenced::{Fenced, REGION_BYTES, STARTS};
use balloon::backing::Host;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_CONFIG;
use vmm::bus::BusDevice;
use vmm::virtio::balloon::{Balloon, monotonic_ms};
use vmm::virtio::mmio::Transport;

const CONFIG: u64 = VIRTIO_MMIO_CONFIG as u64;
const SIZE: u64 = 2 * REGION_BYTES;

pub fn run(input: &[u8]) {
    Fenced::with(|fenced| hostile(fenced, input));
}

fn hostile(fenced: &Fenced, input: &[u8]) {
    let memory = fenced.memory();
    let device = Balloon::with_kernel(Host::probe(), &memory, 0, monotonic_ms).unwrap();
    let transport = Transport::new(device, memory.clone()).unwrap();
    let guest = Guest { transport: &transport, memory: &memory, queues: 4, second_region: STARTS[1] };
    let mut input = Bytes(input);
    let mut target = 0_u32;
    while !input.is_empty() {
        let operation = input.u8();
        let width = if operation & 0x80 == 0 { 4 } else { usize::from(input.u8() % 9) };
        let offset = if operation & 0x40 == 0 { u64::from(input.u8() % 24) } else { input.u64() };
        match operation % 6 {
            0 | 1 => transport.write(CONFIG.saturating_add(offset), &input.u64().to_le_bytes()[..width]),
            2 => {
                let mut data = [0xff; 8];
                transport.read(CONFIG.saturating_add(offset), &mut data[..width]);
                if offset >= 16 && width > 0 && offset < 1 << 32 {
                    assert_eq!(data[..width], [0; 8][..width], "beyond the end");
                }
            }
            3 => {
                let bytes = u64::from(input.u32());
                let accepted = transport.set_ceiling(bytes).is_ok();
                assert_eq!(accepted, bytes <= SIZE);
                if accepted {
                    target = ((SIZE - bytes) / balloon::PAGE_BYTES) as u32;
                }
            }
            4 => transport.write(u64::from(input.u16() % 0x100), &input.u32().to_le_bytes()),
            _ => {
                guest.reset();
                guest.bring_up(input.u8().into());
            }
        }
        let mut config = [0; 16];
        transport.read(CONFIG, &mut config);
        assert_eq!(config[..4], target.to_le_bytes(), "the driver changed the target");
        assert_eq!(config[8..12], [0; 4], "hinting was never offered");
        let actual = u32::from_le_bytes(config[4..8].try_into().unwrap());
        assert!(u64::from(actual) * balloon::PAGE_BYTES <= SIZE);
    }
    fenced.check();
}

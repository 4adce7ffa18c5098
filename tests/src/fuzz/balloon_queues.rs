//! A balloon under a hostile driver: page numbers, ranges and statistics good and bad, broken rings, resets, other
//! features. Nothing beside guest memory changes, and the books add up.

use super::bytes::Bytes;
use super::driver::Guest;
use super::fenced::{Fenced, REGION_BYTES, STARTS};
use balloon::backing::Host;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use vmm::virtio::balloon::{Balloon, monotonic_ms};
use vmm::virtio::mmio::Transport;

/// Where page numbers and statistics are written, behind the rings.
const ARRAY: u64 = 0x4000;
const PAGE: u64 = balloon::PAGE_BYTES;
const QUEUES: usize = 4;

pub fn run(input: &[u8]) {
    Fenced::with(|fenced| hostile(fenced, input));
}

fn hostile(fenced: &Fenced, input: &[u8]) {
    let memory = fenced.memory();
    let (floor, image) = (REGION_BYTES / 2, Some(fenced.image()));
    let device = Balloon::with_image(Host::probe(), &memory, floor, monotonic_ms, image).unwrap();
    let transport = Transport::new(device, memory.clone()).unwrap();
    let guest = Guest { transport: &transport, memory: &memory, queues: QUEUES, second_region: STARTS[1] };
    let mut input = Bytes(input);
    guest.bring_up(features(input.u8()));
    let mut published = [0_u16; QUEUES];
    while !input.is_empty() {
        let operation = input.u8();
        let queue = usize::from(operation >> 4) % QUEUES;
        match operation % 16 {
            0..=3 => {
                let chain: Vec<_> = (0..input.u8() % 5).map(|i| numbers(&guest, i, &mut input)).collect();
                guest.write_chain(queue, &chain);
                guest.publish(queue, 0, &mut published[queue]);
                transport.serve(queue);
            }
            4..=6 => {
                let chain: Vec<_> = (0..input.u8() % 5).map(|_| range(&mut input)).collect();
                guest.write_chain(queue, &chain);
                guest.publish(queue, 0, &mut published[queue]);
                transport.serve(queue);
            }
            7 => {
                let length = u32::from(input.u16());
                guest.put(ARRAY, input.take(100));
                guest.write_chain(queue, &[(ARRAY, length, false)]);
                guest.publish(queue, 0, &mut published[queue]);
                transport.serve(queue);
            }
            8 => guest.write_descriptor(queue, &mut input),
            9 => guest.publish(queue, input.u8().into(), &mut published[queue]),
            10 => published[queue] = input.u16(),
            11 => transport.serve(queue),
            12 => drop(transport.set_ceiling(u64::from(input.u16()) * PAGE)),
            13 => drop(transport.request_statistics()),
            14 => drop(transport.survey()),
            _ => {
                guest.reset();
                guest.bring_up(features(input.u8()));
                published = [0; QUEUES];
            }
        }
        check(&transport);
    }
    fenced.check();
    guest.reset();
    assert_eq!(transport.memory_report().ballooned, 0, "a device without a driver has no balloon");
    guest.bring_up(u64::MAX);
}

/// Features of the device, and of its rings: indirect descriptors, which nobody offers, and event indices.
fn features(byte: u8) -> u64 {
    u64::from(byte & 0x3f) | u64::from(byte >> 6) << VIRTIO_RING_F_INDIRECT_DESC
}

fn check(transport: &Transport<Balloon<balloon::backing::Host>>) {
    transport.with_device(|balloon| balloon.device().books().check()).unwrap();
    let report = transport.memory_report();
    assert_eq!(report.size, 2 * REGION_BYTES);
    assert_eq!(report.guest_owned + report.ballooned + report.reported, report.size);
    assert!(report.ceiling >= report.floor && report.actual <= report.size);
    assert_eq!(report.release_failures.calls, 0, "the host refused what it should take");
}

/// An array of page numbers: a run up or down, or every so many, mostly around the borders of memory.
fn numbers(
    guest: &Guest<'_, Balloon<balloon::backing::Host>>,
    slot: u8,
    input: &mut Bytes<'_>,
) -> (u64, u32, bool) {
    let first = page(input);
    let step = u32::from(input.u8()).wrapping_sub(2);
    let count = u32::from(input.u8());
    let bytes: Vec<u8> =
        (0..count).flat_map(|i| first.wrapping_add(i.wrapping_mul(step)).to_le_bytes()).collect();
    let at = ARRAY + u64::from(slot) * 0x400;
    guest.put(at, &bytes);
    let length = if input.u8().is_multiple_of(16) { input.u32() } else { bytes.len() as u32 };
    (at, length, input.u8().is_multiple_of(16))
}

/// A range to report.
fn range(input: &mut Bytes<'_>) -> (u64, u32, bool) {
    let offset = if input.u8().is_multiple_of(8) { u64::from(input.u16() % 4096) } else { 0 };
    let address = u64::from(page(input)) * PAGE + offset;
    let length = if input.u8().is_multiple_of(8) { input.u32() } else { u32::from(input.u16()) << 12 };
    (address, length, !input.u8().is_multiple_of(16))
}

/// A page number, mostly near a border of a region.
fn page(input: &mut Bytes<'_>) -> u32 {
    let near = u32::from(input.u8());
    let border = |address: u64| (address / PAGE) as u32;
    match input.u8() % 6 {
        0 => input.u32(),
        1 => border(STARTS[1]).wrapping_add(near).wrapping_sub(8),
        2 => border(REGION_BYTES).wrapping_sub(near),
        3 => border(STARTS[1] + REGION_BYTES).wrapping_sub(near),
        4 => near,
        _ => 256 + near,
    }
}

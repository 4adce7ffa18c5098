//! Statistics that are garbage, too many, too late or never there. Somebody asks for them all the time.

use tests::hostile::abuse::{Abuse, Count::Any, Count::Exactly};
use tests::hostile::driver::*;
use tests::hostile::{Bench, Driver};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_SEL};

const FREE: u16 = 4;
const TOTAL: u16 = 5;
pub const AVAILABLE: u16 = 6;
const CACHES: u16 = 7;

pub const ABUSES: &[Abuse] = &[
    Abuse::new("tags that nobody knows", |d| {
        answer(d, &[(16, 1), (0x7fff, 2), (0xffff, u64::MAX)]);
    })
    .counting(&[("unknown_statistics", Exactly(3))]),
    Abuse::new("every tag there could be, at its most", |d| {
        let all: Vec<_> = (8..400).map(|tag| (tag, u64::MAX)).collect();
        answer(d, &all);
    })
    .counting(&[("unknown_statistics", Exactly(384))]),
    Abuse::new("one tag four hundred times", |d| {
        let all: Vec<_> = (0..400).map(|value| (FREE, value)).collect();
        answer(d, &all);
    }),
    Abuse::new("numbers that are cut", |d| {
        d.program.fill(BUFFERS, 0, 0, 8);
        for len in [1, 9, 11, 19] {
            d.send(STATISTICS, &[(BUFFERS, len, 0)]);
        }
    })
    .counting(&[("misaligned_buffers", Exactly(4))]),
    Abuse::new("no numbers at all", |d| {
        d.send(STATISTICS, &[(BUFFERS, 0, 0)]);
        d.send(STATISTICS, &[]);
    }),
    Abuse::new("4 GiB of numbers", |d| {
        d.program.fill(BUFFERS, 0, 0, 1024);
        d.send(STATISTICS, &[(BUFFERS, u32::MAX, 0)]);
        d.send(STATISTICS, &[(BUFFERS, 4097, 0)]);
    })
    .counting(&[("oversized_buffers", Exactly(2))]),
    Abuse::new("more free than there is", |d| {
        answer(d, &[(FREE, u64::MAX)]);
        answer(d, &[(TOTAL, u64::MAX)]);
        answer(d, &[(TOTAL, 4096), (AVAILABLE, 4097)]);
        answer(d, &[(CACHES, u64::MAX), (TOTAL, 0)]);
    })
    .counting(&[("implausible_statistics", Exactly(4))]),
    Abuse::new("a guest of no memory", |d| {
        answer(d, &[(TOTAL, 0), (FREE, 0), (AVAILABLE, 0), (CACHES, 0)]);
    }),
    Abuse::new("numbers that go back", |d| {
        for value in [u64::MAX, 0, 1 << 63, 1] {
            answer(d, &[(0, value), (1, value), (2, value), (3, value)]);
        }
    }),
    Abuse::new("two buffers at a time", |d| {
        d.program.fill(BUFFERS, 0, 0, 8);
        for head in [0, 1] {
            d.descriptor(STATISTICS, head, (BUFFERS, 20), 0, 0);
            d.publish(STATISTICS, head);
        }
        d.kick(STATISTICS);
        d.returned(STATISTICS, 2);
    }),
    Abuse::new("a queue full of buffers, kicked all the time", |d| {
        (0..32).for_each(|_| d.publish(STATISTICS, 0));
        d.kick(STATISTICS);
        d.program.times(2000);
        d.returned(STATISTICS, 32);
    }),
    Abuse::new("a question that is never answered", |d| {
        answer(d, &[(FREE, 4096)]);
        d.kick(STATISTICS);
        d.program.times(100);
    }),
    Abuse::new("an answer after a reset", |d| {
        answer(d, &[(FREE, 4096)]);
        d.reset();
        d.bring_up();
        answer(d, &[(FREE, 4096)]);
    }),
    Abuse::new("statistics that the device should write", |d| {
        d.send(STATISTICS, &[(BUFFERS, 160, WRITE)]);
        d.send(STATISTICS, &[(BUFFERS, 160, 0), (BUFFERS, 160, WRITE)]);
    })
    .counting(&[("unusable_buffers", Exactly(2))]),
    Abuse::new("statistics where no memory is", |d| {
        let machine = d.machine;
        for address in [machine.hole(), machine.hole() - 5, machine.balloon, machine.end(), u64::MAX - 3] {
            d.send(STATISTICS, &[(address, 10, 0)]);
        }
    })
    .counting(&[("unusable_buffers", Exactly(5))]),
    Abuse::new("statistics in a chain that does not end", |d| {
        d.descriptor(STATISTICS, 0, (BUFFERS, 10), NEXT, 0);
        d.hand_over(STATISTICS, 0);
        d.descriptor(STATISTICS, 0, (BUFFERS, 10), NEXT, 32);
        d.hand_over(STATISTICS, 0);
    })
    .counting(&[("malformed_chains", Exactly(2))]),
    Abuse::new("statistics in pieces of a byte", |d| {
        d.program.put(BUFFERS, &record(FREE, 4096));
        let pieces: Vec<_> = (0..30).map(|index| (BUFFERS + index % 10, 1, 0)).collect();
        d.send(STATISTICS, &pieces);
    }),
    Abuse::new("statistics in a ballooned page", |d| {
        d.program.put(VICTIMS, &record(FREE, 4096));
        d.send_pages(INFLATE, &[VICTIM]);
        d.send(STATISTICS, &[(VICTIMS, 160, 0)]);
    }),
    Abuse::new("a statistics ring that breaks", |d| {
        d.set_available(STATISTICS, 33);
        d.kick(STATISTICS);
        d.demands_reset();
    }),
    Abuse::new("a statistics ring that is inflated while its buffer is held", |d| {
        d.program.fill(BUFFERS, 0, 0, 8);
        d.chain(STATISTICS, 0, &[(BUFFERS, 10, 0)]);
        d.publish(STATISTICS, 0);
        d.kick(STATISTICS);
        d.send_pages(INFLATE, &[(Ring::good(STATISTICS).descriptors / PAGE) as u32]);
        d.kick(STATISTICS);
    })
    .counting(&[("unknown_statistics", Any)]),
    Abuse::new("the statistics queue taken out of use while its buffer is held", |d| {
        d.program.fill(BUFFERS, 0, 0, 8);
        d.chain(STATISTICS, 0, &[(BUFFERS, 10, 0)]);
        d.publish(STATISTICS, 0);
        d.kick(STATISTICS);
        d.set(VIRTIO_MMIO_QUEUE_SEL, STATISTICS as u32);
        d.set(VIRTIO_MMIO_QUEUE_READY, 0);
        d.publish(STATISTICS, 0);
        d.kick(STATISTICS);
        d.send(INFLATE, &[]);
        d.lives();
    }),
    Abuse::new("a guest that says it needs all it has", |d| answer(d, &[(AVAILABLE, 0)])),
];

fn record(tag: u16, value: u64) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

/// Gives the device these numbers, and waits until it is asked for others.
pub fn answer(d: &mut Driver, numbers: &[(u16, u64)]) {
    let bytes: Vec<u8> = numbers.iter().flat_map(|(tag, value)| record(*tag, *value)).collect();
    d.program.put(BUFFERS, &bytes);
    d.send(STATISTICS, &[(BUFFERS, bytes.len() as u32, 0)]);
}

#[test]
fn statistics() {
    Bench::start(1).endures(ABUSES);
}

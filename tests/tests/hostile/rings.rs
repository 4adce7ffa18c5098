//! Rings that lie where none can, that contradict themselves, and that live in pages which are given away.

use crate::statistics;
use tests::control::ask;
use tests::hostile::abuse::{Abuse, Count::Any, Count::Exactly};
use tests::hostile::bench::MACHINE;
use tests::hostile::clients::memory_of;
use tests::hostile::driver::*;
use tests::hostile::interpreter::END;
use tests::hostile::{Bench, Driver};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_SEL};

pub const ABUSES: &[Abuse] = &[
    Abuse::new("a descriptor table that ends beyond memory", |d| {
        let ring = Ring { descriptors: d.machine.hole() - 16, ..Ring::good(INFLATE) };
        is_refused(d, INFLATE, ring);
        let ring = Ring { descriptors: d.machine.end() - 0xf0, ..Ring::good(INFLATE) };
        is_refused(d, INFLATE, ring);
    }),
    Abuse::new("an available ring that ends beyond memory", |d| {
        let ring = Ring { available: d.machine.hole() - 4, ..Ring::good(DEFLATE) };
        is_refused(d, DEFLATE, ring);
    }),
    Abuse::new("a used ring that ends beyond memory", |d| {
        let ring = Ring { used: d.machine.hole() - 8, ..Ring::good(REPORTING) };
        is_refused(d, REPORTING, ring);
        let ring = Ring { used: d.machine.end() - 4 - 32 * 8, ..Ring::good(REPORTING) };
        is_refused(d, REPORTING, ring);
    }),
    Abuse::new("rings in the hole between the regions", |d| {
        let hole = d.machine.hole();
        is_refused(d, INFLATE, ring_at(hole));
        is_refused(d, STATISTICS, ring_at(d.machine.regions[1].0 - PAGE));
    }),
    Abuse::new("rings in the device's own registers", |d| {
        let registers = d.machine.balloon;
        is_refused(d, INFLATE, ring_at(registers));
    }),
    Abuse::new("rings that wrap around the address space", |d| {
        for address in [!0xf, !0xff, (1 << 63) - 16, 1 << 52, 1 << 63] {
            is_refused(d, INFLATE, Ring { descriptors: address, ..Ring::good(INFLATE) });
            is_refused(d, INFLATE, Ring { available: address, ..Ring::good(INFLATE) });
            is_refused(d, INFLATE, Ring { used: address, ..Ring::good(INFLATE) });
        }
    }),
    Abuse::new("rings that are not aligned", |d| {
        let good = Ring::good(INFLATE);
        is_refused(d, INFLATE, Ring { descriptors: good.descriptors + 8, ..good });
        is_refused(d, INFLATE, Ring { available: good.available + 1, ..good });
        is_refused(d, INFLATE, Ring { used: good.used + 2, ..good });
    }),
    Abuse::new("a ring from one region into the next", |d| {
        let ring =
            Ring { descriptors: d.machine.hole() - 0x80, used: d.machine.hole() - 0x40, ..Ring::good(0) };
        is_refused(d, INFLATE, ring);
    }),
    Abuse::new("rings that end where memory ends", |d| {
        let (hole, end) = (d.machine.hole(), d.machine.end());
        let size = 16_u64;
        let ring = Ring {
            size: 16,
            descriptors: hole - 16 * size,
            available: d.machine.regions[1].0,
            used: (end - 6 - 8 * size) & !3,
        };
        d.reset();
        d.program.fill(ring.descriptors, 0, 0, 64);
        d.program.fill(ring.available, 0, 0, 16);
        d.program.fill(ring.used & !7, 0, 0, 32);
        d.negotiate(FEATURES);
        d.place(INFLATE, ring);
        d.go_live();
        d.lives();
        d.program.write(4, BUFFERS, VICTIM.into());
        (0..17).for_each(|_| d.send(INFLATE, &[(BUFFERS, 4, 0)]));
    })
    .counting(&[("duplicate_pages", Exactly(16))]),
    Abuse::new("a queue whose three parts are one", |d| {
        let ring = Ring { descriptors: END, available: END, used: END, ..Ring::good(INFLATE) };
        d.bring_up_on(INFLATE, ring);
        d.lives();
        churn(d, INFLATE);
    })
    .counting(ANYTHING),
    Abuse::new("a used ring over the descriptor table", |d| {
        let good = Ring::good(INFLATE);
        d.bring_up_on(INFLATE, Ring { used: good.descriptors, ..good });
        d.lives();
        churn(d, INFLATE);
    })
    .counting(ANYTHING),
    Abuse::new("a used ring that feeds the available ring", |d| {
        let good = Ring::good(INFLATE);
        d.bring_up_on(INFLATE, Ring { used: good.available, ..good });
        churn(d, INFLATE);
        d.bring_up_on(INFLATE, Ring { available: good.used + 2, ..good });
        churn(d, INFLATE);
        d.bring_up_on(DEFLATE, Ring { available: good.used + 6, used: good.used, ..Ring::good(DEFLATE) });
        churn(d, DEFLATE);
    })
    .counting(ANYTHING),
    Abuse::new("four queues in one place", |d| {
        d.reset();
        d.clear_rings();
        d.negotiate(FEATURES);
        (0..4).for_each(|queue| d.place(queue, Ring { size: 16, ..Ring::good(INFLATE) }));
        d.go_live();
        d.lives();
        (0..4).for_each(|queue| churn(d, queue));
    })
    .counting(ANYTHING),
    Abuse::new("no queue at all", |d| {
        d.reset();
        d.negotiate(FEATURES);
        d.go_live();
        d.lives();
        (0..4).for_each(|queue| d.kick(queue));
        d.lives();
    }),
    Abuse::new("queues of features that were not taken", |d| {
        d.reset();
        d.clear_rings();
        d.negotiate(VERSION_1);
        (0..4).for_each(|queue| d.place(queue, Ring::good(queue)));
        d.go_live();
        for queue in [STATISTICS, REPORTING] {
            d.chain(queue, 0, &[(VICTIMS, PAGE as u32, WRITE)]);
            d.publish(queue, 0);
            d.kick(queue);
        }
        d.mark(VICTIM);
        d.send(INFLATE, &[]);
        d.is_kept(VICTIM);
    }),
    Abuse::new("an available index that jumps by more than the queue", |d| jumps_to(d, 17)),
    Abuse::new("an available index that jumps half around", |d| jumps_to(d, 0x8000)),
    Abuse::new("an available index that goes back", |d| {
        d.send(INFLATE, &[]);
        d.send(INFLATE, &[]);
        d.set_available(INFLATE, 1);
        d.kick(INFLATE);
        d.demands_reset();
    }),
    Abuse::new("heads out of range", |d| {
        for head in [16, 17, 255, 0x8000, 0xffff] {
            d.reset();
            d.bring_up();
            d.mark(VICTIM);
            d.program.write(4, BUFFERS, VICTIM.into());
            d.chain(INFLATE, 0, &[(BUFFERS, 4, 0)]);
            d.publish(INFLATE, 0);
            d.publish(INFLATE, head);
            d.kick(INFLATE);
            d.demands_reset();
            // What came before it was served and returned.
            d.returned(INFLATE, 1);
            d.is_gone(VICTIM);
        }
    }),
    Abuse::new("kicks of a broken queue, and of the others", |d| {
        jumps_to(d, 1000);
        for queue in 0..4 {
            d.publish(queue, 0);
            d.kick(queue);
            d.program.times(100);
        }
        d.program.expect(2, Ring::good(DEFLATE).used + 2, 0, u64::MAX);
    }),
    Abuse::new("used_event and flags of garbage", |d| {
        d.reset();
        d.bring_up_with(FEATURES | EVENT_IDX);
        let ring = Ring::good(INFLATE);
        for garbage in [0xffff, 0x8000, 1, 0x5555] {
            d.program.write(2, ring.available + 4 + 32, garbage);
            d.program.write(2, ring.available, garbage);
            d.program.write(2, ring.used + 4 + 128, garbage);
            d.program.write(2, ring.used, garbage);
            d.send(INFLATE, &[]);
        }
    }),
    Abuse::new("a queue that wraps four thousand times", |d| {
        d.program.write(4, BUFFERS, VICTIM.into());
        d.storm(INFLATE, &[(BUFFERS, 4, 0)], 4000);
    })
    .counting(&[("duplicate_pages", Exactly(3999))]),
    Abuse::new("the inflate queue inflated", |d| {
        d.send_pages(INFLATE, &[(Ring::good(INFLATE).descriptors / PAGE) as u32]);
        // Its available index reads zero then: it went back.
        d.demands_reset();
    }),
    Abuse::new("a used ring inflated by its own chain", |d| {
        d.mark(VICTIM);
        d.bring_up_on(INFLATE, Ring { used: VICTIMS, ..Ring::good(INFLATE) });
        d.program.write(4, VICTIMS, 0);
        d.send_pages(INFLATE, &[VICTIM]);
        d.send_pages(DEFLATE, &[VICTIM]);
        d.send_pages(INFLATE, &[VICTIM, VICTIM + 1]);
        d.lives();
    }),
    Abuse::new("a queue that lives in a ballooned page", |d| {
        let ring = Ring { size: 8, descriptors: VICTIMS, available: VICTIMS + 0x400, used: VICTIMS + 0x800 };
        d.bring_up_on(DEFLATE, ring);
        d.send_pages(INFLATE, &[VICTIM]);
        d.send_pages(DEFLATE, &[VICTIM + 9]);
        d.send_pages(INFLATE, &[VICTIM]);
        d.is_gone(VICTIM);
        d.lives();
    })
    .counting(&[("not_ballooned_pages", Exactly(1)), ("duplicate_pages", Exactly(1))]),
    Abuse::new("a descriptor table inflated by the first of many passes", |d| {
        let table = VICTIMS + 64 * PAGE;
        d.bring_up_on(INFLATE, Ring { descriptors: table, ..Ring::good(INFLATE) });
        d.program.fill(BUFFERS, VICTIM, 1, 1024);
        let chain: Vec<_> = (0..16).map(|part| (BUFFERS + 1024 * (part % 4), 1024, 0)).collect();
        d.chain(INFLATE, 0, &chain);
        (0..16).for_each(|_| d.publish(INFLATE, 0));
        d.kick(INFLATE);
        // What comes after it are chains of no bytes.
        d.returned(INFLATE, 16);
        d.program.expect(8, table + 8, 0, u64::MAX);
        d.lives();
    })
    .counting(&[("duplicate_pages", Exactly(3 * 1024))]),
    Abuse::new("an available ring inflated by its own chain", |d| {
        let available = VICTIMS + 64 * PAGE;
        d.program.fill(available, 0, 0, 64);
        d.bring_up_on(INFLATE, Ring { available, ..Ring::good(INFLATE) });
        d.program.write(4, BUFFERS, u64::from(VICTIM) + 64);
        d.chain(INFLATE, 0, &[(BUFFERS, 4, 0)]);
        d.publish(INFLATE, 0);
        d.kick(INFLATE);
        // Returned, and then its index goes back.
        d.returned(INFLATE, 1);
        d.kick(INFLATE);
        d.demands_reset();
    }),
    Abuse::new("a used ring reported by another queue while chains come back to it", |d| {
        let used = VICTIMS + 64 * PAGE;
        d.program.fill(used, 0, 0, 64);
        d.bring_up_on(INFLATE, Ring { used, ..Ring::good(INFLATE) });
        d.program.write(4, BUFFERS, VICTIM.into());
        d.chain(INFLATE, 0, &[(BUFFERS, 4, 0)]);
        d.chain(REPORTING, 0, &[(used, PAGE as u32, WRITE)]);
        for count in 1..=20 {
            d.publish(INFLATE, 0);
            d.publish(REPORTING, 0);
            d.kick(INFLATE);
            d.kick(REPORTING);
            d.returned(REPORTING, count);
        }
        d.lives();
    })
    .counting(&[("duplicate_pages", Any)]),
    Abuse::new("a queue reset by itself in mid-kick, which was not offered", |d| {
        d.program.fill(BUFFERS, VICTIM, 1, 1024);
        d.chain(INFLATE, 0, &[0, 1, 2, 3].map(|part| (BUFFERS + 1024 * part, 1024, 0)));
        d.set(VIRTIO_MMIO_QUEUE_SEL, INFLATE as u32);
        for count in 1..=4 {
            d.publish(INFLATE, 0);
            d.kick(INFLATE);
            d.set(QUEUE_RESET, 1);
            d.reads(QUEUE_RESET, 0);
            d.reads(VIRTIO_MMIO_QUEUE_READY, 1);
            d.returned(INFLATE, count);
        }
        d.lives();
    })
    .counting(&[("duplicate_pages", Exactly(3 * 1024))]),
    Abuse::new("all rings inflated at once", |d| {
        d.send_run(INFLATE, (END / PAGE) as u32, 1, 4);
        d.demands_reset();
    }),
];

/// `QueueReset` (virtio 1.3, 4.2.2).
const QUEUE_RESET: u32 = 0xc0;

/// Counts of a device that reads what nobody wrote on purpose.
const ANYTHING: &[(&str, tests::hostile::Count)] = &[
    ("malformed_chains", Any),
    ("unusable_buffers", Any),
    ("oversized_buffers", Any),
    ("misaligned_buffers", Any),
    ("foreign_pages", Any),
    ("duplicate_pages", Any),
    ("not_ballooned_pages", Any),
    ("reported_ballooned_pages", Any),
    ("unknown_statistics", Any),
    ("implausible_statistics", Any),
];

fn ring_at(base: u64) -> Ring {
    Ring { size: 16, descriptors: base, available: base + 0x400, used: base + 0x800 }
}

/// The device demands a reset instead of going live with `ring`.
fn is_refused(d: &mut Driver, queue: usize, ring: Ring) {
    d.bring_up_on(queue, ring);
    d.demands_reset();
    d.kick(queue);
}

fn jumps_to(d: &mut Driver, index: u16) {
    d.set_available(INFLATE, index);
    d.kick(INFLATE);
    d.demands_reset();
}

/// Publishes what there is, entry by entry, and kicks; nothing is expected.
fn churn(d: &mut Driver, queue: usize) {
    d.chain(queue, 1, &[(BUFFERS, 64, 0), (VICTIMS, 4096, 0)]);
    for head in [0, 1, 5, 15, 2, 0] {
        d.publish(queue, head);
        d.kick(queue);
    }
}

#[test]
fn rings() {
    Bench::start(1).endures(ABUSES);
}

/// Who asks over the control socket hears of it, until the driver has reset its device.
#[test]
fn a_broken_ring_is_told() {
    let bench = Bench::start(1);
    let mut driver = Driver::new(MACHINE);
    driver.reset();
    driver.bring_up();
    statistics::answer(&mut driver, &[(statistics::AVAILABLE, 40 << 20)]);
    jumps_to(&mut driver, 1000);
    driver.program.next();
    bench.run(&driver.program, "a broken ring");

    assert_eq!(memory_of(bench.socket())["driver"], "broken");
    let size = bench.report().size;
    for bytes in [size, size + 1, u64::MAX, 1] {
        is_refused_as_broken(&bench, "PUT", "/v1/memory/ceiling", &format!("{{\"bytes\":{bytes}}}"));
    }
    is_refused_as_broken(&bench, "GET", "/v1/statistics", "");
    bench.serves_a_good_driver("a broken ring");
    assert_ne!(memory_of(bench.socket())["driver"], "broken");
}

fn is_refused_as_broken(bench: &Bench, method: &str, path: &str, content: &str) {
    let (head, content) = ask(bench.socket(), method, path, content).unwrap();
    assert!(head.starts_with("HTTP/1.1 409 ") && content.contains("broke its device"), "{head}\n{content}");
}

//! Registers of the wrong width, out of range, out of order and out of phase.

use tests::hostile::driver::*;
use tests::hostile::{Abuse, Bench, Driver};
use virtio_bindings::virtio_mmio::*;
use vmm::machine::layout;

pub const ABUSES: &[Abuse] = &[
    Abuse::new("reads of every width everywhere", |d| {
        for offset in 0..0x120 {
            for width in [1, 2, 4, 8] {
                d.program.read(width, d.machine.balloon + offset);
            }
        }
        d.lives();
    }),
    Abuse::new("reads of parts of a register", |d| {
        let magic = d.register(VIRTIO_MMIO_MAGIC_VALUE);
        d.program.expect(4, magic, 0x7472_6976, u64::MAX);
        for (width, at) in [(1, magic), (2, magic), (8, magic), (4, magic + 1), (4, magic + 2)] {
            d.program.expect(width, at, 0, u64::MAX);
        }
    }),
    Abuse::new("writes of one, two and eight bytes to every register", |d| {
        for offset in 0..0x100 {
            for width in [1, 2, 8] {
                d.program.write(width, d.machine.balloon + offset, 0);
            }
        }
        works(d);
    }),
    Abuse::new("writes across two registers", |d| {
        for offset in (0..0x100).filter(|offset| offset % 4 != 0) {
            d.program.write(4, d.machine.balloon + offset, 0);
        }
        works(d);
    }),
    Abuse::new("writes to registers that do not exist", |d| {
        for offset in [0x18, 0x28, 0x2c, 0x3c, 0x40, 0x48, 0x4c, 0x54, 0x5c, 0x68, 0x6c, 0x78, 0x98, 0xc4] {
            d.set(offset, u32::MAX);
            d.reads(offset, 0);
        }
        works(d);
    }),
    Abuse::new("writes to registers that are only read", |d| {
        let constant = [
            (VIRTIO_MMIO_MAGIC_VALUE, 0x7472_6976),
            (VIRTIO_MMIO_VERSION, 2),
            (VIRTIO_MMIO_DEVICE_ID, 5),
            (VIRTIO_MMIO_CONFIG_GENERATION, 0),
        ];
        for (register, value) in constant {
            d.set(register, !value);
            d.reads(register, value);
        }
        d.set(VIRTIO_MMIO_QUEUE_NUM_MAX, 1 << 15);
        d.set(VIRTIO_MMIO_INTERRUPT_STATUS, u32::MAX);
        works(d);
    }),
    Abuse::new("addresses that no device has", |d| {
        let slots = layout::VIRTIO_DEVICES as u64;
        for at in
            [layout::VIRTIO_START + slots * layout::VIRTIO_STRIDE, layout::MMIO_END - PAGE, d.machine.hole()]
        {
            d.program.write(4, at, 1);
            d.program.expect(4, at, u32::MAX.into(), u64::MAX);
            d.program.expect(8, at + 8, u64::MAX, u64::MAX);
        }
    }),
    Abuse::new("power-off and reset that are none", |d| {
        for value in (0..=255).filter(|value| *value != layout::RESET_VALUE) {
            d.program.port(layout::RESET_PORT, value);
        }
        for value in (0..=255).filter(|value| *value != 0x34) {
            d.program.port(layout::SLEEP_CONTROL_PORT, value);
        }
    }),
    Abuse::new("queue selectors out of range", |d| {
        for selector in [4, 5, 64, 0xffff, 0x1_0000, 0x8000_0000, u32::MAX] {
            d.set(VIRTIO_MMIO_QUEUE_SEL, selector);
            d.reads(VIRTIO_MMIO_QUEUE_NUM_MAX, 0);
            d.reads(VIRTIO_MMIO_QUEUE_READY, 0);
            d.set(VIRTIO_MMIO_QUEUE_NUM, 16);
            d.set(VIRTIO_MMIO_QUEUE_DESC_LOW, 0);
            d.set(VIRTIO_MMIO_QUEUE_READY, 1);
            d.set(VIRTIO_MMIO_QUEUE_READY, 0);
        }
        works(d);
    }),
    Abuse::new("a queue of size zero", |d| keeps_its_size(d, &[0])),
    Abuse::new("queue sizes that are no powers of two", |d| keeps_its_size(d, &[3, 5, 7, 9, 15])),
    Abuse::new("queue sizes larger than the largest", |d| {
        keeps_its_size(d, &[17, 32, 32768, 65536, 65536 + 8, 0x8000_0000, u32::MAX]);
    }),
    Abuse::new("a queue that moves once it is ready", |d| {
        d.reset();
        d.clear_rings();
        d.negotiate(FEATURES);
        (0..4).for_each(|queue| d.place(queue, Ring::good(queue)));
        scatter(d);
        d.go_live();
        works(d);
    }),
    Abuse::new("queues that are set up before FEATURES_OK", |d| {
        d.reset();
        d.clear_rings();
        d.set(VIRTIO_MMIO_STATUS, DRIVER);
        for queue in 0..4 {
            d.place(queue, Ring::good(queue));
            d.reads(VIRTIO_MMIO_QUEUE_READY, 0);
        }
        d.agree(FEATURES);
        d.go_live();
        d.lives();
        d.publish(INFLATE, 0);
        d.kick(INFLATE);
    }),
    Abuse::new("queues that move while they live", |d| {
        scatter(d);
        works(d);
    }),
    Abuse::new("a queue taken out of use while it lives", |d| {
        d.set(VIRTIO_MMIO_QUEUE_SEL, INFLATE as u32);
        d.set(VIRTIO_MMIO_QUEUE_READY, 0);
        d.reads(VIRTIO_MMIO_QUEUE_READY, 0);
        d.chain(INFLATE, 0, &[(BUFFERS, 4, 0)]);
        d.publish(INFLATE, 0);
        d.kick(INFLATE);
        d.send(DEFLATE, &[]);
        d.program.expect(2, Ring::good(INFLATE).used + 2, 0, u64::MAX);
        d.set(VIRTIO_MMIO_QUEUE_READY, 1);
        d.reads(VIRTIO_MMIO_QUEUE_READY, 0);
        d.lives();
    }),
    Abuse::new("ready toggled a thousand times while kicked", |d| {
        let [select, ready, notify] =
            [VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_NOTIFY].map(|r| d.register(r));
        d.program.write(4, select, DEFLATE as u64);
        d.program.repeat(1000, |program| {
            for value in [0, 1] {
                program.write(4, ready, value);
                program.write(4, notify, DEFLATE as u64);
            }
        });
        works(d);
    }),
    Abuse::new("values of ready that are neither", |d| {
        d.reset();
        d.negotiate(FEATURES);
        for value in [2, 3, 0x100, u32::MAX] {
            d.describe(INFLATE, Ring::good(INFLATE));
            d.set(VIRTIO_MMIO_QUEUE_READY, value);
            d.reads(VIRTIO_MMIO_QUEUE_READY, 0);
        }
    }),
    Abuse::new("DRIVER_OK without FEATURES_OK", |d| {
        d.reset();
        d.set(VIRTIO_MMIO_STATUS, DRIVER);
        d.set(VIRTIO_MMIO_STATUS, DRIVER | 4);
        d.demands_reset();
        d.set(VIRTIO_MMIO_STATUS, DRIVER_OK);
        d.reads(VIRTIO_MMIO_STATUS, DRIVER | NEEDS_RESET);
    }),
    Abuse::new("DRIVER_OK before anything", |d| {
        d.reset();
        d.set(VIRTIO_MMIO_STATUS, DRIVER_OK);
        d.reads(VIRTIO_MMIO_STATUS, DRIVER);
    }),
    Abuse::new("FEATURES_OK without DRIVER", |d| {
        d.reset();
        d.set(VIRTIO_MMIO_STATUS, 9);
        d.demands_reset();
    }),
    Abuse::new("features that were not offered", |d| {
        d.reset();
        d.negotiate(u64::MAX);
        d.reads(VIRTIO_MMIO_STATUS, DRIVER);
        d.reset();
        d.negotiate(FEATURES | balloon::device::features::FREE_PAGE_HINT);
        d.reads(VIRTIO_MMIO_STATUS, DRIVER);
        d.go_live();
        d.reads(VIRTIO_MMIO_STATUS, DRIVER);
    }),
    Abuse::new("a driver of legacy virtio", |d| {
        d.reset();
        d.negotiate(FEATURES & !VERSION_1);
        d.reads(VIRTIO_MMIO_STATUS, DRIVER);
    }),
    Abuse::new("feature words that there are not", |d| {
        d.reset();
        d.set(VIRTIO_MMIO_STATUS, DRIVER);
        for selector in [2, 3, 32, u32::MAX] {
            d.set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, selector);
            d.reads(VIRTIO_MMIO_DEVICE_FEATURES, 0);
            d.set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, selector);
            d.set(VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
        }
        d.agree(FEATURES);
        d.reads(VIRTIO_MMIO_STATUS, FEATURES_OK);
    }),
    Abuse::new("features that change after FEATURES_OK", |d| {
        d.set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
        d.set(VIRTIO_MMIO_DRIVER_FEATURES, 0);
        d.mark(VICTIM);
        d.report(VICTIMS, PAGE as u32);
        d.is_gone(VICTIM);
    }),
    Abuse::new("DRIVER_OK twice", |d| {
        works(d);
        d.go_live();
        d.send_pages(DEFLATE, &[VICTIM]);
        d.send_pages(DEFLATE, &[]);
        d.lives();
    }),
    Abuse::new("status bits cleared one by one", |d| {
        d.set(VIRTIO_MMIO_STATUS, FEATURES_OK);
        d.demands_reset();
        d.set(VIRTIO_MMIO_STATUS, DRIVER);
        d.set(VIRTIO_MMIO_STATUS, ACKNOWLEDGED);
        d.set(VIRTIO_MMIO_STATUS, DRIVER_OK);
        d.reads(VIRTIO_MMIO_STATUS, DRIVER_OK | NEEDS_RESET);
        is_not_served(d);
    }),
    Abuse::new("status bits that there are not", |d| {
        d.set(VIRTIO_MMIO_STATUS, DRIVER_OK | 0x20);
        d.demands_reset();
        d.reset();
        d.set(VIRTIO_MMIO_STATUS, u32::MAX);
        d.demands_reset();
    }),
    Abuse::new("NEEDS_RESET said by the driver", |d| {
        d.set(VIRTIO_MMIO_STATUS, DRIVER_OK | NEEDS_RESET);
        works(d);
    }),
    Abuse::new("FAILED said by the driver, which goes on", |d| {
        d.set(VIRTIO_MMIO_STATUS, DRIVER_OK | 0x80);
        d.reads(VIRTIO_MMIO_STATUS, DRIVER_OK | 0x80);
        d.kick(INFLATE);
        d.set(VIRTIO_MMIO_STATUS, DRIVER_OK);
        d.demands_reset();
    }),
    Abuse::new("a thousand resets", |d| {
        let status = d.register(VIRTIO_MMIO_STATUS);
        d.program.write(4, status, 0);
        d.program.times(1000);
        d.reads(VIRTIO_MMIO_STATUS, 0);
    }),
    Abuse::new("a hundred lives that end in mid-work", |d| {
        let mut life = Driver::new(d.machine);
        life.reset();
        life.clear_rings();
        life.negotiate(FEATURES);
        (0..4).for_each(|queue| life.place(queue, Ring::good(queue)));
        life.program.fill(BUFFERS, VICTIM, 1, 1024);
        life.chain(INFLATE, 0, &[0, 1, 2, 3].map(|part| (BUFFERS + 1024 * part, 1024, 0)));
        life.publish(INFLATE, 0);
        life.go_live();
        life.kick(INFLATE);
        d.program.repeat(100, |program| program.append(life.program));
    }),
    Abuse::new("notifications of queues that there are not", |d| {
        for queue in [4, 5, 16, 0xff, 0xffff, 0x1_0000, 0x8000_0000, u32::MAX] {
            d.set(VIRTIO_MMIO_QUEUE_NOTIFY, queue);
            d.program.times(50);
        }
        works(d);
    }),
    Abuse::new("notifications before DRIVER_OK", |d| {
        d.reset();
        kick_all(d);
        d.set(VIRTIO_MMIO_STATUS, DRIVER);
        kick_all(d);
        d.agree(FEATURES);
        kick_all(d);
        (0..4).for_each(|queue| d.place(queue, Ring::good(queue)));
        kick_all(d);
    }),
    Abuse::new("notifications of the wrong width", |d| {
        // Going live is a kick, too: it has been served once later ones of other queues are.
        for queue in [INFLATE, DEFLATE, DEFLATE] {
            d.send(queue, &[]);
        }
        d.publish(INFLATE, 0);
        let notify = d.register(VIRTIO_MMIO_QUEUE_NOTIFY);
        for width in [1, 2, 8] {
            d.program.write(width, notify, INFLATE as u64);
        }
        d.send(DEFLATE, &[]);
        d.program.expect(2, Ring::good(INFLATE).used + 2, 1, u64::MAX);
        d.kick(INFLATE);
        d.returned(INFLATE, 2);
    }),
    Abuse::new("twenty thousand kicks of empty queues", |d| {
        for queue in 0..4 {
            d.kick(queue);
            d.program.times(5000);
        }
        works(d);
    }),
    Abuse::new("acknowledgements of interrupts that were none", |d| {
        let (status, acknowledge) =
            (d.register(VIRTIO_MMIO_INTERRUPT_STATUS), d.register(VIRTIO_MMIO_INTERRUPT_ACK));
        for bit in 0..32 {
            d.program.write(4, acknowledge, 1 << bit);
        }
        d.program.expect(4, status, 0, 1);
        d.send(INFLATE, &[]);
        d.program.await_value(4, status, 1, 1);
        for other in [0, 2, 4, 0x8000_0000, 0xffff_fffe] {
            d.program.write(4, acknowledge, other);
            d.program.expect(4, status, 1, 1);
        }
        d.program.write(4, acknowledge, u32::MAX.into());
        d.program.expect(4, status, 0, 1);
    }),
    Abuse::new("shared memory that there is not", |d| {
        for selector in [0, 1, 255, u32::MAX] {
            d.set(VIRTIO_MMIO_SHM_SEL, selector);
            d.reads(VIRTIO_MMIO_SHM_LEN_LOW, u32::MAX);
            d.reads(VIRTIO_MMIO_SHM_BASE_HIGH, u32::MAX);
        }
        d.set(VIRTIO_MMIO_SHM_BASE_LOW, 0);
        works(d);
    }),
];

/// The device serves: an inflated page is gone, and nothing is broken.
fn works(d: &mut Driver) {
    d.mark(VICTIM);
    d.send_pages(INFLATE, &[VICTIM]);
    d.is_gone(VICTIM);
    d.lives();
}

/// A chain that is handed over stays where it is.
fn is_not_served(d: &mut Driver) {
    d.publish(INFLATE, 0);
    d.kick(INFLATE);
    d.program.expect(2, Ring::good(INFLATE).used + 2, 0, u64::MAX);
}

/// Writes addresses in the hole to all registers of all queues.
fn scatter(d: &mut Driver) {
    for queue in 0..4 {
        d.set(VIRTIO_MMIO_QUEUE_SEL, queue);
        d.set(VIRTIO_MMIO_QUEUE_NUM, 8);
        for register in [
            VIRTIO_MMIO_QUEUE_DESC_LOW,
            VIRTIO_MMIO_QUEUE_DESC_HIGH,
            VIRTIO_MMIO_QUEUE_AVAIL_LOW,
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
            VIRTIO_MMIO_QUEUE_USED_LOW,
            VIRTIO_MMIO_QUEUE_USED_HIGH,
        ] {
            d.set(register, 0xd000_0000);
        }
        d.set(VIRTIO_MMIO_QUEUE_READY, 1);
    }
}

/// A queue whose size is said so lives with its largest size: its available ring wraps there.
fn keeps_its_size(d: &mut Driver, sizes: &[u32]) {
    d.reset();
    d.clear_rings();
    d.negotiate(FEATURES);
    for (queue, largest) in SIZES.into_iter().enumerate() {
        d.describe(queue, Ring::good(queue));
        for size in sizes {
            d.set(VIRTIO_MMIO_QUEUE_NUM, if queue == INFLATE { *size } else { largest.into() });
        }
        d.set(VIRTIO_MMIO_QUEUE_READY, 1);
    }
    d.go_live();
    d.lives();
    (0..20).for_each(|_| d.send(INFLATE, &[(BUFFERS, 0, 0)]));
}

fn kick_all(d: &mut Driver) {
    (0..4).for_each(|queue| d.kick(queue));
}

#[test]
fn registers() {
    Bench::start(1).endures(ABUSES);
}

//! Page numbers that are not the guest's, that come twice, and that are the guest's own undoing.

use tests::hostile::abuse::{Abuse, Count::Any, Count::Exactly};
use tests::hostile::driver::*;
use tests::hostile::interpreter::PROGRAM;
use tests::hostile::{Bench, Driver};
use vmm::machine::layout;

pub const ABUSES: &[Abuse] = &[
    Abuse::new("a page twice in one array", |d| {
        d.mark(VICTIM);
        d.send_pages(INFLATE, &[VICTIM, VICTIM]);
        d.is_gone(VICTIM);
    })
    .counting(&[("duplicate_pages", Exactly(1))]),
    Abuse::new("a page in two arrays of a chain", |d| {
        d.program.write(4, BUFFERS, VICTIM.into());
        d.send(INFLATE, &[(BUFFERS, 4, 0), (BUFFERS, 4, 0)]);
    })
    .counting(&[("duplicate_pages", Exactly(1))]),
    Abuse::new("a page inflated again and again", |d| {
        (0..5).for_each(|_| d.send_pages(INFLATE, &[VICTIM]));
    })
    .counting(&[("duplicate_pages", Exactly(4))]),
    Abuse::new("a page inflated, touched and inflated", |d| {
        for _ in 0..3 {
            d.mark(VICTIM);
            d.send_pages(INFLATE, &[VICTIM]);
            d.is_gone(VICTIM);
        }
    })
    .counting(&[("duplicate_pages", Exactly(2))]),
    Abuse::new("pages between the regions", |d| {
        let hole = page(d.machine.hole());
        d.send_pages(INFLATE, &[hole, hole + 1, page(layout::VIRTIO_START) - 1, page(layout::MMIO_END) - 1]);
    })
    .counting(&[("foreign_pages", Exactly(4))]),
    Abuse::new("pages of registers and interrupt controllers", |d| {
        let pages = [d.machine.balloon, layout::IO_APIC.into(), layout::LOCAL_APIC.into(), layout::KVM_TSS];
        d.send_pages(INFLATE, &pages.map(page));
        d.send_pages(DEFLATE, &pages.map(page));
        d.lives();
    })
    .counting(&[("foreign_pages", Exactly(8))]),
    Abuse::new("pages behind all memory", |d| {
        let end = page(d.machine.end());
        d.send_pages(INFLATE, &[end, end + 1, end * 2, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX]);
    })
    .counting(&[("foreign_pages", Exactly(7))]),
    Abuse::new("numbers that wrap to zero", |d| {
        d.program.fill(BUFFERS, u32::MAX - 3, 1, 8);
        d.send(INFLATE, &[(BUFFERS, 32, 0)]);
    })
    .counting(&[("foreign_pages", Exactly(4))]),
    Abuse::new("page zero", |d| {
        d.mark(0);
        d.send_pages(INFLATE, &[0]);
        d.is_gone(0);
    }),
    Abuse::new("pages across both ends of each region", |d| {
        let edges = [d.machine.hole(), d.machine.regions[1].0, d.machine.end()].map(page);
        d.mark(edges[0] - 1);
        d.mark(edges[1]);
        for edge in edges {
            d.send_run(INFLATE, edge - 4, 1, 8);
        }
        d.is_gone(edges[0] - 1);
        d.is_gone(edges[1]);
    })
    .counting(&[("foreign_pages", Exactly(12))]),
    Abuse::new("lengths that are no whole numbers", |d| {
        d.mark(VICTIM);
        d.program.write(8, BUFFERS, u64::from(VICTIM) | u64::from(VICTIM + 1) << 32);
        for len in [1, 2, 3] {
            d.send(INFLATE, &[(BUFFERS, len, 0)]);
        }
        d.is_kept(VICTIM);
        d.mark(VICTIM + 1);
        d.send(INFLATE, &[(BUFFERS, 7, 0)]);
        d.is_gone(VICTIM);
        d.is_kept(VICTIM + 1);
    })
    .counting(&[("misaligned_buffers", Exactly(4))]),
    Abuse::new("one number more than a buffer may have", |d| {
        d.program.fill(BUFFERS, VICTIM, 1, 257);
        d.mark(VICTIM + 256);
        d.send(INFLATE, &[(BUFFERS, 257 * 4, 0)]);
        d.is_kept(VICTIM + 256);
    })
    .counting(&[("oversized_buffers", Exactly(1))]),
    Abuse::new("numbers that are not aligned in memory", |d| {
        d.mark(VICTIM);
        d.program.write(4, BUFFERS + 1, VICTIM.into());
        d.send(INFLATE, &[(BUFFERS + 1, 4, 0)]);
        d.is_gone(VICTIM);
        let across = VICTIMS + PAGE - 2;
        d.mark(VICTIM + 5);
        d.program.write(4, across, (VICTIM + 5).into());
        d.send(INFLATE, &[(across, 4, 0)]);
        d.is_gone(VICTIM + 5);
    }),
    Abuse::new("the array's own page", |d| {
        d.program.write(4, VICTIMS, VICTIM.into());
        d.send(INFLATE, &[(VICTIMS, 4, 0)]);
        d.is_gone(VICTIM);
    }),
    Abuse::new("pages of the guest's own code that it does not need now", |d| {
        d.send_run(INFLATE, page(PROGRAM[1]), 1, 4);
    }),
    Abuse::new("a page inflated and deflated in one pass", |d| {
        d.program.write(4, BUFFERS, VICTIM.into());
        for queue in [INFLATE, DEFLATE] {
            d.chain(queue, 0, &[(BUFFERS, 4, 0)]);
            d.publish(queue, 0);
        }
        d.kick(INFLATE);
        d.kick(DEFLATE);
        d.returned(INFLATE, 1);
        d.returned(DEFLATE, 1);
    })
    .counting(&[("not_ballooned_pages", Any)]),
    Abuse::new("pages deflated that never were inflated", |d| {
        d.mark(VICTIM);
        d.send_pages(DEFLATE, &[VICTIM, VICTIM + 1, VICTIM + 1]);
        d.is_kept(VICTIM);
    })
    .counting(&[("not_ballooned_pages", Exactly(3))]),
    Abuse::new("a page deflated twice", |d| {
        d.send_pages(INFLATE, &[VICTIM]);
        d.send_pages(DEFLATE, &[VICTIM]);
        d.mark(VICTIM);
        d.send_pages(DEFLATE, &[VICTIM]);
        d.is_kept(VICTIM);
    })
    .counting(&[("not_ballooned_pages", Exactly(1))]),
    Abuse::new("foreign pages deflated", |d| {
        let hole = page(d.machine.hole());
        d.send_pages(DEFLATE, &[hole, u32::MAX, page(d.machine.end())]);
    })
    .counting(&[("foreign_pages", Exactly(3))]),
    Abuse::new("every other page, downwards", |d| {
        d.send_run(INFLATE, VICTIM + 4094, 2_u32.wrapping_neg(), 2048);
        d.send_run(DEFLATE, VICTIM, 2, 2048);
    }),
    Abuse::new("all memory that the guest does not live in", |d| {
        for (first, count) in
            [(BUFFERS + 0x1_0000, d.machine.hole()), (d.machine.regions[1].0, d.machine.end())]
                .map(|(start, end)| (page(start), page(end.min(start + MOST_BYTES) - start)))
        {
            for from in (0..count).step_by(4096) {
                d.send_run(INFLATE, first + from, 1, (count - from).min(4096));
            }
        }
        d.lives();
    }),
    Abuse::new("a page of the other region", |d| {
        let other = page(d.machine.regions[1].0) + 77;
        d.mark(other);
        d.mark(other - 1);
        d.send_pages(INFLATE, &[other]);
        d.is_gone(other);
        d.is_kept(other - 1);
        d.send_pages(DEFLATE, &[other]);
        d.mark(other);
        d.is_kept(other);
    }),
    Abuse::new("two thousand inflations without a rest", |d| {
        d.program.write(4, BUFFERS, VICTIM.into());
        d.storm(INFLATE, &[(BUFFERS, 4, 0)], 2000);
    })
    .counting(&[("duplicate_pages", Exactly(1999))]),
    Abuse::new("two thousand deflations without a rest", |d| {
        d.program.fill(BUFFERS, VICTIM, 1, 64);
        d.storm(DEFLATE, &[(BUFFERS, 256, 0)], 2000);
    })
    .counting(&[("not_ballooned_pages", Exactly(128_000))]),
];

/// Of each region in "all memory".
const MOST_BYTES: u64 = 48 << 20;

fn page(address: u64) -> u32 {
    (address / PAGE) as u32
}

#[test]
fn numbers() {
    Bench::start(1).endures(ABUSES);
}

/// The guest gives away the pages that it runs from, its page tables, everything. It dies of that, alone.
#[test]
fn a_guest_that_gives_itself_away() {
    let bench = Bench::start(1);
    let mut driver = Driver::new(tests::hostile::bench::MACHINE);
    driver.reset();
    driver.bring_up();
    let machine = driver.machine;
    let (start, regions) = (page(BUFFERS) + 4, [machine.hole(), machine.end()].map(page));
    for (first, end) in [(start, regions[0]), (page(machine.regions[1].0), regions[1])] {
        for from in (first..end).step_by(4096) {
            driver.send_run(INFLATE, from, 1, (end - from).min(4096));
        }
    }
    // Last of all what it lives in: nobody waits for the answer.
    driver.program.fill(BUFFERS, 0, 1, start);
    let chain: Vec<_> =
        (0..start).step_by(256).map(|from| (BUFFERS + 4 * u64::from(from), 1024, 0)).collect();
    driver.chain(INFLATE, 0, &chain);
    driver.publish(INFLATE, 0);
    driver.kick(INFLATE);
    let status = driver.register(0);
    driver.program.repeat(u32::MAX, |program| program.read(4, status));
    bench.begin(0, &driver.program);
    tests::run::until(|| bench.report().guest_owned == 0, || format!("{:?}", bench.report()));
    bench.holds_for_a_dead_guest("a guest that gave itself away");
}

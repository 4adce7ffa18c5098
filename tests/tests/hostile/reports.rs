//! Reports of pages that are not free, not whole or not the guest's.

use tests::hostile::abuse::{Abuse, Count::Any, Count::Exactly};
use tests::hostile::driver::*;
use tests::hostile::interpreter::END;
use tests::hostile::{Bench, Driver};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_SEL};

const BYTES: u32 = PAGE as u32;
/// Of a huge page of the host.
const HUGE: u64 = 2 << 20;
/// Where the huge pages are that are cut in two.
const WHOLE: u64 = 16 << 20;

pub const ABUSES: &[Abuse] = &[
    Abuse::new("a report of ballooned pages", |d| {
        d.send_pages(INFLATE, &[VICTIM, VICTIM + 1]);
        d.report(VICTIMS - PAGE, 4 * BYTES);
    })
    .counting(&[("reported_ballooned_pages", Exactly(2))]),
    Abuse::new("a report of the ring it is in", |d| {
        d.report(Ring::good(REPORTING).descriptors, BYTES);
        d.demands_reset();
    }),
    Abuse::new("a report of all rings", |d| {
        d.report(END, 4 * BYTES);
        d.demands_reset();
    }),
    Abuse::new("a report of another queue's ring", |d| {
        d.report(Ring::good(DEFLATE).descriptors, BYTES);
        d.send(DEFLATE, &[]);
        d.lives();
    }),
    Abuse::new("one page many times in a report", |d| {
        d.mark(VICTIM);
        d.send(REPORTING, &[(VICTIMS, BYTES, WRITE); 32]);
        d.is_gone(VICTIM);
    }),
    Abuse::new("ranges that overlap in a report", |d| {
        d.mark(VICTIM + 2);
        d.send(REPORTING, &[0, 1, 2, 3].map(|page| (VICTIMS + page * PAGE, 3 * BYTES, WRITE)));
        d.is_gone(VICTIM + 2);
    }),
    Abuse::new("a report within a page", |d| {
        d.mark(VICTIM);
        for (offset, len) in [(0, 4095), (1, 4095), (8, 8), (1, 1), (4095, 1)] {
            d.report(VICTIMS + offset, len);
        }
        d.is_kept(VICTIM);
    })
    .counting(&[("misaligned_buffers", Exactly(5))]),
    Abuse::new("a report that begins and ends within pages", |d| {
        (0..3).for_each(|page| d.mark(VICTIM + page));
        d.report(VICTIMS + 1, 2 * BYTES);
        d.is_kept(VICTIM);
        d.is_gone(VICTIM + 1);
        d.is_kept(VICTIM + 2);
    })
    .counting(&[("misaligned_buffers", Exactly(1))]),
    Abuse::new("a report of two pages' halves", |d| {
        d.mark(VICTIM);
        d.mark(VICTIM + 1);
        d.report(VICTIMS + PAGE / 2, BYTES);
        d.is_kept(VICTIM);
        d.is_kept(VICTIM + 1);
    })
    .counting(&[("misaligned_buffers", Exactly(1))]),
    Abuse::new("a report of 4 GiB", |d| {
        d.report(VICTIMS, u32::MAX);
    })
    .counting(&[
        ("misaligned_buffers", Exactly(1)),
        ("oversized_buffers", Exactly(1)),
        ("foreign_pages", Any),
    ]),
    Abuse::new("the most that one kick can report", |d| {
        d.chain(REPORTING, 0, &[(VICTIMS, 1 << 27, WRITE); 31]);
        (0..32).for_each(|_| d.publish(REPORTING, 0));
        d.kick(REPORTING);
        d.returned(REPORTING, 32);
    })
    .counting(&[("oversized_buffers", Exactly(32 * 30)), ("foreign_pages", Any)]),
    Abuse::new("every other page of what is mapped from a file, then all of it, twice", |d| {
        for _ in 0..2 {
            d.send(REPORTING, &[0_u64, 1, 2, 3, 4, 5].map(|pair| (VICTIMS + 2 * pair * PAGE, BYTES, WRITE)));
            d.mark(VICTIM + 2);
            d.report(VICTIMS - PAGE, 13 * BYTES);
            (VICTIM - 1..VICTIM + 12).for_each(|page| d.is_gone(page));
        }
    }),
    Abuse::new("a report that the device should read", |d| {
        d.mark(VICTIM);
        d.send(REPORTING, &[(VICTIMS, BYTES, 0)]);
        d.is_kept(VICTIM);
    })
    .counting(&[("unusable_buffers", Exactly(1))]),
    Abuse::new("a report with a readable and a writable part", |d| {
        d.mark(VICTIM);
        d.mark(VICTIM + 1);
        d.send(REPORTING, &[(VICTIMS, BYTES, 0), (VICTIMS + PAGE, BYTES, WRITE)]);
        d.is_kept(VICTIM);
        d.is_gone(VICTIM + 1);
    })
    .counting(&[("unusable_buffers", Exactly(1))]),
    Abuse::new("a report that runs out of its region", |d| {
        for edge in [d.machine.hole(), d.machine.end()] {
            let last = (edge / PAGE - 1) as u32;
            d.mark(last);
            d.report(edge - PAGE, 3 * BYTES);
            d.is_gone(last);
        }
    })
    .counting(&[("foreign_pages", Exactly(4))]),
    Abuse::new("a report that begins before its region", |d| {
        let first = d.machine.regions[1].0;
        d.mark((first / PAGE) as u32);
        d.report(first - 3 * PAGE, 4 * BYTES);
        d.is_gone((first / PAGE) as u32);
    })
    .counting(&[("foreign_pages", Exactly(3))]),
    Abuse::new("reports of registers", |d| {
        d.report(d.machine.balloon, BYTES);
        d.report(0xfee0_0000, BYTES);
        d.lives();
    })
    .counting(&[("foreign_pages", Exactly(2))]),
    Abuse::new("a report that wraps around the address space", |d| {
        d.report(u64::MAX - 0xfff, 2 * BYTES);
        d.report(u64::MAX, u32::MAX);
    })
    .counting(&[("misaligned_buffers", Exactly(2))]),
    Abuse::new("reports beyond what page numbers can say", |d| {
        d.report(1 << 44, BYTES);
        d.report(1 << 52, 1 << 30);
    })
    .counting(&[("unusable_buffers", Exactly(2))]),
    Abuse::new("a report of page zero", |d| {
        d.mark(0);
        d.report(0, BYTES);
        d.is_gone(0);
    }),
    Abuse::new("a report of pages that must keep their pattern", |d| {
        d.program.write(4, d.config(12), 0xaaaa_aaaa);
        d.mark(VICTIM);
        d.report(VICTIMS, BYTES);
        d.is_kept(VICTIM);
    }),
    Abuse::new("a pattern that changes from report to report", |d| {
        for (pattern, keeps) in [(1_u32, true), (0, false), (u32::MAX, true), (0, false)] {
            d.program.write(4, d.config(12), pattern.into());
            d.mark(VICTIM);
            d.report(VICTIMS, BYTES);
            if keeps { d.is_kept(VICTIM) } else { d.is_gone(VICTIM) }
        }
    }),
    Abuse::new("a pattern without the feature", |d| {
        d.reset();
        d.bring_up_with(FEATURES & !balloon::device::features::PAGE_POISON);
        d.program.write(4, d.config(12), 0xaaaa_aaaa);
        d.mark(VICTIM);
        d.report(VICTIMS, BYTES);
        d.is_gone(VICTIM);
    }),
    Abuse::new("reports on the number that statistics would have", |d| {
        d.reset();
        d.bring_up_with(FEATURES & !balloon::device::features::STATS_VQ);
        d.mark(VICTIM);
        d.send(STATISTICS, &[(VICTIMS, BYTES, WRITE)]);
        d.is_gone(VICTIM);
    }),
    Abuse::new("a report and an inflation of the same page in one pass", |d| {
        d.mark(VICTIM);
        d.program.write(4, BUFFERS, VICTIM.into());
        d.chain(INFLATE, 0, &[(BUFFERS, 4, 0)]);
        d.chain(REPORTING, 0, &[(VICTIMS, BYTES, WRITE)]);
        for queue in [REPORTING, INFLATE] {
            d.publish(queue, 0);
            d.kick(queue);
        }
        d.returned(INFLATE, 1);
        d.returned(REPORTING, 1);
        d.is_gone(VICTIM);
    })
    .counting(&[("reported_ballooned_pages", Any)]),
    Abuse::new("a report that cuts sixty-four huge pages", |d| {
        make_whole(d, 64);
        let reported = cut_in_pairs(d);
        d.hand_over(REPORTING, 0);
        reported.into_iter().for_each(|page| d.is_gone(page));
    }),
    Abuse::new("tables of reports that cut ninety-six huge pages, and an inflation meanwhile", |d| {
        make_whole(d, 96);
        let mut at = BUFFERS;
        for table in 0..3 {
            for index in 0..32 {
                let page = WHOLE + (u64::from(table) * 32 + u64::from(index)) * HUGE;
                d.mark((page / PAGE) as u32);
                let next = if index < 31 { NEXT } else { 0 };
                d.descriptor_at(at + 16 * u64::from(index), (page, BYTES), WRITE | next, index + 1);
            }
            d.descriptor(REPORTING, table, (at, 32 * 16), INDIRECT, 0);
            d.publish(REPORTING, table);
            at += PAGE;
        }
        d.mark(VICTIM);
        d.program.write(4, at, VICTIM.into());
        d.chain(INFLATE, 0, &[(at, 4, 0)]);
        d.kick(REPORTING);
        let inflated = d.published(INFLATE) + 1;
        d.publish(INFLATE, 0);
        d.kick(INFLATE);
        d.returned(INFLATE, inflated);
        d.is_gone(VICTIM);
        d.returned(REPORTING, 3);
        (0..96).for_each(|range| d.is_gone(((WHOLE + range * HUGE) / PAGE) as u32));
    }),
    Abuse::new("a reset amid a report that cuts huge pages", |d| {
        make_whole(d, 64);
        let _ = cut_in_pairs(d);
        d.publish(REPORTING, 0);
        d.kick(REPORTING);
        d.reset();
        d.bring_up();
        d.send_pages(INFLATE, &[VICTIM]);
    }),
    Abuse::new("a queue taken out of use amid its report", |d| {
        make_whole(d, 64);
        let _ = cut_in_pairs(d);
        d.publish(REPORTING, 0);
        d.kick(REPORTING);
        d.set(VIRTIO_MMIO_QUEUE_SEL, REPORTING as u32);
        d.set(VIRTIO_MMIO_QUEUE_READY, 0);
        d.mark(VICTIM);
        d.send_pages(INFLATE, &[VICTIM]);
        d.is_gone(VICTIM);
        d.lives();
    }),
    Abuse::new("two thousand reports without a rest", |d| {
        d.storm(REPORTING, &[(VICTIMS, BYTES, WRITE)], 2000);
    }),
];

/// Makes so many ranges of a huge page the guest's own, whatever was reported of them before.
fn make_whole(d: &mut Driver, ranges: u32) {
    let (first, pages) = ((WHOLE / PAGE) as u32, ranges * (HUGE / PAGE) as u32);
    for queue in [INFLATE, DEFLATE] {
        (0..pages)
            .step_by(4096)
            .for_each(|from| d.send_run(queue, first + from, 1, (pages - from).min(4096)));
    }
}

/// Writes a report of the last page of each of 32 ranges and the first one of the range behind it; gives their numbers.
fn cut_in_pairs(d: &mut Driver) -> Vec<u32> {
    let border = |pair: u64| WHOLE + (2 * pair + 1) * HUGE;
    let buffers: Vec<_> = (0..32).map(|pair| (border(pair) - PAGE, 2 * BYTES, WRITE)).collect();
    d.chain(REPORTING, 0, &buffers);
    let pages: Vec<_> =
        (0..32).map(|pair| (border(pair) / PAGE) as u32).flat_map(|page| [page - 1, page]).collect();
    pages.iter().for_each(|page| d.mark(*page));
    pages
}

#[test]
fn reports() {
    Bench::start(1).endures(ABUSES);
}

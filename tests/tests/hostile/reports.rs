//! Reports of pages that are not free, not whole or not the guest's.

use tests::hostile::Bench;
use tests::hostile::abuse::{Abuse, Count::Any, Count::Exactly};
use tests::hostile::driver::*;
use tests::hostile::interpreter::END;

const BYTES: u32 = PAGE as u32;

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
    Abuse::new("two thousand reports without a rest", |d| {
        d.storm(REPORTING, &[(VICTIMS, BYTES, WRITE)], 2000);
    }),
];

#[test]
fn reports() {
    Bench::start(1).endures(ABUSES);
}

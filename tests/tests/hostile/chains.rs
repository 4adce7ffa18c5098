//! Descriptor chains that do not end, and buffers where none can be.

use tests::hostile::abuse::{Abuse, Count::Any, Count::Exactly};
use tests::hostile::driver::*;
use tests::hostile::{Bench, Driver};

const ONE_MALFORMED: &[(&str, tests::hostile::Count)] = &[("malformed_chains", Exactly(1))];
const ONE_UNUSABLE: &[(&str, tests::hostile::Count)] = &[("unusable_buffers", Exactly(1))];

pub const ABUSES: &[Abuse] = &[
    Abuse::new("a descriptor that is its own next", |d| {
        good_array(d);
        d.descriptor(INFLATE, 0, (BUFFERS, 4), NEXT, 0);
        has_no_effect(d);
    })
    .counting(ONE_MALFORMED),
    Abuse::new("a loop of all descriptors", |d| {
        good_array(d);
        (0..16).for_each(|index| d.descriptor(INFLATE, index, (BUFFERS, 4), NEXT, (index + 1) % 16));
        has_no_effect(d);
    })
    .counting(ONE_MALFORMED),
    Abuse::new("a next out of range", |d| {
        good_array(d);
        for next in [16, 17, 0x8000, 0xffff] {
            d.descriptor(INFLATE, 0, (BUFFERS, 4), NEXT, next);
            has_no_effect(d);
        }
    })
    .counting(&[("malformed_chains", Exactly(4))]),
    Abuse::new("a chain longer than its queue, by an indirect table", |d| {
        good_array(d);
        (0..17).for_each(|index| {
            let flags = if index < 16 { NEXT } else { 0 };
            d.descriptor_at(TABLE + 16 * u64::from(index), (BUFFERS, 4), flags, index + 1);
        });
        d.descriptor(INFLATE, 0, (TABLE, 17 * 16), INDIRECT, 0);
        has_no_effect(d);
    })
    .counting(ONE_MALFORMED),
    Abuse::new("an indirect table that loops", |d| {
        good_array(d);
        d.descriptor_at(TABLE, (BUFFERS, 4), NEXT, 1);
        d.descriptor_at(TABLE + 16, (BUFFERS, 4), NEXT, 0);
        d.descriptor(INFLATE, 0, (TABLE, 32), INDIRECT, 0);
        has_no_effect(d);
    })
    .counting(ONE_MALFORMED),
    Abuse::new("an indirect table in an indirect table", |d| {
        good_array(d);
        d.descriptor_at(TABLE, (TABLE, 16), INDIRECT, 0);
        d.descriptor(INFLATE, 0, (TABLE, 16), INDIRECT, 0);
        has_no_effect(d);
    })
    .counting(ONE_MALFORMED),
    Abuse::new("indirect tables of impossible lengths", |d| {
        good_array(d);
        d.descriptor_at(TABLE, (BUFFERS, 4), 0, 0);
        for len in [0, 1, 15, 17, 16 * 65536, !15, u32::MAX] {
            d.descriptor(INFLATE, 0, (TABLE, len), INDIRECT, 0);
            has_no_effect(d);
        }
    })
    .counting(&[("malformed_chains", Exactly(7))]),
    Abuse::new("the largest indirect table, all of one loop", |d| {
        good_array(d);
        d.program.fill(TABLE, 0, 0, 4096);
        d.descriptor_at(TABLE, (BUFFERS, 0), NEXT, 0);
        for _ in 0..4 {
            d.descriptor(INFLATE, 0, (TABLE, 16 * 65535), INDIRECT, 0);
            has_no_effect(d);
        }
    })
    .counting(&[("malformed_chains", Exactly(4))]),
    Abuse::new("indirect tables where no memory is", |d| {
        good_array(d);
        for address in nowhere(d) {
            d.descriptor(INFLATE, 0, (address, 32), INDIRECT, 0);
            has_no_effect(d);
        }
    })
    .counting(&[("malformed_chains", Exactly(6))]),
    Abuse::new("an indirect table in the page that it gives away", |d| {
        d.program.write(4, BUFFERS, VICTIM.into());
        d.descriptor_at(VICTIMS, (BUFFERS, 4), 0, 0);
        d.descriptor(INFLATE, 0, (VICTIMS, 16), INDIRECT, 0);
        d.hand_over(INFLATE, 0);
        d.is_gone(VICTIM);
        // Now it is a table of a buffer of no bytes.
        d.hand_over(INFLATE, 0);
        d.lives();
    }),
    Abuse::new("an indirect table with a next behind it", |d| {
        good_array(d);
        d.descriptor_at(TABLE, (BUFFERS, 0), 0, 0);
        d.descriptor(INFLATE, 0, (TABLE, 16), INDIRECT | NEXT, 1);
        d.descriptor(INFLATE, 1, (BUFFERS, 4), 0, 0);
        d.hand_over(INFLATE, 0);
        d.lives();
    })
    .counting(&[("malformed_chains", Any)]),
    Abuse::new("a chain of more than 4 GiB", |d| {
        good_array(d);
        d.chain(INFLATE, 0, &[(BUFFERS, u32::MAX, 0), (BUFFERS, 1, 0)]);
        has_no_effect(d);
    })
    .counting(ONE_MALFORMED),
    Abuse::new("a readable buffer behind a writable one", |d| {
        good_array(d);
        d.chain(INFLATE, 0, &[(BUFFERS, 4, WRITE), (BUFFERS, 4, 0)]);
        has_no_effect(d);
    })
    .counting(ONE_MALFORMED),
    Abuse::new("buffers of no bytes", |d| {
        for address in nowhere(d) {
            d.send(INFLATE, &[(address, 0, 0), (address, 0, 0)]);
            d.send(REPORTING, &[(address, 0, WRITE)]);
        }
    }),
    Abuse::new("an array of 4 GiB", |d| {
        d.program.fill(BUFFERS, VICTIM, 1, 300);
        d.mark(VICTIM + 255);
        d.mark(VICTIM + 256);
        d.send(INFLATE, &[(BUFFERS, u32::MAX, 0)]);
        d.is_gone(VICTIM + 255);
        d.is_kept(VICTIM + 256);
    })
    .counting(&[("oversized_buffers", Exactly(1)), ("misaligned_buffers", Exactly(1))]),
    Abuse::new("arrays where no memory is", |d| {
        for address in nowhere(d) {
            d.send(INFLATE, &[(address, 1024, 0)]);
            d.send(DEFLATE, &[(address, 4, 0)]);
        }
    })
    .counting(&[("unusable_buffers", Exactly(12))]),
    Abuse::new("an array that ends two bytes behind memory", |d| {
        let hole = d.machine.hole();
        d.program.write(8, hole - 8, u64::from(VICTIM) | u64::from(VICTIM) << 32);
        good_array(d);
        d.chain(INFLATE, 0, &[(hole - 6, 8, 0)]);
        has_no_effect(d);
    })
    .counting(ONE_UNUSABLE),
    Abuse::new("an array from one region into the other", |d| {
        let (hole, next) = (d.machine.hole(), d.machine.regions[1].0);
        good_array(d);
        let across = (next - hole + 16).min(u32::MAX.into()) as u32;
        d.chain(INFLATE, 0, &[(hole - 8, across, 0)]);
        has_no_effect(d);
    })
    .counting(&[("unusable_buffers", Exactly(1)), ("oversized_buffers", Any)]),
    Abuse::new("the last four bytes of each region", |d| {
        for end in [d.machine.hole(), d.machine.end()] {
            d.mark(VICTIM);
            d.program.write(4, end - 4, VICTIM.into());
            d.send(INFLATE, &[(end - 4, 4, 0)]);
            d.is_gone(VICTIM);
            d.send(DEFLATE, &[(end - 4, 4, 0)]);
        }
    }),
    Abuse::new("arrays that the device should write", |d| {
        good_array(d);
        for queue in [INFLATE, DEFLATE] {
            d.send(queue, &[(BUFFERS, 4, WRITE)]);
        }
        d.is_kept(VICTIM);
    })
    .counting(&[("unusable_buffers", Exactly(2))]),
    Abuse::new("flags that there are not", |d| {
        d.mark(VICTIM);
        d.program.write(4, BUFFERS, VICTIM.into());
        d.descriptor(INFLATE, 0, (BUFFERS, 4), 0xfff8, 0xffff);
        d.hand_over(INFLATE, 0);
        d.is_gone(VICTIM);
    }),
    Abuse::new("one head in all entries of the ring", |d| {
        d.mark(VICTIM);
        d.program.write(4, BUFFERS, VICTIM.into());
        d.chain(INFLATE, 0, &[(BUFFERS, 4, 0)]);
        (0..16).for_each(|_| d.publish(INFLATE, 0));
        d.kick(INFLATE);
        d.returned(INFLATE, 16);
        d.is_gone(VICTIM);
    })
    .counting(&[("duplicate_pages", Exactly(15))]),
    Abuse::new("65,536 page numbers in one kick", |d| {
        d.program.fill(BUFFERS, VICTIM, 2, 256);
        d.chain(INFLATE, 0, &[(BUFFERS, 1024, 0); 16]);
        (0..16).for_each(|_| d.publish(INFLATE, 0));
        d.kick(INFLATE);
        d.returned(INFLATE, 16);
    })
    .counting(&[("duplicate_pages", Exactly(65536 - 256))]),
    Abuse::new("a table that changes while it is read", |d| {
        good_array(d);
        let table = Ring::good(INFLATE).descriptors;
        d.chain(INFLATE, 0, &[(BUFFERS, 4, 0); 16]);
        let flags = table + 8;
        d.program.repeat(50, |program| {
            program.write(8, table, u64::MAX);
            program.write(8, flags, u64::from(u32::MAX) | 7 << 32);
            program.write(8, table, BUFFERS);
            program.write(8, flags, 4 | 1 << 32 | 1 << 48);
        });
        (0..16).for_each(|_| d.publish(INFLATE, 0));
        d.kick(INFLATE);
        d.program.repeat(2000, |program| {
            program.write(8, flags, u64::from(u32::MAX) | 7 << 32);
            program.write(8, flags, 4 | 1 << 32 | 1 << 48);
            program.write(8, table, u64::MAX);
            program.write(8, table, BUFFERS);
        });
        d.returned(INFLATE, 16);
    })
    .counting(&[
        ("duplicate_pages", Any),
        ("malformed_chains", Any),
        ("unusable_buffers", Any),
        ("oversized_buffers", Any),
        ("misaligned_buffers", Any),
    ]),
];

/// Where indirect tables are put.
const TABLE: u64 = BUFFERS + 0x8000;

/// A marked page and its number in an array, which must not be read.
fn good_array(d: &mut Driver) {
    d.mark(VICTIM);
    d.program.fill(BUFFERS, VICTIM, 0, 8);
}

/// The chain at descriptor 0 is returned, once, and the page of [`good_array`] is kept.
fn has_no_effect(d: &mut Driver) {
    d.hand_over(INFLATE, 0);
    d.is_kept(VICTIM);
    d.lives();
}

/// Addresses at which no buffer can lie.
fn nowhere(d: &Driver) -> [u64; 6] {
    let machine = d.machine;
    [machine.hole(), machine.regions[1].0 - 1024, machine.balloon, machine.end(), 1 << 52, u64::MAX - 15]
}

#[test]
fn chains() {
    Bench::start(1).endures(ABUSES);
}

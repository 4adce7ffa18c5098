//! The configuration space: only `actual` and `poison_val` are the driver's, whole.

use tests::hostile::Bench;
use tests::hostile::abuse::{Abuse, Count::Exactly};
use tests::hostile::driver::*;

pub const ABUSES: &[Abuse] = &[
    Abuse::new("a target that the driver sets", |d| {
        for value in [0, 1, u64::MAX] {
            d.program.write(4, d.config(0), value);
        }
    })
    .counting(&[("config_writes", Exactly(3))]),
    Abuse::new("a hint that the driver gives", |d| {
        d.program.write(4, d.config(8), 7);
        d.program.expect(4, d.config(8), 0, u64::MAX);
    })
    .counting(&[("config_writes", Exactly(1))]),
    Abuse::new("actual of the wrong width", |d| {
        for (width, offset) in [(1, 4), (2, 4), (8, 4), (4, 2), (4, 3), (4, 5), (4, 6), (1, 7)] {
            d.program.write(width, d.config(offset), u64::MAX);
        }
        d.program.expect(4, d.config(4), 0, u64::MAX);
    })
    .counting(&[("config_writes", Exactly(8))]),
    Abuse::new("actual beyond all memory", |d| {
        let size = d.machine.regions.iter().map(|(_, bytes)| bytes / PAGE).sum();
        for value in [u32::MAX.into(), 0x8000_0000, size + 1] {
            d.program.write(4, d.config(4), value);
            d.program.expect(4, d.config(4), size, u64::MAX);
        }
    })
    .counting(&[("impossible_actual", Exactly(3))]),
    Abuse::new("configuration written in every width while the host moves the ceiling", |d| {
        let at = |offset| d.config(offset);
        let (target, writes): (u64, Vec<_>) =
            (at(0), (0..16).flat_map(|offset| [1, 2, 4, 8].map(|width| (width, at(offset)))).collect());
        let refused: Vec<_> = writes
            .into_iter()
            .filter(|write| *write != (4, target + 4) && *write != (4, target + 12))
            .collect();
        assert_eq!(refused.len(), 62);
        d.program.repeat(10, |program| {
            for (width, address) in refused {
                program.write(width, address, u64::MAX);
                program.read(width, address);
            }
        });
        d.program.expect(4, target + 4, 0, u64::MAX);
        d.program.expect(4, target + 12, 0, u64::MAX);
    })
    .counting(&[("config_writes", Exactly(620))]),
    Abuse::new("actual that never rests", |d| {
        let actual = d.config(4);
        d.program.repeat(500, |program| {
            program.write(4, actual, 1000);
            program.write(4, actual, 0);
        });
    }),
    Abuse::new("actual before there is a driver", |d| {
        d.reset();
        d.program.write(4, d.config(4), 5);
        d.program.expect(4, d.config(4), 5, u64::MAX);
        d.reset();
        d.program.expect(4, d.config(4), 0, u64::MAX);
    }),
    Abuse::new("poison of the wrong width", |d| {
        for (width, offset) in [(1, 12), (2, 12), (8, 12), (4, 11), (4, 13), (2, 14)] {
            d.program.write(width, d.config(offset), u64::MAX);
        }
        d.program.expect(4, d.config(12), 0, u64::MAX);
    })
    .counting(&[("config_writes", Exactly(6))]),
    Abuse::new("writes beyond its end", |d| {
        for offset in [16, 17, 20, 64, 0xe00, 0xef8] {
            for width in [1, 2, 4, 8] {
                d.program.write(width, d.config(offset), u64::MAX);
            }
        }
    })
    .counting(&[("config_writes", Exactly(24))]),
    Abuse::new("reads beyond its end", |d| {
        d.program.write(4, d.config(12), 0xaabb_ccdd);
        d.program.expect(8, d.config(12), 0xaabb_ccdd, u64::MAX);
        d.program.expect(8, d.config(15), 0xaa, u64::MAX);
        for offset in [16, 17, 100, 0xef8] {
            d.program.expect(8, d.config(offset), 0, u64::MAX);
        }
        d.program.expect(1, d.config(0xeff), 0, u64::MAX);
    }),
];

#[test]
fn configuration() {
    Bench::start(1).endures(ABUSES);
}

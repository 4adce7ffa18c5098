//! A ceiling takes memory from the guest and gives it back.

use tests::memory::{Guest, MIB};
use tests::{Kernel, setup};

tests::on_every_kernel!(memory_follows_the_ceiling);

const SIZE: u64 = 320 * MIB;
const CEILING: u64 = 128 * MIB;
const TAKEN: u64 = SIZE - CEILING;

fn memory_follows_the_ceiling(kernel: &Kernel) {
    let ballast = setup();
    let options = kernel.options();
    let mut guest = Guest::start_with(&ballast, |run| {
        run.options(options)
            .options(["-m", "320m"])
            .env("BALLAST_BALLOON", "must-tell-host,statistics,deflate-on-oom")
    });
    // All memory has been touched, and most of it is free.
    guest.does("zero file 210");
    guest.does("free file");
    let before = guest.memory();
    let rss_before = guest.smaps_rss();
    println!("before: {before:?} {rss_before}");

    guest.set_ceiling(CEILING);
    let low = guest.wait_until(|memory| memory.is_settled());
    println!("low: {low:?}");
    assert_eq!((low.bytes("ballooned_bytes"), low.bytes("guest_bytes")), (TAKEN, CEILING), "{low:?}");
    let returned = rss_before.saturating_sub(guest.smaps_rss());
    println!("returned {returned} of {TAKEN}");
    assert!(returned.abs_diff(TAKEN) <= TAKEN / 50, "the host has {returned} of {TAKEN} bytes back");

    guest.set_ceiling(SIZE);
    let high = guest.wait_until(|memory| memory.is_settled());
    assert_eq!(high.bytes("ballooned_bytes"), 0, "{high:?}");
    guest.does("zero file 210");
    println!("after: {:?} {}", guest.memory(), guest.smaps_rss());
    guest.end();
}

//! A ceiling takes memory from the guest, gives it to the host, and back.

use super::guest_without_reporting;
use tests::memory::MIB;
use tests::{Kernel, setup};

tests::on_a_kernel_or_every!(the_host_gets_what_the_ceiling_takes);

const SIZE: u64 = 320 * MIB;
const CEILING: u64 = 128 * MIB;
const TAKEN: u64 = SIZE - CEILING;

fn the_host_gets_what_the_ceiling_takes(kernel: &Kernel) {
    let ballast = setup();
    let mut guest = guest_without_reporting(&ballast, kernel, "320m");
    // Most memory has been touched and is free.
    guest.does("zero file 210");
    guest.does("free file");
    let before = guest.fresh_memory();
    let rss_before = guest.smaps_rss();

    guest.set_ceiling(CEILING);
    let low = guest.wait_until(|memory| memory.is_settled());
    assert_eq!((low.bytes("ballooned_bytes"), low.bytes("guest_bytes")), (TAKEN, CEILING), "{low:?}");
    let returned = rss_before - guest.smaps_rss();
    println!("the host has {returned} bytes back of {TAKEN}");
    assert!(returned.abs_diff(TAKEN) <= TAKEN / 50, "the host has {returned} bytes back of {TAKEN}: {low:?}");
    // What the control socket says is the host's truth, too.
    let said = before.bytes("resident_bytes") - guest.fresh_memory().bytes("resident_bytes");
    assert!(said.abs_diff(returned) <= returned / 50, "it says {said} of {returned}");

    guest.set_ceiling(SIZE);
    let high = guest.wait_until(|memory| memory.is_settled());
    assert_eq!((high.bytes("ballooned_bytes"), high.bytes("guest_bytes")), (0, SIZE), "{high:?}");
    // It would not fit below the ceiling.
    guest.does("zero file 210");
    let rss_after = guest.smaps_rss();
    assert!(rss_after.abs_diff(rss_before) <= TAKEN / 20, "{rss_before} bytes before and {rss_after} after");
    guest.end();
}

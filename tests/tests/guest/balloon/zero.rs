//! What was returned to the host reads zero: nothing that the guest wrote is kept or comes back.

use super::{WITHOUT_REPORTING, guest_without_zeroing};
use tests::memory::{Guest, MIB};
use tests::{Kernel, setup};

tests::on_a_kernel_or_every!(inflated_memory_reads_zero, reported_memory_reads_zero);

const SIZE: u64 = 320 * MIB;
const CEILING: u64 = 128 * MIB;

fn inflated_memory_reads_zero(kernel: &Kernel) {
    let ballast = setup();
    let mut guest = guest_without_zeroing(&ballast, kernel, "320m", WITHOUT_REPORTING);
    guest.does("pattern file 200");
    guest.does("free file");
    let before = guest.nonzero_bytes();
    assert!(before >= 200 * MIB, "the pattern is not in memory: only {before} bytes are");
    guest.set_ceiling(CEILING);
    guest.wait_until(|memory| memory.is_settled());
    let left = guest.nonzero_bytes();
    println!("{before} bytes in pages that are not zero, {left} below the ceiling");
    assert!(left <= CEILING, "{left} bytes are not zero");
    // Nor does it come back.
    guest.set_ceiling(SIZE);
    guest.wait_until(|memory| memory.is_settled());
    let after = guest.nonzero_bytes();
    assert!(after <= CEILING + 8 * MIB, "{after} bytes are not zero");
    guest.end();
}

fn reported_memory_reads_zero(kernel: &Kernel) {
    let ballast = setup();
    let options = kernel.options();
    let mut guest = Guest::start_with(&ballast, |run| run.options(options).options(["-m", "320m"]));
    guest.does("pattern file 200");
    let before = guest.fresh_memory().bytes("resident_bytes");
    guest.does("free file");
    let memory = guest.wait_until(|memory| memory.bytes("resident_bytes") + 160 * MIB <= before);
    let left = guest.nonzero_bytes();
    let most = SIZE - memory.bytes("reported_bytes") + 8 * MIB;
    println!("{left} bytes in pages that are not zero, of at most {most}");
    assert!(left <= most && most < 200 * MIB, "{left} of at most {most}: {memory:?}");
    guest.end();
}

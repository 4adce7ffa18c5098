//! Memory that the guest frees goes back to the host without any request.

use tests::memory::{Guest, MIB};
use tests::{Kernel, is_long, setup};

tests::on_a_kernel_or_every!(freed_memory_returns_by_itself);

/// A MiB.
const MOST_PER_LIST: u64 = 256;

fn freed_memory_returns_by_itself(kernel: &Kernel) {
    let ballast = setup();
    let freed_mib: u64 = if is_long() { 512 } else { 192 };
    let (freed, size) = (freed_mib * MIB, (freed_mib + 192) * MIB);
    let mut guest = Guest::start_with(&ballast, |run| {
        run.options(kernel.options()).options(["-m".into(), size.to_string()])
    });
    guest.does(&format!("zero file {freed_mib}"));
    let before = guest.smaps_rss();
    guest.does("free file");
    let returned = || before.saturating_sub(guest.smaps_rss());
    let least = freed / 10 * 9;
    tests::run::until(|| returned() >= least, || format!("{} of {freed}: {:?}", returned(), guest.memory()));
    let memory = guest.memory();
    println!("the host has {} bytes back of {freed}: {memory:?}", returned());
    assert!(memory.bytes("reported_bytes") >= least, "{memory:?}");
    assert_eq!((memory.bytes("ballooned_bytes"), memory.bytes("guest_bytes")), (0, size));
    // Free pages in the lists of a CPU are neither reported nor found by the driver.
    let held = guest.pages_per_cpu_list();
    assert!(held <= MOST_PER_LIST, "a CPU may hold back {held} free pages");
    guest.end();
}

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

/// In blocks that are smaller than the host's huge pages, too.
#[test]
fn what_a_start_leaves_free_goes_back() {
    let ballast = setup();
    let mut guest = Guest::start(&ballast, &["-m", "256m"]);
    guest.does("grep MemFree: /proc/meminfo");
    let output = guest.output();
    let free = output.split("MemFree:").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    // The constants of the kernel among it, which are a file's.
    let used = 256 * MIB - free.parse::<u64>().unwrap() * 1024;
    println!("of {used} bytes that are not free the host holds {} before", guest.smaps_anonymous());
    tests::run::until(
        || guest.smaps_anonymous() <= used,
        || format!("{} of {used} bytes: {:?}", guest.smaps_anonymous(), guest.memory()),
    );
    let memory = guest.memory();
    println!("and {} after: {memory:?}", guest.smaps_anonymous());
    // Not only gone from the page tables, with huge pages that stay whole.
    if let Some(charged) = memory.0["host"]["charged_bytes"].as_u64() {
        let others = ["file_bytes", "kernel_bytes"].map(|name| memory.0["host"][name].as_u64().unwrap());
        let own = charged.saturating_sub(others.iter().sum());
        assert!(own <= used + 4 * MIB, "{own} bytes are charged: {memory:?}");
    }
    guest.end();
}

//! Memory that the guest frees goes back to the host without any request.

use tests::memory::{Guest, MIB};
use tests::{Kernel, setup};

tests::on_every_kernel!(freed_memory_returns_by_itself);

const FREED: u64 = 512 * MIB;

fn freed_memory_returns_by_itself(kernel: &Kernel) {
    let ballast = setup();
    let options = kernel.options();
    let mut guest = Guest::start_with(&ballast, |run| run.options(options).options(["-m", "768m"]));
    guest.does("zero file 512");
    let before = guest.smaps_rss();
    guest.does("free file");
    let returned = || before.saturating_sub(guest.smaps_rss());
    let least = FREED / 10 * 9;
    tests::run::until(|| returned() >= least, || format!("{} of {FREED}: {:?}", returned(), guest.memory()));
    let memory = guest.memory();
    println!("the host has {} bytes back of {FREED}: {memory:?}", returned());
    assert!(memory.bytes("reported_bytes") >= least, "{memory:?}");
    assert_eq!((memory.bytes("ballooned_bytes"), memory.bytes("guest_bytes")), (0, 768 * MIB));
    guest.end();
}

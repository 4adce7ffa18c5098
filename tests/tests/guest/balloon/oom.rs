//! A ceiling that is too low costs the guest time, not its life: the driver deflates before a process is killed, and
//! inflates again when it can.

use tests::memory::{Guest, MIB};
use tests::{Kernel, setup};

tests::on_a_kernel_or_every!(a_guest_that_runs_out_of_memory_deflates_until_it_can_spare_it);

const CEILING: u64 = 128 * MIB;

/// A guest below a low ceiling.
fn guest(name: &str, ballast: &tests::Ballast, kernel: &Kernel, features: &str) -> Guest {
    let options = kernel.options();
    let guest = Guest::start_as(name, ballast, |run| {
        run.options(options).options(["-m", "320m"]).env("BALLAST_BALLOON", features)
    });
    guest.set_ceiling(CEILING);
    guest.wait_until(|memory| memory.is_settled());
    guest
}

fn a_guest_that_runs_out_of_memory_deflates_until_it_can_spare_it(kernel: &Kernel) {
    let ballast = setup();
    let mut saved = guest("saved", &ballast, kernel, "must-tell-host,statistics,deflate-on-oom");
    saved.does("zero file 160");
    let memory = saved.memory();
    assert!(memory.bytes("ballooned_bytes") < 192 * MIB - 40 * MIB, "{memory:?}");
    assert!(memory.bytes("guest_bytes") > CEILING, "{memory:?}");
    saved.does("free file");

    // The same without it: that is what it saves from.
    let mut lost = guest("lost", &ballast, kernel, "must-tell-host,statistics");
    lost.is_told("zero file 160");
    lost.ran_out_of_memory();

    // Linux's driver would leave it at that.
    let memory = saved.wait_until(|memory| memory.is_settled());
    assert_eq!(memory.bytes("guest_bytes"), CEILING, "{memory:?}");
    saved.end();
}

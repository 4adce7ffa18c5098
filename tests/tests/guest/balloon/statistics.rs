//! The guest tells of its memory when it is asked, without an agent.

use super::{fresh_statistics, guest_without_reporting};
use tests::memory::{Guest, MIB};
use tests::{Kernel, setup};

tests::on_a_kernel_or_every!(statistics_are_fresh_and_true);

fn statistics_are_fresh_and_true(kernel: &Kernel) {
    let ballast = setup();
    // What a kernel reports is none of its free memory until the host answers: 32 blocks of up to 4 MiB.
    let mut guest = guest_without_reporting(&ballast, kernel, "256m");
    let free = |guest: &Guest| {
        let statistics = fresh_statistics(guest);
        assert!(statistics.bytes("total_bytes") <= 256 * MIB, "{statistics:?}");
        // Linux 6.12 says more.
        let kills = statistics.0["oom_kills"].as_u64();
        assert_eq!(kills, kernel.release.starts_with("6.12").then_some(0), "{statistics:?}");
        statistics.bytes("free_bytes")
    };
    let before = free(&guest);
    guest.does("zero file 64");
    let after = free(&guest);
    assert!(
        before.saturating_sub(after).abs_diff(64 * MIB) <= 8 * MIB,
        "{before} bytes free and then {after}"
    );
    let inspected = ballast.command(&["inspect", "guest"]).end().exits(0);
    println!("{inspected}");
    assert!(String::from_utf8_lossy(&inspected.stdout).contains("guest says"), "{inspected}");
    guest.end();
}

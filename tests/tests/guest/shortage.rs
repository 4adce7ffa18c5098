//! What a host does at its end: what does not come in time it swaps out, and when nothing else helps the least protected is
//! killed, and nobody else.

use tests::daemon::{Daemon, charge};
use tests::memory::{Guest, MIB};
use tests::process;
use tests::setup;
use tests::swap::Swap;

#[test]
fn what_does_not_come_is_swapped_out_and_at_the_very_end_the_least_protected_is_killed() {
    let ballast = setup();
    let _swap = Swap::on(512 * MIB);
    let daemon = Daemon::start(&ballast, "[pool]\ncapacity = '4g'\n");
    let start = |name: &str, options: &[&str]| {
        Guest::start_as(name, &ballast, |run| run.options(["-m", "256m"]).options(options))
    };
    // It gives nothing back by itself: it carries out no orders, and has no balloon.
    let deaf = ["--reclaim", "off", "--kernel-arg", "module_blacklist=virtio_balloon"];
    let (mut deaf, mut kept) = (start("deaf", &deaf), start("kept", &["--memory-min", "160m"]));
    for guest in [&mut deaf, &mut kept] {
        guest.does("pattern a 40");
        guest.does("pattern b 40");
    }
    let before = daemon.at_rest(&["deaf", "kept"], 110 * MIB);
    assert_eq!(process::swapped_bytes(deaf.vmm()) + process::swapped_bytes(kept.vmm()), 0, "{before:#?}");

    let capacity = charge(&before, "") - 64 * MIB;
    daemon.reload(&ballast, &format!("[pool]\ncapacity = '{capacity}'\n"));
    daemon.wait_until(|tree| tree.host.deficit_bytes > 0);
    let after = daemon.wait_until(|tree| tree.host.main_bytes >= 0);
    assert!(charge(&after, "deaf") <= charge(&before, "deaf") - 56 * MIB, "{before:#?} {after:#?}");
    assert!(charge(&after, "kept") >= charge(&before, "kept") - 4 * MIB, "{before:#?} {after:#?}");
    assert!(process::swapped_bytes(deaf.vmm()) >= 56 * MIB && process::swapped_bytes(kept.vmm()) == 0);
    let told = |name| {
        String::from_utf8(ballast.command(&["events", "--filter", name]).end().exits(0).stdout).unwrap()
    };
    assert!(told("deaf").contains("page-out-begun"), "{}", told("deaf"));
    assert!(!told("kept").contains("page-out"), "{}", told("kept"));
    // What the host has swapped out is what it was.
    for guest in [&mut deaf, &mut kept] {
        guest.does("cmp /tmp/taken/a /tmp/taken/b");
    }

    // No host has so much available: it is at its end, and what it swaps out is not enough.
    let dire = "[pool.watermarks]\nenough = '99.9%'\nshort = '99.8%'\ncritical = '99.7%'\nrefuse = '99.6%'\n";
    daemon.reload(&ballast, &format!("[pool]\ncapacity = '4g'\nkill = 'least-protected'\n{dire}"));
    let gone = daemon.wait_until(|tree| tree.host.vms == 1 && tree.host.orphans == 0);
    println!("{}", deaf.ended().exits(137).says("by ballastd").says("least protected"));
    assert!(charge(&gone, "kept") >= charge(&before, "kept") - 4 * MIB, "{before:#?} {gone:#?}");
    kept.does("cmp /tmp/taken/a /tmp/taken/b");
    kept.end();
}

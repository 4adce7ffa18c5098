//! Signals to `ballast` are the workload's.

use rustix::process::{Signal, kill_process};
use tests::run::until;
use tests::{process, setup};

#[test]
fn sigterm_reaches_the_workload() {
    let ballast = setup();
    let script = "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let running = ballast.run("busybox", &["sh", "-c", script]).start();
    running.wait_for("ready");
    // As a service manager does: to every process.
    kill_process(running.vmm(), Signal::TERM).unwrap();
    running.signal(Signal::TERM);
    running.end().exits(3).prints("ready\ntold\n");
}

#[test]
fn a_workload_that_does_not_listen_is_killed_by_the_third() {
    let ballast = setup();
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let running = ballast.run("busybox", &["sh", "-c", script]).start();
    running.wait_for("ready");
    for _ in 0..3 {
        running.signal(Signal::TERM);
        // Pending signals of one kind are one.
        let is_taken = || !process::is_pending(running.pid(), Signal::TERM);
        until(is_taken, || "the signal is not taken".into());
    }
    running.end().exits(143);
}

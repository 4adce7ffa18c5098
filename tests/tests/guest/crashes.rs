//! However a guest ends before its workload, the user is told.

use rustix::process::{Signal, kill_process};
use tests::setup;

#[test]
fn a_killed_vmm_is_reported() {
    let ballast = setup();
    let running = ballast.run("busybox", &["sh", "-c", "echo up; sleep 1000"]).start();
    running.wait_for("up");
    kill_process(running.vmm(), Signal::KILL).unwrap();
    running.end().exits(137).says("killed");
}

#[test]
fn a_guest_that_panics_is_reported() {
    let script = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 1000";
    let said = "kernel panic in the guest while the workload ran: sysrq triggered crash";
    setup().run("busybox", &["sh", "-c", script]).end().refuses().says(said);
}

#[test]
fn a_guest_that_powers_off_is_reported() {
    let said = "the guest powered off while the workload ran";
    setup().run("busybox", &["poweroff", "-f"]).end().refuses().says(said);
}

#[test]
fn a_guest_that_resets_is_reported() {
    let said = "the guest reset itself while the workload ran";
    setup().run("busybox", &["reboot", "-f"]).end().refuses().says(said);
}

#[test]
fn a_workload_out_of_memory_is_told() {
    let ended = setup().run("busybox", &["tail", "/dev/zero"]).options(["-m", "128m"]).end();
    ended.exits(137).says("memory");
}

//! The workload's end is `ballast`'s exit code.

use tests::setup;

#[test]
fn an_exit_code_passes_through() {
    let ballast = setup();
    // 125 to 127 are also what Ballast itself ends with.
    for code in [125, 255] {
        let exit = format!("exit {code}");
        ballast.run("busybox", &["sh", "-c", &exit]).end().exits(code);
    }
}

#[test]
fn a_signal_is_128_more() {
    let ballast = setup();
    ballast.run("busybox", &["sh", "-c", "kill -9 $$"]).end().exits(137);
    ballast.run("busybox", &["sh", "-c", "kill -15 $$"]).end().exits(143);
}

#[test]
fn what_is_not_executable_is_126() {
    setup().run("busybox", &["/etc/passwd"]).end().exits(126).says("/etc/passwd");
}

#[test]
fn what_is_not_there_is_127() {
    setup().run("busybox", &["no-such-command"]).end().exits(127).says("no-such-command");
}

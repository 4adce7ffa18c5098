//! With -t the workload has a terminal, and the user gets theirs back.

use rustix::process::{Signal, kill_process};
use tests::{process, setup};

#[test]
fn its_size_follows_the_window() {
    let ballast = setup();
    let script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.1; done";
    let mut terminal =
        ballast.run("busybox", &["sh", "-c", script]).options(["-it"]).start_on_terminal(31, 97);
    terminal.shows("31 97");
    terminal.resize(43, 119);
    terminal.shows("43 119");
    terminal.types("\x03");
    terminal.exits(130);
}

#[test]
fn control_c_reaches_the_workload() {
    let ballast = setup();
    let script = "trap 'echo interrupted; exit 7' INT; echo ready; while :; do sleep 0.1; done";
    let mut terminal =
        ballast.run("busybox", &["sh", "-c", script]).options(["-it"]).start_on_terminal(24, 80);
    terminal.shows("ready");
    terminal.types("\x03");
    terminal.shows("interrupted");
    terminal.exits(7);
}

#[test]
fn keys_are_echoed_once_and_lines_end_input() {
    let ballast = setup();
    let mut terminal = ballast.run("busybox", &["sh"]).options(["-it"]).start_on_terminal(24, 80);
    terminal.types("echo $((6 * 7)); tty\n");
    terminal.shows("42");
    // With its prompt the shell reads keys, and ^D is one; before, it is the end of a line that nobody reads.
    terminal.shows("/dev/pts/0\r\n/ # ");
    terminal.types("\x04");
    terminal.exits(0);
}

#[test]
fn the_users_terminal_is_restored_at_the_end() {
    let ballast = setup();
    let mut terminal = ballast
        .run("busybox", &["sh", "-c", "echo up; read line"])
        .options(["-it"])
        .start_on_terminal(24, 80);
    terminal.shows("up");
    assert!(!terminal.is_cooked());
    terminal.types("go\n");
    terminal.exits(0);
    assert!(terminal.is_cooked());
}

#[test]
fn the_users_terminal_is_restored_when_the_vmm_is_killed() {
    let ballast = setup();
    let mut terminal = ballast
        .run("busybox", &["sh", "-c", "echo up; sleep 1000"])
        .options(["-it"])
        .start_on_terminal(24, 80);
    terminal.shows("up");
    kill_process(process::child_named(terminal.pid(), "ballast-vmm"), Signal::KILL).unwrap();
    terminal.exits(137);
    assert!(terminal.is_cooked());
}

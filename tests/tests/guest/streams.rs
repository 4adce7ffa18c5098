//! Without a terminal, the three streams are binary clean, apart, and end when they end.

use rustix::process::Signal;
use std::fs::File;
use std::io::Write;
use std::time::Duration;
use tests::run::until;
use tests::{is_long, process, setup};

/// Bytes without a pattern (xorshift64), the same each time.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}

#[test]
fn bytes_pass_unchanged_both_ways() {
    let sent = noise(if is_long() { 64 << 20 } else { 8 << 20 });
    let ended = setup().run("busybox", &["cat"]).options(["-i"]).stdin(sent.clone()).end().exits(0);
    assert_eq!(ended.stdout.len(), sent.len());
    assert!(ended.stdout == sent, "they came back changed");
}

#[test]
fn the_end_of_input_is_seen() {
    let run = setup().run("busybox", &["wc", "-c"]).options(["-i"]);
    run.stdin(noise(100_001)).end().prints("100001\n");
}

#[test]
fn outputs_stay_apart_and_their_last_bytes_arrive_however_fast_the_end() {
    // Without -i there is no input at all.
    let script =
        "echo $(wc -c) bytes; echo to stderr >&2; head -c 3000000 /dev/zero; head -c 1000000 /dev/zero >&2";
    let ended = setup().run("busybox", &["sh", "-c", script]).stdin("unseen").end().exits(0);
    let zeroes_after = |text: &str, count| [text.as_bytes(), &vec![0; count]].concat();
    assert!(ended.stdout == zeroes_after("0 bytes\n", 3_000_000), "{ended}");
    assert!(
        ended.stderr.as_bytes() == zeroes_after("to stderr\n", 1_000_000),
        "{} bytes",
        ended.stderr.len()
    );
}

#[test]
fn a_reader_that_pauses_misses_nothing() {
    let run = setup().run("busybox", &["head", "-c", "1500000", "/dev/zero"]);
    let ended = run.reader_sleeps(Duration::from_secs(15)).end().exits(0);
    assert_eq!(ended.stdout.len(), 1_500_000);
}

#[test]
fn a_reader_that_sleeps_for_ever_can_be_given_up() {
    let ballast = setup();
    let run = ballast.run("busybox", &["sh", "-c", "echo up >&2; exec yes"]);
    let running = run.reader_sleeps(Duration::from_secs(86_400)).start();
    running.wait_for_error("up");
    assert_eq!(running.insist(Signal::TERM), Some(143));
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    setup().run("busybox", &["echo", "lost"]).stdout_to(full).end().refuses().says("standard output");
}

#[test]
fn how_the_workload_ends_is_known_though_its_output_cannot_be_written() {
    let ballast = setup();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let run = ballast.run("busybox", &["sh", "-c", "echo lost; read line; exit 3"]);
    let mut running = run.options(["-i", "--name", "job"]).stdout_to(full).start();
    until(|| ballast.command(&["inspect", "job"]).end().code == 0, || "it does not start".into());
    let waiter = ballast.command(&["wait", "job"]).start();
    until(|| process::holds_another(waiter.pid()), || "nobody waits for the end".into());
    drop(running.stdin.take());
    let _ = running.end().refuses().says("standard output");
    waiter.end().exits(0).prints("3\n");
}

#[test]
fn a_microvm_is_reached_when_its_input_has_ended_and_its_reader_is_gone() {
    let ballast = setup();
    let script = "cat; trap '' PIPE; while sleep 1; do echo more; done";
    let run = ballast.run("busybox", &["sh", "-c", script]).options(["-i", "--name", "fed"]);
    let mut running = run.start();
    running.stdin.take().unwrap().write_all(b"heard\n").unwrap();
    running.wait_for("heard");
    let reached = || ballast.command(&["exec", "fed", "echo", "here"]).end().exits(0).prints("here\n");
    let _ = (reached(), reached());
    running.close_stdout();
    running.wait_for_error("roken pipe");
    let _ = (reached(), reached());
    ballast.command(&["kill", "fed"]).end().exits(0);
    running.end().exits(137);
}

#[test]
fn a_reader_that_goes_away_ends_the_workload() {
    let ballast = setup();
    let running = ballast.run("busybox", &["yes"]).start();
    running.wait_for("y\n");
    running.close_stdout();
    running.end().exits(141);
}

//! A command beside the workload: its streams, its terminal, its end, and what it may not outlive.

use rustix::process::Signal;
use std::time::Duration;
use tests::run::{Run, until};
use tests::{Ballast, setup};

#[test]
fn a_command_runs_beside_the_workload() {
    let ballast = setup();
    let run = ballast.run("busybox", &["sh", "-c", "echo up; sleep 1000"]);
    let run = run.options(["-d", "--rm", "--name", "web", "-e", "OWN=1", "-m", "128m"]);
    run.options(["--zone", "name=cache,size=128m"]).end().exits(0);
    tests::each_of!([
        it_has_streams_and_an_environment,
        it_has_a_terminal_of_the_users_size,
        it_runs_in_the_zone_that_is_named,
        it_joins_a_workload_that_divides_its_group,
        it_ends_as_it_should,
    ](&ballast));
}

fn exec(ballast: &Ballast, options: &[&str], script: &str) -> Run {
    ballast.command(&[&["exec"], options, &["web", "sh", "-c", script]].concat())
}

fn it_has_streams_and_an_environment(ballast: &Ballast) {
    let exec = |options: &[&str], script: &str| exec(ballast, options, script);
    let script = "echo $OWN $MORE; pwd; id -u; echo wrong >&2; exit 3";
    let ended = exec(&["-e", "MORE=2", "-w", "/tmp", "-u", "7"], script).end();
    ended.exits(3).prints("1 2\n/tmp\n7\n").says("wrong");
    // Far beyond what any buffer on the way holds, there and back.
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(|n| (n % 251).to_le_bytes()).collect();
    let ended = exec(&["-i"], "cat").stdin(bytes.clone()).end().exits(0);
    assert!(ended.stdout == bytes);
    exec(&[], "cat; echo end").end().exits(0).prints("end\n");
    ballast.command(&["exec", "web", "nosuch"]).end().exits(127).says("nosuch: not found");
    ballast.command(&["exec", "web", "/etc"]).end().exits(126);
    exec(&["--in-zone", "no"], "true").end().refuses().says("has no zone");
    exec(&[], "kill -9 $$").end().exits(137);
    // Written byte by byte, and to a reader that is late.
    let script = "i=0; while [ $i -lt 3000 ]; do printf .; i=$((i + 1)); done";
    let late = exec(&[], script).reader_sleeps(Duration::from_secs(3)).end().exits(0);
    assert_eq!(late.stdout.len(), 3000);
}

/// As systemd and docker do: no process may be in a group that is divided.
fn it_joins_a_workload_that_divides_its_group(ballast: &Ballast) {
    let divide = "cd /sys/fs/cgroup && mkdir own && for pid in $(cat cgroup.procs); do echo $pid > own/cgroup.procs; done
        echo +memory > cgroup.subtree_control";
    exec(ballast, &[], divide).end().exits(0);
    exec(ballast, &[], "cat /proc/self/cgroup").end().exits(0).prints("0::/own\n");
}

/// The last of them: the microVM ends, too.
fn it_ends_as_it_should(ballast: &Ballast) {
    let exec = |options: &[&str], script: &str| exec(ballast, options, script);
    // Its processes are the workload's neighbours, and die with it.
    exec(&[], "ps | grep -v grep | grep -q 'sleep 1000'").end().exits(0);

    let client = exec(&[], "echo up; exec sleep 2000").start();
    client.wait_for("up");
    client.signal(Signal::TERM);
    client.end().exits(143);
    let client = exec(&[], "echo up; exec sleep 3000").start();
    client.wait_for("up");
    client.signal(Signal::KILL);
    client.end().exits(-9);
    until(
        || exec(&[], "ps | grep -v grep | grep -q 'sleep 3000'").end().code == 1,
        || "a command outlives its client".into(),
    );
    let client = exec(&[], "echo up; sleep 4000").start();
    client.wait_for("up");
    ballast.command(&["kill", "web"]).end().exits(0);
    client.end().exits(137).says("microVM 'web' ended");
}

fn it_has_a_terminal_of_the_users_size(ballast: &Ballast) {
    // Without -i its input ends at once.
    let ended = ballast.command(&["exec", "-t", "web", "sh", "-c", "cat; stty size; exit 4"]);
    ended.start_on_terminal(31, 97).exits(4);
    let mut shell = ballast.command(&["exec", "-it", "web", "sh"]).start_on_terminal(31, 97);
    shell.types("stty size\n");
    shell.shows("31 97");
    shell.resize(32, 98);
    shell.types("until [ \"$(stty size)\" = \"32 98\" ]; do sleep 0.1; done; echo wide$((1+1))\n");
    shell.shows("wide2");
    // While it edits a line, the shell takes a Ctrl-C for a key, and before it has begun what was ordered, for its own:
    // what is to be interrupted says itself that it runs.
    shell.types("sh -c 'echo b$((1+1))c; exec sleep 1000'\n");
    shell.shows("b2c");
    shell.types("\u{3}");
    shell.types("echo a$((1+1))b\n");
    shell.shows("a2b");
    // Whoever is left behind keeps the terminal, and nobody waiting.
    shell.types("trap '' HUP; sleep 6000 &\n");
    shell.types("exit 5\n");
    shell.exits(5);
    assert!(shell.is_cooked());
    exec(ballast, &[], "ps | grep -v grep | grep -q 'sleep 6000'").end().exits(0);
}

fn it_runs_in_the_zone_that_is_named(ballast: &Ballast) {
    let group = |options: &[&str]| {
        let words = [&["exec"], options, &["web", "cat", "/proc/self/cgroup"]].concat();
        String::from_utf8(ballast.command(&words).end().exits(0).stdout).unwrap()
    };
    assert!(group(&["--in-zone", "cache"]).contains("zone-cache"), "{}", group(&["--in-zone", "cache"]));
    assert!(!group(&[]).contains("zone-cache"), "{}", group(&[]));
}

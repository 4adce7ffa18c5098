//! A microVM in the background: started, seen, listened to, stopped, and gone when it is removed.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use tests::{Ballast, process, run::until, setup};

/// Starts one in the background and gives its ID.
fn start(ballast: &Ballast, options: &[&str], script: &str) -> String {
    let run = ballast.run("busybox", &["sh", "-c", script]).options(["-d"]).options(options);
    let ended = run.end().exits(0);
    let id = String::from_utf8(ended.stdout).unwrap();
    assert_eq!((id.len(), id.ends_with('\n')), (13, true), "{id}");
    id.trim().into()
}

fn says(ballast: &Ballast, words: &[&str], text: &str) {
    ballast.command(words).end().exits(0).prints(text);
}

fn supervisor(ballast: &Ballast, name: &str) -> Pid {
    let lock = fs::read_to_string(ballast.path("state/vms").join(name).join("lock")).unwrap();
    Pid::from_raw(lock.trim().parse().unwrap()).unwrap()
}

fn leaves_nothing(ballast: &Ballast) {
    assert_eq!(fs::read_dir(ballast.path("state/vms")).unwrap().count(), 0);
    process::wait_until_none_has_variable("BALLAST_STATE", &ballast.path("state"));
}

#[test]
fn it_is_started_heard_stopped_and_removed() {
    let ballast = setup();
    let script = "trap 'echo bye; exit 7' TERM; echo up; echo down >&2; while :; do sleep 0.1; done";
    let id = start(&ballast, &["--name", "web", "-m", "128m"], script);
    let prefix = &id[..6];
    let log = ballast.command(&["logs", "web"]);
    let is_logged = || {
        let logs = ballast.command(&["logs", prefix]).end();
        logs.stdout == b"up\n" && logs.stderr == "down\n"
    };
    until(is_logged, || "no two lines in its log".into());
    log.end().exits(0).prints("up\n").says("down\n");
    let follower = ballast.command(&["logs", "-f", "--tail", "0", "web"]).start();
    let log = ballast.data().join("logs").join(&id);
    until(|| process::has_open(follower.pid(), &log), || "nobody follows the log".into());
    let waiter = ballast.command(&["wait", "web"]).start();
    ballast.command(&["rm", "web"]).end().refuses().says("ballast stop web");
    says(&ballast, &["stop", "-t", "600", "web"], "web\n");
    waiter.end().exits(0).prints("7\n");
    follower.end().exits(0).prints("bye\n");
    says(&ballast, &["ps", "-q"], "");
    says(&ballast, &["ps", "-a", "-q"], &format!("{id}\n"));
    let list = ballast.command(&["ps", "-a"]).end().exits(0);
    assert!(String::from_utf8_lossy(&list.stdout).contains("exited (7)"), "{list}");
    ballast.run("busybox", &["true"]).options(["--name", "web"]).end().refuses().says("ballast rm web");
    says(&ballast, &["rm", prefix], &format!("{prefix}\n"));
    says(&ballast, &["ps", "-a", "-q"], "");
    leaves_nothing(&ballast);
    assert!(!ballast.data().join("logs").join(&id).exists());
}

#[test]
fn what_does_not_start_says_why_and_leaves_nothing() {
    let ballast = setup();
    let run = ballast.run("busybox", &["nosuch"]).options(["-d", "-m", "128m"]);
    run.end().exits(127).prints("").says("nosuch: not found");
    leaves_nothing(&ballast);
}

#[test]
fn whoever_is_killed_the_state_stays_true() {
    let ballast = setup();
    // The supervisor: its microVM dies with it, and is known to have been killed.
    let id = start(&ballast, &["--name", "web", "-m", "128m"], "echo up; sleep 1000");
    let pid = supervisor(&ballast, "web");
    let vmm = process::child_named(pid, "ballast-vmm");
    kill_process(pid, Signal::KILL).unwrap();
    process::wait_until_gone(vmm);
    says(&ballast, &["wait", &id], "137\n");
    says(&ballast, &["rm", "web"], "web\n");
    // The VMM.
    start(&ballast, &["--name", "web", "-m", "128m"], "echo up; sleep 1000");
    kill_process(process::child_named(supervisor(&ballast, "web"), "ballast-vmm"), Signal::KILL).unwrap();
    says(&ballast, &["wait", "web"], "137\n");
    says(&ballast, &["wait", "--format", "json", "web"], "[{\"name\":\"web\",\"code\":137}]\n");
    let log = ballast.command(&["logs", "--format", "json", "web"]).end().exits(0).stdout;
    let last: serde_json::Value =
        serde_json::from_slice(log.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(last["stream"], "ballast", "{last}");
    assert!(last["log"].as_str().unwrap().contains("killed") && last["time"].is_string(), "{last}");
    says(&ballast, &["rm", "--format", "json", "-f", "web"], "[{\"name\":\"web\",\"error\":null}]\n");
    // A supervisor that somebody stopped.
    start(&ballast, &["--name", "web", "-m", "128m"], "echo up; sleep 1000");
    kill_process(supervisor(&ballast, "web"), Signal::STOP).unwrap();
    says(&ballast, &["rm", "-f", "web"], "web\n");
    start(&ballast, &["--name", "web", "-m", "128m"], "echo up; sleep 1000");
    kill_process(supervisor(&ballast, "web"), Signal::STOP).unwrap();
    says(&ballast, &["kill", "web"], "web\n");
    says(&ballast, &["wait", "web"], "137\n");
    says(&ballast, &["rm", "web"], "web\n");
    // A guest that does not listen, and one that is removed at its end.
    start(&ballast, &["--name", "deaf", "--rm", "-m", "128m"], "trap '' TERM; echo up; sleep 1000");
    until(|| ballast.command(&["logs", "deaf"]).end().stdout == b"up\n", || "it is not deaf yet".into());
    let waiter = ballast.command(&["wait", "deaf"]).start();
    until(|| process::holds_another(waiter.pid()), || "nobody waits for the end".into());
    says(&ballast, &["stop", "-t", "1", "deaf"], "deaf\n");
    waiter.end().exits(0).prints("137\n");
    leaves_nothing(&ballast);
}

#[test]
fn one_that_is_ending_by_itself_keeps_its_output_and_its_exit_code() {
    let ballast = setup();
    let (mut reader, writer) = std::io::pipe().unwrap();
    // More than the pipe holds: `ballast` has the rest when the microVM is gone.
    let run = ballast.run("busybox", &["sh", "-c", "head -c 100000 /dev/zero; exit 3"]);
    let run = run.options(["--name", "late"]).stdout_to(File::from(OwnedFd::from(writer)));
    let running = run.start();
    process::wait_until_gone(running.vmm());
    let stopping = ballast.command(&["stop", "-t", "600", "late"]).start();
    // It has found who is to end, and waits for that.
    until(|| process::holds_another(stopping.pid()), || "nobody waits for the end".into());
    let mut output = Vec::new();
    reader.read_to_end(&mut output).unwrap();
    assert_eq!(output.len(), 100_000);
    running.end().exits(3);
    stopping.end().exits(0).prints("late\n");
}

//! Whatever fails around them, microVMs go on, and who asks is told.

use tests::daemon::{Daemon, charge};
use tests::memory::{Guest, MIB, Memory};
use tests::run::until;
use tests::setup;
use tests::small_disk::SmallDisk;

/// All that Ballast writes to is full: logs, recordings, state.
#[test]
fn a_full_disk_stops_no_microvm() {
    let mut ballast = setup();
    let disk = SmallDisk::under(&mut ballast, "16m");
    let daemon = Daemon::start(&ballast, "[pool]\ncapacity = '4g'\n");
    let recording = ballast.path("recording").display().to_string();
    let mut guest = Guest::start(&ballast, &["-m", "192m", "--record", &recording]);
    let talk = "line=$(head -c 1000 /dev/zero | tr '\\0' x); while :; do echo $line; sleep 0.1; done";
    let web = ballast.run("busybox", &["sh", "-c", talk]).options(["-d", "--name", "web", "-m", "128m"]);
    let _ = web.end().exits(0);
    until(|| !ballast.command(&["logs", "web"]).end().stdout.is_empty(), || "web is silent".into());

    disk.fill();
    // Who runs goes on, and obeys.
    guest.does("pattern a 16");
    guest.set_ceiling(160 * MIB);
    guest.wait_until(|memory| memory.is_settled() && memory.bytes("ballooned_bytes") >= 24 * MIB);
    let _ = ballast.command(&["set", "guest", "--memory-ceiling", "auto"]).end().exits(0);
    let _ = ballast.command(&["exec", "web", "echo", "here"]).end().exits(0).prints("here\n");
    for words in [["ps", "-a"], ["why", "guest"], ["inspect", "web"], ["zones", "--tree"]] {
        let _ = ballast.command(&words).end().exits(0);
    }
    daemon.wait_until(|tree| tree.host.vms == 2);
    // Who would start does not, and nothing is left of him.
    let states = || std::fs::read_dir(ballast.path("state/vms")).unwrap().count();
    let before = states();
    let late = ballast.run("busybox", &["true"]).options(["-d", "--name", "late", "-m", "128m"]);
    println!("{}", late.end().refuses().says("No space left"));
    assert_eq!(states(), before);

    disk.relieve();
    let lost = "could not be logged here: No space left";
    let logs = || ballast.command(&["logs", "web"]).end().stderr;
    until(|| logs().contains(lost), || format!("nobody says what the log lacks:\n{}", logs()));
    let late = ballast.run("busybox", &["echo", "late"]).options(["--name", "late", "-m", "128m"]);
    let _ = late.end().exits(0).prints("late\n");
    let _ = ballast.command(&["rm", "-f", "web"]).end().exits(0);
    guest.does("pattern b 16");
    guest.does("cmp /tmp/taken/a /tmp/taken/b");
    // Its recording ends where the disk was full, and is one to that point.
    println!("{}", guest.ended().exits(0));
    println!("{}", ballast.command(&["replay", &recording]).end().exits(0));
    daemon.wait_until(|tree| (tree.host.vms, tree.host.orphans) == (0, 0));
}

/// Root in the guest sets the clock, and then freezes the agent: the law leaves the guest alone and then gives it room, nobody on the host waits for
/// ever, and who wants an end has it.
#[test]
fn an_agent_that_is_frozen_is_waited_for_by_nobody() {
    let ballast = setup();
    let daemon = Daemon::start(&ballast, "[pool]\ncapacity = '4g'\n");
    let mut guest = Guest::start(&ballast, &["-m", "256m", "--memory-high", "160m"]);
    let samples = |guest: &Guest| guest.answer("GET", "/v1/reclaim", "").0["samples_total"].as_u64();
    until(|| samples(&guest) >= Some(2), || "no samples".into());
    let ceiling = |memory: &Memory| memory.0["ceiling"]["bytes"].as_u64().unwrap();
    guest.wait_until(|memory| ceiling(memory) <= 160 * MIB && memory.is_settled());

    // Clocks that are set change nothing: samples go on, by another.
    for date in ["2001-01-01", "2040-01-01"] {
        guest.does(&format!("eval date -s {date} > /tmp/date"));
        let told = samples(&guest);
        until(|| samples(&guest) > told, || format!("no samples in {date}"));
    }

    guest.is_told("eval echo 1 > /proc/1/root/sys/fs/cgroup/agent/cgroup.freeze");
    let state = || guest.answer("GET", "/v1/reclaim", "").0["status"]["state"].clone();
    let becomes = |wanted: &str| until(|| state() == wanted, || format!("it is never {wanted}: {}", state()));
    becomes("stale");
    let trim = ballast.command(&["trim", "guest"]).start();
    let set = ballast.command(&["set", "guest", "--memory-max", "200m"]).start();
    let exec = ballast.command(&["exec", "guest", "true"]).start();
    becomes("safe");
    let _ = ballast.command(&["why", "guest"]).end().exits(0).shows("safe");
    guest.wait_until(|memory| ceiling(memory) >= 192 * MIB);
    // Whose agent says nothing keeps to what it is told while memory is short.
    let less = charge(&daemon.tree(), "guest") - 16 * MIB;
    daemon.reload(&ballast, &format!("[pool]\ncapacity = '{less}'\n"));
    guest.wait_until(|memory| ceiling(memory) <= 160 * MIB);
    let _ = trim.end().exits(125).says("did not answer in time");
    let _ = exec.end().exits(125).says("did not start the command within 30 s");
    let _ = set.end().exits(125).says("the limits stay as they were");
    daemon.wait_until(|tree| tree.host.vms == 1);
    let _ = ballast.command(&["stop", "-t", "1", "guest"]).end().exits(0);
    let _ = guest.ended().exits(137);
    daemon.wait_until(|tree| (tree.host.vms, tree.host.orphans) == (0, 0));
}

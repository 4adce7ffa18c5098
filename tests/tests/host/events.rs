//! What happens is told while it happens and afterwards; nothing here boots a guest.

use crate::hostile_links::{hello, link, listen};
use balloon::control::events::{EventDocument, EventKind};
use balloon::control::link::{End, FromVm};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use tests::Ballast;
use tests::crowd::Sleeper;
use tests::daemon::Daemon;
use tests::run::until;

const SMALL: &str = "[pool]\ncapacity = '1g'\novercommit = false\n[groups.ci]\n";

/// What `ballast events` lists as JSON, a document a line.
fn events(ballast: &Ballast, options: &[&str]) -> Vec<EventDocument> {
    let ended = ballast.command(&["events", "--format", "json"]).options(options).end().exits(0);
    let text = String::from_utf8(ended.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kinds(events: &[EventDocument]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).collect()
}

#[test]
fn without_a_daemon_there_are_no_events() {
    let ballast = Ballast::empty();
    let _ = ballast.command(&["events"]).end().exits(125).says("start ballastd first");
    let _ = ballast.command(&["events", "-f"]).end().exits(125).says("start ballastd first");
    let _ = ballast.command(&["events", "--since", "yesterday"]).end().exits(125).says("10m");
}

#[test]
fn what_happens_is_told_while_it_happens_and_afterwards() {
    use EventKind::*;
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let ballast = Ballast::empty();
    let daemon = Daemon::start(&ballast, SMALL);
    let follower = ballast.command(&["events", "-f"]).start();
    follower.wait_for("daemon-started");
    let sleeper = Sleeper::start();
    // Its last word is believed when it has ended, and not before.
    let end = End::Exited { code: 3, out_of_memory: false };
    let words = [FromVm::Hello(hello("web", sleeper.id())), FromVm::End(end)];
    listen(&ballast, "web", link(&words), &ASKED);
    follower.wait_for("vm-found");
    let _ = ballast.run("nothing", &["true"]).options(["--name", "big", "-m", "2g"]).end().exits(125);
    follower.wait_for("overcommit is off");
    ballast.command(&["set", "--group", "ci", "--weight", "7"]).end().exits(0).prints("ci\n");
    follower.wait_for("weight from 100 to 7");
    daemon.reload(&ballast, "[groups.ci]\nweigth = 7\n");
    follower.wait_for("config-refused");
    daemon.reload(&ballast, SMALL);
    follower.wait_for("config-reloaded");
    drop(sleeper);
    follower.wait_for("vm-ended");

    let all = events(&ballast, &[]);
    let expected = [
        DaemonStarted,
        VmFound,
        StartRefused,
        GroupLimits,
        ConfigRefused,
        GroupLimits,
        ConfigReloaded,
        VmEnded,
    ];
    assert_eq!(kinds(&all), expected, "{all:#?}");
    assert!(all.windows(2).all(|two| two[0].number + 1 == two[1].number), "{all:#?}");
    assert!(all[4].reason.contains("line 2"), "{:?}", all[4]);
    assert_eq!(kinds(&events(&ballast, &["--filter", "web"])), [VmFound, VmEnded]);
    assert_eq!(all[7].figures.get("exit_code"), Some(&3), "{:?}", all[7]);
    // The configuration says nothing of a weight: it is as usual again.
    assert_eq!(all[5].reason, "weight from 7 to 100");
    for group in ["ci", "ci/"] {
        let told = events(&ballast, &["--filter", group, "--filter", "big"]);
        assert_eq!(kinds(&told), [StartRefused, GroupLimits, GroupLimits], "{group}");
    }
    assert_eq!(events(&ballast, &["--since", "2100-01-01T00:00:00Z"]), []);

    // Who follows goes on with the next daemon, whose numbers are greater.
    daemon.kill();
    follower.wait_for_error("ballastd is away");
    let _next = Daemon::start(&ballast, "");
    until(|| follower.output().matches("daemon-started").count() == 2, || follower.output());
    let anew = events(&ballast, &[]);
    assert_eq!(kinds(&anew), [DaemonStarted]);
    assert!(anew[0].number > all.last().unwrap().number);
}

#[test]
fn who_follows_for_nobody_ends() {
    let ballast = Ballast::empty();
    let _daemon = Daemon::start(&ballast, SMALL);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let follower = ballast.command(&["events", "-f"]).stdout_to(OwnedFd::from(writer).into()).start();
    assert!(reader.read(&mut [0; 16]).unwrap() > 0);
    drop(reader);
    // Though nothing happens that it would write.
    let _ = follower.end().exits(128 + 13);
}

#[test]
fn a_crowd_that_waits_for_events_keeps_nobody_out() {
    let ballast = Ballast::empty();
    let daemon = Daemon::start(&ballast, SMALL);
    let followers: Vec<_> = (0..20).map(|_| ballast.command(&["events", "-f"]).start()).collect();
    followers.iter().for_each(|follower| follower.wait_for("daemon-started"));
    for weight in 1..=10 {
        assert_eq!(daemon.tree().nodes.len(), 2);
        ballast
            .command(&["set", "--group", "ci", "--weight", &weight.to_string()])
            .end()
            .exits(0)
            .prints("ci\n");
    }
    followers.iter().for_each(|follower| follower.wait_for("weight from 9 to 10"));
    for follower in &followers {
        assert_eq!(follower.output().matches("group-limits").count(), 10, "{}", follower.output());
    }
}

//! The daemon admits, refuses and is the only one; nothing here boots a guest.

use balloon::control::fleet::TreeDocument;
use balloon::zone::Limits;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use std::process::{Command, Output, Stdio};
use tests::Ballast;
use tests::crowd::Crowd;
use tests::daemon::{Daemon, command};
use tests::run::until;

const SMALL: &str = "[pool]\ncapacity = '1g'\novercommit = false\n";

/// Waits for the end of a program that must fail, and gives its words.
fn fails(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.stderr(Stdio::piped()).output().unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

#[test]
fn what_needs_an_arbiter_says_so() {
    let ballast = Ballast::empty();
    for option in [["--group", "ci"], ["--memory-min", "64m"], ["--memory-low", "64m"]] {
        let ended = ballast.run("nothing", &["true"]).options(option).end();
        let _ = ended.exits(125).says(option[0]).says("start ballastd first");
    }
    let _ = ballast.command(&["zones", "--tree"]).end().exits(125).says("start ballastd first");
}

#[test]
fn who_would_exceed_the_pool_is_refused_with_the_arithmetic() {
    let ballast = Ballast::empty();
    let daemon = Daemon::start(&ballast, SMALL);
    let ended = ballast.run("nothing", &["true"]).options(["-m", "1536m", "--group", "ci"]).end();
    let _ = ended.exits(125).says("maximums would be 1.5 GiB in sum").says("overcommit is off");
    let ended = ballast.run("nothing", &["true"]).options(["-m", "512m", "--memory-min", "600m"]).end();
    let _ = ended.exits(125).says("more than its max");
    let ended = ballast.run("nothing", &["true"]).options(["--group", "../x"]).end();
    let _ = ended.exits(125).says("cannot name a group");
    assert_eq!(daemon.tree().nodes.len(), 1, "nothing is left of them");
    // Admitted, and then there is no such image: the promise is taken back.
    let _ = ballast.run("nothing", &["true"]).options(["--group", "ci"]).end().exits(125);
    daemon.wait_until(|tree| tree.nodes.len() == 1);
}

#[test]
fn there_is_one_daemon_and_it_takes_a_dead_ones_place() {
    let ballast = Ballast::empty();
    let first = Daemon::start(&ballast, SMALL);
    let words = fails(&mut command(&ballast, SMALL));
    assert!(words.contains("another ballastd serves"), "{words}");
    first.kill();
    let second = Daemon::start(&ballast, "");
    assert!(second.tree().host.overcommit);
}

#[test]
fn a_configuration_that_is_none_is_refused_with_its_line() {
    let ballast = Ballast::empty();
    for (text, words) in [
        ("[pool]\novercomit = true\n", "line 2"),
        ("[groups.ci]\nmin = '5 apples'\n", "apples"),
        ("[pool]\ncapacity = '1g'\n[groups.ci]\nmin = '2g'\n", "protected minimums"),
        ("[groups.'a//b']\n", "cannot name a group"),
        ("[groups.ci]\nmax = '1g'\nstall-budget = '0%'\n", "line 3"),
    ] {
        let said = fails(&mut command(&ballast, text));
        assert!(said.contains(words) && said.starts_with("ballastd: "), "{said}");
    }
}

#[test]
fn limits_of_groups_change_while_the_daemon_runs() {
    let ballast = Ballast::empty();
    let daemon = Daemon::start(&ballast, "[pool]\ncapacity = '4g'\n[groups.ci]\nmax = '2g'\nlow = '1g'\n");
    let limits = |tree: &TreeDocument, group: &str| {
        tree.nodes.iter().find(|node| node.name == group).map(|node| node.limits)
    };
    let set = |options: &[&str]| ballast.command(&["set", "--group", "ci"]).options(options).end();
    set(&["--memory-max", "3g", "--memory-low", "0", "--weight", "7"]).exits(0).prints("ci\n");
    let ci = Limits { max: Some(3 << 30), weight: 7, ..Limits::default() };
    assert_eq!(limits(&daemon.tree(), "ci"), Some(ci));
    // All or nothing.
    let _ = set(&["--memory-high", "1g", "--memory-min", "5g"]).exits(125).says("min");
    let _ = set(&["--memory-ceiling", "1g"]).exits(125).says("limits of the group");
    let _ = set(&["--working-set-age", "60s"]).exits(125).says("in ballastd's configuration");
    let none = ballast.command(&["set", "--group", "web", "--memory-max", "1g"]).end();
    let _ = none.exits(125).says("no group 'web'");
    assert_eq!(limits(&daemon.tree(), "ci"), Some(ci));

    // The configuration has the last word, if it can be had.
    let reload = |text: &str| {
        let _ = ballast.file("ballastd.toml", text.as_bytes());
        let pid = i32::try_from(daemon.tree().host.pid).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::HUP).unwrap();
    };
    reload("[groups.ci]\nmax = '5 apples'\n");
    reload("[pool]\ncapacity = '1g'\n[groups.ci]\nmin = '2g'\n");
    reload("[pool]\ncapacity = '8g'\n[groups.web]\nhigh = '1g'\n");
    let tree = daemon.wait_until(|tree| tree.host.capacity_bytes == 8 << 30);
    assert_eq!(limits(&tree, "ci"), None, "nobody is in it");
    assert_eq!(limits(&tree, "web").unwrap().high, Some(1 << 30));
}

#[test]
fn who_would_share_more_widely_than_its_group_is_refused() {
    let ballast = Ballast::empty();
    let ended = ballast.run("nothing", &["true"]).options(["--share", "group"]).end();
    let _ = ended.exits(125).says("--share group needs ballastd");
    let daemon = Daemon::start(&ballast, "[groups.ci]\nshare = 'vm'\n");
    let ended = ballast.run("nothing", &["true"]).options(["--group", "ci", "--share", "host"]).end();
    let _ = ended.exits(125).says("group 'ci' says share = \"vm\"");
    assert_eq!(daemon.tree().nodes.len(), 2);
}

/// Files are what limits how many microVMs a daemon serves: who has a link keeps it, and the others come when there is room.
#[test]
fn more_microvms_than_it_may_open_files_for_cost_nobody_his_place() {
    let ballast = Ballast::empty();
    let daemon = Daemon::start(&ballast, "[pool]\ncapacity = '64g'\n");
    let may_open = |current| {
        let limit = Rlimit { current, ..getrlimit(Resource::Nofile) };
        prlimit(Some(daemon.pid()), Resource::Nofile, limit).unwrap()
    };
    let before = may_open(Some(200));
    let crowd = Crowd::start(&ballast, 100);
    let linked = |tree: &TreeDocument| tree.nodes.iter().filter(|node| node.linked == Some(true)).count();
    let serves_three_rounds = |all: usize| {
        let envelopes = crowd.envelopes();
        until(|| crowd.envelopes() >= envelopes + 3 * all, || "it has stopped".into());
    };
    // Until it has found all and linked as many as it can.
    let mut some = 0;
    while some < linked(&daemon.wait_until(|tree| linked(tree) > 20)) {
        some = linked(&daemon.tree());
        serves_three_rounds(some);
    }
    serves_three_rounds(some);
    assert_eq!((linked(&daemon.tree()), daemon.tree().host.orphans), (some, 0));
    assert!(some < 100, "{some} links");
    may_open(before.current);
    daemon.wait_until(|tree| linked(tree) == 100);
}

/// Who was admitted and ended before his microVM came leaves his name to the next at once.
#[test]
fn a_start_that_failed_keeps_no_name() {
    let ballast = Ballast::empty();
    let _daemon = Daemon::start(&ballast, SMALL);
    for _ in 0..3 {
        let run = ballast.run("nosuch", &["true"]).options(["--name", "victim", "-m", "128m"]);
        let ended = run.end().exits(125);
        assert!(!ended.stderr.contains("already"), "{ended}");
    }
}

#[test]
fn a_daemon_that_ends_leaves_the_socket_of_another() {
    let ballast = Ballast::empty();
    let first = Daemon::start(&ballast, "");
    std::fs::rename(ballast.path("state"), ballast.path("moved")).unwrap();
    let second = Daemon::start(&ballast, "");
    first.end();
    assert_eq!(second.tree().host.vms, 0);
}

//! The daemon admits, refuses and is the only one; nothing here boots a guest.

use std::process::{Command, Output, Stdio};
use tests::Ballast;
use tests::daemon::{Daemon, command};

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
    ] {
        let said = fails(&mut command(&ballast, text));
        assert!(said.contains(words) && said.starts_with("ballastd: "), "{said}");
    }
}

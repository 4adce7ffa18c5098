//! `ballast top` without a terminal, and the terminal however it ends.
//!
//! Only what changes is drawn, and blanks do not: a word is the most that is on the wire in one piece.

use rustix::process::{Signal, kill_process};
use tests::Ballast;

#[test]
fn without_a_terminal_it_names_what_to_use_instead() {
    Ballast::empty().command(&["top"]).end().refuses().says("ballast stats");
}

#[test]
fn the_terminal_is_restored_when_a_signal_ends_it() {
    let ballast = Ballast::empty();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut top = ballast.command(&["top"]).start_on_terminal(24, 80);
        top.shows("IMAGE`");
        assert!(!top.is_cooked());
        kill_process(top.pid(), signal).unwrap();
        top.exits(code);
        top.shows("\x1b[?1049l");
        assert!(top.is_cooked());
    }
}

#[test]
fn it_follows_the_window_and_its_keys() {
    let mut top = Ballast::empty().command(&["top"]).start_on_terminal(24, 40);
    top.shows("RESIDENT,");
    top.resize(24, 120);
    top.shows("quit");
    // Each of its letters differs from what stood there, so it is on the wire whole.
    top.types("r");
    top.shows("smallest");
    // No screen has so many cells, but a terminal may say so.
    top.resize(u16::MAX, u16::MAX);
    top.types("h");
    top.shows("evicted");
    top.types("\x03");
    top.exits(0);
    assert!(top.is_cooked());
}

#[test]
fn the_terminal_is_restored_when_it_fails() {
    let ballast = Ballast::empty();
    let mut top = ballast.command(&["top"]).start_on_terminal(24, 80);
    top.shows("IMAGE`");
    // What it reads is gone: no directory any more.
    std::fs::create_dir_all(ballast.path("state")).unwrap();
    std::fs::write(ballast.path("state/vms"), "").unwrap();
    top.exits(125);
    top.shows("cannot see which microVMs run");
    assert!(top.is_cooked());
}

//! `ballast top` shows a running microVM, and leaves the terminal as it found it.

use tests::setup;

#[test]
fn it_shows_a_microvm_and_gives_the_terminal_back() {
    let ballast = setup();
    let guest = ballast.run("busybox", &["sleep", "1000"]).options(["-d", "--name", "web", "-m", "128m"]);
    guest.end().exits(0);
    let mut top = ballast.command(&["top"]).start_on_terminal(24, 80);
    // Words only, as blanks are not drawn: the microVM, and its zone among the details.
    top.shows("web");
    top.shows("ram");
    assert!(!top.is_cooked());
    top.types("q");
    top.exits(0);
    top.shows("\x1b[?1049l");
    assert!(top.is_cooked());
    ballast.command(&["rm", "-f", "web"]).end().exits(0);
}

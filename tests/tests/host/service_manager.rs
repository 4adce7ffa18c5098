//! The daemon as a service: what it tells its manager, and how it is asked to end.

use balloon::control::fleet::SOCKET;
use rustix::process::{Pid, Signal, kill_process};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;
use tests::Ballast;
use tests::daemon::command;

/// What the daemon says next, its repeated signs of life left out.
fn hear(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    loop {
        let bytes = manager.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
        if !text.contains("WATCHDOG=1") {
            return text;
        }
        assert!(text.contains("STATUS=0 microVMs hold 0 B of 1 GiB"), "{text}");
    }
}

#[test]
fn a_service_manager_hears_how_the_daemon_does() {
    let ballast = Ballast::empty();
    let manager = UnixDatagram::bind(ballast.path("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut daemon = command(&ballast, "[pool]\ncapacity = '1g'\n");
    daemon.env("NOTIFY_SOCKET", ballast.path("notify")).stderr(Stdio::inherit());
    let mut daemon = daemon.spawn().unwrap();
    let signal = |signal| kill_process(Pid::from_child(&daemon), signal).unwrap();
    assert_eq!(hear(&manager), "READY=1\n");
    assert!(tests::control::ask(&ballast.path("state").join(SOCKET), "GET", "/v1/host", "").is_ok());
    signal(Signal::HUP);
    assert!(hear(&manager).starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(hear(&manager), "READY=1\n");
    // It lives, tick by tick.
    let mut buffer = [0; 4096];
    let bytes = manager.recv(&mut buffer).unwrap();
    assert!(buffer[..bytes].ends_with(b"WATCHDOG=1\n"));
    signal(Signal::TERM);
    assert_eq!(hear(&manager), "STOPPING=1\n");
    assert!(daemon.wait().unwrap().success());
    assert!(!ballast.path("state").join(SOCKET).exists());
    manager.set_nonblocking(true).unwrap();
    assert_eq!(manager.recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_dry_run_says_what_would_hold_and_starts_nothing() {
    let ballast = Ballast::empty();
    let run = |configuration: &str| {
        let output = command(&ballast, configuration)
            .arg("--dry-run")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output();
        let output = output.unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (holds, text, _) = run("[pool]\ncapacity = '64m'\n[groups.ci]\nmax = '32m'\n");
    assert!(
        holds && text.starts_with("pool: 64 MiB of the host's ") && text.contains("\ngroup ci: max 32 MiB"),
        "{text}"
    );
    for (text, words) in [
        ("[groups.ci]\n\nmaximum = '1g'\n", "line 3"),
        ("[pool]\ncapacity = '64m'\n[groups.ci]\nmin = '65m'\n", "protected minimums"),
    ] {
        let (holds, said, errors) = run(text);
        assert!(!holds && said.is_empty() && errors.contains(words), "{said}{errors}");
    }
    assert!(!ballast.path("state").exists());
}

//! An import that is killed, races others or finds the disk full leaves no broken image and nothing behind.

use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tests::run::Run;
use tests::{Ballast, is_long};

/// A small image, or a large one.
fn archive(large: bool) -> String {
    let fixtures = std::env::var("BALLAST_TEST_FIXTURES").expect("set by ci/promises");
    format!("{fixtures}/{}", if large { "debian.tar" } else { "busybox/rootfs.tar" })
}

fn import(ballast: &Ballast) -> Run {
    ballast.command(&["image", "import", "--name", "image", &archive(is_long())])
}

/// Bytes and names below `directory`, as they are seen once nobody works there any more.
fn files(directory: &Path) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            all.extend(files(&entry.path()));
        } else {
            all.push((entry.file_name().into_string().unwrap(), metadata.len()));
        }
    }
    all.sort();
    all
}

#[test]
fn killed_imports_leave_nothing_that_the_next_one_does_not_sweep() {
    // How long a whole one takes, and what it leaves.
    let reference = Ballast::empty();
    let start = Instant::now();
    let id = import(&reference).end().exits(0).stdout;
    let whole = start.elapsed();
    let expected = files(reference.data());

    let ballast = Ballast::empty();
    let kills = if is_long() { 100 } else { 10 };
    for kill in 0..kills {
        let running = import(&ballast).start();
        sleep(whole * kill / kills);
        running.signal(Signal::KILL);
        let _ = running.end();
        // Whatever the listing shows is whole.
        ballast.command(&["image", "ls"]).end().exits(0);
    }
    assert_eq!(import(&ballast).end().exits(0).stdout, id);
    assert_eq!(files(ballast.data()), expected);
}

#[test]
fn imports_at_once_agree() {
    let ballast = Ballast::empty();
    let runs: Vec<_> = (0..4).map(|_| import(&ballast).start()).collect();
    let ids: Vec<_> = runs.into_iter().map(|run| run.end().exits(0).stdout).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    let alone = Ballast::empty();
    assert_eq!(import(&alone).end().exits(0).stdout, ids[0]);
    assert_eq!(files(ballast.data()), files(alone.data()));
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let ballast = Ballast::empty();
    fs::create_dir(ballast.data()).unwrap();
    fs::create_dir(ballast.path("large")).unwrap();
    // Noise, which no file system makes smaller.
    let mut noise = vec![0; 48 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    let _ = ballast.file("large/noise", &noise);
    // In a mount namespace of its own: a small disk, the import, and what is left of it.
    let script = r#"mount -t tmpfs -o size=24m tmpfs "$BALLAST_DATA" || exit 99
        "$0" image import "$1"; code=$?
        "$0" image import "$2" > /dev/null || exit 98
        find "$BALLAST_DATA" -name '*large*' -o -name 'import-*'
        exit $code"#;
    let ended = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(ballast.program())
        .args([ballast.path("large").as_os_str(), archive(false).as_ref()])
        .env("BALLAST_DATA", ballast.data())
        .env("BALLAST_STATE", ballast.path("state"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(125), "{stdout}{stderr}");
    assert!(stderr.contains("No space left") || stderr.contains("full"), "{stderr}");
    assert_eq!(stdout, "", "{stderr}");
}

#[test]
fn a_terminated_import_ends_and_the_next_one_sweeps() {
    let ballast = Ballast::empty();
    let whole = fs::read(archive(is_long())).unwrap();
    let half = &whole[..whole.len() / 2];
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        // What comes from a pipe that nobody closes is not all there, however fast it is taken in.
        let mut running = ballast.command(&["image", "import", "--name", "image", "-"]).start();
        running.stdin.as_mut().unwrap().write_all(half).unwrap();
        sleep(Duration::from_millis(20));
        running.signal(signal);
        let ended = running.end();
        assert!(ended.code != 0, "it went on after {signal:?}: {ended}");
        assert!(!ended.stderr.contains("internal error"), "{ended}");
    }
    import(&ballast).end().exits(0);
    assert_eq!(files(&ballast.data().join("tmp")), []);
}

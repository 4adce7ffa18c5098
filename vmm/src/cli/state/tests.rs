//! The state directory, with its files.

use super::registration::*;
use super::*;
use crate::cli::log::journal::Journal;
use crate::volume::lock::eventually;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

fn names(state: &Path) -> Vec<String> {
    known(state).unwrap().into_iter().map(|vm| vm.name).collect()
}

#[test]
fn a_name_is_claimed_once_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let first = Registration::new(dir.path(), Some("web")).unwrap();
    assert!(matches!(Registration::new(dir.path(), Some("web")), Err(Error::Taken(_))));
    drop(first);
    eventually(|| Registration::new(dir.path(), Some("web")).ok());
}

#[test]
fn what_a_killed_process_left_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let dead = dir.path().join("vms/dead");
    std::fs::create_dir_all(&dead).unwrap();
    std::fs::write(dead.join("lock"), "1\n").unwrap();
    drop(UnixListener::bind(dead.join("control.sock")).unwrap());
    assert_eq!(names(dir.path()), [""; 0]);
    let other = Registration::new(dir.path(), None).unwrap();
    assert!(!dead.exists());
    assert!(dir.path().join("vms").join(other.name()).exists());
    // A directory whose lock was never made, and a socket that its owner finds in its place.
    std::fs::create_dir_all(&dead).unwrap();
    std::fs::write(dead.join("control.sock"), "").unwrap();
    Registration::new(dir.path(), Some("dead")).unwrap().listen().unwrap();
}

#[test]
fn who_sweeps_and_who_lists_take_no_name() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..50 {
        let dead = dir.path().join("vms/web");
        std::fs::create_dir_all(&dead).unwrap();
        std::fs::write(dead.join("lock"), "1\n").unwrap();
        std::thread::scope(|scope| {
            let others = [(); 3].map(|()| scope.spawn(|| Registration::new(dir.path(), None).unwrap()));
            scope.spawn(|| known(dir.path()).unwrap());
            drop(Registration::new(dir.path(), Some("web")).unwrap());
            drop(others.map(|other| other.join().unwrap()));
        });
    }
}

#[test]
fn the_running_are_listed_with_their_sockets() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(names(dir.path()), [""; 0]);
    let web = Registration::new(dir.path(), Some("web")).unwrap();
    let db = Registration::new(dir.path(), Some("db")).unwrap();
    let _listener = web.listen().unwrap();
    let listed = known(dir.path()).unwrap();
    let names: Vec<_> = listed.iter().map(|vm| vm.name.as_str()).collect();
    assert_eq!(names, ["db", "web"]);
    assert_eq!(listed[1].pid, Some(std::process::id()));
    assert!(listed[1].socket.exists() && !listed[0].socket.exists());
    drop((web, db));
    assert_eq!(std::fs::read_dir(dir.path().join("vms")).unwrap().count(), 0);
}

#[test]
fn nobody_else_reaches_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let web = Registration::new(dir.path(), Some("web")).unwrap();
    let _listener = web.listen().unwrap();
    for path in ["vms", "vms/web", "vms/web/control.sock"] {
        let mode = std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{path}");
    }
}

#[test]
fn a_path_too_long_for_a_socket_is_refused_with_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("s".repeat(100));
    let error = Registration::new(&state, Some("web")).unwrap_err().to_string();
    assert!(error.contains("107") && error.contains("BALLAST_STATE"), "{error}");
}

#[test]
fn bad_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["", ".", "..", "a/b", "-x", "ä", &"x".repeat(64)] {
        assert!(matches!(Registration::new(dir.path(), Some(name)), Err(Error::Name(_))), "{name}");
    }
}

fn record(registration: &Registration, remove: bool) -> Record {
    let record = Record::new(registration.id().into(), "bb".into(), vec!["sh".into()], 7);
    Record { detached: true, remove, ..record }
}

#[test]
fn what_ran_in_the_background_is_kept_with_its_end_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut web = Registration::new(dir.path(), Some("web")).unwrap();
    let log = dir.path().join("log");
    Journal::create(&log, 1 << 20, web.directory()).unwrap();
    web.record(&Record { log: Some(log.clone()), ..record(&web, false) }).unwrap();
    let running = known(dir.path()).unwrap().remove(0);
    assert_eq!((running.exit.as_ref(), running.id()), (None, web.id()));
    assert!(!forget(&running.directory).unwrap(), "it runs");
    web.end(&Exit::new(3, Some(8), "why"));

    assert_eq!(running.look_again(), Some(Exit::new(3, Some(8), "why")));
    let is_kept = || matches!(Registration::new(dir.path(), Some("web")), Err(Error::Kept(_)));
    eventually(|| is_kept().then_some(()));
    drop(Registration::new(dir.path(), None).unwrap());
    assert_eq!(names(dir.path()), ["web"], "nobody sweeps it");
    eventually(|| forget(&running.directory).unwrap().then_some(()));
    assert!(!log.exists());
    assert!(forget(&running.directory).unwrap(), "twice is no fault");
    assert_eq!(std::fs::read_dir(dir.path().join("vms")).unwrap().count(), 0);
    let mut web = Registration::new(dir.path(), Some("web")).unwrap();

    // A directory that the record names goes only if it is this microVM's log.
    let precious = dir.path().join("precious");
    Journal::create(&precious, 1 << 20, &dir.path().join("vms/other")).unwrap();
    web.record(&Record { log: Some(precious.clone()), ..record(&web, false) }).unwrap();
    let running = known(dir.path()).unwrap().remove(0);
    web.end(&Exit::new(0, None, ""));
    eventually(|| forget(&running.directory).unwrap().then_some(()));
    assert!(precious.exists());
}

#[test]
fn one_to_be_removed_is_gone_when_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut web = Registration::new(dir.path(), Some("web")).unwrap();
    web.record(&record(&web, true)).unwrap();
    let running = known(dir.path()).unwrap().remove(0);
    let mut exit = running.open_exit().unwrap();
    web.end(&Exit::new(3, None, ""));
    assert_eq!((names(dir.path()), running.look_again()), (Vec::new(), None));
    // Who had the file open knows all the same.
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut exit, &mut text).unwrap();
    assert_eq!(Exit::parse(&text), Ok(Some(Exit::new(3, None, ""))));
}

#[test]
fn one_whose_process_was_killed_was_killed_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut web = Registration::new(dir.path(), Some("web")).unwrap();
    web.record(&record(&web, false)).unwrap();
    let kept = dir.path().join("kept");
    // What is left of a process that was killed: files, and no lock.
    std::fs::rename(web.directory(), &kept).unwrap();
    drop(web);
    std::fs::rename(&kept, dir.path().join("vms/web")).unwrap();
    let exit = eventually(|| known(dir.path()).unwrap().remove(0).exit);
    assert_eq!(exit, Exit::killed());
    assert_eq!(exit.code, 137);
}

#[test]
fn what_never_ran_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut web = Registration::new(dir.path(), Some("web")).unwrap();
    web.record(&record(&web, false)).unwrap();
    drop(web);
    assert_eq!(names(dir.path()), [""; 0]);
    Registration::new(dir.path(), Some("web")).unwrap();
}

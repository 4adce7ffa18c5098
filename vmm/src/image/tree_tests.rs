use std::fs;
use std::os::unix::fs::symlink;

use super::*;

#[test]
fn removal_is_deep_and_follows_no_link() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/keep"), "x").unwrap();
    // Deeper than a path or the descriptor table could be.
    let mut at = rustix::fs::open(dir.path(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    rustix::fs::mkdirat(&at, "victim", Mode::RWXU).unwrap();
    let victims = dir.path().join("victim");
    symlink(dir.path().join("outside"), victims.join("link")).unwrap();
    fs::write(victims.join("file"), "x").unwrap();
    at = rustix::fs::openat(&at, "victim", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        rustix::fs::symlinkat("../../outside", &at, "up").unwrap();
        at = rustix::fs::openat(&at, "d", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
    drop(at);
    let root = fs::File::open(dir.path()).unwrap();
    remove(&root, OsStr::new("victim")).unwrap();
    assert!(!victims.exists());
    assert_eq!(fs::read(dir.path().join("outside/keep")).unwrap(), b"x");
    remove(&root, OsStr::new("victim")).unwrap();
}

#[test]
fn removal_lists_each_directory_once() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a/x", "b/x", "c/x/y", "d"] {
        fs::create_dir_all(dir.path().join("victim").join(name)).unwrap();
        fs::write(dir.path().join("victim").join(name).join("file"), "x").unwrap();
    }
    let mut listed = 0;
    let root = fs::File::open(dir.path()).unwrap();
    remove_listed(&root, OsStr::new("victim"), |directory| {
        listed += 1;
        list(directory)
    })
    .unwrap();
    assert_eq!(listed, 9);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn only_an_owner_fails_with_an_error_number() {
    let file = tempfile::tempfile().unwrap();
    let mut metadata = metadata(&file).unwrap();
    // The kernel checks a capability's form before anything else of it, and takes none from the unprivileged.
    metadata.xattrs = vec![(b"security.capability".to_vec(), b"x".to_vec())];
    let error = set_metadata(&file, &metadata).unwrap_err();
    assert_eq!(error.raw_os_error(), None);
    assert!(error.to_string().contains("security.capability"), "{error}");
}

#[test]
fn attributes_that_cannot_be_stored_are_told_apart() {
    for (errno, words) in [
        (Errno::OPNOTSUPP, "BALLAST_DATA"),
        (Errno::INVAL, "malformed"),
        (Errno::PERM, "cannot store its extended attribute user.x"),
        (Errno::NOSPC, "cannot store"),
    ] {
        let error = xattr_error(b"user.x", errno);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(super::super::error::is_full(&error), errno == Errno::NOSPC);
    }
}

#[test]
fn links_lead_nowhere_but_inside() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::write(dir.path().join("etc/outside"), "").unwrap();
    symlink("../../../etc", root.join("up")).unwrap();
    symlink("/etc", root.join("absolute")).unwrap();
    symlink("/proc/self/cwd", root.join("magic")).unwrap();
    let tree = Tree::open(&root).unwrap();
    for link in ["up", "absolute"] {
        let inside = tree.parent(&LayerPath::clean(link.as_bytes()).unwrap()).unwrap();
        assert!(stat(&inside, OsStr::new("outside")).unwrap().is_none(), "{link}");
    }
    assert!(tree.parent(&LayerPath::clean(b"magic").unwrap()).is_err());
    assert!(tree.directory(&LayerPath::clean(b"up").unwrap()).is_err(), "the last component must be no link");
}

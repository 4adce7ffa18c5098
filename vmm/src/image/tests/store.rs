//! The store: caching, interrupted and concurrent imports, directories.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use super::fixture::{Bench, Tar, docker_archive, is_root, read, told, view};
use crate::image::error::Error;
use crate::image::progress::{Event, Progress, Silent, Stage};
use crate::image::store::{Origin, Store};

fn tar(text: &str) -> Vec<u8> {
    Tar::new().file("f", text).end()
}

impl Bench {
    /// Whether the last import had to unpack or build anything.
    fn worked(&self) -> bool {
        !std::mem::take(&mut *self.log.0.borrow_mut()).is_empty()
    }
}

#[test]
fn an_unchanged_file_is_not_read_again() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let path = bench.write("x.tar", &tar("one"));
    let first = bench.import(&path).unwrap();
    assert!(bench.worked());
    assert_eq!(bench.import(&path).unwrap().id, first.id);
    assert!(!bench.worked());
    // Another content of the same length.
    fs::write(&path, tar("two")).unwrap();
    let second = bench.import(&path).unwrap();
    assert!(bench.worked());
    assert_ne!(second.id, first.id);
    assert_eq!(read(&second.layers[0].file)[Path::new("f")].text(), "two");
    // What only the old content of the path stood for is gone, and still readable for who has it open.
    assert_eq!((bench.stored("images").len(), bench.stored("layers").len()), (1, 1));
    assert_eq!(read(&first.layers[0].file)[Path::new("f")].text(), "one");
    // A lost layer is made again.
    fs::remove_file(&second.layers[0].path).unwrap();
    assert_eq!(bench.import(&path).unwrap().id, second.id);
    assert!(bench.worked());
}

#[test]
fn two_imports_at_once_are_both_right() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let layers: Vec<Vec<u8>> = (0..3).map(|n| Tar::new().file(&format!("f{n}"), "x").end()).collect();
    let docker = bench.write("docker", &docker_archive(&layers, &["app"]));
    let plain = bench.write("plain", &layers[0]);
    let root = bench.path("data");
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (path, root) = (if n % 2 == 0 { &docker } else { &plain }, &root);
            let expected = if n % 2 == 0 { 3 } else { 1 };
            scope.spawn(move || {
                let store = Store::open(root, 8).unwrap();
                let image = store.import(Origin::Path(path), None, &Silent).unwrap();
                assert_eq!(view(&image).len(), expected);
            });
        }
    });
    assert_eq!((bench.stored("layers").len(), bench.stored("images").len()), (3, 2));
    assert_eq!((bench.stored("tmp").len(), bench.stored("locks").len()), (0, 0));
}

#[test]
fn what_a_crash_left_is_swept_by_the_next_import() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let left = bench.path("data/tmp/import-of-a-dead-process/layer/etc");
    fs::create_dir_all(&left).unwrap();
    fs::write(bench.path("data/tmp/import-of-a-dead-process/image.erofs"), "half").unwrap();
    bench.import_bytes(&tar("x")).unwrap();
    assert_eq!(bench.stored("tmp"), [""; 0]);
}

#[test]
fn the_unpacked_is_nobodys_business() {
    if !is_root() {
        return;
    }
    struct Look<'a>(&'a Path);
    impl Progress for Look<'_> {
        fn report(&self, event: Event) {
            if let Event::Begin { stage: Stage::Build, .. } = event {
                assert_eq!(fs::metadata(self.0).unwrap().permissions().mode() & 0o777, 0o700);
                assert_eq!(fs::read_dir(self.0).unwrap().count(), 1);
            }
        }
    }
    let bench = Bench::new();
    let path = bench.write("x", &tar("x"));
    let tmp = bench.path("data/tmp");
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o755)).unwrap();
    let store = Store::open(&bench.path("data"), 8).unwrap();
    let image = store.import(Origin::Path(&path), None, &Look(&tmp)).unwrap();
    let mode = image.layers[0].file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o444);
    // Open for reading only, so that no guest's mistake can reach it.
    assert!(image.layers[0].file.write_at(b"x", 0).is_err());
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: std::path::PathBuf, bytes: usize) -> Option<Self> {
        use rustix::mount::{MountFlags, mount};
        fs::create_dir(&path).unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        match mount("none", &path, "tmpfs", MountFlags::empty(), Some(options.as_c_str())) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                println!("skipped: no file system can be mounted here: {error}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let data = "x".repeat(3 << 20);
    let path = bench.write("x.tar", &Tar::new().file("f", &data).end());
    let docker = bench
        .write("docker.tar.gz", &super::fixture::gzip(&docker_archive(&[fs::read(&path).unwrap()], &[])));
    let directory = bench.path("rootfs");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("f"), &data).unwrap();
    // Too small to unpack, to build, to spool.
    for (at, (source, mib)) in [(&path, 2), (&path, 5), (&directory, 2), (&docker, 1)].into_iter().enumerate()
    {
        let Some(disk) = SmallDisk::mount(bench.path(&format!("disk{at}")), mib << 20) else { return };
        let store = Store::open(&disk.0, 8).unwrap();
        let error = store.import(Origin::Path(source), None, &Silent).unwrap_err();
        let text = told(&error);
        assert!(matches!(error, Error::DiskFull { .. }), "{mib} MiB: {text}");
        assert!(text.contains(disk.0.to_str().unwrap()) && text.contains("MiB were needed"), "{text}");
        for name in ["layers", "images", "memo", "tmp", "locks"] {
            assert_eq!(fs::read_dir(disk.0.join(name)).unwrap().count(), 0, "{name} after {text}");
        }
        let free = || rustix::fs::statvfs(&disk.0).unwrap().f_bfree;
        let _ = fs::remove_file(disk.0.join("lock"));
        // A program that another test starts just now may have a deleted file open until it is executed.
        let is_free = || free() * 4096 > ((mib - 1) << 20) as u64;
        let start = std::time::Instant::now();
        while !is_free() && start.elapsed() < std::time::Duration::from_secs(30) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(is_free(), "something still holds space");
    }
}

fn rootfs(bench: &Bench) -> std::path::PathBuf {
    let root = bench.path("rootfs");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/motd"), "hello").unwrap();
    std::os::unix::fs::symlink("etc/motd", root.join("motd")).unwrap();
    root
}

#[test]
fn a_directory_is_built_once_and_again_when_it_changes() {
    let bench = Bench::new();
    let root = rootfs(&bench);
    let first = bench.import(&root).unwrap();
    assert_eq!(view(&first)["etc/motd"], "hello");
    assert_eq!(view(&first)["motd"], "etc/motd");
    let owner = read(&first.layers[0].file)[Path::new("etc/motd")].inode.uid;
    assert_eq!(owner, rustix::process::geteuid().as_raw());
    let built = |bench: &Bench| {
        let events = std::mem::take(&mut *bench.log.0.borrow_mut());
        events.iter().any(|event| matches!(event, Event::Begin { stage: Stage::Build, .. }))
    };
    assert!(built(&bench));
    assert_eq!(bench.import(&root).unwrap().id, first.id);
    assert!(!built(&bench));
    fs::write(root.join("etc/motd"), "HELLO").unwrap();
    let second = bench.import(&root).unwrap();
    assert!(built(&bench));
    assert_eq!(view(&second)["etc/motd"], "HELLO");
    assert_eq!((bench.stored("images").len(), bench.stored("layers").len()), (1, 1), "the old one is gone");
}

#[test]
fn a_directory_that_changes_while_it_is_built_is_refused() {
    struct Meddle<'a>(&'a Path);
    impl Progress for Meddle<'_> {
        fn report(&self, event: Event) {
            if let Event::Begin { stage: Stage::Build, .. } = event {
                std::thread::sleep(Duration::from_millis(20));
                fs::write(self.0.join("etc/motd"), "later").unwrap();
            }
        }
    }
    let bench = Bench::new();
    let root = rootfs(&bench);
    let error = bench.store.import(Origin::Path(&root), None, &Meddle(&root)).unwrap_err();
    assert!(matches!(error, Error::Changed(_)), "{}", told(&error));
    bench.assert_empty();
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    if !is_root() {
        return;
    }
    struct Meddle<'a>(&'a Path);
    impl Progress for Meddle<'_> {
        fn report(&self, event: Event) {
            if let Event::Begin { stage: Stage::Build, .. } = event {
                fs::write(self.0, tar("two")).unwrap();
            }
        }
    }
    let bench = Bench::new();
    let path = bench.write("x.tar", &tar("one"));
    let error = bench.store.import(Origin::Path(&path), None, &Meddle(&path)).unwrap_err();
    assert!(matches!(error, Error::Changed(_)), "{}", told(&error));
    assert_eq!(bench.stored("memo"), [""; 0]);
}

#[test]
fn the_data_directory_inside_the_image_is_refused() {
    let bench = Bench::new();
    let error = bench.import(bench.directory.path()).unwrap_err();
    assert!(told(&error).contains("BALLAST_DATA"), "{}", told(&error));
}

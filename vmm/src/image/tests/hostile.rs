//! Archives that lie: nothing is written outside, nothing is published, and the message says why.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tar::EntryType;

use super::fixture::{Bench, Tar, docker_archive, gzip, is_root, oci_tar, read, told};
use crate::image::limits::Limits;

/// Imports and expects a refusal that says `words`, with the store and the world outside as before.
fn refuse(tar: Tar, words: &str) {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let bystander = bench.write("bystander", b"untouched");
    let before = fs::metadata(&bystander).unwrap();
    let error = bench.import_bytes(&tar.end()).unwrap_err();
    let text = told(&error);
    assert!(text.contains(words), "{text}");
    bench.assert_empty();
    let after = fs::metadata(&bystander).unwrap();
    assert_eq!(fs::read(&bystander).unwrap(), b"untouched");
    assert_eq!(
        (before.ctime(), before.ctime_nsec(), before.nlink()),
        (after.ctime(), after.ctime_nsec(), after.nlink())
    );
    let mut names: Vec<_> =
        fs::read_dir(bench.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["bystander", "data", "source"], "something was written outside the data directory");
}

#[test]
fn names_that_climb() {
    refuse(Tar::new().file("../bystander", "gone"), "\"..\"");
    refuse(Tar::new().file("a/../../../../bystander", "gone"), "\"..\"");
    refuse(Tar::new().directory("d", 0o755).file("d/..", "gone"), "\"..\"");
}

#[test]
fn hard_links_out_and_to_nothing() {
    refuse(Tar::new().hard_link("l", "../../../../bystander"), "\"..\"");
    refuse(Tar::new().hard_link("l", "/etc/passwd"), "hard link");
    refuse(Tar::new().hard_link("l", "later").file("later", ""), "hard link");
    refuse(Tar::new().directory("d", 0o755).hard_link("l", "d"), "hard link");
    // Through a link that leads outside: inside, there is nothing there.
    refuse(Tar::new().symlink("up", &"../".repeat(20)).hard_link("l", "up/etc/passwd"), "hard link");
    refuse(Tar::new().symlink("root", "/").hard_link("l", "root/etc/passwd"), "hard link");
    refuse(Tar::new().directory("d", 0o755).file("d/f", "x").hard_link("d", "d/f"), "hard link");
}

#[test]
fn sparse_claims() {
    let mut header = Tar::header(b"s", EntryType::GNUSparse, 0);
    header.as_gnu_mut().unwrap().set_real_size(1 << 40);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.sparse[0].set_offset(1 << 40);
    gnu.sparse[0].set_length(0);
    refuse(Tar::new().raw(header, b""), "1099511627776");
    let pax: [(&str, &[u8]); 2] = [("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"1099511627776")];
    refuse(Tar::new().pax(&pax).file("s", "x"), "1099511627776");
}

#[test]
fn sizes_and_truncation() {
    refuse(Tar(Tar::new().raw(Tar::header(b"f", EntryType::Regular, 1 << 50), b"x").0), "more than");
    refuse(Tar(Tar::new().raw(Tar::header(b"f", EntryType::Regular, 1 << 20), b"x").0), "truncated");
    let pax: [(&str, &[u8]); 1] = [("uid", b"4294967295")];
    refuse(Tar::new().pax(&pax).file("f", "x"), "4294967295");
}

#[test]
fn entries_below_what_is_no_directory() {
    refuse(Tar::new().file("f", "x").file("f/below", "x"), "no directory");
    refuse(Tar::new().symlink("l", "nowhere").file("l/below", "x"), "no directory");
    refuse(Tar::new().symlink("a", "b").symlink("b", "a").file("a/below", "x"), "no directory");
}

#[test]
fn limits_of_number_and_expansion() {
    if !is_root() {
        return;
    }
    let limits = Limits { entries: 10, expansion: 20, expansion_floor_bytes: 1 << 20, ..Limits::default() };
    let bench = Bench::new();
    let bench = Bench { store: bench.store.with_limits(limits), ..bench };
    let many = (0..11).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), "")).end();
    assert!(told(&bench.import_bytes(&many).unwrap_err()).contains("more than 10 entries"));
    let bomb = gzip(&Tar::new().file("zeros", &"\0".repeat(8 << 20)).end());
    assert!(told(&bench.import_bytes(&bomb).unwrap_err()).contains("bomb"));
    // What follows the archive's end counts as well.
    let tail = gzip(&[Tar::new().file("f", "x").end(), vec![0; 8 << 20]].concat());
    assert!(told(&bench.import_bytes(&tail).unwrap_err()).contains("bomb"));
    bench.assert_empty();
}

#[test]
fn limits_hold_for_made_directories_and_all_layers_together() {
    if !is_root() {
        return;
    }
    let refusal = |limits: Limits, archive: &[u8]| {
        let bench = Bench::new();
        let bench = Bench { store: bench.store.with_limits(limits), ..bench };
        told(&bench.import_bytes(archive).unwrap_err())
    };
    let entries = |entries| Limits { entries, ..Limits::default() };
    // One member and ten directories above it.
    let deep = Tar::new().file(&format!("{}f", "d/".repeat(10)), "").end();
    assert!(refusal(entries(10), &deep).contains("more than 10 entries"));
    let described = (0..10).fold(Tar::new(), |tar, n| tar.directory(&format!("directory{n}"), 0o755)).end();
    for archive in [&deep, &described] {
        let limits = Limits { path_bytes: 90, ..Limits::default() };
        assert!(refusal(limits, archive).contains("take more than 90 bytes"));
    }
    let layers: Vec<Vec<u8>> = ["a", "b"].map(|name| Tar::new().file(name, &"x".repeat(600)).end()).to_vec();
    let limits = Limits { layer_bytes: 1000, ..Limits::default() };
    assert!(refusal(limits, &docker_archive(&layers, &[])).contains("brings the image to more than 1000"));
    assert!(refusal(entries(1), &docker_archive(&layers, &[])).contains("more than 1 entries"));
    // Each layer by itself stays below the floor.
    let zeros = "\0".repeat(600 << 10);
    let layers: Vec<Vec<u8>> = ["a", "b"].map(|name| Tar::new().file(name, &zeros).end()).to_vec();
    let blobs: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
    let limits = Limits { expansion: 20, expansion_floor_bytes: 1 << 20, ..Limits::default() };
    assert!(refusal(limits, &oci_tar(&layers, &blobs)).contains("bomb"));
}

#[test]
fn limits_of_what_has_no_end() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let limits = Limits { trailer_bytes: 1 << 20, pipe_bytes: 1 << 20, ..Limits::default() };
    let bench = Bench { store: bench.store.with_limits(limits), ..bench };
    let tar = Tar::new().file("f", "x").end();
    let with_zeros = |bytes: usize| [tar.clone(), vec![0; bytes]].concat();
    assert!(told(&bench.import_bytes(&with_zeros(2 << 20)).unwrap_err()).contains("end mark"));
    let error = told(&bench.import(Path::new("/dev/urandom")).unwrap_err());
    assert!(error.contains("neither"), "{error}");
    let (path, mode) = (bench.path("pipe"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let error = std::thread::scope(|scope| {
        // Its reader goes before the end.
        scope.spawn(|| fs::write(&path, with_zeros(4 << 20)).unwrap_err());
        told(&bench.import(&path).unwrap_err())
    });
    assert!(error.contains("1048576 bytes come out of the pipe"), "{error}");
    bench.assert_empty();
    bench.import_bytes(&with_zeros(512 << 10)).unwrap();
}

#[test]
fn a_swapped_link_leads_only_inside() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let outside = bench.path("outside");
    fs::create_dir(&outside).unwrap();
    let absolute = outside.to_str().unwrap();
    // A directory is replaced by a link that leads out; what is then written through it must stay inside.
    let tar = Tar::new()
        .directory("d", 0o755)
        .file("d/first", "1")
        .symlink("d", absolute)
        .directory("up", 0o755)
        .symlink("up", &"../".repeat(20))
        .directory(absolute, 0o700)
        .file("d/evil", "2")
        .file("up/evil", "3")
        .end();
    let image = bench.import_bytes(&tar).unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let contents = read(&image.layers[0].file);
    assert_eq!(contents[Path::new("evil")].text(), "3");
    assert_eq!(contents[&Path::new(&absolute[1..]).join("evil")].text(), "2");
    assert!(!Path::new("/evil").exists());
}

#[test]
fn writing_over_a_link_replaces_the_link() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let target = bench.write("target", b"outside");
    let tar = Tar::new()
        .symlink("passwd", target.to_str().unwrap())
        .file("passwd", "inside")
        .symlink("d", bench.directory.path().to_str().unwrap())
        .directory("d", 0o711)
        .end();
    let image = bench.import_bytes(&tar).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"outside");
    let contents = read(&image.layers[0].file);
    assert_eq!(contents[Path::new("passwd")].text(), "inside");
    assert_eq!(contents[Path::new("d")].inode.mode & 0o7777, 0o711);
}

#[test]
fn device_nodes_are_left_out_with_one_notice() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let device = |name: &[u8], kind| {
        let mut header = Tar::header(name, kind, 0);
        header.set_device_major(8).unwrap();
        header.set_device_minor(0).unwrap();
        header
    };
    let tar = Tar::new()
        .directory("dev", 0o755)
        .raw(device(b"dev/sda", EntryType::Block), b"")
        .raw(device(b"dev/mem", EntryType::Char), b"")
        .raw(Tar::header(b"dev/fifo", EntryType::Fifo, 0), b"")
        .end();
    let image = bench.import_bytes(&tar).unwrap();
    let names: Vec<_> = read(&image.layers[0].file).into_keys().collect();
    assert_eq!(names, [Path::new(""), Path::new("dev"), Path::new("dev/fifo")]);
    let notices = bench.log.notices();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].starts_with("2 device nodes"), "{notices:?}");
}

#[test]
fn the_last_of_duplicates_counts() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let tar = Tar::new()
        .file("twice", "1")
        .file("twice", "2")
        .file("file-then-directory", "1")
        .directory("file-then-directory", 0o700)
        .file("file-then-directory/below", "2")
        .directory("directory-then-file", 0o755)
        .file("directory-then-file/below", "1")
        .file("directory-then-file", "2")
        .directory("again", 0o755)
        .file("again/kept", "1")
        .directory("again", 0o711)
        .hard_link("self", "twice")
        .hard_link("twice", "self")
        .end();
    let image = bench.import_bytes(&tar).unwrap();
    let contents = read(&image.layers[0].file);
    let text = |name: &str| contents[Path::new(name)].text().to_owned();
    assert_eq!(text("twice"), "2");
    assert_eq!(text("file-then-directory/below"), "2");
    assert_eq!(text("directory-then-file"), "2");
    assert_eq!(text("again/kept"), "1");
    assert_eq!(contents[Path::new("again")].inode.mode & 0o7777, 0o711);
    assert_eq!(contents[Path::new("self")].number, contents[Path::new("twice")].number);
    assert!(!contents.contains_key(Path::new("directory-then-file/below")));
}

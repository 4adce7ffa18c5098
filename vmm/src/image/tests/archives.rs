//! Every form that an image may come in, and what must survive the way into a layer.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;
use serde_json::json;

use super::fixture::{
    Bench, Tar, config, docker_archive, docker25_archive, gzip, is_root, oci_directory, oci_files, oci_tar,
    read, told, view, xz, zstd,
};
use crate::image::digest::Digest;
use crate::image::erofs_image::xattr_index;
use crate::image::member::Mtime;

fn rootfs() -> Vec<u8> {
    Tar::new().directory("bin", 0o755).file("bin/app", "program").symlink("app", "bin/app").end()
}

#[test]
fn a_tar_is_the_same_image_however_it_is_compressed() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let plain = bench.import_bytes(&rootfs()).unwrap();
    assert_eq!(plain.layers.len(), 1);
    let contents = read(&plain.layers[0].file);
    assert_eq!(contents[Path::new("bin/app")].text(), "program");
    assert_eq!(contents[Path::new("app")].text(), "bin/app");
    assert_eq!(contents[Path::new("app")].inode.file_type(), FileType::Symlink);
    let key = Digest::of(&rootfs());
    assert_eq!(plain.layers[0].uuid, key.uuid());
    assert_eq!(bench.stored("layers"), [format!("{}.erofs", key.hex())]);
    assert_eq!(plain.layers[0].bytes % (2 << 20), 0);
    for compress in [gzip, zstd, xz] {
        let image = bench.import(&bench.write("other", &compress(&rootfs()))).unwrap();
        assert_eq!(image.id, plain.id);
    }
    assert_eq!(bench.stored("layers").len(), 1);
    assert_eq!(bench.stored("tmp"), [""; 0]);
}

#[test]
fn everything_about_a_file_survives() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let capability: &[u8] = b"\x01\0\0\x02\0\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut set_id = Tar::header(b"su", tar::EntryType::Regular, 1);
    set_id.set_mode(0o6755);
    set_id.set_uid(1234);
    set_id.set_gid(70_000);
    let mut odd = Tar::header(b"\xff\xfe odd\n", tar::EntryType::Regular, 1);
    odd.set_mtime(5_000_000_000);
    let mut directory = Tar::header(b"d/", tar::EntryType::Directory, 0);
    directory.set_mode(0o1777);
    directory.set_uid(33);
    let tar = Tar::new()
        .raw(directory, b"")
        .file("d/late", "makes the directory younger")
        .pax(&[("mtime", b"981173106.25")])
        .raw(set_id, b"x")
        .pax(&[("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.user.note", b"a\nb=c")])
        .file("ping", "x")
        .raw(odd, b"y")
        .hard_link("ping2", "ping")
        .end();
    let image = bench.import_bytes(&tar).unwrap();
    let contents = read(&image.layers[0].file);
    let su = &contents[Path::new("su")].inode;
    assert_eq!((su.mode & 0o7777, su.uid, su.gid), (0o6755, 1234, 70_000));
    assert_eq!(su.mtime, Mtime { seconds: 981_173_106, nanoseconds: 250_000_000 });
    let d = &contents[Path::new("d")].inode;
    assert_eq!((d.mode & 0o7777, d.uid, d.mtime.seconds), (0o1777, 33, 1_000_000_000));
    let ping = &contents[Path::new("ping")];
    assert!(ping.xattrs.contains(&(xattr_index::SECURITY, b"capability".to_vec(), capability.to_vec())));
    assert!(ping.xattrs.contains(&(xattr_index::USER, b"note".to_vec(), b"a\nb=c".to_vec())));
    assert_eq!(ping.inode.links, 2);
    assert_eq!(ping.number, contents[Path::new("ping2")].number);
    let odd = &contents[Path::new(OsStr::from_bytes(b"\xff\xfe odd\n"))];
    assert_eq!((odd.text(), odd.inode.mtime.seconds), ("y", 5_000_000_000));
}

#[test]
fn sparse_files_read_as_what_they_stand_for() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let pax: [(&str, &[u8]); 2] = [("GNU.sparse.map", b"5000,3,20000,2"), ("GNU.sparse.size", b"30000")];
    let image = bench.import_bytes(&Tar::new().pax(&pax).file("s", "abcde").end()).unwrap();
    let data = &read(&image.layers[0].file)[Path::new("s")].data;
    let mut expected = vec![0; 30_000];
    expected[5000..5003].copy_from_slice(b"abc");
    expected[20_000..20_002].copy_from_slice(b"de");
    assert!(*data == expected);
}

fn two_layers() -> [Vec<u8>; 2] {
    [
        Tar::new().directory("etc", 0o755).file("etc/old", "1").file("etc/kept", "1").end(),
        Tar::new().directory("etc", 0o755).file("etc/.wh.old", "").file("etc/new", "2").end(),
    ]
}

#[test]
fn every_container_archive_gives_the_same_image() {
    if !is_root() {
        return;
    }
    let layers = two_layers();
    let expected = Digest::of(&config(&layers)).to_string();
    let blobs = [gzip(&layers[0]), zstd(&layers[1])];
    let sources = [
        ("docker", docker_archive(&layers, &["app:1"])),
        ("docker.gz", gzip(&docker_archive(&layers, &["app:1"]))),
        ("oci", oci_tar(&layers, &blobs)),
        ("oci.zst", zstd(&oci_tar(&layers, &blobs))),
        ("docker25", docker25_archive(&layers, &["app:1", "app:latest"])),
        ("docker25 without a tag", docker25_archive(&layers, &[])),
    ];
    for (what, bytes) in sources {
        let bench = Bench::new();
        let image = bench.import_bytes(&bytes).unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        assert_eq!(image.id, expected, "{what}");
        assert_eq!(image.layers.len(), 2, "{what}");
        assert_eq!(image.config.cmd, ["/bin/app"], "{what}");
        let shown: Vec<_> = view(&image).into_iter().collect();
        let expected = [("etc", ""), ("etc/kept", "1"), ("etc/new", "2")];
        assert_eq!(shown, expected.map(|(path, data)| (path.to_owned(), data.to_owned())), "{what}");
        let names: Vec<&str> = image.names.iter().map(|name| name.as_str()).collect();
        match what {
            "docker" | "docker.gz" => assert_eq!(names, ["app:1"]),
            "oci" | "oci.zst" => assert_eq!(names, ["app:1"]),
            "docker25" => assert_eq!(names, ["app:1", "app:latest"]),
            _ => assert_eq!(names, [""; 0]),
        }
    }
    let bench = Bench::new();
    let layout = bench.path("layout");
    oci_directory(&layout, &oci_files(&layers, &blobs));
    assert_eq!(bench.import(&layout).unwrap().id, expected);
}

#[test]
fn layers_shared_by_links_in_an_old_docker_archive() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let [layer, _] = two_layers();
    let layers = [layer.clone(), Tar::new().file("between", "x").end(), layer];
    let config = config(&layers);
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let (a, b, c) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
    let name = |place: &str| format!("{place}/layer.tar");
    let manifest = json!([{"Config": config_name, "RepoTags": [], "Layers": [name(&a), name(&b), name(&c)]}]);
    let raw = |tar: Tar, name: &str, bytes: &[u8]| {
        tar.raw(Tar::header(name.as_bytes(), tar::EntryType::Regular, bytes.len() as u64), bytes)
    };
    let tar = raw(Tar::new(), &config_name, &config);
    let tar = raw(tar, &name(&a), &layers[0]);
    let tar = raw(tar, &name(&b), &layers[1]).symlink(&name(&c), &format!("../{}", name(&a)));
    let image =
        bench.import_bytes(&raw(tar, "manifest.json", manifest.to_string().as_bytes()).end()).unwrap();
    // The same layer twice: overlayfs takes a directory once.
    assert_eq!(image.layers.len(), 2);
    assert_eq!(view(&image).len(), 4);
}

#[test]
fn damage_is_found_by_digest_and_nothing_is_published() {
    if !is_root() {
        return;
    }
    let layers = two_layers();
    let blobs = [gzip(&layers[0]), layers[1].clone()];
    let swap = |files: &mut Vec<(String, Vec<u8>)>, old: &[u8], new: Vec<u8>| {
        let file = files.iter_mut().find(|(_, bytes)| bytes == old).unwrap();
        file.1 = new;
    };
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    type Change = (&'static str, Box<dyn Fn(&mut Vec<(String, Vec<u8>)>)>);
    let config = config(&layers);
    let (layer0, layer1) = (blobs[0].clone(), blobs[1].clone());
    let changes: Vec<Change> = vec![
        ("expected", Box::new(move |files| swap(files, &config, flipped(&config, 20)))),
        // In compressed data, in a tar's header, in a file's content.
        (
            "expected",
            Box::new({
                let layer = layer0.clone();
                move |files| swap(files, &layer, flipped(&layer, 30))
            }),
        ),
        (
            "expected",
            Box::new({
                let layer = layer1.clone();
                move |files| swap(files, &layer, flipped(&layer, 3))
            }),
        ),
        (
            "expected",
            Box::new({
                let layer = layer1.clone();
                move |files| swap(files, &layer, flipped(&layer, 1536))
            }),
        ),
        ("should have", Box::new(move |files| swap(files, &layer1, layer1[..1024].to_vec()))),
        ("does not hold it", Box::new(move |files| files.retain(|(_, bytes)| *bytes != layer0))),
    ];
    for (words, change) in changes {
        let bench = Bench::new();
        let mut files = oci_files(&layers, &blobs);
        change(&mut files);
        let layout = bench.path("layout");
        oci_directory(&layout, &files);
        let error = told(&bench.import(&layout).unwrap_err());
        assert!(error.contains(words), "{error}");
        assert_eq!(bench.stored("images"), [""; 0], "{error}");
        assert_eq!(bench.stored("tmp"), [""; 0], "{error}");
        let damaged = bench.stored("layers");
        // The other layer may be there: it is what it claims.
        assert!(
            damaged
                .iter()
                .all(|name| layers.iter().any(|l| *name == format!("{}.erofs", Digest::of(l).hex())))
        );
    }
}

#[test]
fn a_blob_that_is_as_named_but_not_the_layer_that_is_configured() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let layers = two_layers();
    let other = Tar::new().file("other", "x").end();
    let error = bench.import_bytes(&oci_tar(&layers, &[layers[0].clone(), other])).unwrap_err();
    assert!(told(&error).contains("is damaged"), "{}", told(&error));
    assert_eq!(bench.stored("images"), [""; 0]);
}

#[test]
fn images_for_other_machines_are_refused() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let layers = two_layers();
    let config = String::from_utf8(config(&layers)).unwrap().replace("amd64", "arm64");
    let manifest = json!([{"Config": "config.json", "RepoTags": [], "Layers": ["l0", "l1"]}]);
    let tar = Tar::new().file("manifest.json", &manifest.to_string()).file("config.json", &config);
    let add = |tar: Tar, name: &str, bytes: &[u8]| {
        tar.raw(Tar::header(name.as_bytes(), tar::EntryType::Regular, bytes.len() as u64), bytes)
    };
    let tar = add(add(tar, "l0", &layers[0]), "l1", &layers[1]).end();
    let error = told(&bench.import_bytes(&tar).unwrap_err());
    assert!(error.contains("linux/arm64"), "{error}");
}

#[test]
fn what_is_no_image_is_told_apart() {
    let bench = Bench::new();
    for (bytes, words) in [
        (&b""[..], "empty"),
        (&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0][..], "program"),
        (&b"hello world"[..], "neither"),
        (&[7; 5000][..], "neither"),
        (&b"\x1f\x8b garbage that is no gzip"[..], "cannot be"),
        (&b"BZh91AY"[..], "bzip2"),
    ] {
        let error = told(&bench.import_bytes(bytes).unwrap_err());
        assert!(error.contains(words), "{error}");
    }
    assert!(told(&bench.import(&bench.path("none")).unwrap_err()).contains("cannot open"));
    bench.assert_empty();
}

#[test]
fn a_root_file_system_that_holds_a_manifest_is_still_one() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let tar = Tar::new().directory("bin", 0o755).file("manifest.json", "[]").file("index.json", "{}").end();
    assert_eq!(view(&bench.import_bytes(&tar).unwrap()).len(), 3);
    let tar = Tar::new().directory("blobs", 0o755).file("blobs/x", "y").end();
    assert_eq!(view(&bench.import_bytes(&tar).unwrap()).len(), 2);
}

#[test]
fn an_image_may_have_an_empty_root_and_a_tar_without_files_is_none() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    for bytes in [Tar::new().end(), gzip(&Tar::new().end()), vec![0; 1 << 20]] {
        let error = told(&bench.import_bytes(&bytes).unwrap_err());
        assert!(error.contains("holds no files"), "{error}");
    }
    let error = told(&bench.import(std::path::Path::new("/dev/zero")).unwrap_err());
    assert!(error.contains("holds no files"), "{error}");
    bench.assert_empty();
    let none = docker_archive(&[], &[]);
    let empty = docker_archive(&[Tar::new().end()], &[]);
    for bytes in [none, empty] {
        let image = bench.import_bytes(&bytes).unwrap();
        assert_eq!((image.layers.len(), view(&image).len()), (1, 0));
    }
}

#[test]
fn a_pipe_is_read_once() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let path = bench.path("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let bytes = gzip(&docker_archive(&two_layers(), &["app:1"]));
    let image = std::thread::scope(|scope| {
        scope.spawn(|| fs::write(&path, &bytes).unwrap());
        bench.import(&path).unwrap()
    });
    assert_eq!(view(&image).len(), 3);
    assert_eq!(bench.stored("tmp"), [""; 0]);
}

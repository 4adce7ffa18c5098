//! Stacks of layers: whiteouts, merging, and directories that an archive leaves undescribed.

use std::path::Path;

use proptest::prelude::*;
use rustix::fs::FileType;

use super::fixture::{Bench, Tar, docker_archive, is_root, read, told, view};
use crate::image::digest::Digest;
use crate::image::store::Image;
use crate::image::tree;

fn import(layers: &[Vec<u8>], max_layers: usize) -> (Bench, Image) {
    let bench = Bench::with_layers(max_layers);
    let image = bench.import_bytes(&docker_archive(layers, &[]));
    let image = image.unwrap_or_else(|error| panic!("{}", told(&error)));
    (bench, image)
}

fn paths(image: &Image) -> Vec<String> {
    view(image).into_keys().collect()
}

#[test]
fn whiteouts_become_what_overlayfs_reads() {
    if !is_root() {
        return;
    }
    let lower = Tar::new().directory("d", 0o755).file("d/a", "1").file("gone", "1").end();
    let upper = Tar::new()
        .file(".wh.gone", "")
        .directory("d", 0o755)
        .file("d/.wh..wh..opq", "")
        .file("d/b", "2")
        // Said after the entry, about the layers below: the entry stays.
        .file("both", "2")
        .file(".wh.both", "")
        .directory("dir", 0o755)
        .file(".wh.dir", "")
        // Said before it, and a file that became a directory: both hid what lies below.
        .file(".wh.dir2", "")
        .directory("dir2", 0o755)
        .file("dir3", "")
        .directory("dir3", 0o755)
        .end();
    let (_bench, image) = import(&[lower, upper], 8);
    let contents = read(&image.layers[1].file);
    assert!(contents[Path::new("gone")].inode.is_whiteout());
    for name in ["d", "dir", "dir2", "dir3"] {
        assert!(contents[Path::new(name)].is_opaque(), "{name}");
    }
    assert_eq!(contents[Path::new("both")].text(), "2");
    assert_eq!(contents[Path::new("d")].xattrs.len(), 1, "no trace of the attribute's staged name");
    assert_eq!(paths(&image), ["both", "d", "d/b", "dir", "dir2", "dir3"]);
}

#[test]
fn marks_below_a_file_hide_nothing() {
    if !is_root() {
        return;
    }
    // As umoci writes a directory that has become a file.
    let lower = Tar::new().directory("d", 0o755).file("d/blob", "1").file("kept", "1").end();
    for upper in [
        Tar::new().file("d", "2").file("d/.wh.blob", ""),
        Tar::new().file("d/.wh.blob", "").file("d", "2"),
        Tar::new().file("d", "2").file("d/.wh..wh..opq", ""),
    ] {
        let (_bench, image) = import(&[lower.clone(), upper.end()], 8);
        assert_eq!(paths(&image), ["d", "kept"]);
        assert_eq!(view(&image)["d"], "2");
    }
}

#[test]
fn what_stands_below_a_whiteout_is_in_a_directory_of_its_own() {
    if !is_root() {
        return;
    }
    let lower = Tar::new().directory("d", 0o755).file("d/old", "1").file("kept", "1").end();
    for upper in [
        Tar::new().file(".wh.d", "").file("d/f", "2"),
        Tar::new().file("d/f", "2").file(".wh.d", ""),
        Tar::new().file(".wh.d", "").file("x", "2").hard_link("d/f", "x").file(".wh.x", "").file("x", ""),
    ] {
        let upper = upper.end();
        for max in [8, 1] {
            let (_bench, image) = import(&[lower.clone(), upper.clone()], max);
            let shown: Vec<String> = paths(&image).into_iter().filter(|path| path != "x").collect();
            assert_eq!(shown, ["d", "d/f", "kept"], "at most {max}");
        }
    }
    let deep = Tar::new().file(".wh.d", "").directory("d/e/f", 0o700).end();
    assert_eq!(paths(&import(&[lower, deep], 8).1), ["d", "d/e", "d/e/f", "kept"]);
}

#[test]
fn an_opaque_root_hides_all_layers_below() {
    if !is_root() {
        return;
    }
    let lower = || Tar::new().directory("d", 0o755).file("d/old", "1").file("old", "1").end();
    let hides = Tar::new().file("d/new", "2").file(".wh..wh..opq", "").end();
    let upper = Tar::new().file("top", "3").end();
    let layers = [lower(), Tar::new().file("more", "1").end(), hides, upper];
    // Overlayfs would show what lies below: so nothing may.
    for max in [8, 3, 2, 1] {
        let (_bench, image) = import(&layers, max);
        let marked = image.layers.iter().map(|layer| read(&layer.file)[Path::new("")].is_opaque());
        assert!(!marked.skip(1).any(|is_opaque| is_opaque), "at most {max}");
        assert_eq!(paths(&image), ["d", "d/new", "top"], "at most {max}");
    }
}

#[test]
fn more_layers_than_devices_are_merged() {
    if !is_root() {
        return;
    }
    let big = "x".repeat(100_000);
    let layers: Vec<Vec<u8>> = vec![
        Tar::new().directory("d", 0o755).file("d/base", &big).file("removed", "1").end(),
        Tar::new().directory("d", 0o755).file("d/one", "1").file("changed", "1").end(),
        Tar::new()
            .file(".wh.removed", "")
            .file("changed", "2")
            .directory("d", 0o700)
            .file("d/.wh.one", "")
            .end(),
        Tar::new().file("top", &big).end(),
    ];
    let (_all, separate) = import(&layers, 8);
    let expected = view(&separate);
    assert_eq!(separate.layers.len(), 4);
    for (max, count) in [(3, 3), (2, 2), (1, 1), (0, 1)] {
        let (_bench, image) = import(&layers, max);
        assert_eq!(image.layers.len(), count);
        assert_eq!(view(&image), expected, "at most {max}");
        let mut uuids: Vec<_> = image.layers.iter().map(|layer| layer.uuid).collect();
        uuids.dedup();
        assert_eq!(uuids.len(), count);
    }
    let (_bench, image) = import(&layers, 3);
    let merged = read(&image.layers[1].file);
    assert!(merged[Path::new("removed")].inode.is_whiteout(), "it hides what lies below both");
    assert_eq!(merged[Path::new("d")].inode.mode & 0o7777, 0o700);
    let (_bench, image) = import(&layers, 1);
    assert!(!read(&image.layers[0].file).values().any(|node| node.inode.is_whiteout()));
}

#[test]
fn a_layer_is_shared_unless_it_depends_on_those_below() {
    if !is_root() {
        return;
    }
    let base = Tar::new().directory("tmp", 0o1777).directory("srv", 0o750).file("base", "1").end();
    let other = Tar::new().directory("tmp", 0o700).file("other", "1").end();
    let described = Tar::new().directory("srv", 0o755).file("srv/f", "1").end();
    // The archive names a file in /tmp and not /tmp itself.
    let undescribed = Tar::new().file("tmp/f", "1").file("deep/er/g", "1").end();
    let bench = Bench::new();
    let bring = |layers: &[&Vec<u8>]| {
        let layers: Vec<Vec<u8>> = layers.iter().map(|layer| (*layer).clone()).collect();
        let name = Digest::of(&layers.concat()).hex();
        bench.import(&bench.write(&name, &docker_archive(&layers, &[]))).unwrap()
    };
    let first = bring(&[&base, &described, &undescribed]);
    let second = bring(&[&other, &described, &undescribed]);
    assert_eq!(first.layers[1].path, second.layers[1].path);
    assert_eq!(first.layers[1].uuid, Digest::of(&described).uuid());
    assert_ne!(first.layers[2].path, second.layers[2].path);
    let mode = |image: &Image, name: &str| read(&image.layers[2].file)[Path::new(name)].inode.mode & 0o7777;
    assert_eq!(mode(&first, "tmp"), 0o1777);
    assert_eq!(mode(&second, "tmp"), 0o700);
    assert_eq!(mode(&first, "deep/er"), 0o755);
    // The same again: nothing is built.
    bench.log.0.borrow_mut().clear();
    let again = bring(&[&base, &described, &undescribed]);
    assert_eq!(again.layers[2].path, first.layers[2].path);
    assert!(bench.log.0.borrow().is_empty());
}

#[test]
fn the_root_keeps_what_the_last_layer_says_that_describes_it() {
    if !is_root() {
        return;
    }
    let described = |mode, uid| {
        let mut root = Tar::header(b"./", tar::EntryType::Directory, 0);
        root.set_mode(mode);
        root.set_uid(uid);
        Tar::new().raw(root, b"")
    };
    let one = |name: &str| Tar::new().file(name, "1").end();
    let root = |image: &Image, at: usize| read(&image.layers[at].file)[Path::new("")].inode.clone();
    let attributes = |image: &Image, at: usize| (root(image, at).mode & 0o7777, root(image, at).uid);
    let layers = [described(0o700, 5).file("base", "1").end(), one("a"), one("b")];
    let (_bench, image) = import(&layers, 8);
    let marked: Vec<bool> = (0..3).map(|at| root(&image, at).mtime == tree::UNDESCRIBED_ROOT).collect();
    assert_eq!(marked, [false, true, true]);
    assert_eq!(image.layers[1].uuid, Digest::of(&layers[1]).uuid(), "it is shared with other images");
    let (_bench, image) = import(&layers, 1);
    assert_eq!((attributes(&image, 0), root(&image, 0).mtime.seconds), ((0o700, 5), 1_000_000_000));
    let (_bench, image) = import(&[&layers[..], &[described(0o711, 6).end()]].concat(), 1);
    assert_eq!(attributes(&image, 0), (0o711, 6));
    // Of a merged pair that lies on the one that does.
    let big = described(0o700, 5).file("base", &"x".repeat(9000)).end();
    let (_bench, image) = import(&[big, one("a"), one("b")], 2);
    assert_eq!(attributes(&image, 0), (0o700, 5));
    assert_eq!(root(&image, 1).mtime, tree::UNDESCRIBED_ROOT);
}

#[test]
fn an_undescribed_directory_is_looked_up_as_overlayfs_would() {
    if !is_root() {
        return;
    }
    let hidden = Tar::new().directory("a", 0o700).directory("b", 0o700).directory("b/c", 0o711).end();
    let hides = Tar::new().file(".wh.a", "").directory("b", 0o750).file("b/.wh..wh..opq", "").end();
    let uses = Tar::new().file("a/f", "1").file("b/c/f", "1").end();
    let (_bench, image) = import(&[hidden, hides, uses], 8);
    let contents = read(&image.layers[2].file);
    let mode = |name: &str| contents[Path::new(name)].inode.mode & 0o7777;
    assert_eq!(mode("a"), 0o755, "what a whiteout hides is not asked");
    assert_eq!(mode("b"), 0o750);
    assert_eq!(mode("b/c"), 0o755, "what an opaque directory hides is not asked");
}

#[derive(Clone, Debug)]
enum Step {
    File(String, u8),
    Directory(String),
    Whiteout(String),
    Opaque(String),
}

fn layer() -> impl Strategy<Value = Vec<Step>> {
    let path = || "[ab](/[ab]){0,2}";
    let step = prop_oneof![
        (path(), any::<u8>()).prop_map(|(path, value)| Step::File(path, value)),
        path().prop_map(Step::Directory),
        path().prop_map(Step::Whiteout),
        path().prop_map(Step::Opaque),
    ];
    prop::collection::vec(step, 1..6)
}

fn tar_of(steps: &[Step]) -> Vec<u8> {
    let mut tar = Tar::new();
    for step in steps {
        tar = match step {
            Step::File(path, value) => tar.file(path, &value.to_string()),
            Step::Directory(path) => tar.directory(path, 0o755),
            Step::Whiteout(path) => match path.rsplit_once('/') {
                Some((parent, name)) => tar.file(&format!("{parent}/.wh.{name}"), ""),
                None => tar.file(&format!(".wh.{path}"), ""),
            },
            Step::Opaque(path) => tar.file(&format!("{path}/.wh..wh..opq"), ""),
        };
    }
    tar.end()
}

proptest! {
    // Each case builds several images.
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn merging_never_changes_what_is_shown(layers in prop::collection::vec(layer(), 2..5)) {
        if !is_root() {
            return Ok(());
        }
        let layers: Vec<Vec<u8>> = layers.iter().map(|steps| tar_of(steps)).collect();
        let bench = Bench::with_layers(8);
        // A file where a directory is needed: refused alike, merged or not.
        let Ok(separate) = bench.import_bytes(&docker_archive(&layers, &[])) else {
            let merged = Bench::with_layers(1);
            prop_assert!(merged.import_bytes(&docker_archive(&layers, &[])).is_err());
            return Ok(());
        };
        let expected = view(&separate);
        for max in [1, 2] {
            let (_bench, image) = import(&layers, max);
            prop_assert!(image.layers.len() <= max);
            prop_assert_eq!(&view(&image), &expected);
        }
        // One layer needs no marks.
        let (_bench, image) = import(&layers, 1);
        let marks = read(&image.layers[0].file).into_values().filter(|node| {
            node.inode.file_type() == FileType::CharacterDevice
        });
        if layers.len() > 1 && image.layers[0].uuid != Digest::of(&layers[layers.len() - 1]).uuid() {
            prop_assert_eq!(marks.count(), 0);
        }
    }
}

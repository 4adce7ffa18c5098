use proptest::prelude::*;

use super::*;

fn member(kind: Kind, path: &[u8], link: &[u8]) -> Member {
    Member {
        kind,
        path: path.to_vec(),
        link: link.to_vec(),
        mode: 0o104755,
        uid: 1,
        gid: 2,
        mtime: Mtime::default(),
        xattrs: Vec::new(),
        size: 0,
        stored: 0,
        segments: None,
    }
}

fn plan(kind: Kind, path: &str) -> Result<Entry, EntryError> {
    plan_entry(&member(kind, path.as_bytes(), b"")).map(|planned| planned.entry)
}

fn clean(name: &str) -> LayerPath {
    LayerPath::clean(name.as_bytes()).unwrap()
}

#[test]
fn names_are_cleaned() {
    assert_eq!(clean("./usr//bin/./sh").as_bytes(), b"usr/bin/sh");
    assert_eq!(clean("/etc/passwd").as_bytes(), b"etc/passwd");
    assert_eq!(clean("..a/b..").as_bytes(), b"..a/b..");
    assert!(clean("./").is_root() && clean("").is_root() && clean("///").is_root());
    assert_eq!(LayerPath::clean(b"\xff/\xfe").unwrap().as_bytes(), b"\xff/\xfe");
}

#[test]
fn names_that_climb_are_refused() {
    for name in ["..", "../x", "a/../b", "/..", "a/.."] {
        assert!(matches!(LayerPath::clean(name.as_bytes()), Err(EntryError::ParentDirectory(_))), "{name}");
    }
    assert!(matches!(LayerPath::clean(b"a\0b"), Err(EntryError::Nul(_))));
    assert!(matches!(LayerPath::clean(&[b'a'; 256]), Err(EntryError::TooLong(_))));
    assert!(matches!(LayerPath::clean(&b"abc/".repeat(1100)), Err(EntryError::TooLong(_))));
    let link = plan_entry(&member(Kind::HardLink, b"a", b"../../etc/shadow"));
    assert!(matches!(link, Err(EntryError::ParentDirectory(_))));
}

#[test]
fn whiteouts() {
    assert_eq!(plan(Kind::File, "a/.wh.b"), Ok(Entry::Whiteout(clean("a/b"))));
    assert_eq!(plan(Kind::File, ".wh.b"), Ok(Entry::Whiteout(clean("b"))));
    assert_eq!(plan(Kind::File, "a/.wh..wh..opq"), Ok(Entry::Opaque(clean("a"))));
    assert_eq!(plan(Kind::File, ".wh..wh..opq"), Ok(Entry::Opaque(clean(""))));
    assert_eq!(plan(Kind::File, ".wh..wh.aufs"), Ok(Entry::Ignored));
    assert_eq!(plan(Kind::Directory, ".wh..wh.plnk/"), Ok(Entry::Ignored));
    assert_eq!(plan(Kind::File, ".wh..wh.plnk/12.34"), Ok(Entry::Ignored));
    assert_eq!(plan(Kind::File, "a/.wh...x"), Ok(Entry::Whiteout(clean("a/..x"))));
    for name in ["a/.wh.", "a/.wh..", "a/.wh..."] {
        assert!(matches!(plan(Kind::File, name), Err(EntryError::EmptyWhiteout(_))), "{name}");
    }
}

#[test]
fn kinds() {
    assert_eq!(plan(Kind::Device, "dev/sda"), Ok(Entry::Device(clean("dev/sda"))));
    assert_eq!(plan(Kind::File, "./"), Err(EntryError::RootNotDirectory));
    assert!(matches!(plan(Kind::Symlink, "l"), Err(EntryError::EmptyLink(_))));
    let link = plan_entry(&member(Kind::Symlink, b"l", b"../../../etc")).unwrap().entry;
    assert!(
        matches!(link, Entry::Symlink(_, _, target) if target == b"../../../etc"),
        "a target is only bytes"
    );
    let Ok(Entry::File(_, metadata)) = plan(Kind::File, "su") else { panic!("not a file") };
    assert_eq!((metadata.mode, metadata.uid, metadata.gid), (0o4755, 1, 2));
}

#[test]
fn owners_beyond_32_bits_are_refused() {
    for uid in [u64::from(u32::MAX), 1 << 32] {
        let member = Member { uid, ..member(Kind::File, b"f", b"") };
        assert!(matches!(plan_entry(&member), Err(EntryError::Owner { .. })));
    }
}

#[test]
fn overlay_attributes_never_enter() {
    let names = [
        "trusted.overlay.redirect",
        "user.overlay.opaque",
        "user.x",
        "security.capability",
        "security.selinux",
    ];
    let xattrs = names.iter().map(|name| (name.as_bytes().to_vec(), b"y".to_vec())).collect();
    let planned = plan_entry(&Member { xattrs, ..member(Kind::File, b"f", b"") }).unwrap();
    let Entry::File(_, metadata) = planned.entry else { panic!("not a file") };
    let kept: Vec<_> = metadata.xattrs.iter().map(|(name, _)| name.as_slice()).collect();
    assert_eq!(kept, [&b"user.x"[..], b"security.capability"]);
    assert_eq!(planned.xattrs_dropped, 3);
}

/// Cleaning by the book: split, drop, join.
fn naive_clean(name: &[u8]) -> Option<Vec<u8>> {
    let parts: Vec<&[u8]> =
        name.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    parts.iter().all(|part| *part != b".." && !part.contains(&0)).then(|| parts.join(&b'/'))
}

proptest! {
    #[test]
    fn cleaning_agrees_with_the_naive_way(name in "[a./\\x00\u{e9}]{0,24}") {
        let name = name.as_bytes();
        prop_assert_eq!(LayerPath::clean(name).ok().map(|path| path.as_bytes().to_vec()), naive_clean(name));
    }

    #[test]
    fn a_clean_path_is_stable_and_stays_inside(name in prop::collection::vec(prop::sample::select(b"./aw h\0\xff".to_vec()), 0..40)) {
        if let Ok(path) = LayerPath::clean(&name) {
            prop_assert_eq!(&LayerPath::clean(path.as_bytes()).unwrap(), &path);
            prop_assert!(!path.as_bytes().starts_with(b"/"));
            prop_assert!(path.components().all(|part| part != ".." && part != "."));
            if let Some((parent, name)) = path.split() {
                prop_assert_eq!(parent.join(name), path);
            }
        }
    }

    #[test]
    fn whiteouts_hide_exactly_the_name_after_the_prefix(parent in "([a-c]{1,3}/){0,3}", name in "[a-z.]{1,8}") {
        let full = format!("{parent}.wh.{name}");
        let planned = plan(Kind::File, &full);
        if full.contains(".wh..wh.") {
            prop_assert!(matches!(planned, Ok(Entry::Ignored | Entry::Opaque(_))));
        } else if name == "." || name == ".." {
            prop_assert!(planned.is_err());
        } else {
            prop_assert_eq!(planned, Ok(Entry::Whiteout(clean(&format!("{parent}{name}")))));
        }
    }
}

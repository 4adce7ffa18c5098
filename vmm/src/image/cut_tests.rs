use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::super::member::Mtime;
use super::super::stack::tests::{layer, read, view, write};
use super::*;

fn path(text: &str) -> LayerPath {
    LayerPath::clean(text.as_bytes()).unwrap()
}

fn cut_from(root: &Path, to: &Path, at: &str) -> Option<Piece> {
    fs::create_dir_all(to).unwrap();
    cut(&Tree::open(root).unwrap(), &Tree::open(to).unwrap(), &path(at), 1).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_layer_and_its_piece_show_what_the_layer_did(
        bottom in layer(), whole in layer(), top in layer(), at in prop::sample::select(vec!["a", "a/b", "b"]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("layer"), &whole);
        cut_from(&dir.path().join("layer"), &dir.path().join("piece"), at);
        let (rest, piece) = (read(&dir.path().join("layer")), read(&dir.path().join("piece")));
        let cut = view(&[bottom.clone(), piece.clone(), rest.clone(), top.clone()]);
        prop_assert_eq!(cut, view(&[bottom.clone(), whole.clone(), top.clone()]), "{:?} {:?}", piece, rest);
    }
}

/// A tree with a file of two names, a link and a directory, and something beside it.
fn tree(root: &Path, beside: &str) {
    fs::create_dir_all(root.join("usr/lib")).unwrap();
    fs::write(root.join("usr/lib/one"), "content").unwrap();
    fs::hard_link(root.join("usr/lib/one"), root.join("usr/lib/two")).unwrap();
    fs::write(root.join("usr/three"), "content").unwrap();
    symlink("lib/one", root.join("usr/link")).unwrap();
    fs::write(root.join("beside"), beside).unwrap();
    let time = Mtime { seconds: 1_000_000_000, nanoseconds: 7 };
    for name in ["usr/lib/one", "usr/three", "usr/lib", "usr"] {
        tree::set_mtime(fs::File::open(root.join(name)).unwrap(), time).unwrap();
    }
    let stamps = tree::timestamps(time);
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, root.join("usr/link"), &stamps, flags).unwrap();
}

#[test]
fn a_piece_is_found_by_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let piece = |name: &str, change: &dyn Fn(&Path)| {
        let root = dir.path().join(name);
        tree(&root, name);
        change(&root);
        let before = fs::metadata(&root).unwrap().modified().unwrap();
        let piece = cut_from(&root, &dir.path().join(format!("{name}-cut")), "/usr").unwrap();
        assert!(!root.join("usr").exists() && root.join("beside").exists());
        assert_eq!(fs::metadata(&root).unwrap().modified().unwrap(), before, "what is above stays as it was");
        piece
    };
    let first = piece("first", &|_| {});
    assert_eq!((first.bytes, first.opaque, first.newest), (21, false, 1_000_000_000));
    assert_eq!(piece("second", &|_| {}), first, "what lies beside it is another matter");
    let keeping_times = |file: &Path, change: &dyn Fn()| {
        let time = fs::metadata(file).unwrap().modified().unwrap();
        change();
        fs::File::open(file).unwrap().set_modified(time).unwrap();
    };
    type Change<'a> = (&'a str, &'a dyn Fn(&Path));
    let changes: [Change<'_>; 5] = [
        ("content", &|root| {
            keeping_times(&root.join("usr/three"), &|| fs::write(root.join("usr/three"), "CONTENT").unwrap())
        }),
        ("mode", &|root| {
            fs::set_permissions(root.join("usr/three"), fs::Permissions::from_mode(0o600)).unwrap()
        }),
        ("time", &|root| {
            fs::File::open(root.join("usr/three")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap()
        }),
        ("which names are one file", &|root| {
            keeping_times(&root.join("usr"), &|| {
                fs::remove_file(root.join("usr/three")).unwrap();
                fs::hard_link(root.join("usr/lib/one"), root.join("usr/three")).unwrap();
            });
        }),
        ("opaque", &|root| tree::set_opaque(fs::File::open(root.join("usr/lib")).unwrap()).unwrap()),
    ];
    for (name, change) in changes {
        assert_ne!(piece(name, change).key, first.key, "{name}");
    }
}

#[test]
fn what_cannot_be_cut_stays() {
    let dir = tempfile::tempdir().unwrap();
    let stays = |name: &str, at: &str, change: &dyn Fn(&Path)| {
        let root = dir.path().join(name);
        tree(&root, name);
        change(&root);
        assert_eq!(cut_from(&root, &dir.path().join(format!("{name}-cut")), at), None, "{name}");
        assert!(root.join("usr/lib/one").exists(), "{name}");
    };
    stays("all of it", "/", &|_| {});
    stays("a file", "/usr/three", &|_| {});
    stays("nothing", "/opt", &|_| {});
    stays("by a link", "/u/lib", &|root| symlink("usr", root.join("u")).unwrap());
    stays("a link that leads out", "/usr", &|root| {
        fs::hard_link(root.join("usr/three"), root.join("out")).unwrap();
    });
    stays("below what is opaque", "/usr/lib", &|root| {
        tree::set_opaque(fs::File::open(root.join("usr")).unwrap()).unwrap();
    });
    let root = dir.path().join("small");
    tree(&root, "");
    fs::create_dir(dir.path().join("to")).unwrap();
    let to = Tree::open(&dir.path().join("to")).unwrap();
    assert_eq!(cut(&Tree::open(&root).unwrap(), &to, &path("usr"), 22).unwrap(), None);
}

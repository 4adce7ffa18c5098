use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> LayerPath {
    LayerPath::clean(text.as_bytes()).unwrap()
}

/// What a layer says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File(u8),
    Whiteout,
    Directory { opaque: bool },
}

type Layer = BTreeMap<String, Node>;

fn write(root: &Path, layer: &Layer) -> Tree {
    fs::create_dir_all(root).unwrap();
    for (name, node) in layer {
        let at = root.join(name);
        match node {
            Node::File(value) => fs::write(at, [*value]).unwrap(),
            Node::Whiteout => {
                let parent = File::open(at.parent().unwrap()).unwrap();
                tree::make_whiteout(&parent, at.file_name().unwrap()).unwrap();
            }
            Node::Directory { opaque } => {
                fs::create_dir(&at).unwrap();
                if *opaque {
                    tree::set_opaque(File::open(&at).unwrap()).unwrap();
                }
            }
        }
    }
    Tree::open(root).unwrap()
}

fn read(root: &Path) -> Layer {
    let mut layer = Layer::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        let open = File::open(&directory).unwrap();
        for name in tree::list(&open).unwrap() {
            let at = directory.join(&name);
            let stat = tree::stat(&open, &name).unwrap().unwrap();
            let node = match tree::file_type(&stat) {
                FileType::Directory => {
                    pending.push(at.clone());
                    Node::Directory { opaque: tree::is_opaque(File::open(&at).unwrap()).unwrap() }
                }
                FileType::CharacterDevice => Node::Whiteout,
                _ => Node::File(fs::read(&at).unwrap()[0]),
            };
            layer.insert(at.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), node);
        }
    }
    layer
}

/// What a stack of layers, lowest first, shows: overlayfs' look-up for every path.
fn view(layers: &[Layer]) -> BTreeMap<String, Node> {
    let names: BTreeSet<&String> = layers.iter().flat_map(Layer::keys).collect();
    let mut shown = BTreeMap::new();
    for name in names {
        if let Some(node) = look_up(layers, name) {
            shown.insert(name.clone(), node);
        }
    }
    shown
}

fn look_up(layers: &[Layer], name: &str) -> Option<Node> {
    // Layers that take part in the directory so far, highest first.
    let mut stack: Vec<&Layer> = layers.iter().rev().collect();
    let mut so_far = String::new();
    let parts: Vec<&str> = name.split('/').collect();
    for (depth, part) in parts.iter().enumerate() {
        so_far = if so_far.is_empty() { (*part).to_owned() } else { format!("{so_far}/{part}") };
        let mut next = Vec::new();
        for layer in stack {
            match layer.get(&so_far) {
                None => {}
                Some(Node::Directory { opaque }) => {
                    next.push(layer);
                    if *opaque {
                        break;
                    }
                }
                Some(Node::File(value)) if next.is_empty() && depth + 1 == parts.len() => {
                    return Some(Node::File(*value));
                }
                Some(_) => break,
            }
        }
        if next.is_empty() {
            return None;
        }
        stack = next;
    }
    Some(Node::Directory { opaque: false })
}

fn layer() -> impl Strategy<Value = Layer> {
    let node = prop_oneof![
        any::<u8>().prop_map(Node::File),
        Just(Node::Whiteout),
        any::<bool>().prop_map(|opaque| Node::Directory { opaque }),
        Just(Node::Directory { opaque: false }),
    ];
    prop::collection::btree_map("[ab](/[ab]){0,2}", node, 0..8).prop_map(|raw| {
        // A name below something must be below a directory.
        let mut layer = Layer::new();
        for (name, node) in raw {
            let parents = name.match_indices('/').map(|(at, _)| name[..at].to_owned());
            for parent in parents {
                let entry = layer.entry(parent).or_insert(Node::Directory { opaque: false });
                if !matches!(entry, Node::Directory { .. }) {
                    *entry = Node::Directory { opaque: false };
                }
            }
            layer.insert(name, node);
        }
        layer
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_merged_pair_shows_what_the_two_did(bottom in layer(), lower in layer(), upper in layer()) {
        let dir = tempfile::tempdir().unwrap();
        let low = write(&dir.path().join("low"), &lower);
        let high = write(&dir.path().join("high"), &upper);
        merge(&low, &high, &mut Implicit::new(), Implicit::new()).unwrap();
        let merged = read(&dir.path().join("low"));
        prop_assert_eq!(view(&[bottom.clone(), merged.clone()]), view(&[bottom.clone(), lower.clone(), upper.clone()]));
        drop_idle_whiteouts(&low, false).unwrap();
        let merged = read(&dir.path().join("low"));
        prop_assert_eq!(view(&[bottom.clone(), merged]), view(&[bottom, lower.clone(), upper.clone()]));
        drop_idle_whiteouts(&low, true).unwrap();
        let merged = read(&dir.path().join("low"));
        prop_assert!(!merged.values().any(|node| *node == Node::Whiteout));
        prop_assert_eq!(view(&[merged]), view(&[lower, upper]));
    }
}

#[test]
fn attributes_come_from_the_layer_that_describes_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let directory = || Node::Directory { opaque: false };
    let lower = Layer::from([("tmp".into(), directory()), ("etc".into(), directory())]);
    let upper = Layer::from([
        ("tmp".into(), directory()),
        ("tmp/new".into(), Node::File(1)),
        ("etc".into(), directory()),
        ("only".into(), directory()),
    ]);
    let (low, high) = (dir.path().join("low"), dir.path().join("high"));
    let (low_tree, high_tree) = (write(&low, &lower), write(&high, &upper));
    let set = |root: &Path, name: &str, mode, seconds| {
        let mtime = super::super::member::Mtime { seconds, nanoseconds: 7 };
        let metadata = Metadata { mode, mtime, ..Metadata::default() };
        tree::set_metadata(File::open(root.join(name)).unwrap(), &metadata).unwrap();
    };
    set(&low, "tmp", 0o1777, 11);
    set(&low, "etc", 0o755, 12);
    set(&high, "etc", 0o700, 13);
    let mut below = Implicit::from([path("etc")]);
    merge(&low_tree, &high_tree, &mut below, Implicit::from([path("tmp"), path("only")])).unwrap();
    let look = |name: &str| {
        let metadata = tree::metadata(File::open(low.join(name)).unwrap()).unwrap();
        (metadata.mode, metadata.mtime.seconds)
    };
    assert_eq!(look("tmp"), (0o1777, 11), "the upper layer does not describe it");
    assert_eq!(look("etc"), (0o700, 13));
    assert_eq!(below, Implicit::from([path("only")]));
    assert!(tree::stat(File::open(low.join("tmp")).unwrap(), OsStr::new("new")).unwrap().is_some());
}

//! Works on staged layers that lie on one another: merges neighbours into one tree, and gives directories that an
//! archive uses but does not describe the attributes they have in the layers below.
//!
//! A merged tree must look, above any layers below, as its parts would. The rules are overlayfs' own (Linux
//! `Documentation/filesystems/overlayfs.rst`, "Merged directories", "whiteouts and opaque directories"). Called by
//! [`super::import`] between unpacking and building.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::FileType;
use thiserror::Error;

use super::entry::{LayerPath, Metadata};
use super::erofs_image::{ErofsError, ErofsImage, Inode, xattr_index};
use super::tree::{self, Tree};

/// Why layers could not be put together.
#[derive(Debug, Error)]
pub enum StackError {
    /// A staged tree could not be worked on.
    #[error("cannot merge layers at {path}")]
    Write {
        /// Where.
        path: LayerPath,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// A layer below could not be read.
    #[error("cannot read a layer below")]
    Below(#[from] ErofsError),
}

/// Directories whose attributes are made up, by path.
pub type Implicit = BTreeSet<LayerPath>;

/// Moves all of `upper` onto `lower`, which afterwards stands for both; `upper` is left a shell.
///
/// # Errors
/// [`StackError`]; both trees are then of no use.
pub fn merge(lower: &Tree, upper: &Tree, below: &mut Implicit, above: Implicit) -> Result<(), StackError> {
    let mut replaced: Vec<LayerPath> = Vec::new();
    let mut merged = Implicit::new();
    let mut pending = vec![LayerPath::default()];
    while let Some(path) = pending.pop() {
        let at = |source| StackError::Write { path: path.clone(), source };
        let (from, to) = (upper.directory(&path).map_err(at)?, lower.directory(&path).map_err(at)?);
        let own = tree::metadata(&from).map_err(at)?;
        let marked = path.is_root() && own.mtime == tree::UNDESCRIBED_ROOT;
        let described = !marked && !above.contains(&path);
        let metadata = if described { own } else { tree::metadata(&to).map_err(at)? };
        for name in tree::list(&from).map_err(at)? {
            let child = path.join(&name);
            let at = |source| StackError::Write { path: child.clone(), source };
            let existing = tree::stat(&to, &name).map_err(at)?;
            let new =
                tree::stat(&from, &name).map_err(at)?.ok_or_else(|| at(io::ErrorKind::NotFound.into()))?;
            let is_directory = tree::file_type(&new) == FileType::Directory;
            if let Some(existing) = existing {
                let merges = is_directory
                    && tree::file_type(&existing) == FileType::Directory
                    && !tree::is_opaque(upper.directory(&child).map_err(at)?).map_err(at)?;
                if merges {
                    pending.push(child);
                    continue;
                }
                tree::remove(&to, &name).map_err(at)?;
                replaced.push(child.clone());
                if is_directory {
                    // It hid what the lower layer had here, and so it must hide what lies below both.
                    tree::set_opaque(upper.directory(&child).map_err(at)?).map_err(at)?;
                }
            }
            rustix::fs::renameat(&from, &name, &to, &name).map_err(|error| at(error.into()))?;
        }
        if described {
            drop_other_xattrs(&to, &metadata).map_err(at)?;
            tree::set_metadata(&to, &metadata).map_err(at)?;
        } else {
            tree::set_mtime(&to, metadata.mtime).map_err(at)?;
        }
        merged.insert(path);
    }
    below.retain(|path| {
        let gone = replaced.iter().any(|top| is_within(path, top));
        !gone && (!merged.contains(path) || above.contains(path))
    });
    below.extend(above.into_iter().filter(|path| !merged.contains(path)));
    Ok(())
}

fn is_within(path: &LayerPath, top: &LayerPath) -> bool {
    path.as_bytes().strip_prefix(top.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn drop_other_xattrs(directory: &impl std::os::fd::AsFd, keep: &Metadata) -> io::Result<()> {
    for (name, _) in tree::metadata(directory)?.xattrs {
        if !keep.xattrs.iter().any(|(kept, _)| *kept == name) {
            rustix::fs::fremovexattr(directory, std::ffi::OsStr::from_bytes(&name))?;
        }
    }
    Ok(())
}

/// Removes whiteouts that can hide nothing: all of them if the tree will be the lowest layer, else those inside
/// opaque directories. Overlayfs shows such marks as broken entries in directories that no other layer has.
///
/// # Errors
/// [`StackError::Write`].
pub fn drop_idle_whiteouts(tree: &Tree, lowest: bool) -> Result<(), StackError> {
    let mut pending = vec![(LayerPath::default(), lowest)];
    while let Some((path, mut idle)) = pending.pop() {
        let at = |source| StackError::Write { path: path.clone(), source };
        let directory = tree.directory(&path).map_err(at)?;
        idle |= tree::is_opaque(&directory).map_err(at)?;
        let mtime = tree::mtime(&rustix::fs::fstat(&directory).map_err(|error| at(error.into()))?);
        let mut changed = false;
        for name in tree::list(&directory).map_err(at)? {
            match tree::stat(&directory, &name).map_err(at)? {
                Some(stat) if idle && tree::is_whiteout(&stat) => {
                    tree::remove(&directory, &name).map_err(at)?;
                    changed = true;
                }
                Some(stat) if tree::file_type(&stat) == FileType::Directory => {
                    pending.push((path.join(&name), idle));
                }
                _ => {}
            }
        }
        if changed {
            tree::set_mtime(&directory, mtime).map_err(at)?;
        }
    }
    Ok(())
}

/// Gives made-up directories the attributes that the layers below have for them.
///
/// `below` are the images of the layers below, lowest first. Returns the latest time given, in seconds.
///
/// # Errors
/// [`StackError`].
pub fn adopt_attributes(tree: &Tree, implicit: &Implicit, below: &[File]) -> Result<i64, StackError> {
    let mut newest = 0;
    let images = below.iter().map(ErofsImage::open).collect::<Result<Vec<_>, _>>()?;
    for path in implicit {
        if let Some(metadata) = find_directory(&images, path)? {
            let at = |source| StackError::Write { path: path.clone(), source };
            // A path through a link of this very layer leads to a directory that has its own name.
            if let Ok(directory) = tree.directory(path) {
                tree::set_metadata(&directory, &metadata).map_err(at)?;
                newest = newest.max(metadata.mtime.seconds);
            }
        }
    }
    Ok(newest)
}

/// Looks a directory up in a stack of images as overlayfs would.
fn find_directory(images: &[ErofsImage<'_, File>], path: &LayerPath) -> Result<Option<Metadata>, ErofsError> {
    'layers: for image in images.iter().rev() {
        let mut inode = image.inode(image.root())?;
        let mut opaque = is_opaque(image, &inode)?;
        for name in path.components() {
            let entries = image.directory(&inode)?;
            let Some((_, number)) = entries.iter().find(|(entry, _)| entry == name.as_bytes()) else {
                if opaque {
                    return Ok(None);
                }
                continue 'layers;
            };
            inode = image.inode(*number)?;
            if inode.file_type() != FileType::Directory {
                return Ok(None);
            }
            opaque |= is_opaque(image, &inode)?;
        }
        return metadata(image, &inode).map(Some);
    }
    Ok(None)
}

fn is_opaque(image: &ErofsImage<'_, File>, inode: &Inode) -> Result<bool, ErofsError> {
    let is_mark = |index, name: &[u8]| index == xattr_index::TRUSTED && name == b"overlay.opaque";
    Ok(image.xattrs(inode)?.iter().any(|xattr| is_mark(xattr.index, &xattr.name)))
}

fn metadata(image: &ErofsImage<'_, File>, inode: &Inode) -> Result<Metadata, ErofsError> {
    let xattrs = image.xattrs(inode)?.into_iter().filter(|xattr| xattr.index == xattr_index::USER);
    Ok(Metadata {
        mode: inode.mode & 0o7777,
        uid: inode.uid,
        gid: inode.gid,
        mtime: inode.mtime,
        xattrs: xattrs.map(|xattr| ([b"user.", xattr.name.as_slice()].concat(), xattr.value)).collect(),
    })
}

#[cfg(test)]
mod tests {
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
}

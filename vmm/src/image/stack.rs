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
    hide_lower(lower, upper, below)?;
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

/// Empties the lower tree under an opaque root. Overlayfs heeds no such mark on the root of a layer.
fn hide_lower(lower: &Tree, upper: &Tree, below: &mut Implicit) -> Result<(), StackError> {
    let path = LayerPath::default();
    let at = |source| StackError::Write { path: path.clone(), source };
    if !tree::is_opaque(upper.directory(&path).map_err(at)?).map_err(at)? {
        return Ok(());
    }
    let root = lower.directory(&path).map_err(at)?;
    for name in tree::list(&root).map_err(at)? {
        tree::remove(&root, &name).map_err(at)?;
    }
    below.clear();
    tree::set_opaque(&root).map_err(at)
}

/// Whether an image hides all layers below it.
///
/// # Errors
/// [`StackError::Below`].
pub fn hides_all_below(image: &File) -> Result<bool, StackError> {
    let image = ErofsImage::open(image)?;
    Ok(is_opaque(&image, &image.inode(image.root())?)?)
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
#[path = "stack_tests.rs"]
mod tests;

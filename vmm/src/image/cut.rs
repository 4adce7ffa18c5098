//! Cuts a directory tree out of a staged layer, so that it becomes a layer of its own, found by its content: all images
//! with the same tree then share it, whatever else is in theirs.
//!
//! The piece goes below what is left of its layer. There the two show what the layer showed:
//!
//! - the directories above the tree are in both, and overlayfs takes the attributes of the upper one. Those of the piece
//!   say nothing, so that they do not tell pieces apart;
//! - the tree itself, its whiteouts and opaque marks are in the piece only, above all layers below;
//! - a directory above the tree that is opaque would hide the piece: then nothing is cut. Nor is it if a hard link
//!   leads out of the tree, as one file would become two.
//!
//! Called by [`super::import`] between unpacking and building.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::entry::{LayerPath, Metadata};
use super::stack::StackError;
use super::tree::{self, Tree};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 256 << 10;

/// What was cut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Of all that is in it: names, attributes, content.
    pub key: Digest,
    /// Length of all files, in bytes.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Whether any directory is marked as opaque.
    pub opaque: bool,
    /// The latest modification time, in seconds since the epoch.
    pub newest: i64,
}

/// Moves the directory at `path` from `layer` into the empty tree `to`; nothing if there is none that can be cut out, or
/// its files have less than `least_bytes`.
///
/// # Errors
/// [`StackError`]; both trees are then of no use.
pub fn cut(layer: &Tree, to: &Tree, path: &LayerPath, least_bytes: u64) -> Result<Option<Piece>, StackError> {
    let at = |source| StackError::Write { path: path.clone(), source };
    let Some((parent, name)) = path.split() else { return Ok(None) };
    if !is_reached(layer, path).map_err(at)? {
        return Ok(None);
    }
    let mut reader = Reader::default();
    let Some(piece) = reader.read(layer, path)?.filter(|piece| piece.bytes >= least_bytes) else {
        return Ok(None);
    };
    let moved = || -> io::Result<()> {
        let from = layer.directory(&parent)?;
        let mtime = tree::mtime(&rustix::fs::fstat(&from)?);
        let above = make_parents(to, &parent)?;
        let nearest = above.last().ok_or(io::ErrorKind::NotFound)?;
        rustix::fs::renameat(&from, name, nearest, name)?;
        tree::set_mtime(&from, mtime)?;
        let plain = Metadata { mode: 0o755, ..Metadata::default() };
        above.iter().try_for_each(|directory| tree::set_metadata(directory, &plain))
    };
    moved().map_err(at)?;
    Ok(Some(piece))
}

/// Whether there is a directory at `path`, none of those above it is a link, and none hides what lies below the layer.
fn is_reached(layer: &Tree, path: &LayerPath) -> io::Result<bool> {
    let mut above = LayerPath::default();
    for name in path.components() {
        let directory = layer.directory(&above)?;
        let is_directory = |stat: Stat| tree::file_type(&stat) == FileType::Directory;
        if tree::is_opaque(&directory)? || !tree::stat(&directory, name)?.is_some_and(is_directory) {
            return Ok(false);
        }
        above = above.join(name);
    }
    Ok(true)
}

/// Makes the directories of `path`, and opens them, the root first.
fn make_parents(to: &Tree, path: &LayerPath) -> io::Result<Vec<OwnedFd>> {
    let mut at = LayerPath::default();
    let mut made = vec![to.directory(&at)?];
    for name in path.components() {
        if let Some(parent) = made.last() {
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
        }
        at = at.join(name);
        made.push(to.directory(&at)?);
    }
    Ok(made)
}

/// Reads all of a tree in an order that depends on nothing but its names.
#[derive(Default)]
struct Reader {
    hasher: Sha256,
    /// Files with several links, by inode.
    links: BTreeMap<u64, Links>,
    bytes: u64,
    entries: u64,
    opaque: bool,
    newest: i64,
}

/// Links of one file.
struct Links {
    all: u64,
    met: u64,
    /// The number of the first entry that was met.
    first: u64,
}

impl Reader {
    /// The whole tree at `top`; nothing if a hard link leads out of it.
    fn read(&mut self, layer: &Tree, top: &LayerPath) -> Result<Option<Piece>, StackError> {
        self.hasher.update(b"ballast tree 1\n");
        self.field(top.as_bytes());
        let mut pending = vec![top.clone()];
        while let Some(path) = pending.pop() {
            let at = |source| StackError::Write { path: path.clone(), source };
            let directory = layer.directory(&path).map_err(at)?;
            let metadata = tree::metadata(&directory).map_err(at)?;
            let opaque = tree::is_opaque(&directory).map_err(at)?;
            self.opaque |= opaque;
            self.entry(path.as_bytes(), if opaque { b"opaque" } else { b"directory" }, &metadata);
            for name in tree::list(&directory).map_err(at)? {
                let child = path.join(&name);
                let at = |source| StackError::Write { path: child.clone(), source };
                let stat = tree::stat(&directory, &name).map_err(at)?;
                let stat = stat.ok_or_else(|| at(io::ErrorKind::NotFound.into()))?;
                if tree::file_type(&stat) == FileType::Directory {
                    pending.push(child);
                } else {
                    self.child(&directory, &name, &child, &stat).map_err(at)?;
                }
            }
        }
        let leads_out = self.links.values().any(|links| links.met < links.all);
        let key = Digest(self.hasher.clone().finalize().into());
        let &mut Self { bytes, entries, opaque, newest, .. } = self;
        Ok((!leads_out).then_some(Piece { key, bytes, entries, opaque, newest }))
    }

    /// What is no directory.
    fn child(&mut self, directory: impl AsFd, name: &OsStr, path: &LayerPath, stat: &Stat) -> io::Result<()> {
        let plain = Metadata {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: tree::mtime(stat),
            xattrs: Vec::new(),
        };
        match tree::file_type(stat) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(rustix::fs::openat(&directory, name, flags, Mode::empty())?);
                self.entry(path.as_bytes(), b"file", &tree::metadata(&file)?);
                self.content(&mut file)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&directory, name, Vec::new())?;
                self.entry(path.as_bytes(), b"link", &plain);
                self.field(target.as_bytes());
            }
            _ => {
                self.entry(path.as_bytes(), b"node", &plain);
                self.hasher.update((stat.st_mode & !0o7777).to_le_bytes());
                self.hasher.update(stat.st_rdev.to_le_bytes());
            }
        }
        if stat.st_nlink > 1 {
            // Which names are one file tells trees apart, too.
            let new = Links { all: stat.st_nlink, met: 0, first: self.entries };
            let links = self.links.entry(stat.st_ino).or_insert(new);
            links.met = links.met.saturating_add(1);
            self.hasher.update(links.first.to_le_bytes());
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], kind: &[u8], metadata: &Metadata) {
        self.entries = self.entries.saturating_add(1);
        self.newest = self.newest.max(metadata.mtime.seconds);
        self.field(path);
        self.field(kind);
        for number in [metadata.mode, metadata.uid, metadata.gid, metadata.mtime.nanoseconds] {
            self.hasher.update(number.to_le_bytes());
        }
        self.hasher.update(metadata.mtime.seconds.to_le_bytes());
        let mut xattrs: Vec<_> = metadata.xattrs.iter().collect();
        xattrs.sort();
        for (name, value) in xattrs {
            self.field(name);
            self.field(value);
        }
    }

    fn content(&mut self, file: &mut File) -> io::Result<()> {
        let mut content = Sha256::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = file.read(&mut buffer)?;
            let Some(chunk @ [_, ..]) = buffer.get(..read) else { break };
            content.update(chunk);
            self.bytes = self.bytes.saturating_add(read as u64);
        }
        self.hasher.update(content.finalize());
        Ok(())
    }

    /// What is of any length, so that no two records read alike.
    fn field(&mut self, bytes: &[u8]) {
        self.hasher.update((bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;

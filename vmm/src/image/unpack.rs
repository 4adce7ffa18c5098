//! Unpacks one layer's tar into a staged tree: the effects of what [`super::entry`] decides.
//!
//! Every directory is looked up inside the tree's root ([`super::tree`]), every object is made by name in an open
//! directory and never through a link, and what stands in its place is removed first. So a member can only ever
//! reach what earlier members of the same tar made. Owners, modes, set-id bits, capabilities and times are kept;
//! device nodes are left out and counted. Called by [`super::import`].
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

use super::entry::{Entry, EntryError, LayerPath, Metadata, plan_entry};
use super::limits::{Budget, LimitError};
use super::member::{Member, Mtime, TarError};
use super::member_data;
use super::tar_reader::{Members, Skip};
use super::tree::{self, Tree};

/// Why a layer could not be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The stream is no good.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A member is refused.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// A limit is exceeded.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A hard link whose target the layer does not hold.
    #[error("{path} is a hard link to {target}, which the archive does not hold before it")]
    HardLinkToNothing {
        /// The link.
        path: LayerPath,
        /// What it should be.
        target: LayerPath,
    },
    /// A member below something that is no directory.
    #[error("{0} lies below something that is no directory")]
    NoDirectory(LayerPath),
    /// An owner that this process may not give.
    #[error("{path} belongs to {uid}:{gid}, and this user may not create files of that owner")]
    Owner {
        /// The entry.
        path: LayerPath,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// The staged tree could not be written.
    #[error("cannot unpack {path}")]
    Write {
        /// The entry.
        path: LayerPath,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

/// What unpacking a layer came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Device nodes left out.
    pub devices: u64,
    /// Extended attributes left out.
    pub xattrs: u64,
    /// Length of all files, in bytes.
    pub bytes: u64,
    /// Members, and directories that none describes.
    pub entries: u64,
    /// Directories that the archive uses and does not describe: their attributes are made up.
    pub implicit: BTreeSet<LayerPath>,
    /// Whether any directory is marked as opaque.
    pub opaque: bool,
    /// The latest modification time, in seconds since the epoch.
    pub newest: i64,
}

/// Unpacks all of `members` into the empty directory `root`.
///
/// # Errors
/// [`UnpackError`]; the directory is then of no use.
pub fn unpack<R: Skip>(
    members: &mut Members<R>,
    root: &Path,
    budget: &Budget<'_>,
) -> Result<Summary, UnpackError> {
    let tree =
        Tree::open(root).map_err(|source| UnpackError::Write { path: LayerPath::default(), source })?;
    let (bytes, entries) = (budget.bytes(), budget.entries());
    let mut unpacker = Unpacker { tree, summary: Summary::default(), mtimes: BTreeMap::new(), budget };
    let mut buffer = vec![0; member_data::COPY_BYTES];
    while let Some(member) = members.next_member()? {
        budget.charge(&member)?;
        let planned = plan_entry(&member)?;
        unpacker.summary.newest = unpacker.summary.newest.max(member.mtime.seconds);
        unpacker.summary.xattrs = unpacker.summary.xattrs.saturating_add(planned.xattrs_dropped);
        unpacker.apply(planned.entry, &member, members, &mut buffer)?;
    }
    unpacker.finish()?;
    let Unpacker { mut summary, .. } = unpacker;
    summary.bytes = budget.bytes().saturating_sub(bytes);
    summary.entries = budget.entries().saturating_sub(entries);
    Ok(summary)
}

struct Unpacker<'a> {
    tree: Tree,
    summary: Summary,
    /// Times of directories, set last: everything made in a directory changes them.
    mtimes: BTreeMap<LayerPath, Mtime>,
    budget: &'a Budget<'a>,
}

impl Unpacker<'_> {
    fn apply<R: Skip>(
        &mut self,
        entry: Entry,
        member: &Member,
        members: &mut Members<R>,
        buffer: &mut [u8],
    ) -> Result<(), UnpackError> {
        match entry {
            Entry::Ignored => Ok(()),
            Entry::Device(_) => {
                self.summary.devices = self.summary.devices.saturating_add(1);
                Ok(())
            }
            Entry::Directory(path, metadata) => self.directory(&path, &metadata),
            Entry::File(path, metadata) => {
                let (parent, name) = self.place(&path)?;
                let file = tree::create_file(&parent, name).map_err(at(&path))?;
                member_data::write(&file, member, members, buffer, &path)?;
                tree::set_metadata(&file, &metadata).map_err(attributes(&path, &metadata))
            }
            Entry::Symlink(path, metadata, target) => {
                let (parent, name) = self.place(&path)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, name).map_err(at(&path))?;
                self.drop_xattrs(&metadata);
                tree::set_metadata_at(&parent, name, &metadata, false).map_err(attributes(&path, &metadata))
            }
            Entry::Fifo(path, metadata) => {
                let (parent, name) = self.place(&path)?;
                rustix::fs::mknodat(&parent, name, FileType::Fifo, Mode::RUSR, 0).map_err(at(&path))?;
                self.drop_xattrs(&metadata);
                tree::set_metadata_at(&parent, name, &metadata, true).map_err(attributes(&path, &metadata))
            }
            Entry::HardLink { path, target } => self.hard_link(&path, &target),
            // Some tools also list what was in a directory that has become a file: below a file is nothing to hide.
            Entry::Whiteout(path) => ignore_no_directory(self.whiteout(&path)),
            Entry::Opaque(path) => {
                ignore_no_directory(self.make_directories(&path).and_then(|()| self.mark_opaque(&path)))
            }
        }
    }

    /// Linux lets only files and directories have the kinds that a layer keeps.
    fn drop_xattrs(&mut self, metadata: &Metadata) {
        self.summary.xattrs = self.summary.xattrs.saturating_add(metadata.xattrs.len() as u64);
    }

    fn directory(&mut self, path: &LayerPath, metadata: &Metadata) -> Result<(), UnpackError> {
        if let Some((parent_path, name)) = path.split() {
            let parent = self.parent_of_entry(&parent_path, path)?;
            match tree::stat(&parent, name).map_err(at(path))? {
                Some(stat) if tree::file_type(&stat) == FileType::Directory => {}
                existing => {
                    tree::remove(&parent, name).map_err(at(path))?;
                    rustix::fs::mkdirat(&parent, name, Mode::RWXU).map_err(at(path))?;
                    // What stood here hid the layers below, and so must the directory in its place.
                    if existing.is_some() {
                        self.mark_opaque(path)?;
                    }
                }
            }
        }
        let directory = self.tree.directory(path).map_err(at(path))?;
        tree::set_metadata(&directory, metadata).map_err(attributes(path, metadata))?;
        self.summary.implicit.remove(path);
        self.remember(path, metadata.mtime)
    }

    fn remember(&mut self, path: &LayerPath, mtime: Mtime) -> Result<(), UnpackError> {
        if self.mtimes.insert(path.clone(), mtime).is_none() {
            self.budget.charge_path(path.as_bytes())?;
        }
        Ok(())
    }

    fn hard_link(&mut self, path: &LayerPath, target: &LayerPath) -> Result<(), UnpackError> {
        let nothing = || UnpackError::HardLinkToNothing { path: path.clone(), target: target.clone() };
        let (Some((target_parent, target_name)), Some((parent, name))) = (target.split(), path.split())
        else {
            return Err(nothing());
        };
        let from = match self.tree.parent(&target_parent) {
            Ok(from) => from,
            Err(error) if is_missing(&error) => return Err(nothing()),
            Err(source) => return Err(UnpackError::Write { path: path.clone(), source }),
        };
        let wanted = tree::stat(&from, target_name).map_err(at(path))?.ok_or_else(nothing)?;
        if tree::file_type(&wanted) == FileType::Directory || tree::is_whiteout(&wanted) {
            return Err(nothing());
        }
        let to = self.parent_of_entry(&parent, path)?;
        if let Some(existing) = tree::stat(&to, name).map_err(at(path))? {
            if (existing.st_dev, existing.st_ino) == (wanted.st_dev, wanted.st_ino) {
                return Ok(());
            }
            tree::remove(&to, name).map_err(at(path))?;
        }
        match rustix::fs::linkat(&from, target_name, &to, name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // The target lay below what was just replaced.
            Err(Errno::NOENT) => Err(nothing()),
            Err(error) => Err(at(path)(error)),
        }
    }

    /// Hides `path` of the layers below; what this layer itself has there stays, in whatever order they come.
    fn whiteout(&mut self, path: &LayerPath) -> Result<(), UnpackError> {
        let Some((parent_path, name)) = path.split() else { return Ok(()) };
        let parent = self.parent(&parent_path, path)?;
        match tree::stat(&parent, name).map_err(at(path))? {
            None => tree::make_whiteout(&parent, name).map_err(at(path)),
            Some(stat) if tree::file_type(&stat) == FileType::Directory => self.mark_opaque(path),
            Some(_) => Ok(()),
        }
    }

    fn mark_opaque(&mut self, path: &LayerPath) -> Result<(), UnpackError> {
        self.summary.opaque = true;
        let directory = self.tree.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(at(path))?;
        tree::set_opaque(&directory).map_err(at(path))
    }

    /// The directory to make `path` in, with the place free.
    fn place<'p>(&mut self, path: &'p LayerPath) -> Result<(OwnedFd, &'p OsStr), UnpackError> {
        let Some(((parent_path, _), name)) = path.split().zip(path.components().last()) else {
            return Err(EntryError::RootNotDirectory.into());
        };
        let parent = self.parent_of_entry(&parent_path, path)?;
        if tree::stat(&parent, name).map_err(at(path))?.is_some() {
            tree::remove(&parent, name).map_err(at(path))?;
        }
        Ok((parent, name))
    }

    /// The same for what the archive has in place of what it hides: a whiteout is of the layers below only, and gives
    /// way to an opaque directory.
    fn parent_of_entry(&mut self, parent: &LayerPath, of: &LayerPath) -> Result<OwnedFd, UnpackError> {
        let mut so_far = LayerPath::default();
        let below = self.tree.parent(parent);
        if below.is_err_and(|error| error.kind() == io::ErrorKind::NotADirectory) {
            for name in parent.components() {
                // What is no directory is told of by whoever goes on.
                let Ok(directory) = self.tree.parent(&so_far) else { break };
                so_far = so_far.join(name);
                let stat = tree::stat(&directory, name).map_err(at(&so_far))?;
                if stat.is_some_and(|stat| tree::is_whiteout(&stat)) {
                    tree::remove(&directory, name).map_err(at(&so_far))?;
                    self.make_directory(&directory, name, &so_far)?;
                    self.mark_opaque(&so_far)?;
                    break;
                }
            }
        }
        self.parent(parent, of)
    }

    /// Opens the directory `parent`, making it if the archive has not.
    fn parent(&mut self, parent: &LayerPath, of: &LayerPath) -> Result<OwnedFd, UnpackError> {
        let mut result = self.tree.parent(parent);
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            self.make_directories(parent)?;
            result = self.tree.parent(parent);
        }
        result.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => UnpackError::NoDirectory(of.clone()),
            _ => UnpackError::Write { path: of.clone(), source: error },
        })
    }

    fn make_directories(&mut self, path: &LayerPath) -> Result<(), UnpackError> {
        let mut made = LayerPath::default();
        let mut parent = self.tree.parent(&made).map_err(at(path))?;
        for name in path.components() {
            made = made.join(name);
            parent = match self.tree.parent(&made) {
                Ok(directory) => directory,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.make_directory(&parent, name, &made)?
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::NOTDIR | Errno::LOOP) => return Err(UnpackError::NoDirectory(path.clone())),
                    _ => return Err(UnpackError::Write { path: made, source: error }),
                },
            };
        }
        Ok(())
    }

    /// Makes a directory that the archive does not describe.
    fn make_directory(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        path: &LayerPath,
    ) -> Result<OwnedFd, UnpackError> {
        self.budget.charge_entry()?;
        let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
        match rustix::fs::mkdirat(parent, name, mode) {
            Ok(()) => {}
            // A link to nothing.
            Err(Errno::EXIST) => return Err(UnpackError::NoDirectory(path.clone())),
            Err(error) => return Err(at(path)(error)),
        }
        let directory = self.tree.directory(path).map_err(at(path))?;
        // The file mode creation mask is the user's, the layer everyone's.
        rustix::fs::fchmod(&directory, mode).map_err(at(path))?;
        self.summary.implicit.insert(path.clone());
        self.remember(path, Mtime::default())?;
        Ok(directory)
    }

    fn finish(&mut self) -> Result<(), UnpackError> {
        self.mtimes.entry(LayerPath::default()).or_insert(tree::UNDESCRIBED_ROOT);
        for (path, &mtime) in &self.mtimes {
            match self.tree.directory(path) {
                Ok(directory) => tree::set_mtime(&directory, mtime).map_err(at(path))?,
                // Replaced by a later member.
                Err(error) if is_missing(&error) => {
                    self.summary.implicit.remove(path);
                }
                Err(source) => return Err(UnpackError::Write { path: path.clone(), source }),
            }
        }
        Ok(())
    }
}

fn ignore_no_directory(result: Result<(), UnpackError>) -> Result<(), UnpackError> {
    match result {
        Err(UnpackError::NoDirectory(_)) => Ok(()),
        result => result,
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

pub(super) fn at<E: Into<io::Error>>(path: &LayerPath) -> impl Fn(E) -> UnpackError {
    move |error| UnpackError::Write { path: path.clone(), source: error.into() }
}

fn attributes(path: &LayerPath, metadata: &Metadata) -> impl Fn(io::Error) -> UnpackError {
    move |source| match Errno::from_io_error(&source) {
        // EINVAL: the user namespace has no such id. EPERM: no namespace and no privilege.
        Some(Errno::INVAL | Errno::PERM) => {
            UnpackError::Owner { path: path.clone(), uid: metadata.uid, gid: metadata.gid }
        }
        _ => UnpackError::Write { path: path.clone(), source },
    }
}

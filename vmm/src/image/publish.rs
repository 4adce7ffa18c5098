//! From a staged tree to image files in the store: built, checked, moved to their places.
//!
//! The last step of an import. What is published is complete, and one that is there already stays.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::PathBuf;

use super::cut::{self, Piece};
use super::digest::Digest;
use super::erofs::{ALIGNMENT_BYTES, Build};
use super::error::Error;
use super::import::{Import, Staged};
use super::records;
use super::workspace::Workspace;

/// The latest time that an image gets: ext4's own limit, in the year 2446. Archives may claim any.
const NEWEST_MAX: i64 = (1 << 34) - 1 - (1 << 31);

/// Metadata in an image for each file, roughly, in bytes: an inode and a name.
const ENTRY_BYTES: u64 = 128;

impl Import<'_> {
    /// Builds the image of a staged layer, which is `key` as a whole, and publishes it unless it is there; of a tree that
    /// is to be a zone of its own, and of what is left, one each. Returns their keys, lowest first.
    pub(super) fn build(
        &self,
        workspace: &Workspace,
        staged: &Staged,
        key: Digest,
    ) -> Result<Vec<Digest>, Error> {
        let cut = self.cut(workspace, staged)?;
        let rest = match &cut {
            Some((_, piece)) => {
                Digest::of(format!("ballast layer 1\n{key}\nwithout {}\n", piece.key).as_bytes())
            }
            None => key,
        };
        let summary = &staged.summary;
        let bytes = |bytes: u64, entries: u64| bytes.saturating_add(entries.saturating_mul(ENTRY_BYTES));
        if let Some((root, piece)) = &cut {
            self.publish(
                piece.key,
                &Build {
                    directory: root,
                    image: &workspace.path().join("piece.erofs"),
                    uuid: piece.key.uuid(),
                    newest: piece.newest.min(NEWEST_MAX),
                    opaque: piece.opaque,
                    expected_bytes: bytes(piece.bytes, piece.entries),
                },
            )?;
        }
        self.publish(
            rest,
            &Build {
                directory: &staged.root,
                image: &workspace.path().join("image.erofs"),
                uuid: rest.uuid(),
                newest: summary.newest.min(NEWEST_MAX),
                opaque: summary.opaque,
                expected_bytes: bytes(summary.bytes, summary.entries),
            },
        )?;
        Ok(cut.map(|(_, piece)| piece.key).into_iter().chain([rest]).collect())
    }

    /// Cuts the tree that is to be a zone of its own out of a staged layer, if it is there.
    fn cut(&self, workspace: &Workspace, staged: &Staged) -> Result<Option<(PathBuf, Piece)>, Error> {
        let Some(path) = self.store.apart() else { return Ok(None) };
        let root = workspace.make_root("piece").map_err(|source| self.write_error(source, 0))?;
        let (layer, to) = (self.tree(&staged.root)?, self.tree(&root)?);
        // A layer has at least so many bytes: less would take a device of the guest's to share nothing.
        let piece =
            cut::cut(&layer, &to, path, ALIGNMENT_BYTES).map_err(|source| self.stack_error(source))?;
        Ok(piece.map(|piece| (root, piece)))
    }

    /// Runs a build, and moves the image to its place in the store, unless there is one.
    fn publish(&self, key: Digest, build: &Build<'_>) -> Result<(), Error> {
        if self.store.has_layer(key) { Ok(()) } else { self.publish_if(build, key, || Ok(())) }
    }

    /// Tells who wanted a tree apart and has none.
    pub(super) fn report_whole(&self, is_cut: bool) {
        if let Some(path) = self.store.apart().filter(|_| !is_cut) {
            self.progress.notice(format!(
                "nothing is shared apart: no layer has a directory {path} with 2 MiB of files, out of which no hard link leads"
            ));
        }
    }

    /// Runs a build and, if `check` then agrees, moves the image to its place in the store; one that is there
    /// already stays.
    ///
    /// # Errors
    /// [`Error`].
    pub fn publish_if(
        &self,
        build: &Build<'_>,
        key: Digest,
        check: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        build.run(self.progress).map_err(|source| match source.is_disk_full() {
            true => Error::DiskFull {
                path: self.store.root().to_owned(),
                needed_bytes: Some(build.expected_bytes),
                source: source.into(),
            },
            false => Error::Build { what: self.what.to_owned(), source },
        })?;
        check()?;
        let path = self.store.layer_path(key);
        // A link does not replace: a running guest's image keeps being the one that new guests share.
        match fs::hard_link(build.image, &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(self.write_error(error, 0)),
            _ => records::sync_directory(&path).map_err(|source| self.write_error(source, 0)),
        }
    }
}

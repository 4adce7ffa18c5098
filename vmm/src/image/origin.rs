//! Where an image is imported from, and whether the store knows it already: the way from an origin to an image in it.
//!
//! What a path was is kept in `memo/`, so that the second run of an image reads nothing. The other half of [`Store`],
//! which calls [`Store::bring`].
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::digest::Digest;
use super::directory;
use super::error::Error;
use super::import::Import;
use super::oci_layout;
use super::progress::Progress;
use super::records::{self, Memo, Stamp};
use super::reference::Name;
use super::store::Store;
use super::user_namespace::{self, Outcome};

/// How standard input is called in messages.
const STDIN: &str = "standard input";

/// Where to import from.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// A file or directory.
    Path(&'a Path),
    /// Any archive.
    Stdin,
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(&path.to_string_lossy()),
            Self::Stdin => f.write_str(STDIN),
        }
    }
}

impl Store {
    /// Imports from `origin` unless it is known; nothing is named.
    pub(super) fn bring(
        &self,
        origin: Origin<'_>,
        wanted: Option<&Name>,
        progress: &dyn Progress,
    ) -> Result<Outcome, Error> {
        let path = match origin {
            Origin::Stdin => {
                let stdin = io::stdin().as_fd().try_clone_to_owned();
                let read = |source| Error::Read { what: STDIN.to_owned(), source };
                return self.run(File::from(stdin.map_err(read)?), STDIN, wanted, progress);
            }
            Origin::Path(path) => path,
        };
        let what = path.to_string_lossy();
        let open = |source| Error::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(open)?;
        let kind = file.metadata().map_err(open)?;
        let stamped = if kind.is_dir() { layout_index(&file) } else { file.try_clone().ok() };
        let Some(stamped) = stamped.filter(|_| kind.is_dir() || kind.is_file()) else {
            if kind.is_dir() {
                return self.directory(path, &what, progress);
            }
            return self.run(file, &what, wanted, progress);
        };
        let mut before = Stamp::of(&stamped).map_err(open)?;
        for choice in [wanted, None] {
            let memo: Option<Memo> = records::read(&self.memo_path(path, choice)).unwrap_or_default();
            if let Some(memo) = memo.filter(|memo| memo.stamp == before)
                && self.cached(memo.image)?.is_some()
            {
                return Ok(Outcome { id: memo.image, names: memo.names, chosen: false });
            }
        }
        let (seconds, nanoseconds) = before.changed();
        if !directory::wait_until_still(i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)) {
            before = Stamp::of(&stamped).map_err(open)?;
        }
        let outcome = self.run(file, &what, wanted, progress)?;
        if Stamp::of(&stamped).map_err(open)? != before {
            return Err(Error::Changed(what.into_owned()));
        }
        self.remember(&self.memo_path(path, wanted.filter(|_| outcome.chosen)), before, &outcome)?;
        Ok(outcome)
    }

    /// A root file system as a directory.
    fn directory(&self, path: &Path, what: &str, progress: &dyn Progress) -> Result<Outcome, Error> {
        let lease = self.lease()?;
        let record = directory::import(&Import::new(self, what, progress), path)?;
        drop(lease);
        let stamp = File::open(path).and_then(|file| Stamp::of(&file));
        let stamp = stamp.map_err(|source| Error::Open { path: path.to_owned(), source })?;
        let outcome = Outcome { id: record.id, names: Vec::new(), chosen: false };
        self.remember(&self.memo_path(path, None), stamp, &outcome)?;
        Ok(outcome)
    }

    /// Imports an archive, as root or in a user namespace.
    fn run(
        &self,
        file: File,
        what: &str,
        wanted: Option<&Name>,
        progress: &dyn Progress,
    ) -> Result<Outcome, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(user_namespace::import(self.helper(), self, file, what, wanted, progress)?);
        }
        let _lease = self.lease()?;
        let imported = Import::new(self, what, progress).run(file, wanted)?;
        let imported =
            imported.ok_or(Error::NotAnImage { what: what.to_owned(), found: "it is a directory" })?;
        Ok(Outcome { id: imported.record.id, names: imported.names, chosen: imported.chosen })
    }

    /// Writes down what a path was. An image that only this path stood for goes.
    fn remember(&self, memo: &Path, stamp: Stamp, outcome: &Outcome) -> Result<(), Error> {
        let image = outcome.id;
        let last: Option<Memo> = records::read(memo).unwrap_or_default();
        records::write(memo, &self.tmp(), &Memo { stamp, image, names: outcome.names.clone() })?;
        if let Some(last) = last.map(|memo| memo.image).filter(|&last| last != image) {
            self.forget(last)?;
        }
        Ok(())
    }

    /// Of a path as it is now spelled out, and of the image chosen in it.
    fn memo_path(&self, path: &Path, choice: Option<&Name>) -> PathBuf {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let choice = choice.map_or("", Name::as_str);
        let key = Digest::of(&[choice.as_bytes(), b"\0", path.as_os_str().as_bytes()].concat());
        self.root().join("memo").join(format!("{}.json", key.hex()))
    }
}

/// The index of an OCI layout, which changes whenever its images do; `None` for any other directory.
fn layout_index(directory: &File) -> Option<File> {
    let open = |name: &[u8]| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::openat(directory, name, flags, Mode::empty()).ok()
    };
    open(oci_layout::LAYOUT)?;
    open(oci_layout::INDEX).map(File::from)
}

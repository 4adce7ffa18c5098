//! The image store: what the command line sees.
//!
//! Layout below the data directory, all of it made by rename or link from `tmp/`, so that nothing is ever half there:
//!
//! ```text
//! layers/<key>.erofs   one layer, read-only, never changed in place
//! images/<id>.json     an image: configuration and the keys of its layers
//! scopes/              copies of layers for those who share them with some only: see `scoped`
//! names/<name>.json    a name of an image
//! memo/<path>.json     which image a file was when it was last read
//! locks/               held while a layer or directory is built
//! tmp/                 work in progress; what a crash or signal left is swept by later verbs
//! lock                 shared by imports, exclusive while unused layers are removed
//! ```
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

pub use super::catalogue::{Listed, Removed};
use super::config::ImageConfig;
use super::digest::Digest;
use super::directory;
use super::error::Error;
use super::import::Import;
use super::limits::Limits;
use super::oci_layout;
use super::progress::Progress;
use super::records::{self, ImageRecord, Memo, NameRecord, Stamp};
use super::reference::{ImageRef, Name};
use super::user_namespace::{self, Helper, Outcome};
use super::workspace::{flock, sweep_leftovers};

/// How standard input is called in messages.
const STDIN: &str = "standard input";

/// Imported images below a data directory.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    max_layers: usize,
    limits: Limits,
    helper: Helper,
}

/// An image, ready to be mapped by a guest.
#[derive(Debug)]
pub struct Image {
    /// `sha256:` and 64 digits.
    pub id: String,
    /// Lowest first; at least one, at most the store's maximum.
    pub layers: Vec<Layer>,
    /// How to run it.
    pub config: ImageConfig,
    /// The names it has in the store.
    pub names: Vec<Name>,
}

/// One EROFS image file.
#[derive(Debug)]
pub struct Layer {
    /// Where it is.
    pub path: PathBuf,
    /// Open for reading: what is removed from the store stays readable here.
    pub file: File,
    /// The first digits of its key, enough to tell it from others.
    pub name: String,
    /// In its superblock, by which the guest tells layers apart.
    pub uuid: [u8; 16],
    /// Its length, a multiple of 2 MiB.
    pub bytes: u64,
}

/// Where to import from.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// A file or directory.
    Path(&'a Path),
    /// Any archive.
    Stdin,
}

impl Store {
    /// Opens the store in `root`, making it if it is not there. Images get at most `max_layers` layer files.
    ///
    /// # Errors
    /// [`Error`] if it cannot be made or written.
    pub fn open(root: &Path, max_layers: usize) -> Result<Self, Error> {
        let store = Self {
            root: std::path::absolute(root).map_err(|source| Error::write(root, source, None))?,
            max_layers: max_layers.max(1),
            limits: Limits::default(),
            helper: Helper::default(),
        };
        for (name, mode) in [
            ("layers", 0o755),
            ("images", 0o755),
            ("names", 0o755),
            ("memo", 0o700),
            ("locks", 0o700),
            ("tmp", 0o700),
        ] {
            let path = store.root.join(name);
            let make = || -> io::Result<()> {
                if !path.is_dir() {
                    DirBuilder::new().recursive(true).mode(mode).create(&path)?;
                }
                // Set-user-id files are unpacked there: nobody else may reach them.
                if name == "tmp" && fs::metadata(&path)?.permissions().mode() & 0o077 != 0 {
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
                }
                Ok(())
            };
            make().map_err(|source| Error::write(&path, source, None))?;
        }
        store.shorten_names()?;
        Ok(store)
    }

    /// The same store with other limits on archives.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Removes what imports that were killed left behind. Best effort: nobody waits for it.
    pub fn sweep(&self) {
        if let Err(error) = sweep_leftovers(&self.tmp()) {
            log::debug!("cannot sweep {:?}: {error}", self.tmp());
        }
    }

    /// Finds the image that the user means, importing it if it is a file, directory or standard input.
    ///
    /// # Errors
    /// [`Error`], in the user's words.
    pub fn resolve(&self, reference: &ImageRef, progress: &dyn Progress) -> Result<Image, Error> {
        match reference {
            ImageRef::Stdin => self.load(self.bring(Origin::Stdin, None, progress)?.id),
            ImageRef::Path(path) => self.load(self.bring(Origin::Path(path), None, progress)?.id),
            ImageRef::NameOrPath(text) => {
                if let Some(id) = self.look_up(text)? {
                    if Path::new(text).exists() {
                        let text = text.to_string_lossy();
                        progress
                            .notice(format!("{text:?} is an imported image; \"./{text}\" would be the file"));
                    }
                    return self.load(id);
                }
                let path = Path::new(text);
                match path.symlink_metadata() {
                    Ok(_) => self.load(self.bring(Origin::Path(path), None, progress)?.id),
                    Err(_) => Err(Error::NotFound(text.to_string_lossy().into_owned())),
                }
            }
        }
    }

    /// Imports an image and names it: as given, else as its archive does, else not at all.
    ///
    /// Of several images in an archive, `name` chooses the one that the archive calls so.
    ///
    /// # Errors
    /// [`Error`], in the user's words.
    pub fn import(
        &self,
        origin: Origin<'_>,
        name: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Image, Error> {
        let name = name.map(Name::parse).transpose()?;
        let outcome = self.bring(origin, name.as_ref(), progress)?;
        for name in name.map_or(outcome.names, |name| vec![name]) {
            let path = self.root.join("names").join(name.file_name());
            records::write(&path, &self.tmp(), &NameRecord { name, image: outcome.id })?;
        }
        self.load(outcome.id)
    }

    /// Opens an image that the store has.
    fn load(&self, id: Digest) -> Result<Image, Error> {
        let _lease = self.lease()?;
        let record: Option<ImageRecord> = records::read(&self.image_path(id))?;
        let record = record.ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        let mut layers = Vec::new();
        for &key in &record.layers {
            let (path, file) = (self.layer_path(key), self.open_layer(key)?);
            let bytes = file.metadata().map_err(|source| Error::Open { path: path.clone(), source })?.len();
            layers.push(Layer { path, file, name: short_name(key), uuid: key.uuid(), bytes });
        }
        let names =
            self.names()?.into_iter().filter(|(_, image)| *image == id).map(|(name, _)| name).collect();
        Ok(Image { id: id.to_string(), layers, config: record.config, names })
    }

    /// Imports from `origin` unless it is known; nothing is named.
    fn bring(
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
        let record = directory::import(&Import { store: self, what, progress }, path)?;
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
            return Ok(user_namespace::import(&self.helper, self, file, what, wanted, progress)?);
        }
        let _lease = self.lease()?;
        let imported = Import { store: self, what, progress }.run(file, wanted)?;
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
            let named = self.names()?.iter().any(|(_, id)| *id == last);
            if !named && !self.memos()?.iter().any(|(_, memo)| memo.image == last) {
                self.forget(last)?;
            }
        }
        Ok(())
    }

    /// The record of an image whose layers are all there.
    ///
    /// # Errors
    /// [`Error`] if the record is damaged.
    pub(super) fn cached(&self, id: Digest) -> Result<Option<ImageRecord>, Error> {
        let record: Option<ImageRecord> = records::read(&self.image_path(id))?;
        Ok(record.filter(|record| {
            record.layers.len() <= self.max_layers && record.layers.iter().all(|&key| self.has_layer(key))
        }))
    }

    /// Keeps layers from being removed while it lives.
    ///
    /// # Errors
    /// [`Error`] if the lock cannot be taken.
    pub(super) fn lease(&self) -> Result<File, Error> {
        let lock = self.lock_file()?;
        flock(&lock, FlockOperation::LockShared).map_err(|source| Error::write(&self.root, source, None))?;
        Ok(lock)
    }

    pub(super) fn lock_file(&self) -> Result<File, Error> {
        let path = self.root.join("lock");
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        file.map_err(|source| Error::write(&path, source, None))
    }

    pub(super) fn has_layer(&self, key: Digest) -> bool {
        self.layer_path(key).is_file()
    }

    pub(super) fn open_layer(&self, key: Digest) -> Result<File, Error> {
        let path = self.layer_path(key);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::LayerMissing(path),
            _ => Error::Open { path, source: error },
        })
    }

    pub(super) fn layer_path(&self, key: Digest) -> PathBuf {
        self.root.join("layers").join(layer_name(key))
    }

    pub(super) fn image_path(&self, id: Digest) -> PathBuf {
        self.root.join("images").join(format!("{}.json", id.hex()))
    }

    /// Of a path as it is now spelled out, and of the image chosen in it.
    fn memo_path(&self, path: &Path, choice: Option<&Name>) -> PathBuf {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let choice = choice.map_or("", Name::as_str);
        let key = Digest::of(&[choice.as_bytes(), b"\0", path.as_os_str().as_bytes()].concat());
        self.root.join("memo").join(format!("{}.json", key.hex()))
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn max_layers(&self) -> usize {
        self.max_layers
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// As many digits as docker shows of an id.
fn short_name(key: Digest) -> String {
    key.hex().chars().take(12).collect()
}

pub(super) fn layer_name(key: Digest) -> String {
    format!("{}.erofs", key.hex())
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

//! The image store: what the command line sees.
//!
//! Layout below the data directory, all of it made by rename or link from `tmp/`, so that nothing is ever half there:
//!
//! ```text
//! layers/<key>.erofs   one layer, read-only, never changed in place
//! images/<id>.json     an image: configuration and the keys of its layers
//! scopes/              copies of layers for those who share them with some only: see `scoped`
//! names/<name>.json    a name of an image; the directory is locked while names and records are changed or relied upon
//! memo/<path>.json     which image a file was when it was last read
//! locks/               held while a layer or directory is built
//! tmp/                 work in progress; what a crash or signal left is swept by later verbs
//! lock                 shared by imports, exclusive while unused layers are removed
//! ```
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

pub use super::catalogue::{Listed, Pruned, Removed};
use super::config::ImageConfig;
use super::digest::Digest;
use super::error::Error;
use super::limits::Limits;
pub use super::origin::Origin;
use super::progress::Progress;
use super::records::{self, ImageRecord, NameRecord};
use super::reference::{ImageRef, Name};
use super::user_namespace::{Helper, Outcome};
use super::workspace::{flock, sweep_leftovers};

/// How often something is imported that is removed before it has its name.
const TRIES: usize = 3;

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
        let origin = match reference {
            ImageRef::Stdin => Origin::Stdin,
            ImageRef::Path(path) => Origin::Path(path),
            ImageRef::NameOrPath(text) => {
                if let Some(image) = self.find(text)? {
                    if Path::new(text).exists() {
                        let text = text.to_string_lossy();
                        progress
                            .notice(format!("{text:?} is an imported image; \"./{text}\" would be the file"));
                    }
                    return Ok(image);
                }
                if Path::new(text).symlink_metadata().is_err() {
                    return Err(Error::NotFound(text.to_string_lossy().into_owned()));
                }
                Origin::Path(Path::new(text))
            }
        };
        self.bring_named(origin, None, progress, |_| Vec::new())
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
        let names = |outcome: Outcome| name.clone().map_or(outcome.names, |name| vec![name]);
        self.bring_named(origin, name.as_ref(), progress, names)
    }

    /// Imports from `origin` unless it is known, gives it names and opens it.
    fn bring_named(
        &self,
        origin: Origin<'_>,
        wanted: Option<&Name>,
        progress: &dyn Progress,
        names: impl Fn(Outcome) -> Vec<Name>,
    ) -> Result<Image, Error> {
        for _ in 0..TRIES {
            let outcome = self.bring(origin, wanted, progress)?;
            let id = outcome.id;
            let _catalogue = self.lock_catalogue()?;
            if self.cached(id)?.is_some() {
                for name in names(outcome) {
                    let path = self.root.join("names").join(name.file_name());
                    records::write(&path, &self.tmp(), &NameRecord { name, image: id })?;
                }
                return self.load(id);
            }
            // What comes out of a pipe comes once.
            if !matches!(origin, Origin::Path(path) if path.is_file() || path.is_dir()) {
                break;
            }
        }
        Err(Error::Removed(origin.to_string()))
    }

    /// Opens the image of this name or id, if there is one.
    fn find(&self, text: &OsStr) -> Result<Option<Image>, Error> {
        let _catalogue = self.lock_catalogue()?;
        self.look_up(text)?.map(|id| self.load(id)).transpose()
    }

    /// Opens an image that the store has; the catalogue is locked.
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

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn helper(&self) -> &Helper {
        &self.helper
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

//! What the store holds: looking up, listing, removing. The other half of [`Store`].
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::digest::Digest;
use super::error::Error;
use super::records::{self, ImageRecord, Memo, NameRecord};
use super::reference::{Name, id_prefix};
use super::store::{Store, layer_name};
use super::workspace::flock;

/// How long unused layers wait for an import to end before they are left to the next removal.
const PATIENCE: Duration = Duration::from_millis(400);

/// A line of `image ls`: one for each name, and one for each image without any.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Listed {
    /// With its tag.
    pub name: Option<String>,
    /// `sha256:` and 64 digits.
    pub id: String,
    /// When it was imported, in seconds since the epoch.
    pub created: u64,
    /// Of all its layers, also those shared with other images.
    pub size_bytes: u64,
    /// How many layer files it has.
    pub layers: usize,
    /// What it was imported from.
    pub source: String,
}

/// What a removal came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub names: Vec<String>,
    /// The image, if it is gone: its last name was removed.
    pub image: Option<String>,
    /// Bytes of layer files that no image used any more; `None` while an import runs: the next removal gets them.
    pub freed_bytes: Option<u64>,
}

/// What removing everything without a name came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Images that are gone.
    pub images: Vec<String>,
    /// As [`Removed::freed_bytes`].
    pub freed_bytes: Option<u64>,
}

impl Store {
    /// Everything that was imported, by name.
    ///
    /// # Errors
    /// [`Error`] if the store cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let names = self.names()?;
        let mut list = Vec::new();
        for image in self.images()? {
            let size =
                |&key: &Digest| fs::metadata(self.layer_path(key)).map_or(0, |metadata| metadata.len());
            let line = |name: Option<&Name>| Listed {
                name: name.map(|name| name.as_str().to_owned()),
                id: image.id.to_string(),
                created: image.created,
                size_bytes: image.layers.iter().map(size).sum(),
                layers: image.layers.len(),
                source: image.source.clone(),
            };
            let before = list.len();
            list.extend(names.iter().filter(|(_, id)| *id == image.id).map(|(name, _)| line(Some(name))));
            if list.len() == before {
                list.push(line(None));
            }
        }
        list.sort_by(|a, b| (a.name.is_none(), &a.name, &a.id).cmp(&(b.name.is_none(), &b.name, &b.id)));
        Ok(list)
    }

    /// Removes a name, and with its last name the image and the layers that no other image uses; or an image
    /// without a name, by the start of its id. Guests that run on a removed image keep running.
    ///
    /// # Errors
    /// [`Error`] if there is no such image, or an id stands for an image with several names.
    pub fn remove(&self, reference: &str) -> Result<Removed, Error> {
        let catalogue = self.lock_catalogue()?;
        let id =
            self.look_up(OsStr::new(reference))?.ok_or_else(|| Error::NoSuchImage(reference.to_owned()))?;
        let names: Vec<Name> =
            self.names()?.into_iter().filter(|(_, image)| *image == id).map(|(name, _)| name).collect();
        let named = Name::parse(reference).ok().filter(|name| names.contains(name));
        let goes = match named {
            Some(name) => vec![name],
            None if names.len() > 1 => return Err(Error::SeveralNames { id, names }),
            None => names.clone(),
        };
        let mut removed = Removed { freed_bytes: Some(0), ..Removed::default() };
        for name in &goes {
            remove_file(&self.root().join("names").join(name.file_name()))?;
            removed.names.push(name.as_str().to_owned());
        }
        if goes.len() == names.len() {
            self.drop_record(id)?;
            removed.image = Some(id.to_string());
            drop(catalogue);
            removed.freed_bytes = self.collect()?;
        }
        Ok(removed)
    }

    /// Removes every image without a name: what was run as a directory or file, and is imported anew when it is run
    /// again; and the layers that no image uses, those of imports that were interrupted among them.
    ///
    /// # Errors
    /// [`Error`] if the store cannot be read or written; those before are gone.
    pub fn prune(&self) -> Result<Pruned, Error> {
        let catalogue = self.lock_catalogue()?;
        let names = self.names()?;
        let mut pruned = Pruned::default();
        for image in self.images()? {
            if names.iter().all(|(_, named)| *named != image.id) {
                self.drop_record(image.id)?;
                pruned.images.push(image.id.to_string());
            }
        }
        drop(catalogue);
        pruned.freed_bytes = self.collect()?;
        Ok(pruned)
    }

    /// Removes an image that neither a name nor a path stands for any more.
    pub(super) fn forget(&self, id: Digest) -> Result<(), Error> {
        let catalogue = self.lock_catalogue()?;
        let named = self.names()?.iter().any(|(_, image)| *image == id);
        if named || self.memos()?.iter().any(|(_, memo)| memo.image == id) {
            return Ok(());
        }
        self.drop_record(id)?;
        drop(catalogue);
        self.collect().map(drop)
    }

    /// Locks names and records, so that an image which is found stays until it has its name and its layers are open,
    /// and one without a name is still so when it is removed. Released when dropped.
    ///
    /// Who holds this may wait for the store's `lock`, shared, and for that of `tmp/`. Who holds `lock`, or the lock of a
    /// layer in `locks/`, must not wait for this.
    pub(super) fn lock_catalogue(&self) -> Result<File, Error> {
        let names = self.root().join("names");
        let lock = || {
            let directory = File::open(&names)?;
            flock(&directory, FlockOperation::LockExclusive)?;
            Ok(directory)
        };
        lock().map_err(|source| Error::write(&names, source, None))
    }

    /// Removes an image's record and what leads to it.
    fn drop_record(&self, id: Digest) -> Result<(), Error> {
        remove_file(&self.image_path(id))?;
        for (path, memo) in self.memos()? {
            if memo.image == id {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the layers that no image uses and returns their bytes; `None` if an import does not end soon.
    fn collect(&self) -> Result<Option<u64>, Error> {
        let lock = self.lock_file()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                // An import may be about to use what no image uses yet.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                    std::thread::sleep(PATIENCE / 20);
                }
                Err(source) => return Err(Error::write(self.root(), source, None)),
            }
        }
        let used: BTreeSet<OsString> = self
            .images()?
            .iter()
            .flat_map(|image| &image.layers)
            .map(|&key| layer_name(key).into())
            .collect();
        let mut freed = 0;
        for path in self.files("layers")? {
            if path.file_name().is_some_and(|name| !used.contains(name)) {
                freed += fs::metadata(&path).map_or(0, |metadata| metadata.len());
                remove_file(&path)?;
            }
        }
        Ok(Some(freed))
    }

    /// Gives names that are stored as docker spells them in full the files that they are looked for in. Where both
    /// spellings are stored the short one stays, and an image that is then without a name is told.
    pub(super) fn shorten_names(&self) -> Result<(), Error> {
        for path in self.files("names")? {
            let name = path.file_name().and_then(OsStr::to_str).and_then(Name::of_file);
            let Some(name) = name else { continue };
            let short = path.with_file_name(name.file_name());
            if short == path {
                continue;
            }
            if let Err(error) = shorten_name(&name, &path, &short) {
                log::warn!("cannot store the name '{}' in {}: {error}", name.as_str(), short.display());
            }
        }
        Ok(())
    }

    /// The image of this name, or whose id starts so.
    pub(super) fn look_up(&self, text: &OsStr) -> Result<Option<Digest>, Error> {
        let Some(text) = text.to_str() else { return Ok(None) };
        if let Ok(name) = Name::parse(text) {
            let record: Option<NameRecord> =
                records::read(&self.root().join("names").join(name.file_name()))?;
            if let Some(record) = record {
                return Ok(Some(record.image));
            }
        }
        let Some(prefix) = id_prefix(text) else { return Ok(None) };
        let mut found =
            self.images()?.into_iter().map(|image| image.id).filter(|id| id.hex().starts_with(prefix));
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(Error::AmbiguousId(text.to_owned())),
            (found, _) => Ok(found),
        }
    }

    fn images(&self) -> Result<Vec<ImageRecord>, Error> {
        let mut images = Vec::new();
        for path in self.files("images")? {
            images.extend(records::read(&path)?);
        }
        Ok(images)
    }

    pub(super) fn names(&self) -> Result<Vec<(Name, Digest)>, Error> {
        let mut names = Vec::new();
        for path in self.files("names")? {
            let record: Option<NameRecord> = records::read(&path)?;
            names.extend(record.map(|record| (record.name, record.image)));
        }
        names.sort();
        Ok(names)
    }

    /// Memos are a convenience: a damaged one is none.
    pub(super) fn memos(&self) -> Result<Vec<(PathBuf, Memo)>, Error> {
        let files = self.files("memo")?.into_iter();
        Ok(files.filter_map(|path| Some((path.clone(), records::read(&path).ok()??))).collect())
    }

    fn files(&self, directory: &str) -> Result<Vec<PathBuf>, Error> {
        let path = self.root().join(directory);
        let read = || fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        read().map_err(|source| Error::Open { path: path.clone(), source })
    }
}

/// Moves what `path` says of a name to `short`, unless that says something already. Another process may do so as well.
fn shorten_name(name: &Name, path: &Path, short: &Path) -> io::Result<()> {
    let image = |path| records::read(path).ok().flatten().map(|record: NameRecord| record.image);
    let image_before = image(path);
    match fs::hard_link(path, short) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if let Some(nameless) = image_before.filter(|before| image(short) != Some(*before)) {
                log::warn!(
                    "image {nameless} has no name any more: '{}' is another's. Import it under a name of its own, or the next \
                     `ballast image prune` removes it",
                    name.as_str()
                );
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        linked => linked?,
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a file; one that is gone is fine.
fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::write(path, error, None)),
        _ => Ok(()),
    }
}

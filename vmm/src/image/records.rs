//! The small JSON files of the store, written so that a reader sees all of one or none.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::FlockOperation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::config::ImageConfig;
use super::digest::Digest;
use super::error::Error;
use super::reference::Name;
use super::workspace::flock;

/// `images/<id>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Digest of the configuration, or of what stands in for it.
    pub id: Digest,
    /// When it was imported, in seconds since the epoch.
    pub created: u64,
    /// What it was imported from, for people.
    pub source: String,
    /// How to run it.
    pub config: ImageConfig,
    /// Keys of its layers, lowest first.
    pub layers: Vec<Digest>,
}

/// `names/<name>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRecord {
    /// The name with its tag.
    pub name: Name,
    /// The image.
    pub image: Digest,
}

/// `memo/<path>.json`: which image a file or directory was, the last time it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memo {
    /// What it looked like.
    pub stamp: Stamp,
    /// What it was.
    pub image: Digest,
    /// What it called the image.
    pub names: Vec<Name>,
}

/// What changes when a file's content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    /// Of an open file.
    ///
    /// # Errors
    /// That of `fstat`.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// When it last changed: seconds and nanoseconds since the epoch.
    pub fn changed(&self) -> (i64, i64) {
        self.ctime
    }
}

/// Reads a record, `None` if there is none.
///
/// # Errors
/// [`Error`] if it cannot be read or is damaged.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Open { path: path.to_owned(), source }),
    };
    let record = serde_json::from_slice(&bytes);
    record.map(Some).map_err(|source| Error::Record { path: path.to_owned(), source })
}

/// Writes a record to `path`, by way of a file in `tmp` on the same file system.
///
/// # Errors
/// [`Error`]; the record is then as it was.
pub fn write<T: Serialize>(path: &Path, tmp: &Path, record: &T) -> Result<(), Error> {
    let json = serde_json::to_vec_pretty(record);
    let json = json.map_err(|source| Error::Record { path: path.to_owned(), source })?;
    let write = || -> io::Result<()> {
        // While this is held, nobody sweeps: a record is in nobody's workspace.
        let lock = File::open(tmp)?;
        flock(&lock, FlockOperation::LockShared)?;
        let mut file = tempfile::NamedTempFile::new_in(tmp)?;
        file.write_all(&json)?;
        file.as_file().sync_all()?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        file.persist(path).map_err(|error| error.error)?;
        sync_directory(path)
    };
    write().map_err(|source| Error::write(path, source, Some(json.len() as u64)))
}

/// Makes the directory entry of `path` survive a loss of power.
///
/// # Errors
/// That of `fsync`.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        assert_eq!(read::<NameRecord>(&path).unwrap(), None);
        let record =
            |name: &str| NameRecord { name: Name::parse(name).unwrap(), image: Digest::of(name.as_bytes()) };
        write(&path, dir.path(), &record("a")).unwrap();
        write(&path, dir.path(), &record("b")).unwrap();
        assert_eq!(read(&path).unwrap(), Some(record("b")));
        assert!(write(&path, &dir.path().join("none"), &record("c")).is_err());
        assert_eq!(read(&path).unwrap(), Some(record("b")));
        fs::write(&path, "{").unwrap();
        assert!(matches!(read::<NameRecord>(&path), Err(Error::Record { .. })));
    }
}

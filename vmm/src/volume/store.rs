//! The volumes of this host: `NAME.ext4` files in one directory, made on first use and kept until removed.
//!
//! Whoever makes, opens or removes a volume holds the directory's lock meanwhile, so that a volume is never
//! seen half made and never removed between being found and being locked. A volume is made beside its name
//! and named when it is whole, in place of nothing; what a killed maker left is cleared by the next.

#![forbid(unsafe_code)]

use super::argument::VolumeName;
use super::disk::{self, OpenDisk};
use super::{ext4, lock};
use rustix::fs::FlockOperation;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Size of a volume that is made on first use. The file is sparse, so this is a limit, not a cost: about 1 MiB
/// until something is written.
pub const DEFAULT_BYTES: u64 = 8 << 30;

/// The smallest volume: below it, a journal takes most of the room.
pub const MIN_BYTES: u64 = 16 << 20;

const SUFFIX: &str = ".ext4";

/// A volume being made. No volume's name begins with a dot.
const UNFINISHED: &str = ".unfinished";

/// Something about a volume failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory of volumes cannot be used.
    #[error("cannot {doing} {}", path.display())]
    Host {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// No volume of the name.
    #[error("there is no volume '{0}'; `ballast volume ls` lists those there are")]
    Missing(VolumeName),
    /// Its name leads to a file that is not there now, and that is not to be made anew.
    #[error(
        "volume '{name}' is not where {} links to: mount what holds it, or remove the link",
        link.display()
    )]
    Elsewhere {
        /// Which.
        name: VolumeName,
        /// The symbolic link in its place.
        link: PathBuf,
    },
    /// A volume of the name is there already.
    #[error("volume '{0}' exists already; choose another name, or remove it with `ballast volume rm {0}`")]
    Exists(VolumeName),
    /// A size that makes no volume.
    #[error("a volume has at least {}", balloon::size::Size::from_bytes(MIN_BYTES))]
    TooSmall,
    /// A microVM uses the volume.
    #[error("volume '{0}' is in use by a microVM; end it first")]
    InUse(VolumeName),
    /// It has no file system.
    #[error("cannot make volume '{name}'")]
    Make {
        /// Which.
        name: VolumeName,
        /// Why.
        source: ext4::Error,
    },
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] disk::Error),
}

/// A volume, as listings show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: VolumeName,
    /// What the guest can see of it, in bytes.
    pub size_bytes: u64,
    /// What it takes of the host's disk, in bytes.
    pub used_bytes: u64,
    /// A microVM has it open.
    pub in_use: bool,
}

/// The directory of volumes.
#[derive(Clone, Debug)]
pub struct Volumes {
    directory: PathBuf,
}

impl Volumes {
    /// The volumes below the data directory `data`. The directory is made when the first volume is.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { directory: data.join("volumes") }
    }

    /// Opens a volume for a microVM, locked; makes it first if there is none.
    ///
    /// # Errors
    /// It is in use, or cannot be made or opened.
    pub fn open(&self, name: &VolumeName, read_only: bool) -> Result<OpenDisk, Error> {
        let _locked = self.lock()?;
        let path = self.path(name);
        if !self.exists(name)? {
            self.make(name, DEFAULT_BYTES)?;
        }
        Ok(disk::open_as(format!("volume '{name}'"), &path, read_only)?)
    }

    /// Makes a new volume of `size_bytes`, rounded up to whole MiB.
    ///
    /// # Errors
    /// There is one of the name, the size is too small, or the host refuses.
    pub fn create(&self, name: &VolumeName, size_bytes: u64) -> Result<(), Error> {
        let _locked = self.lock()?;
        if self.exists(name)? {
            return Err(Error::Exists(name.clone()));
        }
        self.make(name, size_bytes)
    }

    /// Removes a volume and all that is in it.
    ///
    /// # Errors
    /// There is none, or a microVM uses it.
    pub fn remove(&self, name: &VolumeName) -> Result<(), Error> {
        let path = self.path(name);
        if !self.exists(name)? {
            return Err(Error::Missing(name.clone()));
        }
        let _locked = self.lock()?;
        let file = File::open(&path).map_err(host("open", &path))?;
        if lock::is_locked(&file).map_err(host("ask for locks of", &path))? {
            return Err(Error::InUse(name.clone()));
        }
        fs::remove_file(&path).map_err(host("remove", &path))
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// The directory or a volume cannot be read.
    pub fn list(&self) -> Result<Vec<Volume>, Error> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(host("read", &self.directory)(error)),
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let entry = entry.map_err(host("read", &self.directory))?;
            let file_name = entry.file_name();
            let stem = file_name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            let Some(name) = stem.and_then(|stem| stem.parse().ok()) else { continue };
            match self.describe(name) {
                // Removed meanwhile.
                Err(Error::Host { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                volume => volumes.push(volume?),
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    fn describe(&self, name: VolumeName) -> Result<Volume, Error> {
        let path = self.path(&name);
        let file = File::open(&path).map_err(host("open", &path))?;
        let metadata = file.metadata().map_err(host("measure", &path))?;
        let in_use = lock::is_locked(&file).map_err(host("ask for locks of", &path))?;
        let used_bytes = metadata.blocks().saturating_mul(512);
        Ok(Volume { name, size_bytes: metadata.len(), used_bytes, in_use })
    }

    /// Whether there is the volume; not knowing is an error, as a volume that is not there is made.
    fn exists(&self, name: &VolumeName) -> Result<bool, Error> {
        let path = self.path(name);
        match path.try_exists() {
            Ok(false) if path.is_symlink() => Err(Error::Elsewhere { name: name.clone(), link: path }),
            exists => exists.map_err(host("look for", &path)),
        }
    }

    fn path(&self, name: &VolumeName) -> PathBuf {
        self.directory.join(format!("{name}{SUFFIX}"))
    }

    /// Waits for whoever makes, opens or removes a volume, and keeps others waiting until dropped.
    fn lock(&self) -> Result<File, Error> {
        let path = &self.directory;
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(host("make", path))?;
        let directory = File::open(path).map_err(host("open", path))?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&directory, FlockOperation::LockExclusive))
            .map_err(|error| host("lock", path)(error.into()))?;
        Ok(directory)
    }

    /// Makes a volume. The caller holds the directory's lock and knows that there is none of the name.
    fn make(&self, name: &VolumeName, size_bytes: u64) -> Result<(), Error> {
        let size_bytes = size_bytes.checked_next_multiple_of(1 << 20).unwrap_or(u64::MAX);
        if size_bytes < MIN_BYTES {
            return Err(Error::TooSmall);
        }
        let unfinished = self.directory.join(UNFINISHED);
        let made = self.make_at(&unfinished, name, size_bytes);
        if made.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        made
    }

    fn make_at(&self, unfinished: &Path, name: &VolumeName, size_bytes: u64) -> Result<(), Error> {
        // A maker that was killed may have left one. A new file, not the same one emptied: whoever still has that
        // open must not write into this.
        match fs::remove_file(unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(host("remove", unfinished)(error));
            }
            _ => {}
        }
        let options = File::options().write(true).create_new(true).mode(0o600).clone();
        let file = options.open(unfinished).map_err(host("make", unfinished))?;
        disk::write_in_place(&file);
        file.set_len(size_bytes).map_err(host("give a size to", unfinished))?;
        ext4::make(unfinished).map_err(|source| Error::Make { name: name.clone(), source })?;
        file.sync_all().map_err(host("write", unfinished))?;
        let path = self.path(name);
        // A rename would replace what is there.
        fs::hard_link(unfinished, &path).map_err(host("name", &path))?;
        fs::remove_file(unfinished).map_err(host("remove", unfinished))?;
        let directory = File::open(&self.directory).map_err(host("open", &self.directory))?;
        directory.sync_all().map_err(host("write", &self.directory))
    }
}

fn host(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Host { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::lock::eventually;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn volumes() -> (tempfile::TempDir, Volumes) {
        let data = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(data.path());
        (data, volumes)
    }

    fn name(text: &str) -> VolumeName {
        text.parse().unwrap()
    }

    fn names(volumes: &Volumes) -> Vec<String> {
        volumes.list().unwrap().into_iter().map(|volume| volume.name.to_string()).collect()
    }

    #[test]
    fn made_on_first_use_and_kept() {
        let (data, volumes) = volumes();
        assert_eq!(volumes.list().unwrap(), []);
        assert!(!data.path().join("volumes").exists(), "listing makes nothing");
        let first = volumes.open(&name("b"), false).unwrap();
        let inode = first.file.metadata().unwrap().ino();
        let listed = &volumes.list().unwrap()[0];
        assert_eq!((listed.size_bytes, listed.in_use), (DEFAULT_BYTES, true));
        assert!(listed.used_bytes < 8 << 20, "{}", listed.used_bytes);
        assert!(matches!(volumes.open(&name("b"), false), Err(Error::Open(disk::Error::InUse { .. }))));
        drop(first);
        let again = eventually(|| volumes.open(&name("b"), true).ok());
        assert_eq!(again.file.metadata().unwrap().ino(), inode);
        assert_eq!(again.file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        volumes.open(&name("a"), false).unwrap();
        assert_eq!(names(&volumes), ["a", "b"]);
    }

    #[test]
    fn removed_only_when_nobody_uses_it() {
        let (_data, volumes) = volumes();
        assert!(matches!(volumes.remove(&name("v")), Err(Error::Missing(_))));
        let reader = volumes.open(&name("v"), true).unwrap();
        assert!(matches!(volumes.remove(&name("v")), Err(Error::InUse(_))));
        drop(reader);
        eventually(|| volumes.remove(&name("v")).ok());
        assert_eq!(volumes.list().unwrap(), []);
    }

    #[test]
    fn created_with_a_size() {
        let (_data, volumes) = volumes();
        volumes.create(&name("v"), (32 << 20) + 1).unwrap();
        assert_eq!(volumes.list().unwrap()[0].size_bytes, 33 << 20);
        assert!(matches!(volumes.create(&name("v"), 32 << 20), Err(Error::Exists(_))));
        let error = volumes.create(&name("w"), 1 << 20).unwrap_err();
        assert_eq!(error.to_string(), "a volume has at least 16 MiB");
        assert!(volumes.create(&name("w"), u64::MAX).is_err());
        assert_eq!(names(&volumes), ["v"], "nothing is left of what failed");
        assert!(!volumes.directory.join(UNFINISHED).exists());
    }

    #[test]
    fn what_a_killed_maker_left_is_no_volume_and_no_hindrance() {
        let (_data, volumes) = volumes();
        fs::create_dir_all(&volumes.directory).unwrap();
        fs::write(volumes.directory.join(UNFINISHED), vec![0xff; 1 << 20]).unwrap();
        fs::write(volumes.directory.join(".x.ext4"), b"").unwrap();
        fs::write(volumes.directory.join("notes"), b"").unwrap();
        assert_eq!(names(&volumes), [""; 0]);
        volumes.create(&name("v"), MIN_BYTES).unwrap();
        assert_eq!(names(&volumes), ["v"]);
    }

    #[test]
    fn nothing_is_made_in_place_of_what_is_not_to_be_seen_now() {
        let (data, volumes) = volumes();
        volumes.create(&name("v"), MIN_BYTES).unwrap();
        let (link, moved) = (volumes.path(&name("v")), data.path().join("moved"));
        fs::rename(&link, &moved).unwrap();
        symlink("unmounted/v.ext4", &link).unwrap();
        symlink("loop.ext4", volumes.path(&name("loop"))).unwrap();
        for name in [name("v"), name("loop")] {
            volumes.open(&name, false).unwrap_err();
            volumes.create(&name, MIN_BYTES).unwrap_err();
            volumes.remove(&name).unwrap_err();
            assert!(volumes.path(&name).is_symlink());
        }
        let error = volumes.open(&name("v"), false).unwrap_err().to_string();
        assert!(error.contains("v.ext4 links to: mount what holds it"), "{error}");
        fs::remove_file(&link).unwrap();
        symlink(&moved, &link).unwrap();
        volumes.open(&name("v"), false).unwrap();
    }

    #[test]
    fn a_new_volume_replaces_nothing() {
        let (_data, volumes) = volumes();
        volumes.create(&name("v"), MIN_BYTES).unwrap();
        let inode = fs::metadata(volumes.path(&name("v"))).unwrap().ino();
        volumes.make(&name("v"), MIN_BYTES).unwrap_err();
        assert_eq!(fs::metadata(volumes.path(&name("v"))).unwrap().ino(), inode);
        assert!(!volumes.directory.join(UNFINISHED).exists());
    }

    #[test]
    fn two_that_want_the_same_new_volume_make_it_once() {
        let (_data, volumes) = volumes();
        let open = || volumes.open(&name("v"), true).unwrap().file.metadata().unwrap().ino();
        let inodes: Vec<u64> = std::thread::scope(|scope| {
            let openers: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).collect()
        });
        assert!(inodes.iter().all(|&inode| inode == inodes[0]), "{inodes:?}");
    }
}

//! Private working directories and locks below the data directory, and the sweeping of what a crash left.
//!
//! A workspace is a directory in `tmp/` whose descriptor is locked by `flock` for as long as its process lives; so
//! one that can be locked is nobody's and is removed. Making one and telling which are nobody's exclude one another by a
//! lock on `tmp/` itself, or a new directory could be swept before it is locked. `tmp/` is closed to other users: what is
//! unpacked there has its set-user-id bits.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::tree;

/// Leftovers that are swept at once: each is an open descriptor meanwhile.
const CLAIMS_MAX: usize = 64;

/// A working directory, removed when dropped.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    tmp: File,
    /// Locked while the workspace lives.
    _directory: File,
}

impl Workspace {
    /// Makes a new working directory in `tmp`, and sweeps what dead processes left there.
    ///
    /// # Errors
    /// That of the call that failed.
    pub fn create(tmp: &Path) -> io::Result<Self> {
        let parent = File::open(tmp)?;
        flock(&parent, FlockOperation::LockShared)?;
        let path = tempfile::Builder::new().prefix("import-").tempdir_in(tmp)?.keep();
        let directory = File::open(&path)?;
        flock(&directory, FlockOperation::LockExclusive)?;
        flock(&parent, FlockOperation::Unlock)?;
        if let Err(error) = sweep_leftovers(tmp) {
            log::debug!("cannot sweep {tmp:?}: {error}");
        }
        Ok(Self { path, tmp: parent, _directory: directory })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it, to be a file system's root.
    ///
    /// # Errors
    /// That of `mkdir`.
    pub fn make_root(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o755).create(&path)?;
        // The mask is the user's, the root everyone's.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Removes a tree made in it.
    ///
    /// # Errors
    /// That of the call that failed.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        tree::remove(File::open(&self.path)?, OsStr::new(name))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Some(name) = self.path.file_name() {
            // What stays is swept by the next import.
            let _ = tree::remove(&self.tmp, name);
        }
    }
}

/// Sweeps what dead processes left in `tmp`. What others make or sweep just now is left to them.
///
/// # Errors
/// That of the call that failed.
pub fn sweep_leftovers(tmp: &Path) -> io::Result<()> {
    let parent = File::open(tmp)?;
    for (name, _lock) in claim_leftovers(&parent)? {
        // One that another user's import left may be beyond reach: that is no reason to fail.
        let _ = tree::remove(&parent, &name);
    }
    Ok(())
}

/// Locks entries that no living process has locked; none while somebody makes one.
fn claim_leftovers(tmp: &File) -> io::Result<Vec<(OsString, OwnedFd)>> {
    use rustix::fs::{Mode, OFlags};
    match flock(tmp, FlockOperation::NonBlockingLockExclusive) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Vec::new()),
        locked => locked?,
    }
    let mut claimed = Vec::new();
    for name in tree::list(tmp)? {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let entry = match rustix::fs::openat(tmp, &name, flags, Mode::empty()) {
            Ok(entry) => entry,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        match flock(&entry, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => claimed.push((name, entry)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if claimed.len() == CLAIMS_MAX {
            break;
        }
    }
    // Removing them may take long, and nobody need wait for it: their own locks keep others away.
    flock(tmp, FlockOperation::Unlock)?;
    Ok(claimed)
}

/// A lock that processes take in turn, by name; released when dropped.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _file: File,
}

impl KeyLock {
    /// Takes the lock; `wait` is called once if another process has it.
    ///
    /// # Errors
    /// That of the call that failed.
    pub fn take(directory: &Path, name: &str, wait: impl FnOnce()) -> io::Result<Self> {
        let path = directory.join(name);
        let mut wait = Some(wait);
        loop {
            let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(wait) = wait.take() {
                        wait();
                    }
                    flock(&file, FlockOperation::LockExclusive)?;
                }
                Err(error) => return Err(error),
            }
            // Its last holder removed the file: then this is a lock on nothing.
            let here = file.metadata()?;
            match fs::metadata(&path) {
                Ok(there) if (there.dev(), there.ino()) == (here.dev(), here.ino()) => {
                    return Ok(Self { path, _file: file });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// `flock`, again after a signal.
///
/// # Errors
/// That of `flock`.
pub fn flock(file: impl std::os::fd::AsFd, operation: FlockOperation) -> io::Result<()> {
    loop {
        match rustix::fs::flock(&file, operation) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn leftovers_are_swept_and_the_living_spared() {
        let dir = tempfile::tempdir().unwrap();
        let alive = Workspace::create(dir.path()).unwrap();
        let left = dir.path().join("import-dead");
        fs::create_dir_all(left.join("root/etc")).unwrap();
        fs::write(left.join("root/etc/x"), "x").unwrap();
        fs::write(dir.path().join("lost"), "x").unwrap();
        let second = Workspace::create(dir.path()).unwrap();
        assert!(alive.path().exists() && second.path().exists());
        assert!(!left.exists() && !dir.path().join("lost").exists());
        let path = second.path().to_owned();
        fs::create_dir(path.join("below")).unwrap();
        fs::create_dir_all(left.join("root/etc")).unwrap();
        sweep_leftovers(dir.path()).unwrap();
        assert!(!left.exists() && alive.path().exists() && path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn nobody_waits_for_who_sweeps() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join("import-dead");
        fs::create_dir(&left).unwrap();
        let sweeper = File::open(dir.path()).unwrap();
        let claimed = claim_leftovers(&sweeper).unwrap();
        assert_eq!(claimed.len(), 1);
        let workspace = Workspace::create(dir.path()).unwrap();
        assert!(left.exists(), "who claimed it removes it");
        drop(claimed);
        sweep_leftovers(dir.path()).unwrap();
        assert!(!left.exists() && workspace.path().exists());
        // Who makes something is not waited for either.
        fs::create_dir(&left).unwrap();
        let maker = File::open(dir.path()).unwrap();
        flock(&maker, FlockOperation::LockShared).unwrap();
        sweep_leftovers(dir.path()).unwrap();
        assert!(left.exists());
    }

    #[test]
    fn one_holder_at_a_time_and_no_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, entered) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let lock = KeyLock::take(dir.path(), "key", || ()).unwrap();
                        assert!(!inside.swap(true, Ordering::SeqCst));
                        entered.fetch_add(1, Ordering::SeqCst);
                        inside.store(false, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(entered.load(Ordering::SeqCst), 400);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

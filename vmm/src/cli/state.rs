//! The state directory: a locked file for each running microVM, which claims its name.
//!
//! The lock is held by the open file and dies with the process, however that ends; what is left then is a file
//! that nobody locks, and the next start sweeps it.

use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A name cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has characters that a host name or a file name cannot have.
    #[error(
        "'{0}' cannot be a name: use up to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit"
    )]
    Name(String),
    /// Another microVM has it.
    #[error("a microVM named '{0}' is running: choose another --name")]
    Taken(String),
    /// The state directory does not work.
    #[error("cannot claim a name in {}", path.display())]
    Host {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
}

/// A claimed name; given back when dropped.
#[derive(Debug)]
pub struct Registration {
    name: String,
    path: PathBuf,
    _lock: File,
}

const LONGEST_NAME: usize = 63;

impl Registration {
    /// Claims `name`, or a name of our own making, in the state directory `state`.
    ///
    /// # Errors
    /// The name is unusable or taken.
    pub fn new(state: &Path, name: Option<&str>) -> Result<Self, Error> {
        let directory = state.join("vms");
        let host = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Host { path, source }
        };
        std::fs::create_dir_all(&directory).map_err(host(&directory))?;
        sweep(&directory);
        if let Some(name) = name {
            if !is_name(name) {
                return Err(Error::Name(name.into()));
            }
            let path = directory.join(name);
            return match claim(&path).map_err(host(&path))? {
                Some(lock) => Ok(Self { name: name.into(), path, _lock: lock }),
                None => Err(Error::Taken(name.into())),
            };
        }
        loop {
            let mut bytes = [0; 6];
            rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
                .map_err(|e| host(&directory)(e.into()))?;
            let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let path = directory.join(&name);
            if let Some(lock) = claim(&path).map_err(host(&path))? {
                return Ok(Self { name, path, _lock: lock });
            }
        }
    }

    /// The claimed name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Unlinked while locked, so that nobody's claim can be in between.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Locks the file at `path`, made if need be; nothing if somebody else has it.
fn claim(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // The file may have been unlinked between opening and locking: then the lock is on nothing.
        match std::fs::metadata(path) {
            Ok(there) if there.ino() == file.metadata()?.ino() => {
                std::io::Write::write_all(&mut &file, format!("{}\n", std::process::id()).as_bytes())?;
                return Ok(Some(file));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes what processes that were killed left behind. Best effort: a claim checks for itself.
fn sweep(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if let Ok(Some(_lock)) = claim(&path) {
            let _ = std::fs::remove_file(&path);
        }
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= LONGEST_NAME
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_claimed_once_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = Registration::new(dir.path(), Some("web")).unwrap();
        assert!(matches!(Registration::new(dir.path(), Some("web")), Err(Error::Taken(_))));
        drop(first);
        Registration::new(dir.path(), Some("web")).unwrap();
    }

    #[test]
    fn what_a_killed_process_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("vms")).unwrap();
        std::fs::write(dir.path().join("vms/dead"), "1\n").unwrap();
        let other = Registration::new(dir.path(), None).unwrap();
        assert!(!dir.path().join("vms/dead").exists());
        assert!(dir.path().join("vms").join(other.name()).exists());
    }

    #[test]
    fn bad_names_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", ".", "..", "a/b", "-x", "ä", &"x".repeat(64)] {
            assert!(matches!(Registration::new(dir.path(), Some(name)), Err(Error::Name(_))), "{name}");
        }
    }
}

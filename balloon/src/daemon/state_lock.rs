//! The lock that makes one daemon the only one of its state directory. Wiring.

#![forbid(unsafe_code)]

use crate::regular_file;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const LOCK: &str = "ballastd.lock";

/// Makes the state directory if it is missing, and takes its lock, which ends with the file and so with the process.
/// Nothing if another daemon has it.
///
/// # Errors
/// The directory cannot be made or written.
pub fn take(state: &Path) -> io::Result<Option<File>> {
    crate::state::make(state)?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let open = regular_file::open_with(&state.join(LOCK), &mut options)?;
    match flock(&open, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(open)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("a/b");
        let first = take(&state).unwrap().unwrap();
        assert!(take(&state).unwrap().is_none());
        drop(first);
        assert!(take(&state).unwrap().is_some());
    }
}

//! Opens files to record to: by `ballast run --record` and by `ballastd --record`. Wiring.

#![forbid(unsafe_code)]

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Nothing can be recorded to a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made.
    #[error("cannot record to {}", path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a pipe, or something else that is neither a file nor a device.
    #[error("cannot record to {}: it is no file; name one", .0.display())]
    NoFile(PathBuf),
    /// It has something else in it.
    #[error("cannot record to {}: there is something else in it; name another file, or remove it", .0.display())]
    NotOurs(PathBuf),
    /// It is being recorded to.
    #[error("cannot record to {}: somebody else does; name another file", .0.display())]
    Taken(PathBuf),
}

/// A file that nobody else records to.
#[derive(Debug)]
pub struct Opened {
    /// At its beginning.
    pub file: File,
    /// Whether there is a recording in it: one that begins as those that are to be made.
    pub has_one: bool,
}

/// Opens the file at `path`, or makes it, for one recording of those that start with `beginning`.
///
/// # Errors
/// It cannot be made, is being recorded to, or is something else.
pub fn open(path: &Path, beginning: &[u8]) -> Result<Opened, Error> {
    let failed = |source| Error::Make { path: path.into(), source };
    let mut options = OpenOptions::new();
    // A pipe that nobody reads would be waited for.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    options.read(true).write(true).create(true).custom_flags(nonblocking);
    let mut file = options.open(path).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if kind.is_char_device() {
        return Ok(Opened { file, has_one: false });
    }
    if !kind.is_file() {
        return Err(Error::NoFile(path.into()));
    }
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        Errno::WOULDBLOCK => Error::Taken(path.into()),
        errno => failed(errno.into()),
    })?;
    let mut there = Vec::new();
    let length = u64::try_from(beginning.len()).unwrap_or(u64::MAX);
    (&mut file).take(length).read_to_end(&mut there).map_err(failed)?;
    if !there.is_empty() && there != beginning {
        return Err(Error::NotOurs(path.into()));
    }
    file.rewind().map_err(failed)?;
    Ok(Opened { file, has_one: !there.is_empty() })
}

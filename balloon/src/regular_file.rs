//! Opens and reads files that somebody else may have made: never one to wait at, as a pipe is, and never without end, as a
//! device is. Wiring.

#![forbid(unsafe_code)]

use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens the regular file at `path` to be read.
///
/// # Errors
/// It cannot be opened, or is something else.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(path, OpenOptions::new().read(true))
}

/// As [`open`], as `options` say.
///
/// # Errors
/// It cannot be opened, or is something else.
pub fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // A pipe would be waited for.
    let file = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// What the regular file at `path` holds, if that is at most `most_bytes`.
///
/// # Errors
/// It cannot be read, is something else, or holds more.
pub fn read(path: &Path, most_bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path)?.take(most_bytes.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > most_bytes {
        return Err(io::Error::other(format!("it has more than {most_bytes} bytes")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn what_is_no_file_or_too_long_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let [file, pipe] = ["file", "pipe"].map(|name| directory.path().join(name));
        std::fs::write(&file, "12345678").unwrap();
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(read(&file, 8).unwrap(), b"12345678");
        let why = |path: &Path| read(path, 7).unwrap_err().to_string();
        assert_eq!(why(&file), "it has more than 7 bytes");
        for other in [&pipe, Path::new("/dev/zero"), directory.path()] {
            assert_eq!(why(other), "it is no regular file", "{other:?}");
        }
        assert!(open_with(&pipe, OpenOptions::new().read(true).write(true)).is_err());
        assert_eq!(read(&directory.path().join("none"), 8).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

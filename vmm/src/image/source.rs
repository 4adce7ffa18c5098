//! What an IMAGE path or standard input is, told by its contents.
//!
//! A tar counts as a container archive if its first member is named as such archives name theirs *and* it holds
//! the documents of one; anything else that is a tar is a root file system. Only the first member of a
//! compressed tar is looked at, so that a large one is not decompressed twice. Called by [`super::import`].
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::blobs::{Blobs, Extent};
use super::compression::{Compression, MAGIC_BYTES};
use super::entry::LayerPath;
use super::error::Error;
use super::limits::{Budget, LimitError};
use super::member::TarError;
use super::progress::{Event, Progress, Stage};
use super::tar_reader::{Members, Streamed};
use super::{docker_archive, oci_layout};

/// How much is copied at once, in bytes.
const COPY_BYTES: usize = 256 << 10;

/// What is said of a tar without members. A layer may be empty; a root file system without a single file is a mistake.
pub const NO_FILES: &str = "the archive holds no files";

/// Two blocks of zeros end a tar.
const END_MARK: [u8; 1024] = [0; 1024];

/// What is looked at to tell what something is.
const START_BYTES: usize = 4096;

/// An image in one of the forms that are understood.
#[derive(Debug)]
pub enum Source {
    /// A tar of a root file system.
    RootfsTar {
        /// The file, compressed as it is.
        file: Arc<File>,
        /// How.
        compression: Compression,
    },
    /// An archive by `docker save`.
    DockerArchive(Blobs),
    /// An OCI layout, directory or tar.
    OciLayout(Blobs),
    /// A root file system as a directory.
    RootfsDirectory,
}

/// Where to put what must be read twice, and how much that may be.
#[derive(Clone, Copy)]
pub struct Spool<'a> {
    /// A directory for unnamed files.
    pub directory: &'a Path,
    /// For what is decompressed.
    pub budget: &'a Budget<'a>,
    /// Told about copying.
    pub progress: &'a dyn Progress,
}

impl Source {
    /// Looks at an open file or directory, called `shown` in messages.
    ///
    /// # Errors
    /// [`Error`] when it is nothing that is understood, or cannot be read.
    pub fn detect(file: File, shown: &str, spool: Spool<'_>) -> Result<Self, Error> {
        let unreadable = |source| Error::Read { what: shown.to_owned(), source };
        let kind = file.metadata().map_err(unreadable)?;
        if kind.is_dir() {
            let blobs = Blobs::Directory(file.into());
            let is_layout = blobs.contains(oci_layout::LAYOUT) && blobs.contains(oci_layout::INDEX);
            return Ok(if is_layout { Self::OciLayout(blobs) } else { Self::RootfsDirectory });
        }
        let file = if kind.is_file() {
            file
        } else {
            // A pipe or the like: what is read is gone.
            let mut start = Vec::new();
            (&file).take(START_BYTES as u64).read_to_end(&mut start).map_err(unreadable)?;
            let refuse = |found| Err(Error::NotAnImage { what: shown.to_owned(), found });
            if start.starts_with(&END_MARK) {
                return refuse(NO_FILES);
            }
            let is_plain = Compression::detect(&start[..start.len().min(MAGIC_BYTES)]) == Compression::None;
            if is_plain && !start.is_empty() && !starts_with_header(&start) {
                return refuse(guess(&start));
            }
            spool.copy(start.as_slice().chain(file), None, spool.budget.limits().pipe_bytes, shown)?
        };
        let file = Arc::new(file);
        let mut start = [0; START_BYTES];
        let length = read_start(&file, &mut start).map_err(unreadable)?;
        let start = &start[..length];
        if start.is_empty() {
            return Err(Error::NotAnImage { what: shown.to_owned(), found: "it is empty" });
        }
        let compression = Compression::detect(&start[..length.min(MAGIC_BYTES)]);
        let whole = || Extent::whole(file.clone()).map_err(unreadable);
        match first_name(compression.decode(whole()?, spool.budget)) {
            Ok(Some(name)) if is_container_name(name.as_bytes()) => {}
            Ok(_) => return Ok(Self::RootfsTar { file, compression }),
            // Shorter than one header, or with no header at its start.
            Err(TarError::Malformed(_) | TarError::Truncated)
                if compression == Compression::None && !starts_with_header(start) =>
            {
                return Err(Error::NotAnImage { what: shown.to_owned(), found: guess(start) });
            }
            Err(source) => return Err(Error::Archive { what: shown.to_owned(), source: source.into() }),
        }
        let plain = match compression {
            Compression::None => file.clone(),
            _ => {
                let bytes = file.metadata().map_err(unreadable)?.len();
                // The decoder has a limit of its own.
                let decoded = compression.decode(whole()?, spool.budget);
                Arc::new(spool.copy(decoded, Some(bytes), u64::MAX, shown)?)
            }
        };
        let blobs =
            Blobs::index(plain).map_err(|source| Error::Container { what: shown.to_owned(), source })?;
        Ok(if blobs.contains(oci_layout::LAYOUT) && blobs.contains(oci_layout::INDEX) {
            Self::OciLayout(blobs)
        } else if blobs.contains(docker_archive::MANIFEST) {
            Self::DockerArchive(blobs)
        } else {
            Self::RootfsTar { file, compression }
        })
    }
}

impl Spool<'_> {
    /// Copies a stream of at most `most` bytes to an unnamed file in the data directory.
    fn copy(
        &self,
        mut from: impl Read,
        total_bytes: Option<u64>,
        most: u64,
        shown: &str,
    ) -> Result<File, Error> {
        let mut copied = 0;
        let write = |source| Error::write(self.directory, source, total_bytes);
        // Not every file system has O_TMPFILE (overlayfs before 6.3): the library makes and unlinks a file there.
        let mut file = tempfile::tempfile_in(self.directory).map_err(write)?;
        self.progress.report(Event::Begin { stage: Stage::Spool, total_bytes: None });
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Read { what: shown.to_owned(), source }),
            };
            copied += read as u64;
            if copied > most {
                return Err(Error::Archive { what: shown.to_owned(), source: LimitError::Pipe(most).into() });
            }
            file.write_all(&buffer[..read]).map_err(write)?;
            self.progress.report(Event::Advance { bytes: read as u64 });
        }
        self.progress.report(Event::End);
        Ok(file)
    }
}

fn read_start(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Whether a valid tar header stands there.
fn starts_with_header(start: &[u8]) -> bool {
    start.get(..512).is_some_and(|block| {
        // Metadata members may need more than this block: that it is one suffices.
        !matches!(Members::new(Streamed(block)).next_member(), Err(TarError::Malformed(_)))
    })
}

/// The first member that is not the root itself.
fn first_name(stream: impl Read) -> Result<Option<LayerPath>, TarError> {
    let mut members = Members::new(Streamed(stream));
    while let Some(member) = members.next_member()? {
        match LayerPath::clean(&member.path) {
            Ok(name) if name.is_root() => {}
            Ok(name) => return Ok(Some(name)),
            // Refused with its reason when it is unpacked.
            Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

fn is_container_name(name: &[u8]) -> bool {
    let is_hex = |text: &[u8]| text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit);
    let first = name.split(|&b| b == b'/').next().unwrap_or_default();
    let stem = [&b".json"[..], b".tar", b".tar.gz"].iter().find_map(|suffix| first.strip_suffix(*suffix));
    matches!(first, b"blobs" | b"index.json" | b"oci-layout" | b"manifest.json" | b"repositories")
        || is_hex(stem.unwrap_or(first))
}

/// What a file that is no tar may be, for the message.
fn guess(start: &[u8]) -> &'static str {
    let at = |offset: usize, magic: &[u8]| start.get(offset..offset + magic.len()) == Some(magic);
    if at(0, b"\x7fELF") {
        "it is a program or kernel"
    } else if at(0, b"BZh") {
        "it is compressed with bzip2: decompress it first"
    } else if at(0, b"PK\x03\x04") {
        "it is a zip archive"
    } else if at(0, b"hsqs") {
        "it is a squashfs image: unpack it with unsquashfs and give the directory"
    } else if at(1024, b"\xe2\xe1\xf5\xe0") {
        "it is an EROFS image: give the directory or archive that it was made of"
    } else if at(0x438, b"\x53\xef") {
        "it is an ext4 image: mount it and give the directory"
    } else if at(0, b"QFI\xfb") {
        "it is a qcow2 disk image: mount it and give the directory"
    } else {
        "it is neither a tar (plain, gzip, zstd or xz) nor a directory"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_container_archives() {
        let hex = "a1".repeat(32);
        for name in ["blobs/sha256", "index.json", "oci-layout", "manifest.json", "repositories"] {
            assert!(is_container_name(name.as_bytes()), "{name}");
        }
        for name in [format!("{hex}.json"), format!("{hex}/layer.tar"), format!("{hex}.tar"), hex] {
            assert!(is_container_name(name.as_bytes()), "{name}");
        }
        for name in ["bin/sh", "etc", "blobs.json", "manifest.json.bak", "a1.json"] {
            assert!(!is_container_name(name.as_bytes()), "{name}");
        }
    }
}

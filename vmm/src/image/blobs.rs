//! A container archive as named blobs, in a directory or in a tar.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::config::CONFIG_BYTES_MAX;
use super::container::ContainerError;
use super::digest::Digest;
use super::entry::{LayerPath, PATH_BYTES_MAX};
use super::member::{Kind, TarError};
use super::tar_reader::Members;

/// More members than any archive of images has.
pub(super) const MEMBERS_MAX: usize = 100_000;
/// Links from a name to its blob: `docker save` made one, long ago.
const LINKS_MAX: usize = 8;

/// A run of bytes in a file, read without moving the file's position.
#[derive(Clone, Debug)]
pub struct Extent {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Extent {
    /// All of a file.
    ///
    /// # Errors
    /// That of `fstat`.
    pub fn whole(file: Arc<File>) -> io::Result<Self> {
        let end = file.metadata()?.len();
        Ok(Self { file, position: 0, end })
    }

    /// Bytes left.
    pub fn length(&self) -> u64 {
        self.end.saturating_sub(self.position)
    }
}

impl Read for Extent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.length()).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// Named blobs.
#[derive(Debug)]
pub enum Blobs {
    /// Files below a directory.
    Directory(OwnedFd),
    /// Members of an uncompressed tar.
    Archive {
        /// The tar.
        file: Arc<File>,
        /// Its members by cleaned name.
        index: HashMap<Vec<u8>, Slot>,
    },
}

/// Where a member of a tar is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Its data.
    Data {
        /// From the start of the tar.
        offset: u64,
        /// Length.
        bytes: u64,
    },
    /// Another name.
    Link(Vec<u8>),
}

impl Blobs {
    /// Reads the headers of an uncompressed tar.
    ///
    /// # Errors
    /// [`ContainerError`] when it is no tar, or cut off.
    pub fn index(file: Arc<File>) -> Result<Self, ContainerError> {
        let read = |source| ContainerError::Read { name: "archive".into(), source };
        let length = file.metadata().map_err(read)?.len();
        let reader = BufReader::new(file.try_clone().map_err(read)?);
        rustix::fs::seek(&*file, rustix::fs::SeekFrom::Start(0)).map_err(|error| read(error.into()))?;
        let mut members = Members::new(reader);
        let mut index = HashMap::new();
        while let Some(member) = members.next_member()? {
            // What climbs is no name that a manifest could use.
            let Ok(name) = LayerPath::clean(&member.path) else { continue };
            let slot = match member.kind {
                Kind::File if member.segments.is_none() => {
                    let (offset, bytes) = (members.position(), member.stored);
                    if offset.checked_add(bytes).is_none_or(|end| end > length) {
                        return Err(TarError::Truncated.into());
                    }
                    Slot::Data { offset, bytes }
                }
                // No path is so long.
                Kind::Symlink | Kind::HardLink if member.link.len() > PATH_BYTES_MAX => continue,
                Kind::Symlink => {
                    let directory = name.split().map(|(parent, _)| parent).unwrap_or_default();
                    Slot::Link(follow(directory.as_bytes(), &member.link))
                }
                Kind::HardLink => Slot::Link(follow(b"", &member.link)),
                _ => continue,
            };
            if index.len() >= MEMBERS_MAX {
                return Err(ContainerError::Members);
            }
            index.insert(name.as_bytes().to_vec(), slot);
        }
        Ok(Self::Archive { file, index })
    }

    /// Whether there is such a blob.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.open(name).is_ok()
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// [`ContainerError::Missing`] if there is none of this name.
    pub fn open(&self, name: &[u8]) -> Result<Extent, ContainerError> {
        let shown = || String::from_utf8_lossy(name).into_owned();
        let missing = |source: io::Error| ContainerError::Missing { name: shown(), source };
        match self {
            Self::Directory(directory) => {
                // A pipe in a blob's place must not block.
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let file = rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve);
                let file = File::from(file.map_err(|error| missing(error.into()))?);
                if !file.metadata().map_err(missing)?.is_file() {
                    return Err(missing(io::Error::other("it is no regular file")));
                }
                Extent::whole(Arc::new(file)).map_err(missing)
            }
            Self::Archive { file, index } => {
                let cleaned = LayerPath::clean(name).map_err(|error| missing(io::Error::other(error)))?;
                let mut name = cleaned.as_bytes();
                for _ in 0..LINKS_MAX {
                    match index.get(name) {
                        Some(&Slot::Data { offset, bytes }) => {
                            let end = offset.saturating_add(bytes);
                            return Ok(Extent { file: file.clone(), position: offset, end });
                        }
                        Some(Slot::Link(target)) => name = target,
                        None => break,
                    }
                }
                Err(missing(io::ErrorKind::NotFound.into()))
            }
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`ContainerError`] if it is missing, unreadable or larger than [`CONFIG_BYTES_MAX`].
    pub fn document(&self, name: &[u8]) -> Result<Vec<u8>, ContainerError> {
        let shown = || String::from_utf8_lossy(name).into_owned();
        let blob = self.open(name)?;
        if blob.length() > CONFIG_BYTES_MAX {
            return Err(ContainerError::TooLarge { name: shown(), bytes: blob.length() });
        }
        let mut bytes = Vec::new();
        let result = blob.take(CONFIG_BYTES_MAX).read_to_end(&mut bytes);
        result.map_err(|source| ContainerError::Read { name: shown(), source })?;
        Ok(bytes)
    }

    /// Reads a document that is named by its digest.
    ///
    /// # Errors
    /// As [`Blobs::document`], and when digest or length is another.
    pub fn verified(
        &self,
        name: &[u8],
        expected: Digest,
        bytes: Option<u64>,
    ) -> Result<Vec<u8>, ContainerError> {
        let document = self.document(name)?;
        let what = || format!("{:?}", String::from_utf8_lossy(name));
        let found = Digest::of(&document);
        if found != expected {
            return Err(ContainerError::Digest { what: what(), expected, found });
        }
        match bytes {
            Some(expected) if expected != document.len() as u64 => {
                Err(ContainerError::Size { what: what(), expected, found: document.len() as u64 })
            }
            _ => Ok(document),
        }
    }
}

/// Where a blob of this digest is, in OCI layouts and newer docker archives.
pub fn blob_name(digest: Digest) -> Vec<u8> {
    format!("blobs/sha256/{}", digest.hex()).into_bytes()
}

/// The name that a link in `directory` means. Above the root there is only the root.
fn follow(directory: &[u8], target: &[u8]) -> Vec<u8> {
    let from = if target.starts_with(b"/") { &[][..] } else { directory };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in from.split(|&b| b == b'/').chain(target.split(|&b| b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::super::tests::fixture::Tar;
    use super::*;

    #[test]
    fn links_are_followed_by_name() {
        assert_eq!(follow(b"abc", b"../def/layer.tar"), b"def/layer.tar");
        assert_eq!(follow(b"", b"x/./y"), b"x/y");
        assert_eq!(follow(b"a/b", b"/c"), b"c");
        assert_eq!(follow(b"a", b"../../../c"), b"c");
    }

    #[test]
    fn a_link_longer_than_any_path_is_none() {
        let short = "a".repeat(PATH_BYTES_MAX);
        let long = "a".repeat(PATH_BYTES_MAX + 1);
        let link =
            |tar: Tar, name, target: &str| tar.pax(&[("linkpath", target.as_bytes())]).symlink(name, "x");
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &link(link(Tar::new(), "s", &short), "l", &long).end()).unwrap();
        let Blobs::Archive { index, .. } = Blobs::index(Arc::new(file)).unwrap() else { unreachable!() };
        assert_eq!(index.into_keys().collect::<Vec<_>>(), [b"s".to_vec()]);
    }

    #[test]
    fn a_circle_of_links_ends() {
        let index = HashMap::from([
            (b"a".to_vec(), Slot::Link(b"b".to_vec())),
            (b"b".to_vec(), Slot::Link(b"a".to_vec())),
        ]);
        let blobs = Blobs::Archive { file: Arc::new(tempfile::tempfile().unwrap()), index };
        assert!(matches!(blobs.open(b"a"), Err(ContainerError::Missing { .. })));
    }

    #[test]
    fn a_layout_leads_to_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        let layout = dir.path().join("layout");
        std::fs::create_dir(&layout).unwrap();
        std::os::unix::fs::symlink("../secret", layout.join("index.json")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", layout.join("zero")).unwrap();
        let blobs = Blobs::Directory(File::open(&layout).unwrap().into());
        for name in [&b"index.json"[..], b"../secret", b"zero", b"/etc/passwd"] {
            assert!(blobs.open(name).is_err(), "{name:?}");
        }
    }
}

//! Which files went into a prepared kernel, so that the next run can tell from their metadata alone that
//! nothing has changed.
//!
//! Wiring: reads files and stats them. A record is only ever a shortcut: where it is missing, old or damaged,
//! the work is done again and gives the same files.

use super::error::{self, Error};
use crate::config::ImagePart;
use balloon::regular_file;
use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file changed so recently can change again without its times telling, because the kernel's clock for
/// them ticks at most every 10 ms and some file systems keep whole seconds.
const SETTLED: Duration = Duration::from_secs(2);

/// A file's identity and times. Content cannot change and leave all of this as it was: nobody sets the
/// change time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    path: PathBuf,
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    fn new(path: &Path, metadata: &Metadata) -> Self {
        Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn still_holds(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| Self::new(&self.path, &metadata) == *self)
    }
}

/// The files read for one preparation.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    fingerprints: Vec<Fingerprint>,
    unsettled: bool,
}

impl Inputs {
    /// Reads a file whole, and notes its fingerprint as it was before.
    ///
    /// # Errors
    /// The file cannot be read, or is larger than `limit_bytes`.
    pub(super) fn read(
        &mut self,
        what: &'static str,
        path: &Path,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, Error> {
        let file = regular_file::open(path).map_err(error::read(what, path))?;
        let metadata = file.metadata().map_err(error::read(what, path))?;
        self.note(path, &metadata);
        let too_large = || Error::TooLarge { what, path: path.to_owned(), limit_bytes };
        if metadata.len() > limit_bytes {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        file.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(error::read(what, path))?;
        if bytes.len() as u64 > limit_bytes { Err(too_large()) } else { Ok(bytes) }
    }

    /// Notes a file's fingerprint without reading it; a file that is not there is none of the inputs.
    pub(super) fn note_file(&mut self, path: &Path) {
        if let Ok(metadata) = std::fs::metadata(path) {
            self.note(path, &metadata);
        }
    }

    fn note(&mut self, path: &Path, metadata: &Metadata) {
        let changed = u64::try_from(metadata.ctime())
            .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let settled = changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > SETTLED));
        self.unsettled |= !settled;
        self.fingerprints.push(Fingerprint::new(path, metadata));
    }
}

/// A finished preparation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    inputs: Vec<Fingerprint>,
    /// The kernel's release.
    pub(super) release: String,
    /// The ELF image and its size.
    pub(super) elf: (PathBuf, u64),
    /// The initramfs and its size.
    pub(super) initramfs: (PathBuf, u64),
    /// What of the ELF image guests can share.
    pub(super) shared: Option<ImagePart>,
}

impl Record {
    /// A record of files that will not change unseen; `None` where one of the inputs is too fresh for that.
    pub(super) fn new(
        inputs: Inputs,
        release: &str,
        (elf, shared): (&Path, Option<ImagePart>),
        initramfs: &Path,
    ) -> Option<Self> {
        let sized = |path: &Path| Some((path.to_owned(), std::fs::metadata(path).ok()?.len()));
        let (elf, initramfs) = (sized(elf)?, sized(initramfs)?);
        let record =
            Self { inputs: inputs.fingerprints, release: release.to_owned(), elf, initramfs, shared };
        (!inputs.unsettled).then_some(record)
    }

    /// The record in `path`, if there is one and everything in it still holds.
    pub(super) fn load(path: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let stands = |(path, size): &(PathBuf, u64)| {
            std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == *size)
        };
        let holds = record.inputs.iter().all(Fingerprint::still_holds);
        (holds && stands(&record.elf) && stands(&record.initramfs)).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn settled(inputs: Inputs) -> Inputs {
        Inputs { unsettled: false, ..inputs }
    }

    #[test]
    fn a_record_holds_until_a_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["kernel", "elf", "initramfs"] {
            fs::write(path(name), name).unwrap();
        }
        let store = || {
            let mut inputs = Inputs::default();
            assert_eq!(inputs.read("the kernel", &path("kernel"), 6).unwrap(), b"kernel");
            let record =
                Record::new(settled(inputs), "6.1", (&path("elf"), None), &path("initramfs")).unwrap();
            fs::write(path("record"), serde_json::to_vec(&record).unwrap()).unwrap();
        };
        store();
        assert_eq!(Record::load(&path("record")).unwrap().release, "6.1");
        fs::write(path("other"), "kernel").unwrap();
        fs::rename(path("other"), path("kernel")).unwrap();
        assert!(Record::load(&path("record")).is_none(), "another file of the same size");
        store();
        fs::write(path("elf"), "el").unwrap();
        assert!(Record::load(&path("record")).is_none(), "a cut output");
        store();
        fs::remove_file(path("initramfs")).unwrap();
        assert!(Record::load(&path("record")).is_none(), "a missing output");
        fs::write(path("record"), "{").unwrap();
        assert!(Record::load(&path("record")).is_none(), "a damaged record");
    }

    #[test]
    fn fresh_files_are_not_recorded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut inputs = Inputs::default();
        inputs.note_file(file.path());
        assert!(inputs.unsettled);
        assert!(Record::new(inputs, "6.1", (file.path(), None), file.path()).is_none());
    }

    #[test]
    fn no_more_than_the_limit_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "12345").unwrap();
        let error = Inputs::default().read("the module", file.path(), 4).unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit_bytes: 4, .. }), "{error}");
        let error = Inputs::default().read("the device", Path::new("/dev/zero"), 4).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "it is no regular file", "{error}");
    }
}

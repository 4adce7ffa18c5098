//! The directory of prepared files: published whole or not at all.
//!
//! Wiring. Files are written under a name of their own, synced, and renamed, so a crash, a full disk or two
//! runs at once leave no file that is not whole under a name that is looked for. What no record names any more is
//! removed when it is old.

use super::error::Error;
use balloon::{regular_file, wall_clock};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What the names of records start with.
pub(super) const RECORD: &str = "record-";
/// What the names of kernels start with.
pub(super) const KERNEL: &str = "vmlinux-";
/// What the names of initramfs archives start with.
pub(super) const INITRAMFS: &str = "initramfs-";
/// What the names of unfinished files start with.
const UNFINISHED: &str = ".new-";

/// How long a file is kept that no record names: whoever prepared it may not have started its guest yet.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The directory, which exists.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// The cache in `dir`, which is created if it is not there.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let store = |source| Error::Store { path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(store)?;
        let dir = dir.canonicalize().map_err(store)?;
        Ok(Self { dir })
    }

    /// Where a file of this name is or would be.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The stored file of this name, if there is one. It counts as new again.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        let path = self.path(name);
        let file = regular_file::open(&path).ok()?;
        // Of a cache that others own, the owner renews it.
        let _ = file.set_modified(SystemTime::UNIX_EPOCH + wall_clock::since_1970());
        Some(path)
    }

    /// Removes old files that no record names, and old records that do not hold: what earlier kernels and agents, and
    /// interrupted runs, left. `load` gives the files that a record names if it holds.
    ///
    /// # Errors
    /// The directory cannot be read, or a file not removed.
    pub(super) fn sweep(&self, load: impl Fn(&Path) -> Option<[PathBuf; 2]>) -> Result<(), Error> {
        self.remove_unused(load).map_err(|source| Error::Store { path: self.dir.clone(), source })
    }

    fn remove_unused(&self, load: impl Fn(&Path) -> Option<[PathBuf; 2]>) -> io::Result<()> {
        let paths: Vec<PathBuf> =
            self.dir.read_dir()?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        let is = |path: &Path, kind: &str| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(kind.as_bytes()))
        };
        let mut used = BTreeSet::new();
        for record in paths.iter().filter(|path| is(path, RECORD)) {
            if let Some(named) = load(record) {
                used.extend(
                    named.iter().chain([record]).filter_map(|path| path.file_name().map(OsStr::to_owned)),
                );
            }
        }
        for path in &paths {
            let ours = [RECORD, KERNEL, INITRAMFS, UNFINISHED].iter().any(|kind| is(path, kind));
            if !ours || path.file_name().is_some_and(|name| used.contains(name)) {
                continue;
            }
            let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > KEPT)) {
                match std::fs::remove_file(path) {
                    // Another run removed it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    result => result?,
                }
            }
        }
        Ok(())
    }

    /// Stores a file, in place of one that is there.
    pub(super) fn publish(&self, name: &str, contents: &[u8]) -> Result<PathBuf, Error> {
        let path = self.path(name);
        self.write(&path, contents).map_err(|source| Error::Store { path: path.clone(), source })?;
        Ok(path)
    }

    fn write(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.dir)?;
        write_sparse(file.as_file(), contents)?;
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(&self.dir)?.sync_all()
    }
}

/// Writes `contents` to the empty `file`, with holes for the blocks of zeroes in it: a kernel's image is a third
/// zeroes, and the VMM passes over holes when it loads one.
fn write_sparse(file: &File, contents: &[u8]) -> io::Result<()> {
    const BLOCK: usize = balloon::PAGE_BYTES as usize;
    let is_zero = |block: &&[u8]| block.iter().all(|byte| *byte == 0);
    let bytes_of = |blocks: &mut dyn Iterator<Item = &[u8]>| blocks.map(<[u8]>::len).sum::<usize>();
    file.set_len(contents.len() as u64)?;
    let mut rest = contents;
    while !rest.is_empty() {
        let (_, data) = rest.split_at(bytes_of(&mut rest.chunks(BLOCK).take_while(is_zero)));
        let offset = contents.len() - data.len();
        let (data, behind) = data.split_at(bytes_of(&mut data.chunks(BLOCK).take_while(|b| !is_zero(b))));
        file.write_all_at(data, offset as u64)?;
        rest = behind;
    }
    Ok(())
}

/// The first half of the SHA-256 of `parts` in hexadecimal: 128 bits, for names. Parts are told apart.
pub(super) fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_file_is_whole_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("a/b")).unwrap();
        let path = cache.publish("x", b"one").unwrap();
        assert_eq!(cache.publish("x", b"two").unwrap(), path);
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(dir.path().join("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn writers_at_once_leave_one_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let contents: Vec<_> = (0..4u8).map(|i| vec![i; 100_000]).collect();
        std::thread::scope(|scope| {
            for contents in &contents {
                scope.spawn(|| (0..20).for_each(|_| drop(cache.publish("x", contents).unwrap())));
            }
            scope.spawn(|| {
                for _ in 0..200 {
                    if let Ok(seen) = std::fs::read(cache.path("x")) {
                        assert!(contents.contains(&seen), "a torn file");
                    }
                }
            });
        });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_no_record_names_goes_once_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let store = |name: &str, age: Duration| {
            let file = File::open(cache.publish(name, b"x").unwrap()).unwrap();
            file.set_modified(file.metadata().unwrap().modified().unwrap() - age).unwrap();
        };
        let old = KEPT + Duration::from_secs(60);
        for name in ["record-a", "record-b", "vmlinux-a", "vmlinux-b", "initramfs-a", ".new-b", "other"] {
            store(name, old);
        }
        store("initramfs-b", Duration::ZERO);
        store("vmlinux-again", old);
        assert!(cache.find("vmlinux-again").is_some() && cache.find("vmlinux-none").is_none());
        let named = |record: &Path| {
            record.ends_with("record-a").then(|| ["vmlinux-a", "initramfs-a"].map(|name| cache.path(name)))
        };
        cache.sweep(named).unwrap();
        let mut left: Vec<_> =
            dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["initramfs-a", "initramfs-b", "other", "record-a", "vmlinux-a", "vmlinux-again"]);
    }

    #[test]
    fn zeroes_become_holes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut contents = vec![0; (2 << 20) + 5];
        contents[500_000..500_100].fill(1);
        contents[1 << 20] = 2;
        let path = cache.publish("x", &contents).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), contents);
        assert!(std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512 < 1 << 20);
        for contents in [vec![], vec![0; 5], vec![0; 4096], vec![3; 4097]] {
            assert_eq!(std::fs::read(cache.publish("y", &contents).unwrap()).unwrap(), contents);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = Cache::open(Path::new("/proc/none")).unwrap_err();
        assert!(error.to_string().contains("/proc/none"), "{error}");
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_eq!(digest(&[]), "e3b0c44298fc1c149afbf4c8996fb924");
    }
}

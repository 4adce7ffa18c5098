//! A root file system given as a directory: built straight from it, and known again by its metadata.
//!
//! No file is read to tell whether the directory is the same as last time: names, inode numbers, sizes, owners,
//! modes and times are, with the change time, which no program can set back. Owners are taken as the caller sees
//! them; nothing is unpacked, so no user namespace is needed. Called by [`super::store`].
#![forbid(unsafe_code)]

use balloon::wall_clock;
use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, SeekFrom, seek};
use sha2::{Digest as _, Sha256};

use super::config::ImageConfig;
use super::digest::Digest;
use super::erofs::Build;
use super::error::Error;
use super::import::Import;
use super::limits::Limits;
use super::progress::{Event, Stage};
use super::records::ImageRecord;
use super::workspace::KeyLock;

/// Kernels stamp changes by a clock that ticks at least this often. A file that changed within one tick may
/// change again without a trace, so the directory must have been still for longer before it is looked at.
pub const STILL: Duration = Duration::from_millis(100);

/// What a directory looks like.
#[derive(Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of everything below it.
    pub digest: Digest,
    /// The latest change time, in nanoseconds since the epoch.
    changed_ns: i128,
    /// The latest modification time, in seconds since the epoch.
    newest: i64,
    /// Length of all files.
    bytes: u64,
    /// What of it no file stores.
    holes: u64,
}

/// Builds the image of a directory unless the store has it.
///
/// # Errors
/// [`Error`]; a directory that changes meanwhile is refused.
pub fn import(import: &Import<'_>, directory: &Path) -> Result<ImageRecord, Error> {
    let directory = &fs::canonicalize(directory).map_err(open(directory))?;
    let store = fs::canonicalize(import.store.root()).map_err(open(import.store.root()))?;
    if store.starts_with(directory) {
        let reason = "it contains the data directory: set BALLAST_DATA to a directory elsewhere";
        return Err(Error::Directory { path: directory.clone(), reason });
    }
    let scan = || -> Result<Fingerprint, Error> {
        import.progress.report(Event::Begin { stage: Stage::Scan, total_bytes: None });
        let fingerprint = fingerprint(directory, import.store.limits());
        import.progress.report(Event::End);
        fingerprint
    };
    let mut before = scan()?;
    if !wait_until_still(before.changed_ns) {
        before = scan()?;
    }
    let key = Digest::of(format!("ballast directory 1\n{}\n", before.digest).as_bytes());
    let id = Digest::of(format!("ballast directory image 1\n{key}\n").as_bytes());
    if let Some(record) = import.store.cached(id)? {
        return Ok(record);
    }
    let wait = || import.progress.notice("waiting for another import of the same directory".to_owned());
    let lock = KeyLock::take(&import.store.locks(), &key.hex(), wait);
    let _lock = lock.map_err(|source| Error::write(import.store.root(), source, None))?;
    if !import.store.has_layer(key) {
        let workspace = import.workspace()?;
        let build = Build {
            directory,
            image: &workspace.path().join("image.erofs"),
            uuid: key.uuid(),
            newest: before.newest,
            opaque: false,
            expected_bytes: before.bytes,
        };
        import.publish_if(&build, key, || match scan()?.digest == before.digest {
            true => Ok(()),
            false => Err(Error::Changed(import.what.to_owned())),
        })?;
    }
    import.record(id, ImageConfig::default(), vec![key])
}

/// Waits until nothing can have changed unseen; false if it had to.
pub fn wait_until_still(changed_ns: i128) -> bool {
    let now = wall_clock::since_1970();
    let since = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX).saturating_sub(changed_ns);
    let still = i128::try_from(STILL.as_nanos()).unwrap_or_default();
    // A time in the future is a clock that was set: waiting for it helps nobody.
    if since >= still || since < 0 {
        return true;
    }
    std::thread::sleep(STILL);
    false
}

fn open(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Open { path: path.to_owned(), source }
}

fn fingerprint(root: &Path, limits: &Limits) -> Result<Fingerprint, Error> {
    let is_root_user = rustix::process::geteuid().is_root();
    let top = fs::symlink_metadata(root).map_err(open(root))?;
    let mut hasher = Sha256::new();
    let mut total = Fingerprint { digest: Digest([0; 32]), changed_ns: 0, newest: 0, bytes: 0, holes: 0 };
    let mut linked = HashSet::new();
    let mut pending: Vec<(PathBuf, Metadata)> = vec![(root.to_owned(), top.clone())];
    while let Some((path, metadata)) = pending.pop() {
        hash(&mut hasher, path.strip_prefix(root).unwrap_or(&path), &metadata);
        let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        total.changed_ns = total.changed_ns.max(changed);
        total.newest = total.newest.max(metadata.mtime());
        // A file of several names is held once.
        let is_new = metadata.nlink() == 1 || linked.insert((metadata.dev(), metadata.ino()));
        if metadata.is_file() && is_new {
            total.bytes = total.bytes.saturating_add(metadata.len());
            total.holes = total.holes.saturating_add(holes(&path, &metadata));
        }
        let beyond = [
            (total.bytes > limits.layer_bytes, "with it there is more than an image may hold"),
            (
                total.holes > limits.hole_bytes,
                "an image holds the holes of sparse files as zeroes, and these are too many",
            ),
        ];
        if let Some((_, reason)) = beyond.into_iter().find(|(is, _)| *is) {
            return Err(Error::Directory { path, reason });
        }
        if !is_root_user && (metadata.is_file() || metadata.is_dir()) {
            let readable = rustix::fs::accessat(CWD, &path, Access::READ_OK, AtFlags::EACCESS);
            if readable.is_err() {
                let reason = "this user may not read it: run as root, or import a tar of the directory";
                return Err(Error::Directory { path, reason });
            }
        }
        if !metadata.is_dir() {
            continue;
        }
        if metadata.dev() != top.dev() {
            let reason = "another file system is mounted there: unmount it, or import a tar made by \
                          `tar --one-file-system`";
            return Err(Error::Directory { path, reason });
        }
        let mut children = Vec::new();
        for entry in fs::read_dir(&path).map_err(open(&path))? {
            let child = entry.map_err(open(&path))?.path();
            let metadata = fs::symlink_metadata(&child).map_err(open(&child))?;
            children.push((child, metadata));
        }
        // The order of a listing is nobody's promise.
        children.sort_by(|a, b| b.0.cmp(&a.0));
        pending.append(&mut children);
    }
    total.digest = Digest(hasher.finalize().into());
    Ok(total)
}

/// What of a file is not stored. Of one that cannot be read something else is said.
fn holes(path: &Path, metadata: &Metadata) -> u64 {
    const BLOCK: u64 = 512;
    let length = metadata.len();
    if metadata.blocks().saturating_mul(BLOCK) >= length {
        return 0;
    }
    let Ok(file) = File::open(path) else { return 0 };
    let (mut at, mut sum) = (0, 0u64);
    // At the end of each file is a hole without length.
    while let Ok(hole) = seek(&file, SeekFrom::Hole(at))
        && hole < length
    {
        at = seek(&file, SeekFrom::Data(hole)).unwrap_or(length);
        sum = sum.saturating_add(at.saturating_sub(hole));
    }
    sum
}

fn hash(hasher: &mut Sha256, path: &Path, metadata: &Metadata) {
    let path = path.as_os_str().as_bytes();
    hasher.update((path.len() as u64).to_le_bytes());
    hasher.update(path);
    // The device number may change from boot to boot.
    for number in [metadata.ino(), metadata.len(), metadata.nlink(), metadata.rdev()] {
        hasher.update(number.to_le_bytes());
    }
    for number in [metadata.mode(), metadata.uid(), metadata.gid()] {
        hasher.update(number.to_le_bytes());
    }
    for number in [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()] {
        hasher.update(number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_an_image_would_hold_of_it_is_bounded() {
        const MIB: u64 = 1 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("stored"), vec![7; 2 << 20]).unwrap();
        File::create(path("sparse")).unwrap().set_len(3 * MIB).unwrap();
        fs::hard_link(path("sparse"), path("another name")).unwrap();
        let limits = |layer_bytes, hole_bytes| Limits { layer_bytes, hole_bytes, ..Limits::default() };
        let found = fingerprint(dir.path(), &limits(5 * MIB, 3 * MIB)).unwrap();
        assert_eq!((found.bytes, found.holes), (5 * MIB, 3 * MIB));
        let refusal = |limits| fingerprint(dir.path(), &limits).unwrap_err().to_string();
        assert!(refusal(limits(5 * MIB, 3 * MIB - 1)).contains("holes of sparse files"));
        assert!(refusal(limits(5 * MIB - 1, 3 * MIB)).contains("more than an image may hold"));
    }

    fn print(path: &Path) -> Digest {
        fingerprint(path, &Limits::default()).unwrap().digest
    }

    #[test]
    fn every_change_shows() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "one").unwrap();
        let mut last = print(root);
        assert_eq!(print(root), last);
        let changes: [(&str, &dyn Fn()); 6] = [
            ("content of the same length", &|| fs::write(root.join("d/f"), "two").unwrap()),
            ("mode", &|| fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o600)).unwrap()),
            ("name", &|| fs::rename(root.join("d/f"), root.join("d/g")).unwrap()),
            ("link", &|| symlink("x", root.join("l")).unwrap()),
            ("link's target", &|| {
                fs::remove_file(root.join("l")).unwrap();
                symlink("y", root.join("l")).unwrap();
            }),
            ("content with its time set back", &|| {
                let time = fs::metadata(root.join("d/g")).unwrap().modified().unwrap();
                fs::write(root.join("d/g"), "six").unwrap();
                fs::File::open(root.join("d/g")).unwrap().set_modified(time).unwrap();
            }),
        ];
        for (what, change) in changes {
            std::thread::sleep(Duration::from_millis(20));
            change();
            let now = print(root);
            assert_ne!(now, last, "{what}");
            last = now;
        }
    }

    #[test]
    fn a_mount_inside_is_refused() {
        let error = fingerprint(Path::new("/"), &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::Directory { .. }), "{error}");
    }
}

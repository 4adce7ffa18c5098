//! Image layers for those who share them with some microVMs only: copies of the store's files, one for each scope, so
//! that scopes share no page of the host's page cache.
//!
//! A copy is made when its scope first uses it, and lives as long as somebody does: each user holds a shared lock (flock(2))
//! on the file that it maps, which ends with its mapping, however its process ends. Who finds a copy unlocked removes it.
//! `ballast run` does so before it starts and after it has ended; what it misses is the next one's.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use balloon::zone::Scope;
use balloon::zone::scope::{LAYER_SUFFIX, SCOPES, state_name};
use rustix::fs::{Advice, FlockOperation, fadvise, ioctl_ficlone};

use super::digest::Digest;
use super::error::Error;
use super::records::sync_directory;
use super::store::{Layer, Store};
use super::workspace::{KeyLock, Workspace, flock};

const COPY: &str = "copy";

impl Store {
    /// The layers of an image for `scope` of the arbiter whose state directory is `state`: the store's own for the host's,
    /// for others copies, made unless they are there.
    ///
    /// # Errors
    /// [`Error`] if they cannot be made.
    pub fn scoped(&self, layers: Vec<Layer>, state: &Path, scope: &Scope) -> Result<Vec<Layer>, Error> {
        if *scope == Scope::Host {
            return Ok(layers);
        }
        let too_long = || Error::write(self.root(), io::ErrorKind::InvalidFilename.into(), None);
        let name = scope.directory().ok_or_else(too_long)?;
        let state = fs::canonicalize(state).map_err(|source| Error::Open { path: state.into(), source })?;
        let directory = self.root().join(SCOPES).join(state_name(&state.to_string_lossy())).join(name);
        let mut copies = Vec::new();
        for layer in layers {
            let path = directory.join(layer.path.file_name().unwrap_or_default());
            let copy = self.copy(&layer.file, &path, matches!(scope, Scope::Vm(_)));
            let file = copy.map_err(|source| Error::write(&path, source, Some(layer.bytes)))?;
            copies.push(Layer { path, file, ..layer });
        }
        Ok(copies)
    }

    /// The copy of `layer` at `path`, locked; `fresh` makes another one if it is there, as its users are dead.
    fn copy(&self, layer: &File, path: &Path, fresh: bool) -> io::Result<File> {
        let key = Digest::of(path.as_os_str().as_encoded_bytes()).hex();
        let _turn = KeyLock::take(&self.locks(), &key, || ())?;
        if !fresh && let Some(file) = open_locked(path)? {
            return Ok(file);
        }
        let workspace = Workspace::create(&self.tmp())?;
        let staged = workspace.path().join(COPY);
        duplicate(layer, &staged)?;
        let file = File::open(&staged)?;
        // From its first moment in its place nobody takes it for a leftover.
        flock(&file, FlockOperation::LockShared)?;
        loop {
            let make = |directory| DirBuilder::new().recursive(true).mode(0o700).create(directory);
            match path.parent().map_or(Ok(()), make).and_then(|()| fs::rename(&staged, path)) {
                // Who swept its last file has removed the directory, or one above it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && staged.exists() => {}
                renamed => break renamed?,
            }
        }
        sync_directory(path)?;
        Ok(file)
    }

    /// Removes the copies that nobody uses. Best effort: nobody waits for it.
    pub fn sweep_scopes(&self) {
        for state in entries(&self.root().join(SCOPES)) {
            for scope in entries(&state) {
                for file in entries(&scope) {
                    if let Err(error) = remove_unused(&file) {
                        log::debug!("cannot sweep {file:?}: {error}");
                    }
                }
                // They stay while something is in them.
                let _ = fs::remove_dir(&scope);
            }
            let _ = fs::remove_dir(&state);
        }
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .map_or_else(|_| Vec::new(), |all| all.flatten().map(|entry| entry.path()).collect())
}

/// The file at `path` with a shared lock, if it is there and stays.
fn open_locked(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    flock(&file, FlockOperation::LockShared)?;
    Ok(is_at(&file, path)?.then_some(file))
}

/// Whether it was not removed or replaced while its lock was waited for.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let here = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (here.dev(), here.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A copy that shares no page: by reference on file systems that can (the extents of a disk, not the page cache), else
/// byte by byte. Whole and on the disk when it returns, and never to be written again.
fn duplicate(layer: &File, to: &Path) -> io::Result<()> {
    let copy = File::options().write(true).create_new(true).open(to)?;
    if ioctl_ficlone(&copy, layer).is_err() {
        // A reader of its own: the layer's open file has an offset that others share.
        let mut source = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(layer)))?;
        io::copy(&mut source, &mut &copy)?;
        copy.sync_data()?;
        // Nobody has read it yet: what was written need not stay in memory.
        let _ = fadvise(&copy, 0, None, Advice::DontNeed);
    }
    copy.set_permissions(Permissions::from_mode(0o444))
}

fn remove_unused(path: &Path) -> io::Result<()> {
    if path.extension().is_none_or(|extension| *extension != LAYER_SUFFIX[1..]) {
        return Ok(());
    }
    let file = File::open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        locked => {
            locked?;
            if is_at(&file, path)? { fs::remove_file(path) } else { Ok(()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::lock::eventually;
    use std::io::Read;

    const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    struct Fixture {
        directory: tempfile::TempDir,
        store: Store,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(&directory.path().join("data"), 8).unwrap();
            let layer = store.root().join("layers").join(format!("{KEY}{LAYER_SUFFIX}"));
            fs::write(&layer, vec![7; 100_000]).unwrap();
            fs::set_permissions(&layer, Permissions::from_mode(0o444)).unwrap();
            Self { directory, store }
        }

        fn layer(&self) -> Layer {
            let path = self.store.root().join("layers").join(format!("{KEY}{LAYER_SUFFIX}"));
            let file = File::open(&path).unwrap();
            Layer { path, file, name: KEY[..12].into(), uuid: [1; 16], bytes: 100_000 }
        }

        fn scoped(&self, scope: &Scope) -> Layer {
            let layers = self.store.scoped(vec![self.layer()], self.directory.path(), scope).unwrap();
            layers.into_iter().next().unwrap()
        }

        fn files(&self) -> usize {
            let below = |paths: Vec<PathBuf>| paths.iter().flat_map(|path| entries(path)).collect::<Vec<_>>();
            below(below(entries(&self.store.root().join(SCOPES)))).len()
        }
    }

    fn inode(layer: &Layer) -> u64 {
        layer.file.metadata().unwrap().ino()
    }

    #[test]
    fn each_scope_has_a_file_of_its_own_and_all_say_the_same() {
        let fixture = Fixture::new();
        let group = |path: &str| Scope::Group(path.into());
        let scopes = [Scope::Host, group("ci"), group("ci/linux"), Scope::Vm("a".into())];
        let layers = scopes.each_ref().map(|scope| fixture.scoped(scope));
        for (layer, scope) in layers.iter().zip(&scopes) {
            let mut content = Vec::new();
            (&layer.file).read_to_end(&mut content).unwrap();
            assert!(content.len() == 100_000 && content.iter().all(|byte| *byte == 7), "{scope:?}");
            let metadata = layer.file.metadata().unwrap();
            assert_eq!(
                (metadata.mode() & 0o777, metadata.uid()),
                (0o444, rustix::process::geteuid().as_raw())
            );
            let file = balloon::zone::scope::LayerFile::parse(
                layer.path.to_str().unwrap(),
                &state_name(fs::canonicalize(fixture.directory.path()).unwrap().to_str().unwrap()),
            );
            assert_eq!(file.unwrap().scope, *scope);
        }
        let inodes: std::collections::BTreeSet<_> = layers.iter().map(inode).collect();
        assert_eq!(inodes.len(), scopes.len());
        assert_eq!(inode(&fixture.scoped(&group("ci"))), inode(&layers[1]), "the group's microVMs have one");
        assert_ne!(
            inode(&fixture.scoped(&scopes[3])),
            inode(&layers[3]),
            "the next microVM of a name is another"
        );
    }

    #[test]
    fn a_copy_goes_with_its_last_user() {
        let fixture = Fixture::new();
        let ci = Scope::Group("ci".into());
        let (one, two) = (fixture.scoped(&ci), fixture.scoped(&ci));
        drop(one);
        fixture.store.sweep_scopes();
        assert_eq!(fixture.files(), 1);
        // A mapping, or the same open file in another process, holds the lock as well.
        let inherited = two.file.try_clone().unwrap();
        drop(two);
        fixture.store.sweep_scopes();
        assert_eq!(fixture.files(), 1);
        drop(inherited);
        eventually(|| {
            fixture.store.sweep_scopes();
            (fixture.files() == 0).then_some(())
        });
        assert_eq!(entries(&fixture.store.root().join(SCOPES)), Vec::<PathBuf>::new());
        assert!(fixture.layer().path.exists());
    }

    #[test]
    fn who_sweeps_takes_nobodys_copy() {
        let fixture = Fixture::new();
        let ci = Scope::Group("ci".into());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..40 {
                        let layer = fixture.scoped(&ci);
                        assert!(is_at(&layer.file, &layer.path).unwrap());
                        drop(layer);
                        fixture.store.sweep_scopes();
                    }
                });
            }
        });
        eventually(|| {
            fixture.store.sweep_scopes();
            (fixture.files() == 0).then_some(())
        });
    }

    #[test]
    fn what_is_no_copy_of_ours_stays() {
        let fixture = Fixture::new();
        let other = fixture.store.root().join(SCOPES).join("x/y/notes");
        fs::create_dir_all(other.parent().unwrap()).unwrap();
        fs::write(&other, "").unwrap();
        fixture.store.sweep_scopes();
        assert!(other.exists());
    }
}

//! Makes, limits and removes cgroups, and removes those that killed processes left. Wiring.

use super::place::Place;
use crate::cgroup::files::{self, Events};
use crate::cgroup::room::HostLimit;
use rustix::fs::FlockOperation;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const SUBTREE: &str = "cgroup.subtree_control";
pub(super) const PROCESSES: &str = "cgroup.procs";
const MAX: &str = "memory.max";

/// In front of the microVM's name: other names in the directory are not ours.
const PREFIX: &str = "vm-";
/// Two state directories may each have a microVM of one name; nobody has that many.
const NAMESAKES: usize = 1000;
/// A process that has ended leaves its cgroup a moment later on some kernels.
const LOOKS: usize = 50;
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// A cgroup cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct Error {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn cannot(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error { doing, path: path.into(), source }
}

/// The directory that holds the cgroups of microVMs, there and able to limit them.
#[derive(Debug)]
pub struct Home(PathBuf);

impl Home {
    /// Makes what lacks of `place`, from the top down. It stays.
    ///
    /// # Errors
    /// The host refuses.
    pub fn make(place: &Place) -> Result<Self, Error> {
        for dir in place.chain() {
            // Nobody else can lock what is in ours.
            match DirBuilder::new().mode(0o700).create(&dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result.map_err(cannot("make the cgroup", &dir))?,
            }
            let subtree = dir.join(SUBTREE);
            let doing = "let cgroups have memory limits by";
            let divided = fs::read_to_string(&subtree).map_err(cannot(doing, &subtree))?;
            if !divided.split_whitespace().any(|name| name == "memory") {
                write(&subtree, "+memory").map_err(cannot(doing, &subtree))?;
            }
        }
        Ok(Self(place.home.clone()))
    }

    /// Removes what processes that were killed left behind. Best effort: one whose last process is still dying stays
    /// for the next time.
    pub fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.0) else { return };
        for entry in entries.flatten() {
            let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
            if is_ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let dir = entry.path();
                if let Ok(Some(_lock)) = lock(&dir) {
                    let _ = fs::remove_dir(&dir);
                }
            }
        }
    }

    /// Makes a cgroup for the microVM `name`, locked and limited.
    ///
    /// # Errors
    /// The host refuses.
    pub fn claim(&self, name: &str, limit: HostLimit) -> Result<HostCgroup, Error> {
        let names = std::iter::once(format!("{PREFIX}{name}"))
            .chain((2..NAMESAKES).map(|number| format!("{PREFIX}{name}.{number}")));
        for dir in names.map(|name| self.0.join(name)) {
            let Some(lock) = claim(&dir).map_err(cannot("make the cgroup", &dir))? else { continue };
            // From here on dropping it removes it.
            let cgroup = HostCgroup { dir, _lock: lock, limit };
            for (file, value) in [("memory.oom.group", "1".to_owned()), (MAX, limit.bytes().to_string())] {
                let path = cgroup.dir.join(file);
                write(&path, &value).map_err(cannot("set", &path))?;
            }
            return Ok(cgroup);
        }
        Err(cannot("make a cgroup in", &self.0)(io::ErrorKind::AlreadyExists.into()))
    }
}

/// A microVM's cgroup; removed when dropped, which must be after the VMM's end.
#[derive(Debug)]
pub struct HostCgroup {
    dir: PathBuf,
    _lock: File,
    limit: HostLimit,
}

/// How the host's memory had to do with the end of a VMM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `ballastd` has killed it.
    Daemon {
        /// Why, in its words.
        why: String,
    },
    /// The VMM reached its limit and was killed.
    Limit {
        /// What the limit was, in bytes.
        bytes: u64,
    },
    /// The host, or a cgroup above, was out of memory and the VMM was chosen.
    Host,
}

impl HostCgroup {
    /// What the limit consists of.
    #[must_use]
    pub fn limit(&self) -> HostLimit {
        self.limit
    }

    /// Opens one of its files, for writing too where `write` says so.
    ///
    /// # Errors
    /// The host refuses.
    pub fn open(&self, file: &str, write: bool) -> Result<File, Error> {
        let path = self.dir.join(file);
        let mut options = OpenOptions::new();
        options.read(true).write(write);
        // Where the host's kernel can, a lower limit is set without reclaim and without a kill.
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
        options.open(&path).map_err(cannot("open", &path))
    }

    /// The file by which a process enters: it writes `0`.
    ///
    /// # Errors
    /// The host refuses.
    pub fn entrance(&self) -> Result<File, Error> {
        let path = self.dir.join(PROCESSES);
        OpenOptions::new().write(true).open(&path).map_err(cannot("open", &path))
    }

    /// What the host's memory had to do with the VMM's end, if anything.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        let read = |file| fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        let events = Events::parse(&read("memory.events"));
        let limit = files::limit(&read(MAX)).flatten().unwrap_or_else(|| self.limit.bytes());
        match events {
            Events { killed: 0, .. } => None,
            Events { out_of_memory: 0, .. } => Some(Ending::Host),
            _ => Some(Ending::Limit { bytes: limit }),
        }
    }
}

impl Drop for HostCgroup {
    fn drop(&mut self) {
        for _ in 0..LOOKS {
            match fs::remove_dir(&self.dir) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(BETWEEN_LOOKS);
                }
                _ => return,
            }
        }
        // A process is in it that will not end. The next start sweeps what is left.
    }
}

/// Makes `dir` anew and locks it; nothing if it is somebody's, or still has a process.
fn claim(dir: &Path) -> io::Result<Option<File>> {
    loop {
        match fs::create_dir(dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A leftover has counted what its dead did: it is not used again.
                match lock(dir)? {
                    None => return Ok(None),
                    Some(_lock) => match fs::remove_dir(dir) {
                        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(None),
                        _ => continue,
                    },
                }
            }
            Err(error) => return Err(error),
        }
        // Who sweeps may lock it, and remove it, before it is locked here.
        if let Some(lock) = lock(dir)? {
            return Ok(Some(lock));
        }
    }
}

/// Locks a directory that is there; nothing if somebody else has it, or it has just been removed.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let file = match File::open(dir) {
        Err(error) if gone(&error) => return Ok(None),
        file => file?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        result => result?,
    }
    match fs::metadata(dir) {
        Ok(there) if there.ino() == file.metadata()?.ino() => Ok(Some(file)),
        Err(error) if !gone(&error) => Err(error),
        _ => Ok(None),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::lock::eventually;

    #[test]
    fn a_cgroup_has_one_owner_and_its_leftover_none() {
        let dir = tempfile::tempdir().unwrap();
        let vm = dir.path().join("vm-web");
        let owner = claim(&vm).unwrap().unwrap();
        assert!(claim(&vm).unwrap().is_none());
        let ino = || fs::metadata(&vm).unwrap().ino();
        let before = ino();
        drop(owner);
        assert!(vm.exists());
        // Held open, so that its number is not given to the next.
        let _held = File::open(&vm).unwrap();
        let _owner = eventually(|| claim(&vm).unwrap());
        assert_ne!(before, ino(), "a leftover is not used again");
    }

    #[test]
    fn the_sweep_takes_only_what_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home(dir.path().into());
        let owner = claim(&dir.path().join("vm-owned")).unwrap().unwrap();
        for name in ["vm-left", "vm-left.2", "other", "vm-busy"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        // What has a process in it cannot be removed.
        fs::write(dir.path().join("vm-busy/process"), "").unwrap();
        fs::write(dir.path().join("vm-file"), "").unwrap();
        home.sweep();
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["other", "vm-busy", "vm-file", "vm-owned"]);
        drop(owner);
    }

    #[test]
    fn sweepers_take_no_name_from_who_claims() {
        let dir = tempfile::tempdir().unwrap();
        let vm = dir.path().join("vm-web");
        for _ in 0..100 {
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| Home(dir.path().into()).sweep());
                }
                // Seen by a sweep it may be taken for another's; never is it taken away.
                if let Some(lock) = claim(&vm).unwrap() {
                    Home(dir.path().into()).sweep();
                    assert_eq!(fs::metadata(&vm).unwrap().ino(), lock.metadata().unwrap().ino());
                    fs::remove_dir(&vm).unwrap();
                }
            });
        }
    }

    #[test]
    fn the_end_is_told_from_the_counters() {
        let dir = tempfile::tempdir().unwrap();
        let lock = File::open(dir.path()).unwrap();
        let limit = HostLimit { guest_bytes: 1, shared_bytes: 2, disk_bytes: 0, room_bytes: 3 };
        let cgroup = HostCgroup { dir: dir.path().into(), _lock: lock, limit };
        let ending = |events: &str, max: &str| {
            fs::write(dir.path().join("memory.events"), events).unwrap();
            fs::write(dir.path().join("memory.max"), max).unwrap();
            cgroup.ending()
        };
        assert_eq!(ending("max 9\noom 0\noom_kill 0\n", "8192"), None);
        assert_eq!(ending("max 9\noom 1\noom_kill 2\n", "8192"), Some(Ending::Limit { bytes: 8192 }));
        assert_eq!(ending("max 0\noom 0\noom_kill 1\n", "8192"), Some(Ending::Host));
        assert_eq!(ending("max 9\noom 1\noom_kill 2\n", "max"), Some(Ending::Limit { bytes: 6 }));
    }
}

//! The state directory: `vms/NAME/` for each running microVM, with a lock that claims the name and the control
//! socket.
//!
//! The lock is held by the open file and dies with the process, however that ends; what is left then is a
//! directory whose lock nobody holds, and the next start sweeps it.

use crate::volume::lock::{Sharing, is_locked, try_lock};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A name cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has characters that a host name or a file name cannot have.
    #[error(
        "'{0}' cannot be a name: use up to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit"
    )]
    Name(String),
    /// Another microVM has it.
    #[error("a microVM named '{0}' is running: choose another --name")]
    Taken(String),
    /// The address of a Unix socket has room for 107 bytes (unix(7)).
    #[error(
        "the path of the control socket would have {bytes} bytes, and sockets take {SOCKET_PATH_BYTES}: \
         set BALLAST_STATE to a shorter directory or choose a shorter --name"
    )]
    SocketPath {
        /// What it would have.
        bytes: usize,
    },
    /// The state directory does not work.
    #[error("cannot claim a name in {}", path.display())]
    Host {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The control socket cannot be made.
    #[error("cannot make the control socket {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
}

/// A claimed name; given back when dropped.
#[derive(Debug)]
pub struct Registration {
    name: String,
    directory: PathBuf,
    _lock: File,
}

const LONGEST_NAME: usize = 63;
/// `sun_path` less its final NUL.
const SOCKET_PATH_BYTES: usize = 107;
/// Who sweeps locks a dead microVM's name for a moment: a name is taken only if it still is after so many looks.
const LOOKS: usize = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
const LOCK: &str = "lock";
const SOCKET: &str = "control.sock";

impl Registration {
    /// Claims `name`, or a name of our own making, in the state directory `state`.
    ///
    /// # Errors
    /// The name is unusable or taken.
    pub fn new(state: &Path, name: Option<&str>) -> Result<Self, Error> {
        let vms = state.join("vms");
        let host = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Host { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&vms).map_err(host(&vms))?;
        sweep(&vms);
        let claim = |name: &str| -> Result<Option<Self>, Error> {
            let directory = vms.join(name);
            let bytes = directory.join(SOCKET).as_os_str().as_bytes().len();
            if bytes > SOCKET_PATH_BYTES {
                return Err(Error::SocketPath { bytes });
            }
            let lock = claim(&directory).map_err(host(&directory))?;
            Ok(lock.map(|lock| Self { name: name.into(), directory, _lock: lock }))
        };
        if let Some(name) = name {
            if !is_name(name) {
                return Err(Error::Name(name.into()));
            }
            for _ in 0..LOOKS {
                if let Some(registration) = claim(name)? {
                    return Ok(registration);
                }
                std::thread::sleep(BETWEEN_LOOKS);
            }
            return Err(Error::Taken(name.into()));
        }
        loop {
            let mut bytes = [0; 6];
            rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
                .map_err(|e| host(&vms)(e.into()))?;
            let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            if let Some(registration) = claim(&name)? {
                return Ok(registration);
            }
        }
    }

    /// The claimed name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the control socket, listening. Until then the microVM is known and cannot be asked.
    ///
    /// # Errors
    /// The host refuses.
    pub fn listen(&self) -> Result<UnixListener, Error> {
        let path = self.directory.join(SOCKET);
        // What is there was left by a process that is dead: the name is ours.
        let _ = std::fs::remove_file(&path);
        // The directory keeps others out; the socket does it again, whatever the umask.
        UnixListener::bind(&path)
            .and_then(|listener| {
                std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map(|()| listener)
            })
            .map_err(|source| Error::Socket { path, source })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

/// A microVM whose name is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The name.
    pub name: String,
    /// The process of `ballast run`.
    pub pid: Option<u32>,
    /// The control socket, which may not be there yet.
    pub socket: PathBuf,
}

/// The microVMs of the state directory, by name.
///
/// # Errors
/// The directory cannot be read.
pub fn running(state: &Path) -> io::Result<Vec<Running>> {
    let entries = match std::fs::read_dir(state.join("vms")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let running = |directory: PathBuf| {
        let name = directory.file_name()?.to_str().filter(|name| is_name(name))?.to_owned();
        let lock = File::open(directory.join(LOCK)).ok()?;
        if !is_locked(&lock).ok()? {
            return None;
        }
        let pid = io::read_to_string(lock).ok().and_then(|text| text.trim().parse().ok());
        Some(Running { name, pid, socket: directory.join(SOCKET) })
    };
    let mut all: Vec<_> = entries.flatten().filter_map(|entry| running(entry.path())).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Removes a claimed directory. The lock's file goes last and while it is locked, so that nobody's claim can be
/// in between.
fn remove(directory: &Path) {
    let _ = std::fs::remove_file(directory.join(SOCKET));
    let _ = std::fs::remove_file(directory.join(LOCK));
    let _ = std::fs::remove_dir(directory);
}

/// Locks the file in `directory`, both made if need be; nothing if somebody else has it.
fn claim(directory: &Path) -> io::Result<Option<File>> {
    let path = directory.join(LOCK);
    loop {
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = match open {
            // Its last user has just removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        if !try_lock(&file, Sharing::Exclusive)? {
            return Ok(None);
        }
        // The file may have been unlinked between opening and locking: then the lock is on nothing.
        match std::fs::metadata(&path) {
            Ok(there) if there.ino() == file.metadata()?.ino() => {
                file.set_len(0)?;
                std::io::Write::write_all(&mut &file, format!("{}\n", std::process::id()).as_bytes())?;
                return Ok(Some(file));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes what processes that were killed left behind. Best effort: a claim checks for itself.
fn sweep(vms: &Path) {
    let Ok(entries) = std::fs::read_dir(vms) else { return };
    for directory in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        if let Ok(Some(_lock)) = claim(&directory) {
            remove(&directory);
        }
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= LONGEST_NAME
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_claimed_once_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = Registration::new(dir.path(), Some("web")).unwrap();
        assert!(matches!(Registration::new(dir.path(), Some("web")), Err(Error::Taken(_))));
        drop(first);
        Registration::new(dir.path(), Some("web")).unwrap();
    }

    #[test]
    fn what_a_killed_process_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let dead = dir.path().join("vms/dead");
        std::fs::create_dir_all(&dead).unwrap();
        std::fs::write(dead.join("lock"), "1\n").unwrap();
        drop(UnixListener::bind(dead.join("control.sock")).unwrap());
        assert_eq!(running(dir.path()).unwrap(), []);
        let other = Registration::new(dir.path(), None).unwrap();
        assert!(!dead.exists());
        assert!(dir.path().join("vms").join(other.name()).exists());
        // A directory whose lock was never made, and a socket that its owner finds in its place.
        std::fs::create_dir_all(&dead).unwrap();
        std::fs::write(dead.join("control.sock"), "").unwrap();
        Registration::new(dir.path(), Some("dead")).unwrap().listen().unwrap();
    }

    #[test]
    fn who_sweeps_and_who_lists_take_no_name() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..50 {
            let dead = dir.path().join("vms/web");
            std::fs::create_dir_all(&dead).unwrap();
            std::fs::write(dead.join("lock"), "1\n").unwrap();
            std::thread::scope(|scope| {
                let others = [(); 3].map(|()| scope.spawn(|| Registration::new(dir.path(), None).unwrap()));
                scope.spawn(|| running(dir.path()).unwrap());
                drop(Registration::new(dir.path(), Some("web")).unwrap());
                drop(others.map(|other| other.join().unwrap()));
            });
        }
    }

    #[test]
    fn the_running_are_listed_with_their_sockets() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running(dir.path()).unwrap(), []);
        let web = Registration::new(dir.path(), Some("web")).unwrap();
        let db = Registration::new(dir.path(), Some("db")).unwrap();
        let _listener = web.listen().unwrap();
        let listed = running(dir.path()).unwrap();
        let names: Vec<_> = listed.iter().map(|vm| vm.name.as_str()).collect();
        assert_eq!(names, ["db", "web"]);
        assert_eq!(listed[1].pid, Some(std::process::id()));
        assert!(listed[1].socket.exists() && !listed[0].socket.exists());
        drop((web, db));
        assert_eq!(std::fs::read_dir(dir.path().join("vms")).unwrap().count(), 0);
    }

    #[test]
    fn nobody_else_reaches_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let web = Registration::new(dir.path(), Some("web")).unwrap();
        let _listener = web.listen().unwrap();
        for path in ["vms", "vms/web", "vms/web/control.sock"] {
            let mode = std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{path}");
        }
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_with_the_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("s".repeat(100));
        let error = Registration::new(&state, Some("web")).unwrap_err().to_string();
        assert!(error.contains("107") && error.contains("BALLAST_STATE"), "{error}");
    }

    #[test]
    fn bad_names_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", ".", "..", "a/b", "-x", "ä", &"x".repeat(64)] {
            assert!(matches!(Registration::new(dir.path(), Some(name)), Err(Error::Name(_))), "{name}");
        }
    }
}

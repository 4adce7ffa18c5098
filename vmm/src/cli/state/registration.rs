//! Claims a name in the state directory, and gives it back.

#![forbid(unsafe_code)]

use super::record::{EXIT_BYTES, Exit, Record};
use super::{EXIT, LOCK, RECORD, SOCKET, read_record, vms};
use crate::cli::log::journal;
use crate::volume::lock::{Sharing, is_locked, try_lock};
use balloon::control::listener;
use balloon::logging::printable;
use balloon::regular_file;
use balloon::state::KILLED;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
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
    /// A microVM that has ended has it.
    #[error(
        "a microVM named '{0}' has ended and is kept: `ballast rm {0}` removes it, or choose another --name"
    )]
    Kept(String),
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

/// A claimed name; given back when dropped, unless its microVM has [ended](Self::end) and is to be kept.
#[derive(Debug)]
pub struct Registration {
    name: String,
    id: String,
    directory: PathBuf,
    /// Where the end is written down.
    exit: Option<File>,
    /// It has ended, which is written down.
    ended: bool,
    /// Holds the name, and says whose it is.
    lock: File,
}

const LONGEST_NAME: usize = 63;
/// `sun_path` less its final NUL.
const SOCKET_PATH_BYTES: usize = 107;
/// Who sweeps locks a dead microVM's name for a moment: a name is taken only if it still is after so many looks.
const LOOKS: usize = 20;
const UNFINISHED: &str = "record.json.new";
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

impl Registration {
    /// Claims `name`, or a name of our own making, in the state directory `state`.
    ///
    /// # Errors
    /// The name is unusable or taken.
    pub fn new(state: &Path, name: Option<&str>) -> Result<Self, Error> {
        let vms = vms(state);
        DirBuilder::new().recursive(true).mode(0o700).create(&vms).map_err(host(&vms))?;
        sweep(&vms);
        let Some(name) = name else {
            loop {
                let id = new_id().map_err(host(&vms))?;
                if let Some(registration) = Self::claim(&vms, &id, id.clone())? {
                    return Ok(registration);
                }
            }
        };
        if !is_name(name) {
            return Err(Error::Name(printable(name)));
        }
        let id = new_id().map_err(host(&vms))?;
        for _ in 0..LOOKS {
            if is_kept(&vms.join(name)) {
                break;
            }
            if let Some(registration) = Self::claim(&vms, name, id.clone())? {
                return Ok(registration);
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        let free = regular_file::open(&vms.join(name).join(LOCK))
            .and_then(|lock| is_locked(&lock))
            .is_ok_and(|is| !is);
        Err(if free { Error::Kept(name.into()) } else { Error::Taken(name.into()) })
    }

    fn claim(vms: &Path, name: &str, id: String) -> Result<Option<Self>, Error> {
        let directory = vms.join(name);
        let bytes = directory.join(SOCKET).as_os_str().as_bytes().len();
        if bytes > SOCKET_PATH_BYTES {
            return Err(Error::SocketPath { bytes });
        }
        let Some(lock) = claim(&directory).map_err(host(&directory))? else { return Ok(None) };
        let path = directory.join(LOCK);
        // From here on whatever fails gives the name back.
        let claimed = Self { name: name.into(), id, directory, exit: None, ended: false, lock };
        let owner = format!("{}\n", std::process::id());
        let written = claimed.lock.set_len(0).and_then(|()| claimed.lock.write_all_at(owner.as_bytes(), 0));
        written.map_err(host(&path))?;
        Ok(Some(claimed))
    }

    /// The claimed name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Twelve hexadecimal digits, like no other microVM's.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes down what the microVM is, and takes the room for how it will end.
    ///
    /// # Errors
    /// The state directory is full.
    pub fn record(&mut self, record: &Record) -> Result<(), Error> {
        let path = self.directory.join(EXIT);
        let exit = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path);
        let exit = exit.and_then(|file| file.write_all_at(&[b' '; EXIT_BYTES], 0).map(|()| file));
        self.exit = Some(exit.map_err(host(&path))?);
        let path = self.directory.join(RECORD);
        let text = serde_json::to_vec(record).map_err(|error| host(&path)(error.into()))?;
        write_whole(&path, &text).map_err(host(&path))
    }

    /// Why `ballastd` has killed it, if it has.
    #[must_use]
    pub fn why_killed(&self) -> Option<String> {
        const LONGEST_BYTES: u64 = 1024;
        let mut why = String::new();
        let file = regular_file::open(&self.directory.join(KILLED)).ok()?;
        file.take(LONGEST_BYTES).read_to_string(&mut why).ok()?;
        Some(why)
    }

    /// The microVM has ended so. Its directory stays if it is to be kept.
    pub fn end(mut self, exit: &Exit) {
        self.ended = true;
        self.fail(exit);
    }

    /// As [`Self::end`] of one whose workload never started: nothing stays, and who waits for its end is told.
    pub fn fail(self, exit: &Exit) {
        if let Some(file) = &self.exit
            && let Err(error) = file.write_all_at(&exit.text(), 0)
        {
            log::error!("cannot write down that microVM '{}' ended with {}: {error}", self.name, exit.code);
        }
        let _ = std::fs::remove_file(self.directory.join(SOCKET));
    }

    /// Makes the control socket, listening. Until then the microVM is known and cannot be asked.
    ///
    /// # Errors
    /// The host refuses.
    pub fn listen(&self) -> Result<UnixListener, Error> {
        let path = self.directory.join(SOCKET);
        // What is there was left by a process that is dead: the name is ours.
        listener::bind(&path).map_err(|source| Error::Socket { path, source })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.ended || !is_kept(&self.directory) {
            remove(&self.directory);
        }
    }
}

/// Removes what is kept of a microVM that has ended, its log included; says whether there is nothing of it any more. It
/// is not if it runs.
///
/// # Errors
/// The host's.
pub fn forget(directory: &Path) -> io::Result<bool> {
    let path = directory.join(LOCK);
    let lock = match regular_file::open_with(&path, OpenOptions::new().write(true)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        lock => lock?,
    };
    if !try_lock(&lock, Sharing::Exclusive)? {
        return Ok(false);
    }
    // Else somebody was faster, and the name may be another's by now.
    if is_still(&path, &lock)? {
        remove(directory);
    }
    Ok(true)
}

/// Removes a claimed directory. The lock's file goes last and while it is locked, so that nobody's claim can be
/// in between.
fn remove(directory: &Path) {
    let record = read_record(directory).ok().and_then(|text| Record::parse(&text).ok());
    // Whoever damaged the record does not say what else goes.
    if let Some(log) = record.and_then(|record| record.log).filter(|log| journal::is_of(log, directory)) {
        let _ = std::fs::remove_dir_all(log);
    }
    for name in [SOCKET, RECORD, UNFINISHED, EXIT, KILLED, LOCK] {
        let _ = std::fs::remove_file(directory.join(name));
    }
    let _ = std::fs::remove_dir(directory);
}

/// Whether the microVM stays when it has ended. One that another version wrote down does.
fn is_kept(directory: &Path) -> bool {
    match read_record(directory) {
        Ok(text) => Record::parse(&text).map_or(true, |record| record.is_kept()),
        Err(_) => false,
    }
}

/// Writes a file so that a reader finds all of it or none.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let unfinished = path.with_file_name(UNFINISHED);
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
    file.write_all(text)?;
    std::fs::rename(&unfinished, path)
}

fn new_id() -> io::Result<String> {
    let mut bytes = [0; 6];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn host(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Host { path, source }
}

/// The file may have been unlinked between opening and locking: then the lock is on nothing.
fn is_still(path: &Path, file: &File) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(there) => Ok(there.ino() == file.metadata()?.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
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
            Err(error) => {
                // A disk that has room for a directory may have none for a file in it.
                let _ = std::fs::remove_dir(directory);
                return Err(error);
            }
            Ok(file) => file,
        };
        if !try_lock(&file, Sharing::Exclusive)? {
            return Ok(None);
        }
        if is_still(&path, &file)? {
            return Ok(Some(file));
        }
    }
}

/// Removes what processes that were killed left behind. Best effort: a claim checks for itself.
fn sweep(vms: &Path) {
    let Ok(entries) = std::fs::read_dir(vms) else { return };
    let directories = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    for directory in directories.filter(|directory| !is_kept(directory)) {
        if let Ok(Some(_lock)) = claim(&directory) {
            remove(&directory);
        }
    }
}

pub(super) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= LONGEST_NAME
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

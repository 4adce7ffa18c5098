//! Locks that belong to an open file, not to a process (fcntl(2), "Open file description locks").
//!
//! Such a lock passes with its descriptor to the VMM and ends when the last copy is closed, however the VMM
//! dies. Two opens of one file exclude each other even within one process, and other VMMs that lock byte
//! ranges of their images are excluded too.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Who else may hold a lock of the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody.
    Exclusive,
    /// Whoever shares as well.
    Shared,
}

/// Locks all of `file` at once or not; `false` says that another open file holds a lock that excludes it.
///
/// # Errors
/// The file system has no locks, or an exclusive lock is asked of a file that is not open for writing.
pub fn try_lock(file: &File, sharing: Sharing) -> io::Result<bool> {
    let kind = match sharing {
        Sharing::Exclusive => libc::F_WRLCK,
        Sharing::Shared => libc::F_RDLCK,
    };
    let mut range = whole(kind);
    match control(file, libc::F_OFD_SETLK, &mut range) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an open file other than `file` holds a lock of any kind.
///
/// # Errors
/// The file system has no locks.
pub fn is_locked(file: &File) -> io::Result<bool> {
    let mut range = whole(libc::F_WRLCK);
    control(file, libc::F_OFD_GETLK, &mut range)?;
    Ok(libc::c_int::from(range.l_type) != libc::F_UNLCK)
}

fn whole(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn control(file: &File, command: libc::c_int, range: &mut libc::flock) -> io::Result<()> {
    // SAFETY: the descriptor is open for the time of the call, and the kernel reads and writes one `flock`.
    if unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(range)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Tries until a lock is gone that a closed file held: a process which another test is just starting may hold
/// a copy of the descriptor until it executes its program.
#[cfg(test)]
pub(crate) fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    (0..1_000_000)
        .find_map(|_| {
            std::thread::yield_now();
            attempt()
        })
        .expect("the lock outlives its file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn excludes_within_a_process_and_ends_with_the_file() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(path.path()).unwrap();
        let (first, second) = (open(), open());
        assert!(!is_locked(&first).unwrap());
        assert!(try_lock(&first, Sharing::Exclusive).unwrap());
        assert!(!is_locked(&first).unwrap(), "its own lock does not count");
        assert!(is_locked(&second).unwrap());
        assert!(!try_lock(&second, Sharing::Exclusive).unwrap());
        assert!(!try_lock(&second, Sharing::Shared).unwrap());
        drop(first);
        eventually(|| try_lock(&second, Sharing::Shared).unwrap().then_some(()));
        let third = File::open(path.path()).unwrap();
        assert!(try_lock(&third, Sharing::Shared).unwrap());
        assert!(!try_lock(&second, Sharing::Exclusive).unwrap());
        assert!(try_lock(&third, Sharing::Exclusive).is_err(), "not open for writing");
    }

    #[test]
    fn passes_to_a_child_and_dies_with_it() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let file = path.reopen().unwrap();
        assert!(try_lock(&file, Sharing::Exclusive).unwrap());
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::from(file)).spawn().unwrap();
        let probe = path.reopen().unwrap();
        assert!(is_locked(&probe).unwrap(), "our copy is closed, the child's holds");
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        eventually(|| try_lock(&probe, Sharing::Exclusive).unwrap().then_some(()));
    }
}

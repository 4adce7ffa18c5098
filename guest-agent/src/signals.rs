//! Signals: the death of children as an event, and signals to others.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::Pid;

/// Blocks SIGCHLD and returns a non-blocking descriptor that is readable once a child died.
pub fn child_deaths() -> io::Result<OwnedFd> {
    let mut set = empty_set();
    // SAFETY: the set is initialised and SIGCHLD is a signal.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGCHLD) };
    set_mask(&set)?;
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: signalfd(2) just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets every signal through again, for a program that is about to be executed.
pub fn unblock_all() -> io::Result<()> {
    set_mask(&empty_set())
}

/// Sends a signal to one process.
pub fn send(pid: Pid, number: u8) -> io::Result<()> {
    kill(pid.as_raw_nonzero().get(), i32::from(number))
}

/// Kills a process that was started to lead a session, and whoever is in its process group.
pub fn kill_group(leader: Pid) {
    let pid = leader.as_raw_nonzero().get();
    // The one fails before the process has become a leader, the other after it has ended.
    let _ = kill(-pid, libc::SIGKILL);
    let _ = kill(pid, libc::SIGKILL);
}

/// Kills every process but the caller and the kernel's threads. Only PID 1 may call this.
///
/// Nothing escapes: the kernel does not let a process fork past it, and it does not matter which control
/// group a process moved to.
pub fn kill_all() {
    // ESRCH is the only possible failure, and says that there was none.
    let _ = kill(-1, libc::SIGKILL);
}

fn kill(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: kill(2) touches no memory of the caller.
    match unsafe { libc::kill(pid, number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset(3) initialises the set and does nothing else.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised by the call above.
    unsafe { set.assume_init() }
}

fn set_mask(set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialised, and the old mask is not asked for.
    match unsafe { libc::sigprocmask(libc::SIG_SETMASK, set, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

//! The signals that `ballast run` takes on behalf of the workload, as a descriptor to wait on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Handed on to the workload, as docker does (`--sig-proxy`). The terminal's stop signals keep their meaning
/// for this program; SIGPIPE and SIGCHLD are its own.
const FORWARDED: [libc::c_int; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCONT,
    libc::SIGWINCH,
];

/// The signal that has `ballast run` end its microVM at once, as if SIGKILL had ended the workload: SIGKILL itself would
/// leave it no time to clean up. `ballast kill` sends it.
#[must_use]
pub fn kill() -> libc::c_int {
    // The first that the C library does not use itself, and one more, as programs tend to use that.
    libc::SIGRTMIN().saturating_add(1)
}

/// Blocked signals, readable as they come.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals in this thread and all threads that it starts from here on. Those that this program was
    /// started to ignore (`nohup`) stay ignored.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn block() -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `set` is valid for a sigset_t to be written.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: sigemptyset initialised it.
        let mut set = unsafe { set.assume_init() };
        for signal in FORWARDED.into_iter().chain([kill()]) {
            if !is_ignored(signal) {
                // SAFETY: `set` is initialised and `signal` is a signal.
                unsafe { libc::sigaddset(&raw mut set, signal) };
            }
        }
        // SAFETY: `set` is initialised; the old mask is not wanted.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned this descriptor to us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that came, if one did.
    #[must_use]
    pub fn next(&self) -> Option<libc::c_int> {
        let mut info = std::mem::MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `info` is valid for writes of `size` bytes.
        let read = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if usize::try_from(read) != Ok(size) {
            return None;
        }
        // SAFETY: the kernel filled all of it.
        let info = unsafe { info.assume_init() };
        libc::c_int::try_from(info.ssi_signo).ok()
    }
}

fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: `action` is valid for a sigaction to be written; nothing is changed.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } == 0;
    // SAFETY: a call that succeeded filled it.
    known && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Sends a signal to the process behind a pidfd; one that has ended needs none.
///
/// # Errors
/// That of `pidfd_send_signal`.
pub fn send(process: impl AsFd, number: libc::c_int) -> io::Result<()> {
    let (fd, info) = (process.as_fd().as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: without a siginfo_t the call touches no memory.
    if unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, info, 0) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

/// Unblocks every signal. For a child between fork and exec, which would inherit the mask of its parent.
///
/// # Errors
/// That of `pthread_sigmask`.
pub fn unblock_all() -> io::Result<()> {
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `none` is valid for a sigset_t to be written.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: sigemptyset initialised it; the old mask is not wanted.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Has what asks a process to end pass by. For a child between fork and exec whose parent looks after its end.
///
/// # Errors
/// None that `sigaction` has for these signals.
pub fn ignore_requests_to_end() -> io::Result<()> {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: nothing is called when it comes.
        if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

//! What signals ask of the daemon: SIGHUP to read its configuration anew, SIGTERM and SIGINT to end. Wiring.

#![expect(unsafe_code, reason = "signals are blocked and become a descriptor")]

use super::notify;
use super::reload::Reload;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd};
use std::rc::Rc;

/// Waits for signals.
pub struct Signals {
    signals: File,
    reload: Reload,
    ends: Rc<Cell<bool>>,
}

impl Signals {
    /// From now on these signals do not end this process, which must not have other threads yet; `ends` becomes true
    /// instead.
    ///
    /// # Errors
    /// The host refuses.
    pub fn new(reload: Reload, ends: Rc<Cell<bool>>) -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the call fills the set that it is given.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: filled by the line above.
        let mut set = unsafe { set.assume_init() };
        for signal in [libc::SIGHUP, libc::SIGTERM, libc::SIGINT] {
            // SAFETY: a set of ours, and a signal that there is.
            unsafe { libc::sigaddset(&mut set, signal) };
        }
        // SAFETY: the old mask is not asked for.
        if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the set outlives the call, which copies it.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor, nobody else's.
        let signals = unsafe { File::from_raw_fd(fd) };
        Ok(Self { signals, reload, ends })
    }
}

impl MutEventSubscriber for Signals {
    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.signals.as_fd(), EventSet::IN)) {
            log::error!("cannot wait for signals: {error}");
        }
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        let mut signal = [0; size_of::<libc::signalfd_siginfo>()];
        let mut reloads = false;
        // Several that came at once are one.
        while self.signals.read_exact(&mut signal).is_ok() {
            let [first, second, third, fourth, ..] = signal;
            match u32::from_ne_bytes([first, second, third, fourth]).cast_signed() {
                libc::SIGHUP => reloads = true,
                _ => self.ends.set(true),
            }
        }
        if reloads && !self.ends.get() {
            notify::reloading();
            self.reload.reload();
            notify::ready();
        }
    }
}

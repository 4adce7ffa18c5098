//! Reads the configuration anew when the daemon is told to, by SIGHUP. Wiring.

#![expect(unsafe_code, reason = "a signal is blocked and becomes a descriptor")]

use super::config::{self, Config};
use super::fleet::Fleet;
use crate::logging;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Waits for the signal.
pub struct Reload {
    signals: File,
    path: Option<PathBuf>,
    memory_bytes: u64,
    fleet: Rc<RefCell<Fleet>>,
}

/// The configuration is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// It is none.
    #[error(transparent)]
    Config(#[from] config::Error),
}

/// The configuration in the file at `path`; without one all is as usual.
///
/// # Errors
/// It cannot be read, or is none.
pub fn read(path: Option<&Path>) -> Result<Config, Error> {
    let Some(path) = path else { return Ok(Config::default()) };
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
    Ok(Config::parse(&text)?)
}

impl Reload {
    /// From now on the signal does not end this process, which must not have other threads yet.
    ///
    /// # Errors
    /// The host refuses.
    pub fn new(path: Option<&Path>, memory_bytes: u64, fleet: Rc<RefCell<Fleet>>) -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the call fills the set that it is given.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: filled by the line above.
        let mut set = unsafe { set.assume_init() };
        // SAFETY: a set of ours, and a signal that there is.
        unsafe { libc::sigaddset(&mut set, libc::SIGHUP) };
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
        Ok(Self { signals, path: path.map(Into::into), memory_bytes, fleet })
    }

    fn reload(&self) {
        let applied = read(self.path.as_deref()).and_then(|config| {
            let mut fleet = self.fleet.borrow_mut();
            Ok(fleet.configure(&config, self.memory_bytes).map_err(config::Error::from)?)
        });
        match applied {
            Ok(()) => log::info!("the configuration was read anew"),
            Err(error) => {
                log::error!("the configuration stays as it was:");
                logging::print_chain("ballastd", &error);
            }
        }
    }
}

impl MutEventSubscriber for Reload {
    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.signals.as_fd(), EventSet::IN)) {
            log::error!("cannot wait for SIGHUP: {error}");
        }
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        let mut signal = [0; size_of::<libc::signalfd_siginfo>()];
        // Several that came at once are one.
        while self.signals.read_exact(&mut signal).is_ok() {}
        self.reload();
    }
}

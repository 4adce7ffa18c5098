//! The process that looks after a microVM, from outside: waits for its end, and has it end.

#![forbid(unsafe_code)]

use super::signals;
use super::state::{Exit, Known};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Who waits for the end of a microVM.
#[derive(Debug)]
pub struct Lifetime {
    vm: Known,
    /// Nothing if it has ended.
    process: Option<OwnedFd>,
    /// Opened before the end: it tells how that was even if the microVM is removed with it.
    exit: Option<File>,
}

impl Lifetime {
    /// That of `vm`.
    ///
    /// # Errors
    /// The host's.
    pub fn of(vm: &Known) -> io::Result<Self> {
        let exit = vm.open_exit().ok();
        let pid = vm.pid.and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        let process = match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())).transpose() {
            Err(rustix::io::Errno::SRCH) => None,
            process => process?,
        };
        // The number is the process's as long as it holds the lock: one that was used again is another's.
        let process = process.filter(|_| vm.still_runs());
        Ok(Self { vm: vm.clone(), process, exit })
    }

    /// Has the process end its microVM by sending it a signal; it cleans up by itself.
    ///
    /// # Errors
    /// The host's.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        let Some(process) = &self.process else { return Ok(()) };
        signals::send(process, number)
    }

    /// Has it end the microVM whatever its guest does.
    ///
    /// # Errors
    /// The host's.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(signals::kill())?;
        // Whom somebody stopped hears nothing until he goes on.
        self.signal(libc::SIGCONT)
    }

    /// Waits for the end, at most for `limit`; says how it was, or nothing if it has not come.
    ///
    /// # Errors
    /// The host's.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<Option<Exit>> {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        if let Some(process) = &self.process {
            loop {
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                let left =
                    left.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 }));
                match poll(&mut [PollFd::new(process, PollFlags::IN)], left.as_ref()) {
                    Ok(0) => return Ok(None),
                    Ok(_) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(Some(self.exit()))
    }

    fn exit(&mut self) -> Exit {
        let mut text = Vec::new();
        let read = self.exit.as_mut().map(|file| file.rewind().and_then(|()| file.read_to_end(&mut text)));
        match read {
            Some(Ok(_)) => Exit::parse(&text).ok().flatten().unwrap_or_else(Exit::killed),
            _ => self.vm.look_again().unwrap_or_else(Exit::killed),
        }
    }
}

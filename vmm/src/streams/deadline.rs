//! A point in time that the event loop waits for.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;
use vmm_sys_util::timerfd::TimerFd;

/// One point in time, which may be moved.
pub struct Deadline(TimerFd);

impl Deadline {
    /// So long from now.
    ///
    /// # Errors
    /// The host has no more file descriptors.
    pub fn after(time: Duration) -> io::Result<Self> {
        let mut timer = TimerFd::new()?;
        // SAFETY: fcntl on a descriptor of ours touches no memory.
        if unsafe { libc::fcntl(timer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        timer.reset(time, None)?;
        Ok(Self(timer))
    }

    /// Moves it to so long from now.
    pub fn put_off(&mut self, time: Duration) {
        if let Err(error) = self.0.reset(time, None) {
            log::error!("cannot set a timer: {error}");
        }
    }

    /// Whether it has passed; true once. An event may tell of a deadline that was put off since.
    pub fn has_passed(&mut self) -> bool {
        self.0.wait().is_ok()
    }
}

impl AsRawFd for Deadline {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_put_off_has_not_passed() {
        let mut deadline = Deadline::after(Duration::from_nanos(1)).unwrap();
        while !deadline.has_passed() {}
        assert!(!deadline.has_passed());
        deadline.put_off(Duration::from_nanos(1));
        std::thread::sleep(Duration::from_millis(10));
        deadline.put_off(Duration::from_secs(1000));
        assert!(!deadline.has_passed());
    }
}

//! Standard output as the verbs write their answers to it, and words on standard error. Wiring.

#![forbid(unsafe_code)]

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, StdoutLock, Write};

/// What a shell shows of a program that SIGPIPE (13) ended.
const BROKEN_PIPE: i32 = 128 + 13;

/// Standard output. A reader that has seen enough ends the program without a word, as other programs end in a pipe;
/// other failures say what could not be written.
#[derive(Debug)]
pub struct Output(StdoutLock<'static>);

#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
struct Unwritten(#[source] io::Error);

impl Output {
    /// Locks it for as long as this lives.
    #[must_use]
    pub fn lock() -> Self {
        Self(io::stdout().lock())
    }
}

/// Ends the program as [`Output`] does if nobody reads standard output any longer, for who has nothing to write for a while.
pub fn end_if_unread() {
    let output = io::stdout();
    let mut ends = [PollFd::new(&output, PollFlags::empty())];
    let is_known = poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok();
    if is_known && ends.iter().any(|end| end.revents().intersects(PollFlags::ERR | PollFlags::HUP)) {
        std::process::exit(BROKEN_PIPE);
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(failed)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(failed)
    }
}

fn failed(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::Interrupted => error,
        io::ErrorKind::BrokenPipe => std::process::exit(BROKEN_PIPE),
        kind => io::Error::new(kind, Unwritten(error)),
    }
}

/// Writes to standard error; with nobody left to read it, words have nowhere else to go.
pub fn eprint(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn a_failure_says_what_was_written() {
        let error = failed(io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(error.to_string(), "cannot write to standard output");
        assert!(error.source().unwrap().to_string().starts_with("No space left"));
    }
}

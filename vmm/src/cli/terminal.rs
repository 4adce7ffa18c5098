//! The user's terminal while a workload has it: raw mode that is undone on every way out, and its size.

use rustix::termios::{self, OptionalActions, Termios};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

/// What the terminal was before; kept outside the guard so that a fault of ours restores it too.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input's terminal in raw mode until dropped.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Sets raw mode: every key goes to the workload as it is.
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub fn set() -> rustix::io::Result<Self> {
        let stdin = std::io::stdin();
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        if let Ok(mut kept) = BEFORE.lock() {
            *kept = Some(before);
        }
        // Not Flush: what was typed ahead is the workload's.
        termios::tcsetattr(&stdin, OptionalActions::Drain, &raw)?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back as it was, if it was changed. Also called when this program fails.
pub fn restore() {
    let before = BEFORE.lock().ok().and_then(|mut kept| kept.take());
    if let Some(before) = before {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Drain, &before);
    }
}

/// Rows and columns of the user's terminal, from the first standard stream that is one.
#[must_use]
pub fn size() -> Option<(u16, u16)> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let streams: [BorrowedFd<'_>; 3] = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    streams
        .into_iter()
        .find_map(|stream| termios::tcgetwinsize(stream).ok())
        .map(|size| (size.ws_row, size.ws_col))
}

//! The user's terminal while a workload or a screen of ours has it: raw mode that is undone on every way out, and its size.

use ratatui::crossterm::{cursor, execute, terminal};
use rustix::termios::{self, OptionalActions, Termios};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

/// What the terminal was before; kept outside the guards so that a fault of ours restores it too.
static BEFORE: Mutex<Option<Before>> = Mutex::new(None);

struct Before {
    modes: Termios,
    /// What it shows was put aside.
    full_screen: bool,
}

/// Standard input's terminal in raw mode until dropped.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Sets raw mode: every key goes to the workload as it is.
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub fn set() -> rustix::io::Result<Self> {
        let modes = termios::tcgetattr(io::stdin())?;
        make_raw(modes.clone())?;
        if let Ok(mut kept) = BEFORE.lock() {
            *kept = Some(Before { modes, full_screen: false });
        }
        Ok(Self(()))
    }
}

fn make_raw(mut modes: Termios) -> rustix::io::Result<()> {
    modes.make_raw();
    // Not Flush: what was typed ahead is the workload's.
    termios::tcsetattr(io::stdin(), OptionalActions::Drain, &modes)
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// The whole terminal until dropped: raw mode on standard input, and an empty screen without a cursor on standard output.
#[derive(Debug)]
pub struct FullScreen {
    _raw: RawMode,
}

impl FullScreen {
    /// Takes it; what it shows comes back at the end.
    ///
    /// # Errors
    /// Standard input or output is no terminal.
    pub fn take() -> io::Result<Self> {
        let screen = Self { _raw: RawMode::set()? };
        screen.take_again()?;
        Ok(screen)
    }

    /// Takes it once more, as who stopped this program may have put it back meanwhile.
    ///
    /// # Errors
    /// It is gone.
    pub fn take_again(&self) -> io::Result<()> {
        if let Some(before) = BEFORE.lock().ok().as_deref_mut().and_then(Option::as_mut) {
            before.full_screen = true;
            make_raw(before.modes.clone())?;
        }
        let all = terminal::Clear(terminal::ClearType::All);
        execute!(io::stdout(), terminal::EnterAlternateScreen, all, cursor::Hide)
    }
}

/// Puts the terminal back as it was, if it was changed. Also called when this program fails.
pub fn restore() {
    let before = BEFORE.lock().ok().and_then(|mut kept| kept.take());
    // A terminal that is gone needs no restoring.
    if let Some(Before { modes, full_screen }) = before {
        if full_screen {
            let _ = execute!(io::stdout(), cursor::Show, terminal::LeaveAlternateScreen);
        }
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &modes);
    }
}

/// Rows and columns of the user's terminal, from the first standard stream that is one.
#[must_use]
pub fn size() -> Option<(u16, u16)> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let streams: [BorrowedFd<'_>; 3] = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    streams
        .into_iter()
        .find_map(|stream| termios::tcgetwinsize(stream).ok())
        .map(|size| (size.ws_row, size.ws_col))
}

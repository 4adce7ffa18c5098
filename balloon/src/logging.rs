//! Messages of all programs on standard error: one line each, one prefix, bounded.
//!
//! The level is `$BALLAST_LOG` (`error`, `warn`, `info`, `debug`), by default `warn`. A guest can cause messages: of each
//! place in the program at most [`BURST`] in [`WINDOW`] are written, and the next one says how many were not. So a flood
//! hides nothing but its own kind. Nobody waits for a reader of standard error who does not read: such messages are
//! dropped and counted, too.

#![expect(unsafe_code, reason = "one system call looks whether standard error takes a line")]

use std::collections::BTreeMap;
use std::io::{Stderr, Write};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Messages of one place that are written in one [`WINDOW`].
pub const BURST: u32 = 10;
/// The time after which messages flow again.
pub const WINDOW: Duration = Duration::from_secs(5);

/// Longest message: whatever its characters, a line fits what a pipe has room for when it says that it is writable.
const MESSAGE_CHARS: usize = 900;

/// Longest error: some screens of it.
const CHAIN_CHARS: usize = 8000;

/// Text of somebody else, such as the guest, without what could change a terminal: its lines stay, and consoles end
/// them with carriage returns, too. It also bounds a report: of a control character JSON makes six bytes, of its
/// replacement three.
#[must_use]
pub fn readable(text: &str) -> String {
    text.split('\n').map(|line| printable(line.trim_end_matches('\r'))).collect::<Vec<_>>().join("\n")
}

/// One line of somebody else's text without what could change a terminal, or have it show another text.
#[must_use]
pub fn printable(line: &str) -> String {
    let is_shown = |c: char| c == '\t' || !(c.is_control() || is_format(c));
    line.chars().map(|c| if is_shown(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Characters that are not seen and change how others are: directions, joiners, separators of lines, tags (most of Unicode's
/// general category Cf, and Zl and Zp).
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

struct Logger {
    program: &'static str,
    /// As many as there are lines that log.
    windows: Mutex<BTreeMap<Place, Window>>,
}

/// Where a message comes from: a file and its line.
type Place = (&'static str, u32);

struct Window {
    start: Instant,
    written: u32,
    dropped: u64,
}

impl Logger {
    /// Whether one more message of `place` may be written now, and how many of it were dropped since the last. `ready`
    /// says whether there is room for it.
    fn admit(&self, place: Place, now: Instant, ready: impl FnOnce() -> bool) -> Option<u64> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(place).or_insert(Window { start: now, written: 0, dropped: 0 });
        if now.duration_since(window.start) >= WINDOW {
            (window.start, window.written) = (now, 0);
        }
        if window.written >= BURST || !ready() {
            window.dropped = window.dropped.saturating_add(1);
            return None;
        }
        window.written += 1;
        Some(std::mem::take(&mut window.dropped))
    }
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // What names no place shares one.
        let place = (record.file_static().unwrap_or_default(), record.line().unwrap_or_default());
        let ready = || takes_a_line(&std::io::stderr());
        let Some(dropped) = self.admit(place, Instant::now(), ready) else { return };
        let level = record.level().as_str().to_ascii_lowercase();
        let mut line = format!("{}: {level}: {}", self.program, message(&record.args().to_string()));
        if dropped > 0 {
            line.push_str(&format!(" ({dropped} messages of this kind before were dropped)"));
        }
        line.push('\n');
        // With nobody left to read it, a message has nowhere else to go.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// What is written of a message: names in it may be somebody else's, and of any length.
fn message(text: &str) -> String {
    let mut chars = text.chars();
    let mut message = printable(&chars.by_ref().take(MESSAGE_CHARS).collect::<String>());
    if chars.next().is_some() {
        message.push_str("...");
    }
    message
}

/// Whether a line can be written without waiting: a pipe is writable if it has room for 4096 bytes (pipe(7)).
fn takes_a_line(stderr: &Stderr) -> bool {
    let mut poll = libc::pollfd { fd: stderr.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: the kernel reads and writes one `pollfd`, which outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) != 0 }
}

/// Starts logging for `program` and turns a panic, a fault of ours, into a sentence and exit code 125, after
/// `clean_up`.
pub fn start(program: &'static str, clean_up: fn()) {
    let level =
        std::env::var("BALLAST_LOG").ok().and_then(|l| l.parse().ok()).unwrap_or(log::LevelFilter::Warn);
    if log::set_boxed_logger(Box::new(Logger { program, windows: Mutex::default() })).is_ok() {
        log::set_max_level(level);
    }
    std::panic::set_hook(Box::new(move |panic| {
        clean_up();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let line = format!("{program}: internal error at {place}: please report it\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
        std::process::exit(125);
    }));
}

/// Prints an error and its causes, once, as one line: `program: what was being done: cause: its cause`. Names that
/// somebody chose, which messages repeat, change no terminal.
pub fn print_chain(program: &str, error: &dyn std::error::Error) {
    let _ = std::io::stderr().write_all(chain(program, error).as_bytes());
}

/// An error and its causes, in one line, as somebody chose its names.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    line
}

fn chain(program: &str, error: &dyn std::error::Error) -> String {
    let causes = causes(error);
    let shown = causes.char_indices().nth(CHAIN_CHARS).and_then(|(end, _)| causes.get(..end));
    let (shown, rest) = shown.map_or((causes.as_str(), ""), |shown| (shown, " ..."));
    readable(&format!("{program}: {shown}{rest}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_changes_no_terminal() {
        let cause = std::io::Error::other("x\x1b]0;t\x07\n  passed over: y");
        assert_eq!(chain("test", &cause), "test: x\u{fffd}]0;t\u{fffd}\n  passed over: y\n");
    }

    #[test]
    fn a_line_shows_what_it_says() {
        assert_eq!(printable("a\u{202e}b\u{200b}\u{e0041}\x07\tc"), "a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\tc");
        assert_eq!(printable("r\u{e9}sum\u{e9} \u{540d}\u{524d}"), "r\u{e9}sum\u{e9} \u{540d}\u{524d}");
    }

    #[test]
    fn a_message_fits_a_pipe_that_is_writable() {
        assert_eq!(message("short\n"), "short\u{fffd}");
        let long = message(&"\u{10ffff}\u{1}".repeat(40_000));
        assert!(long.ends_with("...") && long.len() < 4096 - 128, "{}", long.len());
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let logger = Logger { program: "test", windows: Mutex::default() };
        let admit = |now, ready: bool| logger.admit(("device.rs", 1), now, || ready);
        let start = Instant::now();
        let written = (0..1000).filter(|_| admit(start, true).is_some()).count();
        assert_eq!(written, BURST as usize);
        assert_eq!(admit(start + WINDOW, true), Some(1000 - u64::from(BURST)));
        assert_eq!(admit(start + WINDOW, true), Some(0));
        assert_eq!(admit(start + WINDOW, false), None);
        assert_eq!(admit(start + WINDOW, true), Some(1));
    }

    #[test]
    fn a_flood_hides_no_other_message() {
        let logger = Logger { program: "test", windows: Mutex::default() };
        let now = Instant::now();
        let flood = || (0..1000).filter_map(|_| logger.admit(("device.rs", 1), now, || true)).count();
        assert_eq!(flood(), BURST as usize);
        for place in [("device.rs", 2), ("host.rs", 1)] {
            assert_eq!(logger.admit(place, now, || true), Some(0), "{place:?}");
        }
        assert_eq!(flood(), 0);
    }
}

//! One run of `ballast`: started, fed, watched, and its end judged.

use crate::process;
use crate::terminal::Terminal;
use rustix::process::{Pid, Signal};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Nothing that a test starts takes longer, even emulated; what does has hung. With full counts it moves gigabytes.
pub(crate) fn limit() -> Duration {
    Duration::from_secs(if crate::is_long() { 1800 } else { 600 })
}

const POLL: Duration = Duration::from_millis(20);
/// For how many polls what a process that has ended said may still be on its way.
const LAST_WORDS: usize = 500;

/// A run that is being described.
pub struct Run {
    pub(crate) command: Command,
    pub(crate) operands: Vec<OsString>,
    stdin: Vec<u8>,
    stdout: Option<File>,
    reader_sleeps: Duration,
}

impl Run {
    pub(crate) fn new(program: &Path) -> Self {
        Self {
            command: Command::new(program),
            operands: Vec::new(),
            stdin: Vec::new(),
            stdout: None,
            reader_sleeps: Duration::ZERO,
        }
    }

    /// Options before the image.
    #[must_use]
    pub fn options<S: AsRef<OsStr>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.command.args(options);
        self
    }

    /// A variable of `ballast`'s own environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Executed by `words`, as their last operands.
    #[must_use]
    pub fn through(mut self, words: &[&str]) -> Self {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            let _ = match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.command = command;
        self
    }

    /// What standard input gives, then its end. With `-i` it is the workload's.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Standard output is this file, and not read by the test.
    #[must_use]
    pub fn stdout_to(mut self, file: File) -> Self {
        self.stdout = Some(file);
        self
    }

    /// Whoever reads standard output sleeps so long before the first byte.
    #[must_use]
    pub fn reader_sleeps(mut self, time: Duration) -> Self {
        self.reader_sleeps = time;
        self
    }

    /// Starts it with pipes.
    #[must_use]
    pub fn start(mut self) -> Running {
        self.command.args(&self.operands).stdin(Stdio::piped()).stderr(Stdio::piped());
        self.command.stdout(self.stdout.map_or_else(Stdio::piped, Stdio::from));
        let mut child = self.command.spawn().unwrap();
        let stdout = match child.stdout.take() {
            Some(pipe) => collect(pipe, self.reader_sleeps),
            None => collect(std::io::empty(), Duration::ZERO),
        };
        let stderr = collect(child.stderr.take().unwrap(), Duration::ZERO);
        Running { stdin: child.stdin.take(), child, stdout, stderr }
    }

    /// Starts it on a terminal of this size.
    #[must_use]
    pub fn start_on_terminal(mut self, rows: u16, columns: u16) -> Terminal {
        self.command.args(&self.operands);
        Terminal::start(self.command, rows, columns)
    }

    /// Starts it, feeds it and waits for its end.
    #[must_use]
    pub fn end(mut self) -> Ended {
        let input = std::mem::take(&mut self.stdin);
        let mut running = self.start();
        let mut stdin = running.stdin.take().unwrap();
        // Whoever ends without reading all of its input breaks the pipe: that is its right.
        let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
        let ended = running.end();
        feeder.join().unwrap();
        ended
    }
}

/// A run under way.
pub struct Running {
    child: Child,
    /// Standard input, until it is taken or dropped.
    pub stdin: Option<ChildStdin>,
    stdout: Collected,
    stderr: Collected,
}

impl Running {
    /// The process of `ballast`.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The process of the VMM, once there is one.
    #[must_use]
    pub fn vmm(&self) -> Pid {
        process::child_named_or(self.pid(), "ballast-vmm", || self.errors())
    }

    /// Sends a signal to `ballast`.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until standard output contains `text`.
    pub fn wait_for(&self, text: &str) {
        wait_for(text, &self.stdout.bytes, || self.stdout.is_over(), || self.stderr.text());
    }

    /// Standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.stdout.text()
    }

    /// Waits until standard error contains `text`.
    pub fn wait_for_error(&self, text: &str) {
        wait_for(text, &self.stderr.bytes, || self.stderr.is_over(), || self.stdout.text());
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn errors(&self) -> String {
        self.stderr.text()
    }

    /// Sends a signal again and again until `ballast` has ended, and gives its exit code.
    #[must_use]
    pub fn insist(mut self, signal: Signal) -> Option<i32> {
        let ended = std::cell::Cell::new(None);
        let (pid, child) = (self.pid(), std::cell::RefCell::new(&mut self.child));
        let over = || {
            ended.set(child.borrow_mut().try_wait().unwrap());
            if ended.get().is_none() {
                rustix::process::kill_process(pid, signal).unwrap();
                thread::sleep(Duration::from_millis(500));
            }
            ended.get().is_some()
        };
        until(over, || format!("it does not end by {signal:?}"));
        ended.get().and_then(|status| status.code())
    }

    /// Closes the reading end of standard output, which the workload must be writing to.
    pub fn close_stdout(&self) {
        self.stdout.enough.store(true, Ordering::Relaxed);
    }

    /// Closes standard input and waits for the end.
    #[must_use]
    pub fn end(mut self) -> Ended {
        drop(self.stdin.take());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > limit() {
                let _ = self.child.kill();
                panic!("no end in {:?}; so far:\n{}{}", limit(), self.stdout.text(), self.stderr.text());
            }
            thread::sleep(POLL);
        };
        Ended {
            code: status.code().unwrap_or_else(|| -status.signal().unwrap()),
            stdout: self.stdout.finish(),
            stderr: String::from_utf8_lossy(&self.stderr.finish()).into_owned(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A failed test leaves nothing behind. After the end this is an error, and none of ours.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a run ended.
pub struct Ended {
    /// The exit code; a signal's number, negative, if that is what ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// Expects this exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code; {self}");
        self
    }

    /// Expects exactly this on standard output.
    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert_eq!(String::from_utf8_lossy(&self.stdout), text, "standard output; {self}");
        self
    }

    /// Expects this somewhere on standard output.
    #[track_caller]
    pub fn shows(self, text: &str) -> Self {
        assert!(
            String::from_utf8_lossy(&self.stdout).contains(text),
            "no '{text}' on standard output; {self}"
        );
        self
    }

    /// Expects this somewhere in standard error.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no '{text}' on standard error; {self}");
        self
    }

    /// Expects a refusal as users may see it: 125, and a message without a panic or a bare error number.
    #[track_caller]
    pub fn refuses(self) -> Self {
        let ended = self.exits(125);
        assert!(ended.stderr.trim().contains(' '), "no sentence; {ended}");
        assert!(!ended.stderr.contains("panicked at"), "a panic; {ended}");
        ended
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = self.stdout.get(..2000).unwrap_or(&self.stdout);
        write!(f, "exit code {}\n--- standard output, {} bytes\n", self.code, self.stdout.len())?;
        match std::str::from_utf8(start) {
            Ok(text) => write!(f, "{text}")?,
            Err(_) => write!(f, "(binary)")?,
        }
        write!(f, "\n--- standard error\n{}", self.stderr)
    }
}

/// What a thread has read from a pipe so far.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// The reader goes away at the next byte.
    enough: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    /// Whether all writers are gone.
    fn is_over(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn finish(&mut self) -> Vec<u8> {
        self.reader.take().unwrap().join().unwrap();
        std::mem::take(&mut self.bytes.lock().unwrap())
    }
}

fn collect(mut pipe: impl Read + Send + 'static, sleeps: Duration) -> Collected {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let enough = Arc::new(AtomicBool::new(false));
    let (shared, stop) = (bytes.clone(), enough.clone());
    let reader = thread::spawn(move || {
        thread::sleep(sleeps);
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            shared.lock().unwrap().extend_from_slice(&buffer[..length]);
        }
    });
    Collected { bytes, enough, reader: Some(reader) }
}

/// Waits until `bytes` contain `text`, or nothing more can come.
#[track_caller]
pub(crate) fn wait_for(
    text: &str,
    bytes: &Mutex<Vec<u8>>,
    over: impl Fn() -> bool,
    more: impl Fn() -> String,
) {
    let seen = || String::from_utf8_lossy(&bytes.lock().unwrap()).into_owned();
    let missing = || format!("'{text}' did not appear; so far:\n{}{}", seen(), more());
    until(|| over() || seen().contains(text), missing);
    for _ in 0..LAST_WORDS {
        if seen().contains(text) {
            break;
        }
        thread::sleep(POLL);
    }
    assert!(seen().contains(text), "{}", missing());
}

/// Waits until something holds.
#[track_caller]
pub fn until(holds: impl Fn() -> bool, otherwise: impl Fn() -> String) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit(), "{}", otherwise());
        thread::sleep(POLL);
    }
}

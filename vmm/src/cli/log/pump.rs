//! Threads that carry the workload's output, and what Ballast says, from pipes to the log. Wiring.

#![forbid(unsafe_code)]

use super::budget::Budget;
use super::entry::{Entry, Lines, Stream};
use super::journal::Journal;
use balloon::wall_clock;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes read at once: what a pipe holds.
const BUFFER_BYTES: usize = 64 << 10;

/// Entries written at once. A byte of output can become seventy of log.
const ENTRIES_BYTES: usize = 64 << 10;

/// A log that several pumps write to.
#[derive(Clone, Debug)]
pub struct Log(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    journal: Journal,
    budget: Budget,
}

impl Log {
    /// Writes to `journal` from here on.
    #[must_use]
    pub fn new(journal: Journal) -> Self {
        Self(Arc::new(Mutex::new(Inner { journal, budget: Budget::new(Instant::now()) })))
    }

    /// Appends entries and says how long to wait before the next.
    fn append(&self, entries: &[u8]) -> Duration {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.journal.append(entries);
        inner.budget.spend(entries.len() as u64, Instant::now())
    }

    /// Logs all that comes from `source`, and shows it to `witness` too while there is one. The thread ends with the
    /// source's end, and drops `running` then.
    ///
    /// # Errors
    /// The host has no more threads.
    pub fn pump(
        &self,
        stream: Stream,
        mut source: File,
        witness: Witness,
        running: impl Send + 'static,
    ) -> io::Result<JoinHandle<io::Result<()>>> {
        let log_to = self.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || {
            let _running = running;
            let mut buffer = vec![0; BUFFER_BYTES];
            let mut lines = Lines::default();
            loop {
                let bytes = match source.read(&mut buffer) {
                    Ok(length) => buffer.get(..length).unwrap_or_default(),
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                witness.show(bytes);
                // One clock reading for all that came at once.
                let time = humantime::format_rfc3339_nanos(wall_clock::now()).to_string();
                let (mut entries, mut wait) = (Vec::new(), Duration::ZERO);
                let mut add = |line: &[u8]| {
                    let log = String::from_utf8_lossy(line);
                    Entry { log, stream, time: (&time).into() }.write(&mut entries);
                    if entries.len() >= ENTRIES_BYTES {
                        wait = log_to.append(&std::mem::take(&mut entries));
                    }
                };
                if bytes.is_empty() {
                    lines.end(&mut add);
                } else {
                    lines.take(bytes, &mut add);
                }
                if !entries.is_empty() {
                    wait = log_to.append(&entries);
                }
                if bytes.is_empty() {
                    return Ok(());
                }
                std::thread::sleep(wait);
            }
        })
    }
}

/// Somebody who sees what is logged until he has seen enough.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Option<File>>>);

impl Witness {
    /// What is logged is written to `file` too.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self(Arc::new(Mutex::new(Some(file))))
    }

    /// Shows nothing from here on, and closes the file.
    pub fn dismiss(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn show(&self, bytes: &[u8]) {
        if let Some(file) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // With nobody left to read them, words have nowhere else to go but the log.
            let _ = file.write_all(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::journal::NEWEST;
    use super::*;
    use std::os::fd::OwnedFd;

    #[test]
    fn what_goes_into_a_pipe_is_in_the_log_when_the_pump_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(Journal::create(dir.path(), 1 << 20, dir.path()).unwrap());
        let shown = dir.path().join("shown");
        let witness = Witness::new(File::create(&shown).unwrap());
        let (source, mut sink) = io::pipe().unwrap();
        let pump = log.pump(Stream::Stderr, File::from(OwnedFd::from(source)), witness.clone(), ()).unwrap();
        sink.write_all(b"one\ntwo").unwrap();
        drop(sink);
        pump.join().unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(&shown).unwrap(), "one\ntwo");
        let text = std::fs::read_to_string(dir.path().join(NEWEST)).unwrap();
        let entries: Vec<Entry<'_>> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(entries.iter().map(|entry| &*entry.log).collect::<Vec<_>>(), ["one\n", "two"]);
        assert!(entries.iter().all(|entry| entry.stream == Stream::Stderr));
        witness.dismiss();
    }
}

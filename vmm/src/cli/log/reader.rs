//! Reads a log: its last entries, and what comes after them. Wiring.

#![forbid(unsafe_code)]

use super::entry::Entry;
use super::journal::{NEWEST, OLDER};
use balloon::regular_file;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longest entry that is read; the longest that is written has a sixth of it.
const MOST_BYTES: u64 = 1 << 20;

/// A log being read.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    file: Option<BufReader<File>>,
}

impl Reader {
    /// Opens the log in `directory`, and gives those of its last `most` entries that `wanted` wants to `emit`.
    ///
    /// # Errors
    /// It cannot be read, or `emit` fails.
    pub fn open(
        directory: &Path,
        most: Option<usize>,
        wanted: impl Fn(&Entry<'_>) -> bool,
        mut emit: impl FnMut(&Entry<'_>) -> io::Result<()>,
    ) -> io::Result<Self> {
        // The newest first: if it is rotated before the other is opened, both are one.
        let newest = open(&directory.join(NEWEST))?;
        let older = open(&directory.join(OLDER))?;
        let older = older.filter(|older| newest.as_ref().is_none_or(|newest| !is_same(older, newest)));
        let mut reader = Self { directory: directory.into(), file: older.map(BufReader::new) };
        let mut last = VecDeque::new();
        let mut keep = |entry: &Entry<'_>| {
            if !wanted(entry) {
                return Ok(());
            }
            match most {
                None => emit(entry),
                Some(0) => Ok(()),
                Some(most) => {
                    if last.len() == most {
                        last.pop_front();
                    }
                    let Entry { log, stream, time } = entry.clone();
                    last.push_back(Entry {
                        log: log.into_owned().into(),
                        stream,
                        time: time.into_owned().into(),
                    });
                    Ok(())
                }
            }
        };
        reader.read(&mut keep)?;
        reader.file = newest.map(BufReader::new);
        reader.read(&mut keep)?;
        last.iter().try_for_each(emit)?;
        Ok(reader)
    }

    /// Gives the entries that were written since to `emit`.
    ///
    /// # Errors
    /// The log cannot be read, or `emit` fails.
    pub fn go_on(&mut self, mut emit: impl FnMut(&Entry<'_>) -> io::Result<()>) -> io::Result<()> {
        loop {
            self.read(&mut emit)?;
            let newest = open(&self.directory.join(NEWEST))?;
            let Some(newest) = newest.filter(|newest| self.is_another(newest)) else { return Ok(()) };
            // It was rotated: nothing is appended to the old file any more, and its end may have come since.
            self.read(&mut emit)?;
            // Twice, if what is older is another, too. Who reads so slowly that it was thrice misses what was between.
            let older = open(&self.directory.join(OLDER))?;
            let older = older.filter(|older| self.is_another(older) && !is_same(older, &newest));
            self.file = Some(BufReader::new(older.unwrap_or(newest)));
        }
    }

    fn is_another(&self, file: &File) -> bool {
        self.file.as_ref().is_none_or(|read| !is_same(read.get_ref(), file))
    }

    /// Reads to the end of the last entry that is whole.
    fn read(&mut self, emit: &mut impl FnMut(&Entry<'_>) -> io::Result<()>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = file.by_ref().take(MOST_BYTES).read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') && (length as u64) < MOST_BYTES {
                // A writer whose disk is full takes the beginning of an entry back and may put another in its place.
                file.seek(SeekFrom::Current(-i64::try_from(length).unwrap_or(0)))?;
                return Ok(());
            }
            // What is no entry was damaged by a disk that was full, or is a later version's.
            if let Ok(entry) = serde_json::from_slice(&line) {
                emit(&entry)?;
            }
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match regular_file::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

fn is_same(one: &File, other: &File) -> bool {
    let inode = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
    inode(one).is_some_and(|one| inode(other) == Some(one))
}

/// Tells when something changes in a directory.
#[derive(Debug)]
pub struct Changes(OwnedFd);

impl Changes {
    /// Those in `directories` from here on.
    ///
    /// # Errors
    /// The host has no more watches.
    pub fn watch(directories: &[&Path]) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF;
        for directory in directories {
            inotify::add_watch(&fd, *directory, flags)?;
        }
        Ok(Self(fd))
    }

    /// Waits for one, at most a second: that a process was killed changes no file.
    ///
    /// # Errors
    /// The host does not let it wait.
    pub fn wait(&self) -> io::Result<()> {
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&second)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // That something changed is all there is to know.
        while rustix::io::read(&self.0, &mut [0; 4096][..]).is_ok_and(|length| length > 0) {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Stream;
    use super::super::journal::Journal;
    use super::*;

    fn write(journal: &mut Journal, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let mut entry = Vec::new();
            let log = format!("{number}\n").into();
            Entry { log, stream: Stream::Stdout, time: "2026-01-01T00:00:00Z".into() }.write(&mut entry);
            journal.append(&entry);
        }
    }

    fn all(reader: &mut Reader) -> Vec<u32> {
        let mut seen = Vec::new();
        let mut emit = |entry: &Entry<'_>| {
            seen.push(entry.log.trim().parse().unwrap());
            Ok(())
        };
        reader.go_on(&mut emit).unwrap();
        seen
    }

    #[test]
    fn the_last_entries_are_shown_and_then_all_that_come() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), 3000, dir.path()).unwrap();
        write(&mut journal, 0..30);
        assert!(dir.path().join(OLDER).exists());
        let open = |most| {
            let mut seen = Vec::new();
            let emit = |entry: &Entry<'_>| {
                seen.push(entry.log.trim().parse::<u32>().unwrap());
                Ok(())
            };
            (Reader::open(dir.path(), most, |entry| entry.log != "28\n", emit).unwrap(), seen)
        };
        assert_eq!(open(Some(3)).1, [26, 27, 29]);
        assert_eq!(open(Some(0)).1, [0; 0]);
        let (mut reader, seen) = open(None);
        assert_eq!(seen.len(), 29);
        assert_eq!(all(&mut reader), [0; 0]);
        for first in (30..300).step_by(10) {
            write(&mut journal, first..first + 10);
            assert_eq!(all(&mut reader), (first..first + 10).collect::<Vec<_>>());
        }
        // As much as both files hold, so that each has begun anew since.
        let inode = |name| std::fs::metadata(dir.path().join(name)).unwrap().ino();
        let newest = inode(NEWEST);
        let mut next = 300;
        while inode(NEWEST) == newest || inode(OLDER) == newest {
            write(&mut journal, next..next + 1);
            next += 1;
        }
        assert_eq!(all(&mut reader), (300..next).collect::<Vec<_>>());
    }

    #[test]
    fn an_entry_that_is_being_written_is_waited_for_and_nonsense_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), 1 << 20, dir.path()).unwrap();
        let mut reader = Reader::open(dir.path(), None, |_| true, |_| Ok(())).unwrap();
        journal.append(b"{\"log\":\"7\\n\",\"stream\":\"std");
        assert_eq!(all(&mut reader), [0; 0]);
        journal.append(b"out\",\"time\":\"\"}\nnonsense\n");
        assert_eq!(all(&mut reader), [7]);
    }

    #[test]
    fn an_entry_of_which_only_the_beginning_found_room_hides_none_that_comes_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), 1 << 20, dir.path()).unwrap();
        write(&mut journal, 0..2);
        let mut reader = Reader::open(dir.path(), Some(0), |_| true, |_| Ok(())).unwrap();
        let whole = std::fs::metadata(dir.path().join(NEWEST)).unwrap().len();
        journal.append(b"{\"log\":\"2\\n\",\"stream\":\"std");
        assert_eq!(all(&mut reader), [0; 0]);
        let file = File::options().append(true).open(dir.path().join(NEWEST)).unwrap();
        file.set_len(whole).unwrap();
        write(&mut journal, 3..5);
        assert_eq!(all(&mut reader), [3, 4]);
    }
}

//! A log's files: appended to, rotated within a size, and never in anybody's way. Wiring.
//!
//! There are two of them, each of half the size. What cannot be written is lost, counted, and told in the log once it
//! can be written again: a full disk stops no microVM.

#![forbid(unsafe_code)]

use super::entry::{Entry, Stream};
use balloon::{regular_file, wall_clock};
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file that is written to.
pub const NEWEST: &str = "log.json";
/// The one before it.
pub const OLDER: &str = "log.json.1";
/// Says whose log it is: the path of the microVM's directory in the state directory.
const OWNER: &str = "owner";
/// Longest path.
const LONGEST_OWNER: u64 = 4096;

/// A log that is being written.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    file: Option<File>,
    /// What the file holds.
    bytes: u64,
    /// Where it ends.
    half: u64,
    lost: u64,
    /// Why.
    why: String,
}

impl Journal {
    /// A new log in the new directory `directory`, of at most `size` bytes, for the microVM whose directory is `owner`.
    ///
    /// # Errors
    /// The directory or the file cannot be made.
    pub fn create(directory: &Path, size: u64, owner: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // Whoever sweeps finds all of it or nothing.
        let unfinished = directory.join("owner.new");
        std::fs::write(&unfinished, owner.as_os_str().as_encoded_bytes())?;
        std::fs::rename(unfinished, directory.join(OWNER))?;
        let file = open(directory)?;
        Ok(Self {
            directory: directory.into(),
            file: Some(file),
            bytes: 0,
            half: size / 2,
            lost: 0,
            why: String::new(),
        })
    }

    /// Appends whole entries.
    pub fn append(&mut self, mut entries: &[u8]) {
        if let Err(error) = self.try_append(&mut entries) {
            self.why = error.to_string();
            let lines = entries.iter().filter(|byte| **byte == b'\n').count();
            self.lost = self.lost.saturating_add(lines as u64);
        }
    }

    /// What is written it takes off `entries`.
    fn try_append(&mut self, entries: &mut &[u8]) -> io::Result<()> {
        let length = entries.len() as u64;
        if self.bytes > 0 && self.bytes.saturating_add(length) > self.half {
            self.rotate()?;
        }
        if self.lost > 0 {
            let mut gap = Vec::new();
            let text = format!("ballast: {} lines could not be logged here: {}\n", self.lost, self.why);
            let time = humantime::format_rfc3339_nanos(wall_clock::now()).to_string();
            Entry { log: text.into(), stream: Stream::Ballast, time: time.into() }.write(&mut gap);
            self.write(&mut &*gap)?;
            self.lost = 0;
        }
        self.write(entries)
    }

    fn write(&mut self, entries: &mut &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            missing => missing.insert(open(&self.directory)?),
        };
        let result = file.write_all(entries);
        let mut whole = entries.len();
        if result.is_err() {
            // Whole entries stay, as who follows may have read them; half a one would make nonsense of the next.
            let length = file.metadata().map_or(0, |metadata| metadata.len().saturating_sub(self.bytes));
            let written = entries.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default();
            whole = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
            let _ = file.set_len(self.bytes.saturating_add(whole as u64));
        }
        self.bytes = self.bytes.saturating_add(whole as u64);
        *entries = entries.get(whole..).unwrap_or_default();
        result
    }

    fn rotate(&mut self) -> io::Result<()> {
        match std::fs::rename(self.directory.join(NEWEST), self.directory.join(OLDER)) {
            // Somebody has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        (self.file, self.bytes) = (None, 0);
        self.file = Some(open(&self.directory)?);
        Ok(())
    }
}

fn open(directory: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(directory.join(NEWEST))
}

/// Whether the log in `log` is that of the microVM whose directory is `owner`.
pub fn is_of(log: &Path, owner: &Path) -> bool {
    let Some(said) = owner_of(log) else { return false };
    let inode = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    // One path leads there in several ways.
    said == owner || inode(&said).is_some_and(|said| inode(owner) == Some(said))
}

fn owner_of(log: &Path) -> Option<PathBuf> {
    let text = regular_file::read(&log.join(OWNER), LONGEST_OWNER).ok()?;
    Some(OsString::from_vec(text).into())
}

/// Removes the logs in `logs` whose microVMs are not there any more, as after a restart of the host. Best effort.
pub fn sweep(logs: &Path) {
    let Ok(entries) = std::fs::read_dir(logs) else { return };
    for directory in entries.flatten().map(|entry| entry.path()) {
        let Some(owner) = owner_of(&directory) else { continue };
        if !owner.exists() {
            let _ = std::fs::remove_dir_all(&directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(directory: &Path) -> [u64; 2] {
        [NEWEST, OLDER].map(|name| std::fs::metadata(directory.join(name)).map_or(0, |file| file.len()))
    }

    #[test]
    fn a_log_keeps_its_size_and_its_newest_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut journal = Journal::create(&log, 1000, dir.path()).unwrap();
        for number in 0..1000 {
            journal.append(format!("line {number:03}\n").as_bytes());
            assert!(sizes(&log).iter().sum::<u64>() <= 1000);
        }
        let read = |name| std::fs::read_to_string(log.join(name)).unwrap();
        let text = read(OLDER) + &read(NEWEST);
        assert!(text.ends_with("line 998\nline 999\n") && text.lines().count() > 50, "{text}");
        // One that is longer than half of it is written all the same.
        journal.append(&[b'x'; 700]);
        assert_eq!(sizes(&log)[0], 700);
    }

    #[test]
    fn what_could_not_be_written_is_told_and_nothing_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut journal = Journal::create(&log, 1 << 20, dir.path()).unwrap();
        journal.append(b"before\n");
        let good = journal.file.replace(File::options().write(true).open("/dev/full").unwrap());
        journal.append(b"1\n2\n");
        journal.append(b"3\n");
        journal.file = good;
        journal.append(b"after\n");
        let text = std::fs::read_to_string(log.join(NEWEST)).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[2]), (3, "before", "after"), "{text}");
        assert!(lines[1].contains("ballast: 3 lines could not be logged"), "{text}");
    }

    #[test]
    fn of_what_finds_half_its_room_whole_entries_stay() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut journal = Journal::create(&log, 1 << 20, dir.path()).unwrap();
        journal.append(b"before\n");
        // What a full disk took is put there first, by way of a file that then takes nothing.
        let path = log.join(NEWEST);
        std::fs::write(&path, b"before\n1\n2\n3").unwrap();
        let good = journal.file.replace(File::open(&path).unwrap());
        journal.append(b"1\n2\n3\n4\n");
        assert_eq!((journal.bytes, journal.lost), (11, 2));
        journal.file = good;
        journal.file.as_ref().unwrap().set_len(11).unwrap();
        journal.append(b"after\n");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("before\n1\n2\n{") && text.ends_with("\nafter\n"), "{text}");
        assert!(text.contains("2 lines could not be logged"), "{text}");
    }

    #[test]
    fn a_log_that_somebody_removed_goes_on_in_its_next_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut journal = Journal::create(&log, 100, dir.path()).unwrap();
        journal.append(&[b'x'; 40]);
        std::fs::remove_file(log.join(NEWEST)).unwrap();
        journal.append(&[b'y'; 40]);
        assert_eq!((sizes(&log), journal.lost), ([40, 0], 0));
    }

    #[test]
    fn logs_of_nobody_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let _kept = Journal::create(&logs.join("a"), 1000, dir.path()).unwrap();
        let _gone = Journal::create(&logs.join("b"), 1000, &dir.path().join("vms/gone")).unwrap();
        sweep(&logs);
        assert!(logs.join("a").exists() && !logs.join("b").exists());
    }
}

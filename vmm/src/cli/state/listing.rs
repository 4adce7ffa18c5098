//! Reads the state directory: which microVMs run, and which have ended and are kept.

#![forbid(unsafe_code)]

use super::record::{EXIT_BYTES, Exit, Record};
use super::registration::is_name;
use super::{EXIT, LOCK, SOCKET, read_record, vms};
use crate::volume::lock::is_locked;
use balloon::regular_file;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Longest number of a process, with its line's end.
const PID_BYTES: u64 = 32;

/// A microVM of the state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The name.
    pub name: String,
    /// What it is, once that is written down, and unless another version of Ballast wrote it.
    pub record: Option<Record>,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
    /// The process that looks after it while it runs.
    pub pid: Option<u32>,
    /// Its directory.
    pub directory: PathBuf,
    /// The control socket, which may not be there yet, or no longer.
    pub socket: PathBuf,
}

impl Known {
    /// Its ID: its record's, else its name's, as one that nobody named has both alike.
    #[must_use]
    pub fn id(&self) -> &str {
        self.record.as_ref().map_or(&self.name, |record| &record.id)
    }

    /// The microVM in this directory; nothing if there is none.
    fn read(directory: PathBuf) -> Option<Self> {
        let name = directory.file_name()?.to_str().filter(|name| is_name(name))?.to_owned();
        let lock = regular_file::open(&directory.join(LOCK)).ok()?;
        let runs = is_locked(&lock).ok()?;
        let record = match read_record(&directory) {
            Ok(text) => Record::parse(&text).ok(),
            // Its start is being prepared, or it is the leftover of one that was.
            Err(_) if runs => None,
            Err(_) => return None,
        };
        if !runs && record.as_ref().is_some_and(|record| !record.is_kept()) {
            return None;
        }
        let pid = runs.then(|| io::read_to_string(lock.take(PID_BYTES)).ok()?.trim().parse().ok()).flatten();
        let exit = (!runs).then(|| read_exit(&directory).ok().flatten().unwrap_or_else(Exit::killed));
        let socket = directory.join(SOCKET);
        Some(Self { name, record, exit, pid, directory, socket })
    }

    /// Reads anew how it ended; nothing if it is being looked after, or gone.
    #[must_use]
    pub fn look_again(&self) -> Option<Exit> {
        Self::read(self.directory.clone()).filter(|now| now.id() == self.id())?.exit
    }

    /// Whether the process that looks after it still does.
    #[must_use]
    pub fn still_runs(&self) -> bool {
        let now = Self::read(self.directory.clone());
        now.is_some_and(|now| now.exit.is_none() && now.pid == self.pid)
    }

    /// The file that will say how it ends, which tells it even when it is removed at its end.
    ///
    /// # Errors
    /// There is none yet.
    pub fn open_exit(&self) -> io::Result<File> {
        File::open(self.directory.join(EXIT))
    }
}

/// All microVMs that run or are kept, by name.
///
/// # Errors
/// The directory cannot be read.
pub fn known(state: &Path) -> io::Result<Vec<Known>> {
    let entries = match std::fs::read_dir(vms(state)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut all: Vec<_> = entries.flatten().filter_map(|entry| Known::read(entry.path())).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn read_exit(directory: &Path) -> io::Result<Option<Exit>> {
    let text = regular_file::read(&directory.join(EXIT), EXIT_BYTES as u64)?;
    Exit::parse(&text).map_err(|_| io::ErrorKind::InvalidData.into())
}

//! Writes the host's recording. A thread waits for the disk, so that no tick does; whatever becomes of the file, it is said
//! once, and the daemon goes on. Wiring: what is written is [`super::recording`]'s.

#![forbid(unsafe_code)]

use super::fleet::Fleet;
use super::recording::Room;
use crate::control::fleet::HostDocument;
use crate::control::host_trace::{BEGINNING, Header, RECORDING_BYTES, line};
use crate::recording_file::{self, Error, Opened};
use crate::size::Size;
use crate::wall_clock;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that may wait for the disk: half a minute of them. Those that come then are left out.
const WAITING: usize = 16;
/// So long the daemon's end waits for the disk.
const FAREWELL: Duration = Duration::from_secs(1);

/// A recording that is being made.
pub struct Recorder {
    path: PathBuf,
    began: Instant,
    room: Room,
    /// None when the recording has ended.
    lines: Option<SyncSender<Vec<u8>>>,
    /// Disconnected when the writer has ended.
    written: Receiver<()>,
    has_left_out: bool,
}

impl Recorder {
    /// Begins a recording to `path`. One that is there already becomes `path` with `.1` behind it: a daemon that starts anew
    /// leaves what led to that.
    ///
    /// # Errors
    /// The file cannot be made or is something else, or the host has no more threads.
    pub fn start(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Make { path: path.into(), source };
        let Opened { mut file, has_one } = recording_file::open(path, BEGINNING)?;
        if has_one {
            let mut before = path.as_os_str().to_owned();
            before.push(".1");
            fs::rename(path, before).map_err(failed)?;
            file = recording_file::open(path, BEGINNING)?.file;
        }
        let (lines, queue) = sync_channel(WAITING);
        let (ended, written) = sync_channel(0);
        let to = path.to_path_buf();
        let write = move || {
            copy(&to, file, &queue);
            drop(ended);
        };
        thread::Builder::new().name("recorder".into()).spawn(write).map_err(failed)?;
        let mut recorder = Self {
            path: path.into(),
            began: Instant::now(),
            room: Room::default(),
            lines: Some(lines),
            written,
            has_left_out: false,
        };
        recorder.hand_over(line(&Header::new(wall_clock::ms_since_1970())));
        Ok(recorder)
    }

    /// Records the tick that has just been, of which `document` is the host's part.
    pub fn record(&mut self, fleet: &Fleet, document: &HostDocument) {
        if self.lines.is_none() {
            return;
        }
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.hand_over(line(&fleet.moment(now_ms, document)));
    }

    fn hand_over(&mut self, line: Option<Vec<u8>>) {
        let (Some(lines), Some(line)) = (&self.lines, line) else { return };
        if !self.room.take(line.len()) {
            let bound = Size::from_bytes(RECORDING_BYTES);
            let path = self.path.display();
            log::warn!("the recording {path} has as much as {bound} and ends here; arbitration goes on");
            self.lines = None;
            return;
        }
        match lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) if self.has_left_out => {}
            Err(TrySendError::Full(_)) => {
                self.has_left_out = true;
                log::warn!(
                    "the disk does not take the recording {} in time: ticks are left out",
                    self.path.display()
                );
            }
            // The writer has said why.
            Err(TrySendError::Disconnected(_)) => self.lines = None,
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.lines = None;
        if self.written.recv_timeout(FAREWELL) == Err(RecvTimeoutError::Timeout) {
            log::warn!("the disk does not take the end of the recording {}", self.path.display());
        }
    }
}

/// Writes lines until there are no more, or the disk takes none.
fn copy(path: &Path, mut file: File, queue: &Receiver<Vec<u8>>) {
    for line in queue {
        if let Err(error) = file.write_all(&line) {
            let path = path.display();
            return log::error!("the recording {path} ends early: {error}; arbitration goes on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::host_trace::Moment;
    use crate::zone::{Pool, Tree};

    fn fleet() -> Fleet {
        Fleet::new(Tree::new(Pool { capacity_bytes: 1 << 30, overcommit: true }).unwrap())
    }

    fn record(path: &Path, ticks: usize) {
        let mut recorder = Recorder::start(path).unwrap();
        let fleet = fleet();
        (0..ticks).for_each(|_| recorder.record(&fleet, &fleet.host()));
    }

    #[test]
    fn each_tick_is_a_line_and_an_earlier_recording_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let [path, before] = ["trace", "trace.1"].map(|name| directory.path().join(name));
        for ticks in [2, 3, 4] {
            record(&path, ticks);
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<_> = text.lines().collect();
            assert!(Header::read(lines[0].as_bytes()).is_ok());
            assert_eq!(lines.len(), 1 + ticks);
            assert!(lines[1..].iter().all(|line| Moment::read(2, line.as_bytes()).is_ok()));
        }
        assert_eq!(fs::read_to_string(&before).unwrap().lines().count(), 4);
        fs::write(&path, "a letter").unwrap();
        assert!(matches!(Recorder::start(&path), Err(Error::NotOurs(_))));
        assert_eq!(fs::read(&path).unwrap(), b"a letter");
    }

    #[test]
    fn a_full_disk_costs_the_recording_and_nothing_else() {
        record(Path::new("/dev/full"), 100);
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("none/trace");
        assert!(Recorder::start(&missing).is_err_and(|error| error.to_string().contains("none/trace")));
    }

    #[test]
    fn a_file_has_one_recording_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        let recorder = Recorder::start(&path).unwrap();
        assert!(matches!(Recorder::start(&path), Err(Error::Taken(_))));
        drop(recorder);
        assert!(Recorder::start(&path).is_ok());
    }
}

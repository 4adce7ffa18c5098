//! Writes what a VMM records into a file. The VMM has a pipe that it never waits for; this process waits for the disk.

use super::format::printable;
use balloon::policy::trace::BEGINNING;
use balloon::recording_file::{self, Error};
use balloon::size::Size;
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

/// Longest recording: a month of a busy guest, or what one that floods its host with samples may cost it.
const MOST_BYTES: u64 = 1 << 30;

/// A recording on its way into its file.
pub struct Recorder {
    path: PathBuf,
    writer: JoinHandle<io::Result<()>>,
}

impl Recorder {
    /// Makes the file, or empties it if it is a recording, and gives the end of the pipe that the VMM writes to.
    ///
    /// # Errors
    /// The file cannot be made or is something else, or the host has no more descriptors or threads.
    pub fn start(path: &Path) -> Result<(Self, OwnedFd), Error> {
        let failed = |source| Error::Make { path: path.into(), source };
        let file = recording_file::open(path, BEGINNING)?.file;
        // A device has no length.
        if file.metadata().map_err(failed)?.is_file() {
            file.set_len(0).map_err(failed)?;
        }
        let (reader, pipe) = io::pipe().map_err(failed)?;
        rustix::io::ioctl_fionbio(&pipe, true).map_err(|error| failed(error.into()))?;
        let writer = thread::Builder::new().name("recorder".into()).spawn(|| copy(reader, file, MOST_BYTES));
        Ok((Self { path: path.into(), writer: writer.map_err(failed)? }, pipe.into()))
    }

    /// Waits for the rest, once the VMM has ended. What is to be said of it: nothing if all is in the file.
    #[must_use]
    pub fn end(self) -> String {
        let path = printable(&self.path.to_string_lossy());
        match self.writer.join() {
            Ok(Ok(())) => String::new(),
            Ok(Err(error)) => format!("ballast: the recording {path} ends early: {error}\n"),
            Err(_) => format!("ballast: the recording {path} ends early\n"),
        }
    }
}

/// Copies until the VMM has ended, `most_bytes` at most. Whatever the disk does, the pipe is read to its end.
fn copy(mut pipe: PipeReader, mut file: File, most_bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut left = most_bytes;
    let mut result = Ok(());
    loop {
        let bytes = match pipe.read(&mut buffer) {
            Ok(0) => return result,
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return result.and(Err(error)),
        };
        if result.is_ok() {
            let part = &buffer[..bytes.min(usize::try_from(left).unwrap_or(usize::MAX))];
            left -= part.len() as u64;
            result = file.write_all(part);
            if result.is_ok() && part.len() < bytes {
                let full = format!("it has {}, and more is not recorded", Size::from_bytes(most_bytes));
                result = Err(io::Error::new(io::ErrorKind::FileTooLarge, full));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_in_the_file_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        let (recorder, pipe) = Recorder::start(&path).unwrap();
        File::from(pipe).write_all(b"a line\n").unwrap();
        assert_eq!(recorder.end(), "");
        assert_eq!(std::fs::read(&path).unwrap(), b"a line\n");
        // What is no recording stays as it is.
        assert!(matches!(Recorder::start(&path), Err(Error::NotOurs(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"a line\n");
        let missing = directory.path().join("none/trace");
        assert!(Recorder::start(&missing).is_err_and(|error| error.to_string().contains("none/trace")));
    }

    #[test]
    fn a_recording_is_made_anew_by_one_at_a_time_and_a_pipe_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        std::fs::write(&path, [BEGINNING, b"1}\nmore"].concat()).unwrap();
        let (recorder, pipe) = Recorder::start(&path).unwrap();
        assert!(matches!(Recorder::start(&path), Err(Error::Taken(_))));
        drop(pipe);
        assert_eq!(recorder.end(), "");
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        let fifo = directory.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        assert!(matches!(Recorder::start(&fifo), Err(Error::NoFile(_))));
    }

    #[test]
    fn a_recording_has_an_end_and_the_pipe_is_read_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        let (reader, mut pipe) = io::pipe().unwrap();
        let file = File::create(&path).unwrap();
        let writer = thread::spawn(|| copy(reader, file, 1 << 20));
        // More than a pipe holds.
        pipe.write_all(&vec![b'.'; (1 << 20) + (1 << 17)]).unwrap();
        drop(pipe);
        let error = writer.join().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "it has 1 MiB, and more is not recorded");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
    }

    #[test]
    fn a_full_disk_is_told_and_the_pipe_is_read_on() {
        let (recorder, pipe) = Recorder::start(Path::new("/dev/full")).unwrap();
        let mut pipe = File::from(pipe);
        // More than a pipe holds.
        for _ in 0..64 {
            while pipe.write(&[b'x'; 4096]).is_err() {
                thread::yield_now();
            }
        }
        drop(pipe);
        let words = recorder.end();
        assert!(words.starts_with("ballast: the recording /dev/full ends early: "), "{words}");
    }
}

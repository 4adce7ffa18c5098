//! Pumps between the user's standard streams and the pipes whose other ends the VMM has.
//!
//! The VMM needs descriptors that it may set non-blocking; a terminal or pipe shared with the user's shell is
//! none. Threads copy instead.

use super::log::entry::Stream;
use super::log::pump::{Log, Witness};
use super::signals::{self, Signals};
use rustix::event::{PollFd, PollFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

/// Bytes copied at once: what a pipe holds.
const BUFFER_BYTES: usize = 64 << 10;

/// The VMM's ends of the pipes.
#[derive(Debug)]
pub struct GuestEnds {
    /// Read end of standard input, unless it is closed from the start.
    pub stdin: Option<OwnedFd>,
    /// Write end of standard output.
    pub stdout: OwnedFd,
    /// Write end of standard error.
    pub stderr: OwnedFd,
}

/// The threads that copy the workload's output.
#[derive(Debug)]
pub struct Pumps {
    outputs: Vec<(&'static str, JoinHandle<io::Result<()>>)>,
    /// Hangs up when the last of them has ended.
    ended: OwnedFd,
    /// The end of standard input that nobody writes to.
    _input: Option<OwnedFd>,
}

/// The workload's output did not all reach the user.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// It could not be written.
    #[error("cannot write the workload's output to {stream}")]
    Write {
        /// Which stream.
        stream: &'static str,
        /// The host's answer.
        source: io::Error,
    },
    /// A signal came while the user's reader was slow.
    #[error("interrupted by signal {0} while output waited for its reader")]
    Interrupted(u8),
}

/// Starts the pumps; `interactive` hands on standard input.
///
/// # Errors
/// The host has no more descriptors or threads.
pub fn start(interactive: bool) -> io::Result<(GuestEnds, Pumps)> {
    let stdin = interactive.then(start_stdin).transpose()?;
    let (ended, running) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (stdout, out) = start_output("stdout", duplicate(io::stdout())?, running.try_clone()?)?;
    let (stderr, err) = start_output("stderr", duplicate(io::stderr())?, running)?;
    let outputs = vec![("standard output", out), ("standard error", err)];
    Ok((GuestEnds { stdin, stdout, stderr }, Pumps { outputs, ended, _input: None }))
}

/// Starts pumps into a log. With `open_input` standard input stays open and nobody writes to it.
///
/// # Errors
/// The host has no more descriptors or threads.
pub fn start_logged(log: &Log, open_input: bool) -> io::Result<(GuestEnds, Pumps)> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (ended, running) = pipe()?;
    let (stdin, input) =
        if open_input { pipe().map(|(ours, theirs)| (Some(ours), Some(theirs)))? } else { (None, None) };
    stdin.as_ref().map(set_non_blocking).transpose()?;
    let output = |stream, running| -> io::Result<_> {
        let (ours, guest) = pipe()?;
        set_non_blocking(&guest)?;
        Ok((guest, log.pump(stream, File::from(ours), Witness::default(), running)?))
    };
    let (stdout, out) = output(Stream::Stdout, running.try_clone()?)?;
    let (stderr, err) = output(Stream::Stderr, running)?;
    let outputs = vec![("the log", out), ("the log", err)];
    Ok((GuestEnds { stdin, stdout, stderr }, Pumps { outputs, ended, _input: input }))
}

impl Pumps {
    /// Waits until all output is with the user. The VMM's ends must be closed.
    ///
    /// # Errors
    /// Not all of it is, because its reader failed, or because a signal that ends programs came first.
    pub fn finish(self, signals: &Signals) -> Result<(), Undelivered> {
        let endings = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];
        let ended_by = |signal| match signal {
            _ if signal == signals::kill() => Some(libc::SIGKILL),
            _ => endings.contains(&signal).then_some(signal),
        };
        loop {
            let mut waits =
                [PollFd::new(&self.ended, PollFlags::empty()), PollFd::new(signals, PollFlags::IN)];
            let polled = rustix::event::poll(&mut waits, None);
            let [ended, _] = waits.map(|wait| !wait.revents().is_empty());
            if ended || !matches!(polled, Ok(_) | Err(rustix::io::Errno::INTR)) {
                break;
            }
            while let Some(signal) = signals.next() {
                if let Some(Ok(signal)) = ended_by(signal).map(u8::try_from) {
                    return Err(Undelivered::Interrupted(signal));
                }
            }
        }
        for (stream, pump) in self.outputs {
            if let Ok(Err(source)) = pump.join() {
                return Err(Undelivered::Write { stream, source });
            }
        }
        Ok(())
    }
}

/// Copies from a descriptor of our own, so that std's buffers and locks are not in the way.
///
/// # Errors
/// The host has no more descriptors.
pub(super) fn duplicate(stream: impl AsFd) -> io::Result<File> {
    Ok(File::from(stream.as_fd().try_clone_to_owned()?))
}

/// This thread ends with the process: nothing can interrupt a read of the user's terminal.
fn start_stdin() -> io::Result<OwnedFd> {
    let mut source = duplicate(io::stdin())?;
    let (guest, ours) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    set_non_blocking(&guest)?;
    let mut sink = File::from(ours);
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        // Either side may go away at any time; both mean the end of the stream.
        let _ = copy(&mut source, &mut sink);
    })?;
    Ok(guest)
}

fn start_output(
    name: &str,
    mut sink: File,
    running: OwnedFd,
) -> io::Result<(OwnedFd, JoinHandle<io::Result<()>>)> {
    let (ours, guest) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    set_non_blocking(&guest)?;
    let mut source = File::from(ours);
    let pump = std::thread::Builder::new().name(name.into()).spawn(move || {
        let _running = running;
        // If the user's end is gone the pipe closes with `source`, and the workload gets its SIGPIPE.
        match copy(&mut source, &mut sink) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    })?;
    Ok((guest, pump))
}

/// Copies to the end. The user's streams may be non-blocking, as other programs left them: then it waits.
fn copy(source: &mut File, sink: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) => {
                wait(source, PollFlags::IN, error)?;
                continue;
            }
        };
        write_all(sink, buffer.get(..length).unwrap_or_default())?;
    }
}

/// Writes all of `rest`, however long that takes.
///
/// # Errors
/// The sink's.
pub(super) fn write_all(sink: &mut File, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match sink.write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) => wait(sink, PollFlags::OUT, error)?,
        }
    }
    Ok(())
}

/// Waits until `file` is ready if `error` only says that it is not; else hands the error back.
///
/// # Errors
/// `error`, or the host's.
pub(super) fn wait(file: &impl AsFd, ready: PollFlags, error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock => match rustix::event::poll(&mut [PollFd::new(file, ready)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        },
        _ => Err(error),
    }
}

/// Each end of a pipe has its own file description: ours keeps blocking.
fn set_non_blocking(end: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(end)?;
    Ok(rustix::fs::fcntl_setfl(end, flags | rustix::fs::OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_others_left_non_blocking_loses_nothing() {
        let (mut from, mut to) = (io::pipe().unwrap(), io::pipe().unwrap());
        set_non_blocking(&from.0.as_fd().try_clone_to_owned().unwrap()).unwrap();
        set_non_blocking(&to.1.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let sent: Vec<u8> = (0..1_000_003_u32).map(|number| (number % 251) as u8).collect();
        let expected = sent.clone();
        let mut source = File::from(OwnedFd::from(from.0));
        let mut sink = File::from(OwnedFd::from(to.1));
        let pump = std::thread::spawn(move || copy(&mut source, &mut sink));
        let feeder = std::thread::spawn(move || from.1.write_all(&sent));
        let mut received = Vec::new();
        to.0.read_to_end(&mut received).unwrap();
        assert!(received == expected);
        feeder.join().unwrap().unwrap();
        pump.join().unwrap().unwrap();
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let (source, mut feed) = io::pipe().unwrap();
        feed.write_all(b"hello").unwrap();
        drop(feed);
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let error = copy(&mut File::from(OwnedFd::from(source)), &mut full).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}

//! Pumps between the user's standard streams and the pipes whose other ends the VMM has.
//!
//! The VMM needs descriptors that it may set non-blocking; a terminal or pipe shared with the user's shell is
//! none. Threads copy instead, with splice where the kernel can.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

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
pub struct Pumps(Vec<JoinHandle<()>>);

/// Starts the pumps; `interactive` hands on standard input.
///
/// # Errors
/// The host has no more descriptors or threads.
pub fn start(interactive: bool) -> io::Result<(GuestEnds, Pumps)> {
    let stdin = interactive.then(start_stdin).transpose()?;
    let (stdout, out) = start_output("stdout", duplicate(io::stdout())?)?;
    let (stderr, err) = start_output("stderr", duplicate(io::stderr())?)?;
    Ok((GuestEnds { stdin, stdout, stderr }, Pumps(vec![out, err])))
}

impl Pumps {
    /// Waits until all output is with the user. The VMM's ends must be closed.
    pub fn finish(self) {
        for pump in self.0 {
            // A pump that failed has nothing more to deliver.
            let _ = pump.join();
        }
    }
}

/// Copies from a descriptor of our own, so that std's buffers and locks are not in the way.
fn duplicate(stream: impl AsFd) -> io::Result<File> {
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
        let _ = io::copy(&mut source, &mut sink);
    })?;
    Ok(guest)
}

fn start_output(name: &str, mut sink: File) -> io::Result<(OwnedFd, JoinHandle<()>)> {
    let (ours, guest) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    set_non_blocking(&guest)?;
    let mut source = File::from(ours);
    let pump = std::thread::Builder::new().name(name.into()).spawn(move || {
        // If the user's end is gone the pipe closes with `source`, and the workload gets its SIGPIPE.
        let _ = io::copy(&mut source, &mut sink);
    })?;
    Ok((guest, pump))
}

/// Each end of a pipe has its own file description: ours keeps blocking.
fn set_non_blocking(end: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(end)?;
    Ok(rustix::fs::fcntl_setfl(end, flags | rustix::fs::OFlags::NONBLOCK)?)
}

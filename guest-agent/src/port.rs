//! The virtio-console ports: finds them by name and opens them.
//!
//! Facts of the kernel's driver (drivers/char/virtio_console.c) that matter here: a port can be opened once
//! only, so the workload cannot speak for the agent; data that comes before it is opened is dropped, so the
//! host waits for that; while the host's side is closed a read gives 0 bytes, a write would block, and poll
//! says HUP; a blocking write spins, so ports are always non-blocking; a write takes at most 32 KiB.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};

use crate::error::{Doing, Error};
use crate::wait;

const CLASS: &str = "/sys/class/virtio-ports";

/// An open port.
#[derive(Debug)]
pub struct Port(File);

/// The ports of the streams.
#[derive(Debug)]
pub struct StreamPorts {
    /// Host to guest.
    pub stdin: Port,
    /// Guest to host.
    pub stdout: Port,
    /// Guest to host.
    pub stderr: Port,
}

impl Port {
    /// Waits for the port and opens it.
    pub fn open(name: &str) -> Result<Self, Error> {
        let node = wait::for_device(|| format!("port {name}"), || Ok(find(name)))?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = wait::for_device(
            || format!("device node {node}"),
            || match rustix::fs::open(&node, flags, Mode::empty()) {
                Err(rustix::io::Errno::NOENT) => Ok(None),
                opened => opened.map(Some).doing(|| format!("opening port {name}")),
            },
        )?;
        Ok(Self(fd.into()))
    }

    /// Waits until the host's side is open too.
    pub fn wait_for_host(&self, name: &str) -> Result<(), Error> {
        wait::for_device(
            || format!("the host's side of port {name}"),
            || Ok((!self.is_hung_up()).then_some(())),
        )
    }

    /// Whether the host's side is closed.
    pub fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        match poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => fds.iter().any(|fd| fd.revents().contains(PollFlags::HUP)),
            Err(_) => false,
        }
    }

    /// Sleeps until the host's side closes.
    pub fn wait_for_hang_up(&self) {
        while !self.is_hung_up() && self.wait(PollFlags::empty()).is_ok() {}
    }

    /// Sleeps until the port can be read or written (as asked) or the host's side closes.
    pub fn wait(&self, want: PollFlags) -> io::Result<()> {
        loop {
            match poll(&mut [PollFd::new(&self.0, want)], None) {
                Err(rustix::io::Errno::INTR) => {}
                result => return result.map(drop).map_err(io::Error::from),
            }
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for Port {
    /// A read of 0 bytes says that the host's side is closed, which is no end: it may open later.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Port {
    /// The driver takes 0 bytes when it found no room after all: the next event says when to retry.
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self.0.write(buffer)? {
            0 if !buffer.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The device node of the port with this name.
fn find(name: &str) -> Option<String> {
    // The class and the names come while the driver negotiates with the host: not there is not yet.
    fs::read_dir(CLASS).ok()?.flatten().find_map(|entry| {
        let found = fs::read_to_string(entry.path().join("name")).ok()?;
        (found.trim_end() == name).then(|| format!("/dev/{}", entry.file_name().to_string_lossy()))
    })
}

//! The workload's standard streams inside the guest: three pipes, or a terminal.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use proto::WindowSize;
use rustix::fs::{OFlags, fchown, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Uid;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};

use crate::error::{Doing, Error};
use crate::root::Root;

/// The workload's ends: its standard input, output and error.
pub type WorkloadEnds = [OwnedFd; 3];

/// The agent's ends.
#[derive(Debug)]
pub enum AgentEnds {
    /// Without a terminal.
    Pipes {
        /// Where the workload's input goes.
        stdin: Stream,
        /// Where its output comes from.
        stdout: Stream,
        /// Where its errors come from.
        stderr: Stream,
    },
    /// With one.
    Terminal(Terminal),
}

/// Makes three pipes that belong to `owner`, who may open /dev/stdout again.
pub fn pipes(owner: u32) -> Result<(AgentEnds, WorkloadEnds), Error> {
    let make = || -> io::Result<_> {
        let [(in_read, in_write), (out_read, out_write), (err_read, err_write)] =
            [pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?];
        for end in [&in_read, &out_read, &err_read] {
            fchown(end, Some(Uid::from_raw(owner)), None)?;
        }
        let agent = AgentEnds::Pipes {
            stdin: Stream::non_blocking(in_write)?,
            stdout: Stream::non_blocking(out_read)?,
            stderr: Stream::non_blocking(err_read)?,
        };
        Ok((agent, [in_read, out_write, err_write]))
    };
    make().doing(|| "making pipes for the workload")
}

/// Makes a terminal that belongs to `owner`, in the root's own instance of devpts.
pub fn terminal(root: &Root, owner: u32, size: WindowSize) -> Result<(AgentEnds, WorkloadEnds), Error> {
    let make = || -> io::Result<_> {
        let controller = root.open_at(b"/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK)?;
        unlockpt(&controller)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let line = ioctl_tiocgptpeer(&controller, flags)?;
        fchown(&line, Some(Uid::from_raw(owner)), None)?;
        let ends = [line.try_clone()?, line.try_clone()?, line.try_clone()?];
        let terminal = Terminal { controller: Stream::from(controller), line: Some(line) };
        terminal.resize(size)?;
        Ok((AgentEnds::Terminal(terminal), ends))
    };
    make().doing(|| "making a terminal for the workload")
}

/// The agent's side of a terminal.
#[derive(Debug)]
pub struct Terminal {
    controller: Stream,
    /// The workload's side, held open so that a workload which closes and opens its terminal again is no end.
    line: Option<OwnedFd>,
}

impl Terminal {
    /// Another handle on the controlling end.
    pub fn stream(&self) -> Stream {
        self.controller.clone()
    }

    /// Tells the terminal its size; its processes get SIGWINCH if it is a new one.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&self.controller, size)?)
    }

    /// From here on the terminal's output ends with the last process that has it open.
    pub fn let_go(&mut self) {
        self.line = None;
    }

    /// What to type so that a reader sees the end of the input. Nothing if the terminal is not in line mode:
    /// then there is no such character.
    pub fn end_of_input(&self, last_byte: Option<u8>) -> Vec<u8> {
        match tcgetattr(&self.controller) {
            Ok(mode) if mode.local_modes.contains(LocalModes::ICANON) => {
                let character = mode.special_codes[SpecialCodeIndex::VEOF];
                // After an unfinished line the first one only hands over that line.
                let times = if matches!(last_byte, None | Some(b'\n')) { 1 } else { 2 };
                vec![character; times]
            }
            _ => Vec::new(),
        }
    }
}

/// A pipe's end or a terminal's.
#[derive(Debug, Clone)]
pub struct Stream(Arc<File>);

impl Stream {
    fn non_blocking(fd: OwnedFd) -> io::Result<Self> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Ok(Self::from(fd))
    }
}

impl From<OwnedFd> for Stream {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(fd.into()))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for Stream {
    /// A terminal says EIO where a pipe says that its end is reached: nobody has the other side open.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(0),
            result => result,
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

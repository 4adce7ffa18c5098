//! A child of the agent that does one thing which may take the kernel long, and says one thing about it.
//!
//! The agent's loop carries the workload's streams and must not wait. The child stays in the agent's protected control
//! group, and is reaped and killed as any other.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

/// Starts it. Its words can be read from the file, which does not block; without words, `work` was killed.
pub fn start(work: impl FnOnce() -> Vec<u8>) -> io::Result<File> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: the agent has one thread, so the child may go on as if nothing had happened.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let mut writer = File::from(writer);
            close_others(&writer);
            let _ = writer.write_all(&work());
            // SAFETY: ends the child without running what the agent registered to run at its own end.
            unsafe { libc::_exit(0) }
        }
        _ => {
            drop(writer);
            fcntl_setfl(&reader, OFlags::RDONLY | OFlags::NONBLOCK)?;
            Ok(reader.into())
        }
    }
}

/// Closes the ports and the streams: whoever is at their other ends is to see when the agent closes them.
fn close_others(kept: &File) {
    let kept = kept.as_raw_fd().unsigned_abs();
    for (first, last) in [(3, kept.saturating_sub(1)), (kept.saturating_add(1), u32::MAX)] {
        if first <= last {
            // SAFETY: the child uses none of them again: it ends without dropping their owners.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

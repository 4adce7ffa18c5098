//! Where the guest's bytes end: the workload's readers on the host, and the kept tail of the kernel's messages.

use crate::link::Link;
use proto::OutputStream;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Write};
use std::os::fd::AsRawFd;

/// Kernel messages kept to explain a failure.
const KERNEL_LOG_BYTES: usize = 16 << 10;

/// One of the workload's outputs.
pub struct Output {
    stream: OutputStream,
    /// The write end, non-blocking; nothing once its reader is gone.
    pub file: Option<File>,
    /// Done with, and open until the event loop has forgotten it.
    pub ended: Option<File>,
    /// Bytes that the reader has, or that nobody will ever read.
    pub delivered: u64,
}

impl Output {
    /// The output `stream`, which goes to `file`.
    pub fn new(stream: OutputStream, file: File) -> Self {
        Self { stream, file: Some(file), ended: None, delivered: 0 }
    }

    /// Writes what the host takes now; counts what nobody will ever read as written, and tells the agent so.
    pub fn write(&mut self, first: &[u8], second: &[u8], link: &mut Link) -> usize {
        let all = first.len() + second.len();
        let written = match &mut self.file {
            _ if all == 0 => 0,
            None => all,
            Some(file) => match file.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(written) => written,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                Err(_) => {
                    self.ended = self.file.take();
                    link.output_gone(self.stream);
                    all
                }
            },
        };
        self.delivered += written as u64;
        written
    }

    /// Whether the reader would take more now.
    pub fn takes(&self) -> bool {
        let Some(file) = &self.file else { return true };
        let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: `poll` is one valid pollfd, and the call returns at once.
        unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
    }
}

/// The last messages of the guest's kernel.
#[derive(Default)]
pub struct KernelLog(VecDeque<u8>);

impl KernelLog {
    /// Keeps both pieces and lets go of what is too old; says how many bytes it took.
    pub fn keep(&mut self, first: &[u8], second: &[u8]) -> usize {
        self.0.extend(first.iter().chain(second));
        let excess = self.0.len().saturating_sub(KERNEL_LOG_BYTES);
        self.0.drain(..excess);
        first.len() + second.len()
    }

    /// The messages as text that a terminal bears.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        balloon::logging::readable(&String::from_utf8_lossy(&bytes))
    }
}

//! Moves bytes from one non-blocking stream to another, with a buffer of fixed size between them.
//!
//! Pure: it reads and writes through traits and is told when a side became ready, edge by edge as epoll(7)
//! does. A full sink stops the reading, so back-pressure passes through. The kernel's splice(2) is not used:
//! virtio_console takes bytes out of a pipe before it knows that its queue has room, and drops them if not.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;

/// What virtio_console takes in one write.
const BUFFER_BYTES: usize = 32 * 1024;

/// Reads and writes in one go, so that a stream without end does not keep others waiting.
const BUDGET: u32 = 16;

/// A stream on its way.
#[derive(Debug)]
pub struct Pump<R, W> {
    source: Option<R>,
    sink: Option<W>,
    source_ready: bool,
    sink_ready: bool,
    buffer: Box<[u8]>,
    /// What of the buffer is to be written.
    pending: Range<usize>,
    taken: u64,
    given: u64,
    limit: Option<u64>,
    last_byte: Option<u8>,
}

enum Step {
    Moved,
    Blocked,
}

impl<R: Read, W: Write> Pump<R, W> {
    /// A pump between two streams of which neither was tried yet.
    pub fn new(source: R, sink: W) -> Self {
        Self {
            source: Some(source),
            sink: Some(sink),
            source_ready: true,
            sink_ready: true,
            buffer: vec![0; BUFFER_BYTES].into(),
            pending: 0..0,
            taken: 0,
            given: 0,
            limit: None,
            last_byte: None,
        }
    }

    /// The source may have something, or its end.
    pub const fn source_is_ready(&mut self) {
        self.source_ready = true;
    }

    /// The sink may have room.
    pub const fn sink_is_ready(&mut self) {
        self.sink_ready = true;
    }

    /// The source ends once this many bytes in total were taken from it.
    pub const fn end_after(&mut self, bytes: u64) {
        self.limit = Some(bytes);
    }

    /// Moves what can be moved. Says whether there may be more to move without waiting.
    ///
    /// Without a sink, what the source gives is thrown away.
    pub fn run(&mut self) -> bool {
        (0..BUDGET).all(|_| matches!(self.step(), Step::Moved))
    }

    /// Writes these bytes too, after all that the source gave. Only for a pump that is done; what does not fit
    /// its buffer is cut.
    pub fn append(&mut self, bytes: &[u8]) {
        let length = bytes.len().min(self.buffer.len());
        if let (Some(to), Some(from)) = (self.buffer.get_mut(..length), bytes.get(..length)) {
            to.copy_from_slice(from);
            self.pending = 0..length;
        }
    }

    /// Closes the source and forgets what was not written yet.
    pub fn close_source(&mut self) {
        self.source = None;
        self.pending = 0..0;
    }

    /// Closes the source; what was taken from it is still written.
    pub fn end_source(&mut self) {
        self.source = None;
    }

    /// Closes the sink, and returns it if it was still there.
    pub fn close_sink(&mut self) -> Option<W> {
        self.pending = 0..0;
        self.sink.take()
    }

    /// Whether the sink is open.
    pub const fn has_sink(&self) -> bool {
        self.sink.is_some()
    }

    /// Whether the source ended and all that it gave was written.
    pub fn is_done(&self) -> bool {
        self.source.is_none() && self.pending.is_empty()
    }

    /// Bytes written to the sink.
    pub const fn given(&self) -> u64 {
        self.given
    }

    /// The last byte written to the sink.
    pub const fn last_byte(&self) -> Option<u8> {
        self.last_byte
    }

    fn step(&mut self) -> Step {
        if self.pending.is_empty() { self.read() } else { self.write() }
    }

    fn read(&mut self) -> Step {
        let Some(source) = &mut self.source else { return Step::Blocked };
        let left = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.taken));
        if left == 0 {
            self.source = None;
            return Step::Blocked;
        }
        if !self.source_ready {
            return Step::Blocked;
        }
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
        match source.read(self.buffer.get_mut(..room).unwrap_or_default()) {
            Ok(0) => self.source = None,
            Ok(n) => {
                self.pending = 0..n;
                self.taken = self.taken.saturating_add(length(n));
            }
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => self.source_ready = false,
                _ => self.source = None,
            },
        }
        Step::Moved
    }

    fn write(&mut self) -> Step {
        let Some(sink) = &mut self.sink else {
            self.pending = 0..0;
            return Step::Moved;
        };
        if !self.sink_ready {
            return Step::Blocked;
        }
        let bytes = self.buffer.get(self.pending.clone()).unwrap_or_default();
        let written = sink.write(bytes).and_then(|n| match bytes.get(..n) {
            Some([.., last]) => Ok((n, *last)),
            _ => Err(io::Error::from(ErrorKind::WriteZero)),
        });
        match written {
            Ok((n, last)) => {
                self.pending.start = self.pending.start.saturating_add(n);
                self.given = self.given.saturating_add(length(n));
                self.last_byte = Some(last);
            }
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => self.sink_ready = false,
                _ => drop(self.close_sink()),
            },
        }
        Step::Moved
    }
}

fn length(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;

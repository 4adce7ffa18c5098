//! The block device itself: takes requests from the queue, has the backend carry them out, answers.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::backend::Backend;
use super::counters::{Counters, Fault};
use super::limits::{self, MAX_DISCARD_RANGES, QUEUE_SIZE};
use super::lookup;
use super::request::{self, Disk, HEADER_BYTES, RANGE_BYTES, Request, SECTOR_BYTES};
use crate::virtio::buffers::{self, Buffers};
use crate::virtio::config_space;
use crate::virtio::device::{BrokenQueue, Device, Effects, Memory};
use crate::virtio::queue::{Chain, Outcome, drain};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_OK};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::Queue;
use vm_memory::Bytes;

/// Requests served before the guest hears of any. Few: the first of them waits for the last.
const REQUESTS_PER_PASS: usize = 4;

/// Once this much was moved, the pass ends. With one request more, what a pass can move is bounded.
const BYTES_PER_PASS: u64 = 1 << 20;

/// Bytes of a serial number.
pub const SERIAL_BYTES: usize = VIRTIO_BLK_ID_BYTES as usize;

/// A disk.
#[derive(Debug)]
pub struct Block<B> {
    backend: B,
    name: String,
    disk: Disk,
    serial: [u8; SERIAL_BYTES],
    config: Vec<u8>,
    read_only_memory: Memory,
    driver_flushes: bool,
    buffers: Buffers,
    counters: Arc<Counters>,
}

impl<B: Backend> Block<B> {
    /// A disk with the contents of `backend`, which messages call `name`. The guest reads the first
    /// [`SERIAL_BYTES`] bytes of `serial` as its serial number. Data to be written may also lie in
    /// `read_only_memory`, which must cover nothing but what can be read: no page beyond the end of a mapped file.
    pub fn new(backend: B, name: &str, serial: &str, read_only: bool, read_only_memory: Memory) -> Self {
        let sectors = backend.len_bytes() / SECTOR_BYTES;
        let disk = Disk { sectors, read_only, discards: backend.can_discard() };
        let mut padded = [0; SERIAL_BYTES];
        padded.iter_mut().zip(serial.bytes()).for_each(|(to, from)| *to = from);
        Self {
            backend,
            name: name.into(),
            disk,
            serial: padded,
            config: limits::config(disk),
            read_only_memory,
            driver_flushes: false,
            buffers: Buffers::default(),
            counters: Arc::default(),
        }
    }

    /// What the disk counts, for others to read at any time.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Answers one chain; returns the bytes written from the start of its writable part on and the bytes
    /// moved to or from the disk.
    fn answer(&mut self, chain: Chain<'_>, memory: &Memory) -> (u32, u64) {
        add(&self.counters.requests, 1);
        let collected = self.buffers.collect(chain, usize::from(QUEUE_SIZE));
        let status_at = collected.ok().and_then(|()| self.buffers.take_last_writable());
        let Some(status_at) = status_at else {
            self.counters.count(&Fault::Malformed);
            return (0, 0);
        };
        let done = self.carry_out(memory).unwrap_or_else(|fault| self.fail(&fault));
        if memory.write_obj(done.status, status_at).is_err() {
            self.counters.count(&Fault::OutsideMemory);
            return (done.written, done.moved);
        }
        // The used length speaks of a run from the first byte on: the status counts if nothing is missing
        // before it (virtio 1.3, 2.7.8.2).
        let room = buffers::total(self.buffers.writable());
        let complete = u64::from(done.written) == room;
        (done.written.saturating_add(u32::from(complete)), done.moved)
    }

    fn fail(&self, fault: &Fault) -> Done {
        self.counters.count(fault);
        if let Fault::Host(error) = fault {
            log::warn!("{}: the guest meets an I/O error, as the host failed a request: {error}", self.name);
        }
        Done { status: fault.status(), written: 0, moved: 0 }
    }

    fn carry_out(&mut self, memory: &Memory) -> Result<Done, Fault> {
        let mut header = [0; HEADER_BYTES as usize];
        if !buffers::read(memory, self.buffers.readable(), 0, &mut header) {
            return Err(Fault::Malformed);
        }
        let readable = buffers::total(self.buffers.readable()).saturating_sub(u64::from(HEADER_BYTES));
        let writable = buffers::total(self.buffers.writable());
        match request::parse(&header, readable, writable, self.disk).map_err(Fault::Refused)? {
            Request::Read { offset, len } => self.read(memory, offset, len),
            Request::Write { offset, len } => self.write(memory, offset, len),
            Request::Flush => self.flush(),
            Request::Identify => self.identify(memory, writable),
            Request::Discard { len } => self.discard(memory, len),
            Request::WriteZeroes { len } => self.write_zeroes(memory, len),
        }
    }

    fn read(&mut self, memory: &Memory, offset: u64, len: u32) -> Result<Done, Fault> {
        let slices = lookup::writable(memory, self.buffers.writable().iter().copied());
        self.backend.read_at(offset, &slices.ok_or(Fault::OutsideMemory)?).map_err(Fault::Host)?;
        add(&self.counters.read_bytes, len.into());
        Ok(Done { status: OK, written: len, moved: len.into() })
    }

    fn write(&mut self, memory: &Memory, offset: u64, len: u32) -> Result<Done, Fault> {
        let data = buffers::skip(self.buffers.readable(), HEADER_BYTES);
        let slices = lookup::readable(memory, &self.read_only_memory, data);
        self.backend.write_at(offset, &slices.ok_or(Fault::OutsideMemory)?).map_err(Fault::Host)?;
        add(&self.counters.written_bytes, len.into());
        self.changed(len.into())
    }

    fn flush(&mut self) -> Result<Done, Fault> {
        if !self.disk.read_only {
            self.backend.flush().map_err(Fault::Host)?;
        }
        Ok(Done { status: OK, written: 0, moved: 0 })
    }

    fn identify(&mut self, memory: &Memory, room: u64) -> Result<Done, Fault> {
        let len = usize::try_from(room).unwrap_or(SERIAL_BYTES).min(SERIAL_BYTES);
        let (serial, _) = self.serial.split_at(len);
        if !buffers::write(memory, self.buffers.writable(), 0, serial) {
            return Err(Fault::OutsideMemory);
        }
        Ok(Done { status: OK, written: u32::try_from(len).unwrap_or(0), moved: 0 })
    }

    fn discard(&mut self, memory: &Memory, len: u32) -> Result<Done, Fault> {
        let mut list = RangeList::default();
        let list = list.read(memory, &self.buffers, len)?;
        for range in request::discards(list, self.disk).map_err(Fault::Refused)? {
            self.backend.discard(range.offset, range.len).map_err(Fault::Host)?;
        }
        self.changed(0)
    }

    fn write_zeroes(&mut self, memory: &Memory, len: u32) -> Result<Done, Fault> {
        let mut list = RangeList::default();
        let list = list.read(memory, &self.buffers, len)?;
        let mut moved = 0u64;
        for range in request::zeroes(list, self.disk).map_err(Fault::Refused)? {
            self.backend.write_zeroes(range.offset, range.len, range.unmap).map_err(Fault::Host)?;
            moved = moved.saturating_add(range.len);
        }
        self.changed(moved)
    }

    /// The end of every change: durable at once for a driver that does not flush.
    fn changed(&mut self, moved: u64) -> Result<Done, Fault> {
        if !self.driver_flushes {
            self.backend.flush().map_err(Fault::Host)?;
        }
        Ok(Done { status: OK, written: 0, moved })
    }
}

const OK: u8 = VIRTIO_BLK_S_OK.to_le_bytes()[0];

/// The end of a request.
struct Done {
    status: u8,
    /// Data bytes written to the guest.
    written: u32,
    /// Bytes moved to or from the disk.
    moved: u64,
}

/// Room for the longest list of ranges.
struct RangeList([u8; RANGE_BYTES * MAX_DISCARD_RANGES as usize]);

impl Default for RangeList {
    fn default() -> Self {
        Self([0; RANGE_BYTES * MAX_DISCARD_RANGES as usize])
    }
}

impl RangeList {
    /// Copies the list out of guest memory, so that what is checked is what is used.
    fn read(&mut self, memory: &Memory, buffers: &Buffers, len: u32) -> Result<&[u8], Fault> {
        let list = self.0.get_mut(..len as usize).ok_or(Fault::Malformed)?;
        if buffers::read(memory, buffers.readable(), HEADER_BYTES, list) {
            Ok(list)
        } else {
            Err(Fault::OutsideMemory)
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl<B: Backend> Device for Block<B> {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        limits::features(self.disk)
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        config_space::read(&self.config, offset, data);
    }

    fn activate(&mut self, features: u64) {
        self.driver_flushes = limits::driver_flushes(features);
    }

    fn reset(&mut self) {
        self.driver_flushes = false;
    }

    fn serve(&mut self, index: usize, queues: &mut [Queue], memory: &Memory) -> Result<Effects, BrokenQueue> {
        let Some(queue) = queues.get_mut(index) else { return Ok(Effects::default()) };
        let mut moved = 0u64;
        let mut full = false;
        let effects = drain(index, queue, memory, REQUESTS_PER_PASS, |chain| {
            full = moved >= BYTES_PER_PASS;
            if full {
                return Outcome::Keep;
            }
            let (used, bytes) = self.answer(chain, memory);
            moved = moved.saturating_add(bytes);
            Outcome::Used(used)
        })?;
        Ok(effects.and(Effects { interrupt: false, again: full, ..Effects::default() }))
    }
}

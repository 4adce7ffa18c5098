//! virtio-balloon: the pure device of the crate `balloon` behind virtqueues. Wiring only.
//!
//! `run` makes a [`Balloon`] over the guest's RAM and attaches it; [`BalloonEvents`] serves it in the event loop.
//! What the host wants of it goes through its transport ([`requests`]).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

mod audit;
mod events;
mod pace;
mod pass;
mod requests;
mod statistics;

pub use events::BalloonEvents;
pub use requests::{Look, Refusal, RegionLook};

use super::buffers::Buffers;
use super::config_space;
use super::device::{BrokenQueue, Device, Effects, Memory};
use super::queue::{Outcome, drain, drain_together};
use crate::config::ImagePart;
use audit::Audit;
use balloon::backing::{Backing, Host, Kernel, Kind, Mapping};
use balloon::device::{self, LEAST_FLOOR_BYTES, MemoryReport, OFFERED, QUEUE_SIZES, STATISTICS_BYTES};
use balloon::frames::{Books, Layout};
use balloon::resident::{self, CountMoves, MoveCounter, Residency, Scanner};
use pace::{Pace, Standing};
use pass::Pass;
use std::io;
use std::sync::OnceLock;
use std::time::Instant;
use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use virtio_queue::Queue;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};

/// Pages that one [`Balloon::survey`] looks at: 256 MiB, below a millisecond of page-table walk.
pub const SURVEY_PAGES: u64 = 64 << 10;

/// Guest memory that a balloon cannot manage.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its regions are no layout.
    #[error("cannot keep books of guest memory")]
    Layout(#[from] balloon::frames::Error),
    /// Its mappings are not as its regions.
    #[error("cannot release guest memory")]
    Backing(#[from] balloon::backing::Error),
    /// A private file, shared anonymous memory, huge pages of a pool: to discard a part of those frees nothing, or more
    /// than the part.
    #[error(
        "guest memory is neither private anonymous memory nor a shared file: it cannot be released by pages"
    )]
    Kind,
    /// The host has no more file descriptors.
    #[error("cannot prepare to release guest memory")]
    Host(#[from] io::Error),
}

/// Milliseconds of a clock that never goes back, from the first call on.
#[must_use]
pub fn monotonic_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// A virtio-balloon behind its transport.
#[derive(Debug)]
pub struct Balloon<K> {
    device: device::Balloon<K>,
    /// Keeps mapped what the device releases.
    _memory: Memory,
    offered: u64,
    clock_ms: fn() -> u64,
    scanner: Scanner<resident::Host>,
    /// The last reading and when it ended.
    residency: Option<(Residency, u64)>,
    moves: Box<dyn CountMoves>,
    pace: Pace,
    audit: Audit,
    /// Somebody waits for statistics.
    awaited: bool,
    buffers: Buffers,
    /// Chains that wait for all of their batch to be settled,
    heads: Vec<u16>,
    /// and the queue that they are of, between its passes.
    unsettled: Option<usize>,
}

impl Balloon<Host> {
    /// An empty balloon over all of `memory`, of which `image` is mapped copy-on-write, which offers the driver those of
    /// `features` that there are. Asks the host what it can do, so it is made before a sandbox is closed.
    ///
    /// # Errors
    /// The memory is not made of whole blocks, or the host cannot release it.
    pub fn over(memory: &Memory, features: u64, image: Option<ImagePart>) -> Result<Self, Error> {
        let balloon = Self::with_image(Host::probe(), memory, LEAST_FLOOR_BYTES, monotonic_ms, image)?;
        Ok(Self { offered: OFFERED & features, ..balloon })
    }
}

impl<K: Kernel> Balloon<K> {
    /// As [`Balloon::over`], with a kernel, a floor and a clock of one's own.
    ///
    /// # Errors
    /// As of [`Balloon::over`].
    pub fn with_kernel(
        kernel: K,
        memory: &Memory,
        floor_bytes: u64,
        clock_ms: fn() -> u64,
    ) -> Result<Self, Error> {
        Self::with_image(kernel, memory, floor_bytes, clock_ms, None)
    }

    /// As [`Self::with_kernel`], of memory of which `image` is mapped copy-on-write.
    ///
    /// # Errors
    /// As of [`Balloon::over`].
    pub fn with_image(
        kernel: K,
        memory: &Memory,
        floor_bytes: u64,
        clock_ms: fn() -> u64,
        image: Option<ImagePart>,
    ) -> Result<Self, Error> {
        let regions: Vec<_> = memory.iter().map(|region| (region.start_addr().0, region.len())).collect();
        let layout = Layout::new(&regions)?;
        let mappings = memory.iter().map(|region| mapping(region, image)).collect::<Result<_, _>>()?;
        let backing = Backing::new(kernel, &layout, mappings)?;
        Ok(Self {
            device: device::Balloon::new(Books::new(layout), backing, floor_bytes),
            _memory: memory.clone(),
            offered: OFFERED,
            clock_ms,
            scanner: Scanner::new(resident::Host::probe()),
            residency: None,
            moves: Box::new(MoveCounter::probe()),
            pace: Pace::default(),
            audit: Audit::default(),
            awaited: false,
            buffers: Buffers::default(),
            heads: Vec::new(),
            unsettled: None,
        })
    }

    /// The device itself.
    pub fn device(&mut self) -> &mut device::Balloon<K> {
        &mut self.device
    }

    /// Everything known of the guest's memory.
    #[must_use]
    pub fn report(&self) -> MemoryReport {
        self.device.report(self.residency.clone(), (self.clock_ms)())
    }

    /// Reads on how much of the guest's memory the host holds, [`SURVEY_PAGES`] pages; true at the end of a
    /// reading.
    ///
    /// # Errors
    /// The host cannot tell.
    pub fn survey(&mut self) -> io::Result<bool> {
        if self.scanner.position() == (0, 0) {
            self.pace.begin((self.clock_ms)(), self.standing());
        }
        let reading = self.device.survey(&mut self.scanner, SURVEY_PAGES);
        let now_ms = (self.clock_ms)();
        let ended = !matches!(reading, Ok(None));
        if reading.is_err() {
            self.pace.fail();
        }
        self.pace.step(now_ms, ended);
        if let Some(reading) = reading? {
            self.pace.doubt(!self.moves.is_exact() && reading.swapped != Some(0));
            self.residency = Some((reading, now_ms));
            self.audit.look_through(self.device.books());
        }
        Ok(ended)
    }

    /// As [`Self::survey`], for a client: nothing if clients have had their steps, or need none.
    fn survey_for_client(&mut self) -> Option<io::Result<bool>> {
        let now_ms = (self.clock_ms)();
        (self.pace.allows(now_ms) && !self.is_read()).then(|| self.survey())
    }

    /// As [`Self::survey`], for the timer: nothing to be done if no memory has moved.
    fn survey_by_timer(&mut self) -> io::Result<bool> {
        if self.scanner.position() == (0, 0) && self.is_read() { Ok(true) } else { self.survey() }
    }

    /// Whether the last reading is as good as a new one: then it is one of this moment.
    fn is_read(&mut self) -> bool {
        let now_ms = (self.clock_ms)();
        let holds = self.pace.holds(now_ms, self.standing());
        if let (true, Some((_, read_ms))) = (holds, &mut self.residency) {
            *read_ms = now_ms;
        }
        holds
    }

    fn standing(&self) -> Option<Standing> {
        self.moves.now().map(|moves| (moves, self.device.books().entries()))
    }

    /// Returns the driver's buffer if `ask` says so, and reads the one that comes.
    fn serve_statistics(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &Memory,
        mut ask: bool,
    ) -> Result<Effects, BrokenQueue> {
        let Some(queue) = queues.get_mut(index) else { return Ok(Effects::default()) };
        let Self { device, buffers, clock_ms, .. } = self;
        let mut config = false;
        let effects = drain(index, queue, memory, 2, |chain| {
            if std::mem::take(&mut ask) {
                return Outcome::Used(0);
            }
            if device.waits_for_statistics() {
                let mut bytes = [0; STATISTICS_BYTES as usize];
                match statistics::read(device, buffers, chain, memory, &mut bytes) {
                    Some(len_bytes) => {
                        let read = usize::try_from(len_bytes).unwrap_or(usize::MAX).min(bytes.len());
                        config |= device.receive_statistics(bytes.split_at(read).0, len_bytes, clock_ms());
                    }
                    None => device.receive_no_statistics(),
                }
            }
            Outcome::Keep
        })?;
        Ok(Effects { config, ..effects })
    }
}

/// A region as the balloon releases it; `image` may lie in it.
fn mapping(region: &GuestRegionMmap<()>, image: Option<ImagePart>) -> Result<Mapping, Error> {
    let private = region.flags() & libc::MAP_TYPE == libc::MAP_PRIVATE;
    let kind = match region.file_offset() {
        None if private && region.flags() & libc::MAP_HUGETLB == 0 => Kind::Anonymous,
        Some(file) if !private && region.is_hugetlbfs() != Some(true) => {
            Kind::Shared { file: file.file().try_clone()?.into(), offset: file.start() }
        }
        _ => return Err(Error::Kind),
    };
    // SAFETY: mapped so, by the region's own word, and the balloon keeps it mapped. Guest memory may change at any
    // time by the guest's hand, which is why vm-memory lends no reference to it: nobody relies on its contents.
    let mapping = unsafe { Mapping::new(region.as_ptr() as usize, region.len(), kind) };
    Ok(match image.and_then(|part| Some((part.address.checked_sub(region.start_addr().0)?, part.bytes))) {
        Some((offset, bytes)) => mapping.with_image(offset, bytes),
        None => mapping,
    })
}

impl<K: Kernel> Device for Balloon<K> {
    fn id(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        self.offered
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        config_space::read(&self.device.config(), offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.device.write_config(offset, data, (self.clock_ms)());
    }

    fn activate(&mut self, features: u64) {
        self.device.activate(features, (self.clock_ms)());
    }

    fn reset(&mut self) {
        self.device.reset();
        self.heads.clear();
        self.unsettled = None;
    }

    fn serve(&mut self, index: usize, queues: &mut [Queue], memory: &Memory) -> Result<Effects, BrokenQueue> {
        let purpose = self.device.queue(index);
        let (Some(queue), Some(purpose)) = (queues.get_mut(index), purpose) else {
            return Ok(Effects::default());
        };
        if purpose == device::Queue::Statistics {
            return self.serve_statistics(index, queues, memory, false);
        }
        // One batch at a time, whose queue is served again soon.
        if self.unsettled.is_some_and(|unsettled| unsettled != index) {
            return Ok(Effects { again: true, ..Effects::default() });
        }
        let mut pass = Pass {
            device: &mut self.device,
            buffers: &mut self.buffers,
            memory,
            queue: purpose,
            limit: QUEUE_SIZES.get(index).copied().unwrap_or_default().into(),
            now_ms: (self.clock_ms)(),
        };
        let effects = drain_together(index, queue, memory, &mut self.heads, &mut pass);
        self.unsettled = (!self.heads.is_empty()).then_some(index);
        effects
    }
}

#[cfg(test)]
mod tests;

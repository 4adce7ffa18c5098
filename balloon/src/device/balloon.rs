//! The device itself: what the driver hands over, and the books that it changes. The host's side is in `host`.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::batch::Batch;
use super::config::{CONFIG_BYTES, Config, Write};
use super::errors::{ProtocolErrors, count};
use super::floor::Floor;
use super::queues::{self, OFFERED, Queue, features};
use super::reminder::Reminder;
use super::statistics::{Exchange, RequestError};
use crate::PAGE_BYTES;
use crate::backing::{Backing, Kernel};
use crate::frames::Books;
use crate::pages::PageRange;

/// Most page numbers of one descriptor that are read: what Linux sends at once
/// (`VIRTIO_BALLOON_ARRAY_PFNS_MAX` in drivers/virtio/virtio_balloon.c). The rest of a longer one is ignored.
pub const PFNS_PER_DESCRIPTOR: usize = 256;

/// A pass takes no further chain from here on. What it takes it only reads: with a last chain of at most 16 descriptors
/// of numbers, it ends below 6144 pages.
pub const PASS_PAGES: u64 = 2048;

/// Most pages of one report, the rest of it is ignored: 32 of the largest blocks of a buddy allocator, as much as
/// Linux reports at once.
pub const PAGES_PER_REPORT: u64 = 32 * (crate::BLOCK_BYTES / PAGE_BYTES);

/// What is released in one go costs no more than this by [`Backing::costs`], or is a single run; the rest waits for the
/// next. So what Linux sends at once goes at once, be it a report of large blocks or 256 numbers that cut as many huge
/// pages, but for a report that splits more than 16 huge pages. At worst some 15 ms of a host that is itself a guest,
/// and some 10 ms for the advice that inflations have deferred when a deflation or their arrival has all of it given.
pub const PASS_COST: u64 = PAGES_PER_REPORT;

/// A virtio-balloon of one VM.
#[derive(Debug)]
pub struct Balloon<K> {
    pub(super) books: Books,
    pub(super) backing: Backing<K>,
    /// What the driver accepted, while there is one.
    pub(super) driver: Option<u64>,
    pub(super) config: Config,
    pub(super) floor: Floor,
    batch: Batch,
    /// [`Batch::added`] when the current chain began.
    chain_start: u64,
    pub(super) statistics: Exchange,
    /// When the driver last moved, or was asked.
    pub(super) moved_ms: u64,
    pub(super) reminder: Reminder,
    /// Pages that the driver has inflated and the host has kept, as far as they have not been deflated since.
    kept_pages: u64,
    pub(super) poisoned_pages: u64,
    pub(super) taken_back_pages: u64,
    pub(super) errors: ProtocolErrors,
}

impl<K: Kernel> Balloon<K> {
    /// An empty balloon over `books`, which releases to `backing`. Whatever is asked of it, it leaves the guest at
    /// least `floor_bytes`, and at least what the guest used at its start and a little more, once it says that.
    #[must_use]
    pub fn new(books: Books, backing: Backing<K>, floor_bytes: u64) -> Self {
        Self {
            books,
            backing,
            driver: None,
            config: Config::default(),
            floor: Floor::new(floor_bytes),
            batch: Batch::default(),
            chain_start: 0,
            statistics: Exchange::default(),
            moved_ms: 0,
            reminder: Reminder::default(),
            kept_pages: 0,
            poisoned_pages: 0,
            taken_back_pages: 0,
            errors: ProtocolErrors::default(),
        }
    }

    /// The page books.
    #[must_use]
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// The memory behind them.
    #[must_use]
    pub fn backing(&self) -> &Backing<K> {
        &self.backing
    }

    /// As [`Self::backing`], to change.
    pub fn backing_mut(&mut self) -> &mut Backing<K> {
        &mut self.backing
    }

    /// What the driver did wrong so far.
    #[must_use]
    pub fn errors(&self) -> &ProtocolErrors {
        &self.errors
    }

    // The transport's side.

    /// The configuration space as the driver reads it.
    #[must_use]
    pub fn config(&self) -> [u8; CONFIG_BYTES] {
        self.config.bytes()
    }

    /// The driver wrote `data` at `offset` of the configuration space. It does so before DRIVER_OK, too.
    pub fn write_config(&mut self, offset: u64, data: &[u8], now_ms: u64) {
        match Config::parse_write(offset, data) {
            Write::Actual(pages) => {
                let size = u32::try_from(self.books.totals().size).unwrap_or(u32::MAX);
                count(&mut self.errors.impossible_actual, (pages > size).into());
                let actual = pages.min(size);
                if actual != self.config.actual {
                    self.moved_ms = now_ms;
                }
                self.config.actual = actual;
                if actual == self.config.num_pages {
                    let books = &self.books;
                    self.backing.give_deferred_advice(books.layout(), |run| books.kept_small(run));
                }
            }
            Write::Poison(value) => self.config.poison = value,
            Write::Refused => count(&mut self.errors.config_writes, 1),
        }
    }

    /// The driver set the device live with these `features`.
    pub fn activate(&mut self, features: u64, now_ms: u64) {
        self.driver = Some(features & OFFERED);
        self.moved_ms = now_ms;
    }

    /// The driver reset the device: everything learnt from it is forgotten, and all ballooned pages are the
    /// guest's again (Linux deflates before it removes its driver; a guest that reboots has forgotten them). The
    /// target, the counts of errors and what was reported stay. So does, until memory is [read](Self::survey) again, the
    /// advice on where huge pages may not be: a guest may reset as often as it likes, and that takes no time.
    pub fn reset(&mut self) {
        self.driver = None;
        self.config = Config { num_pages: self.config.num_pages, ..Config::default() };
        self.books.reset();
        self.kept_pages = 0;
        self.reminder = Reminder::default();
        self.backing.forget_deferred_advice();
        self.abandon();
        self.statistics.reset();
    }

    /// What queue number `index` is for, while there is a driver.
    #[must_use]
    pub fn queue(&self, index: usize) -> Option<Queue> {
        queues::queue(self.driver?, index)
    }

    /// The number of `queue`, while there is a driver that uses it.
    #[must_use]
    pub fn queue_index(&self, queue: Queue) -> Option<usize> {
        queues::index(self.driver?, queue)
    }

    // The queues' side: chains are gathered, then settled together, then returned to the driver.

    /// A chain begins. Returns false if the pass has enough: settle first.
    pub fn begin_chain(&mut self) -> bool {
        self.chain_start = self.batch.added();
        self.chain_start < PASS_PAGES
    }

    /// A chain could not be followed to its end, and nothing of it counts.
    pub fn malformed_chain(&mut self) {
        count(&mut self.errors.malformed_chains, 1);
    }

    /// A buffer lies outside memory or has the wrong direction.
    pub fn unusable_buffer(&mut self) {
        count(&mut self.errors.unusable_buffers, 1);
    }

    /// A buffer of `len_bytes` bytes holds page numbers to inflate or deflate; `bytes` are its first ones, up
    /// to [`PFNS_PER_DESCRIPTOR`] numbers.
    pub fn gather_numbers(&mut self, bytes: &[u8], len_bytes: u64) {
        let limit = PFNS_PER_DESCRIPTOR.saturating_mul(4);
        count(&mut self.errors.oversized_buffers, (len_bytes > limit as u64).into());
        count(&mut self.errors.misaligned_buffers, (!len_bytes.is_multiple_of(4)).into());
        self.batch.push_array(bytes.get(..limit).unwrap_or(bytes));
    }

    /// A buffer of `len_bytes` bytes at guest-physical `address` is reported free.
    pub fn gather_range(&mut self, address: u64, len_bytes: u64) {
        let (range, misaligned) = PageRange::within(address, len_bytes);
        count(&mut self.errors.misaligned_buffers, misaligned.into());
        let Some(range) = range else {
            // Whole pages, up to some that no number can say: they reach beyond all memory.
            return count(&mut self.errors.unusable_buffers, (!misaligned && len_bytes > 0).into());
        };
        let room = PAGES_PER_REPORT.saturating_sub(self.batch.added().saturating_sub(self.chain_start));
        count(&mut self.errors.oversized_buffers, (range.count() > room).into());
        let last = u64::from(range.first()).saturating_add(room).checked_sub(1);
        let last = last.map(|last| u32::try_from(last).unwrap_or(u32::MAX));
        let Some(accepted) = last.and_then(|last| PageRange::new(range.first(), last)) else { return };
        if let Some(range) = range.intersection(accepted) {
            self.batch.push(range);
        }
    }

    /// Carries out what was gathered from `queue`, or as much of it as [`PASS_COST`] allows; returns whether that was
    /// all. Only then may its buffers go back to the driver: until a report is returned the pages are nobody's, and an
    /// inflated page that was acknowledged may come back at any time.
    #[must_use]
    pub fn settle(&mut self, queue: Queue, now_ms: u64) -> bool {
        // Pages filled with a pattern must keep it (virtio 1.3, 5.5.6.7.2), which a page that went back to the host
        // does not.
        let poison = self.driver.is_some_and(|accepted| accepted & features::PAGE_POISON != 0);
        let keeps = queue == Queue::Reporting && poison && self.config.poison != 0;
        let costs = self.backing.costs(queue == Queue::Reporting && !keeps);
        let settled = self.batch.settle(self.books.layout(), PASS_COST, costs);
        self.chain_start = 0;
        count(&mut self.errors.foreign_pages, settled.foreign);
        let moved = match queue {
            Queue::Inflate => {
                let kept = self.backing.failures().pages;
                let entry = self.books.balloon(&self.backing.release(settled.runs));
                let kept = self.backing.failures().pages.saturating_sub(kept);
                count(&mut self.kept_pages, kept);
                self.backing.defer_huge_page_advice(settled.runs);
                count(&mut self.errors.duplicate_pages, settled.duplicates.saturating_add(entry.unchanged));
                entry.changed > 0
            }
            Queue::Deflate => {
                let entry = self.books.deflate(settled.runs);
                let books = &self.books;
                self.backing
                    .adapt_huge_pages_behind(books.layout(), settled.runs, |run| books.kept_small(run));
                // To the driver, what the host has kept is in the balloon.
                let kept = entry.unchanged.min(self.kept_pages);
                self.kept_pages = self.kept_pages.saturating_sub(kept);
                let unchanged = settled.duplicates.saturating_add(entry.unchanged.saturating_sub(kept));
                count(&mut self.errors.not_ballooned_pages, unchanged);
                entry.changed > 0
            }
            Queue::Reporting => {
                if keeps {
                    let pages = settled.runs.iter().fold(0u64, |sum, run| sum.saturating_add(run.count()));
                    count(&mut self.poisoned_pages, pages);
                } else {
                    let entry = self.books.report(&self.backing.release(settled.runs));
                    count(&mut self.errors.reported_ballooned_pages, entry.unchanged);
                    let books = &self.books;
                    self.backing.split_huge_pages(books.layout(), settled.runs, |run| books.kept_small(run));
                }
                false
            }
            Queue::Statistics => false,
        };
        if moved {
            self.moved_ms = now_ms;
        }
        self.batch.is_settled()
    }

    /// What was gathered and not settled does not count: the driver wants nothing of it any more.
    pub fn abandon(&mut self) {
        self.batch.clear();
        self.chain_start = 0;
    }

    // Statistics.

    /// Whether the next buffer of the statistics queue is to be read, and then kept.
    #[must_use]
    pub fn waits_for_statistics(&self) -> bool {
        self.statistics.waits()
    }

    /// A buffer of `len_bytes` bytes came on the statistics queue; `bytes` are its first ones, up to
    /// [`STATISTICS_BYTES`](super::STATISTICS_BYTES). Returns whether the driver is to be told that the configuration
    /// changed: they raise the floor above the ceiling, which then goes with it, or they say that the guest can spare
    /// again what its driver took out of the balloon.
    #[must_use]
    pub fn receive_statistics(&mut self, bytes: &[u8], len_bytes: u64, now_ms: u64) -> bool {
        let size_bytes = self.books.totals().size.saturating_mul(PAGE_BYTES);
        self.statistics.receive(bytes, len_bytes, size_bytes, now_ms, &mut self.errors);
        if let Some(sample) = self.statistics.latest() {
            self.floor.observe(&sample.values, size_bytes);
        }
        self.raise_ceiling_to_floor(now_ms) || self.reminds(now_ms)
    }

    /// A buffer came on the statistics queue that cannot be read: it is counted elsewhere, and answers a request
    /// without numbers.
    pub fn receive_no_statistics(&mut self) {
        self.statistics.receive_nothing();
    }

    /// The host asks for statistics: the buffer that the device keeps is to go back to the driver.
    ///
    /// # Errors
    /// There is no driver, it offers no statistics, or it has not answered the last request.
    pub fn request_statistics(&mut self, now_ms: u64) -> Result<(), RequestError> {
        let features = self.driver.ok_or(RequestError::NoDriver)?;
        if features & features::STATS_VQ == 0 {
            return Err(RequestError::NotOffered);
        }
        self.statistics.request(now_ms)
    }

    /// Whether a request for statistics is not answered, however old.
    #[must_use]
    pub fn statistics_pending(&self) -> bool {
        self.statistics.pending()
    }
}

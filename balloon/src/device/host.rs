//! The host's side of the device: what it wants of the driver, and what it is told.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::balloon::Balloon;
use super::errors::count;
use super::reminder::{self, Reminder};
use super::report::{DriverState, MemoryReport};
use crate::PAGE_BYTES;
use crate::backing::Kernel;
use crate::resident::{Residency, Scanner, Survey};
use crate::size::Size;
use std::io;

/// A driver that should move and has not for this long is called stuck. Linux tries again every 200 ms when
/// it finds no page.
pub const PROGRESS_DEADLINE_MS: u64 = 5000;

/// A ceiling that the device refuses: less than the guest needs to live, or more than it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is no ceiling of this microVM: it takes {} to {}",
    Size::from_bytes(*bytes).exact(), Size::from_bytes(*floor_bytes).exact(), Size::from_bytes(*max_bytes).exact()
)]
pub struct CeilingError {
    /// What was asked for.
    pub bytes: u64,
    /// The least there is.
    pub floor_bytes: u64,
    /// The most: all of the guest's memory.
    pub max_bytes: u64,
}

impl<K: Kernel> Balloon<K> {
    /// The least that a ceiling may be, in bytes.
    #[must_use]
    pub fn floor_bytes(&self) -> u64 {
        self.floor.pages().min(self.books.totals().size).saturating_mul(PAGE_BYTES)
    }

    /// Wants the guest to keep at most `bytes`, rounded up to a page, and the balloon to hold the rest. Returns
    /// whether that is new: then the driver, if there is one, is to be told that the configuration changed.
    ///
    /// The target holds for every driver to come. Whether one follows tells [`Self::driver`].
    ///
    /// # Errors
    /// The ceiling is below the floor or above the guest's memory.
    pub fn set_ceiling(&mut self, bytes: u64, now_ms: u64) -> Result<bool, CeilingError> {
        let size = self.books.totals().size;
        let (floor_bytes, max_bytes) = (self.floor_bytes(), size.saturating_mul(PAGE_BYTES));
        if !(floor_bytes..=max_bytes).contains(&bytes) {
            return Err(CeilingError { bytes, floor_bytes, max_bytes });
        }
        Ok(self.set_target(size.saturating_sub(bytes.div_ceil(PAGE_BYTES)), now_ms))
    }

    /// A ceiling that was set before the floor was known follows it. Returns whether it had to.
    pub(super) fn raise_ceiling_to_floor(&mut self, now_ms: u64) -> bool {
        let most = self.books.totals().size.saturating_sub(self.floor.pages());
        self.set_target(most.min(self.config.num_pages.into()), now_ms)
    }

    fn set_target(&mut self, pages: u64, now_ms: u64) -> bool {
        let target = u32::try_from(pages).unwrap_or(u32::MAX);
        let new = target != self.config.num_pages;
        if new {
            self.config.num_pages = target;
            self.moved_ms = now_ms;
            self.reminder = Reminder::default();
        }
        new
    }

    /// How the driver does.
    #[must_use]
    pub fn driver(&self, now_ms: u64) -> DriverState {
        if self.driver.is_none() {
            DriverState::Absent
        } else if self.config.actual == self.config.num_pages {
            DriverState::Settled
        } else if now_ms.saturating_sub(self.moved_ms) < PROGRESS_DEADLINE_MS {
            DriverState::Moving
        } else {
            DriverState::Stuck
        }
    }

    /// Whether statistics are wanted to judge if a driver that holds less than its target is to be told of it again.
    #[must_use]
    pub fn wants_statistics(&self, now_ms: u64) -> bool {
        let stands = self.driver(now_ms) == DriverState::Stuck && self.config.actual < self.config.num_pages;
        stands && self.reminder.is_due(now_ms.saturating_sub(self.moved_ms))
    }

    /// Whether the driver is to be told of its target again, by statistics that have just come.
    pub(super) fn reminds(&mut self, now_ms: u64) -> bool {
        let missing = self.config.num_pages.saturating_sub(self.config.actual);
        let statistics = self.statistics.at(now_ms).filter(|statistics| !statistics.stale);
        let reminds = self.wants_statistics(now_ms)
            && statistics.is_some_and(|statistics| reminder::spares(&statistics.values, missing.into()));
        if reminds {
            self.reminder.given();
            self.moved_ms = now_ms;
        }
        reminds
    }

    /// Reads on how much of the guest's memory the host holds, at most `max_pages` pages, and corrects the books by
    /// what it finds; so it does the advice on huge pages where it has looked. Returns the whole reading at its end.
    ///
    /// # Errors
    /// The host cannot tell.
    pub fn survey<S: Survey>(
        &mut self,
        scanner: &mut Scanner<S>,
        max_pages: u64,
    ) -> io::Result<Option<Residency>> {
        let Self { books, backing, taken_back_pages, .. } = self;
        // The books' layout is borrowed while they are corrected: it is a few regions long.
        let layout = books.layout().clone();
        let from = scanner.position();
        let reading = scanner.step(&layout, backing.mappings(), max_pages, |run| {
            let result = books.reconcile([run]);
            count(taken_back_pages, result.taken_back);
            result.ballooned_resident
        })?;
        let to = if reading.is_some() { (layout.regions().len(), 0) } else { scanner.position() };
        let walked: Vec<_> = layout.between(from, to).collect();
        backing.adapt_huge_pages(&layout, &walked, |run| books.kept_small(run));
        Ok(reading)
    }

    /// Everything, with the last reading of residency and when it ended.
    #[must_use]
    pub fn report(&self, reading: Option<(Residency, u64)>, now_ms: u64) -> MemoryReport {
        let (residency, read_ms) = reading.unzip();
        let bytes = |pages: u64| pages.saturating_mul(PAGE_BYTES);
        let totals = self.books.totals();
        let signed = |pages: u64| i64::try_from(bytes(pages)).unwrap_or(i64::MAX);
        MemoryReport {
            size: bytes(totals.size),
            ceiling: bytes(totals.size.saturating_sub(self.config.num_pages.into())),
            floor: self.floor_bytes(),
            ballooned: bytes(totals.ballooned),
            reported: bytes(totals.reported),
            guest_owned: bytes(totals.guest_owned()),
            reported_total: bytes(totals.reported_ever),
            reported_poisoned_total: bytes(self.poisoned_pages),
            taken_back_total: bytes(self.taken_back_pages),
            actual: bytes(self.config.actual.into()),
            skew: signed(self.config.actual.into()).saturating_sub(signed(totals.ballooned)),
            target: bytes(self.config.num_pages.into()),
            driver: self.driver(now_ms),
            residency,
            residency_age_ms: read_ms.map(|read_ms| now_ms.saturating_sub(read_ms)),
            statistics: self.statistics.at(now_ms),
            release_failures: self.backing.failures(),
            protocol_errors: self.errors,
        }
    }
}

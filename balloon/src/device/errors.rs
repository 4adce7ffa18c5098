//! What the driver did wrong, by kind. Counted and skipped, never fatal.

use serde::{Deserialize, Serialize};

/// Counts since the machine started; a reset of the device does not hide them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolErrors {
    /// Chains that broke off, were too long or had their parts in the wrong order.
    pub malformed_chains: u64,
    /// Buffers outside guest memory, or device-writable where the device reads, or the other way around.
    pub unusable_buffers: u64,
    /// Descriptors with more than 256 page numbers, reports of more than 128 MiB, oversized statistics: what
    /// exceeds the limit was ignored.
    pub oversized_buffers: u64,
    /// Arrays that end within a number, reports that begin or end within a page.
    pub misaligned_buffers: u64,
    /// Pages that are not guest memory.
    pub foreign_pages: u64,
    /// Pages inflated twice, in one request or over time.
    pub duplicate_pages: u64,
    /// Pages deflated that were not in the balloon.
    pub not_ballooned_pages: u64,
    /// Pages reported free while in the balloon.
    pub reported_ballooned_pages: u64,
    /// Writes to the configuration space other than of `actual` and `poison_val`, whole.
    pub config_writes: u64,
    /// Values of `actual` beyond the size of guest memory.
    pub impossible_actual: u64,
    /// Statistics whose tag nobody knows: a newer driver, not a fault.
    pub unknown_statistics: u64,
    /// Statistics that contradict themselves or the size of guest memory: the sample was dropped.
    pub implausible_statistics: u64,
}

impl ProtocolErrors {
    /// All of them but unknown statistics, which are no fault.
    #[must_use]
    pub fn total(&self) -> u64 {
        [
            self.malformed_chains,
            self.unusable_buffers,
            self.oversized_buffers,
            self.misaligned_buffers,
            self.foreign_pages,
            self.duplicate_pages,
            self.not_ballooned_pages,
            self.reported_ballooned_pages,
            self.config_writes,
            self.impossible_actual,
            self.implausible_statistics,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

/// Counts `more`.
pub(super) fn count(counter: &mut u64, more: u64) {
    *counter = counter.saturating_add(more);
}

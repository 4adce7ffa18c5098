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
    /// Pages deflated that were not in the balloon, but for as many as the host had refused to take back: those are in
    /// it to the driver.
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
    /// Each kind by the name of its field, and how often it happened.
    #[must_use]
    pub fn by_kind(&self) -> [(&'static str, u64); 12] {
        [
            ("malformed_chains", self.malformed_chains),
            ("unusable_buffers", self.unusable_buffers),
            ("oversized_buffers", self.oversized_buffers),
            ("misaligned_buffers", self.misaligned_buffers),
            ("foreign_pages", self.foreign_pages),
            ("duplicate_pages", self.duplicate_pages),
            ("not_ballooned_pages", self.not_ballooned_pages),
            ("reported_ballooned_pages", self.reported_ballooned_pages),
            ("config_writes", self.config_writes),
            ("impossible_actual", self.impossible_actual),
            ("unknown_statistics", self.unknown_statistics),
            ("implausible_statistics", self.implausible_statistics),
        ]
    }
}

/// Counts `more`.
pub(super) fn count(counter: &mut u64, more: u64) {
    *counter = counter.saturating_add(more);
}

//! Pages of guest-physical memory, by their numbers. Pure.
//!
//! The balloon speaks of 4 KiB pages with 32-bit numbers (virtio 1.3, 5.5.6), so a VM's memory ends at 16 TiB.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use crate::PAGE_BYTES;

/// Pages that follow one another; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageRange {
    first: u32,
    last: u32,
}

impl PageRange {
    /// The pages from `first` to `last`, both included; nothing if they are in the wrong order.
    #[must_use]
    pub fn new(first: u32, last: u32) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The whole pages within `bytes` bytes from guest-physical address `address` on, and whether the range
    /// had parts of pages besides. No range if there is no whole page, or if it lies beyond 16 TiB.
    #[must_use]
    pub fn within(address: u64, bytes: u64) -> (Option<Self>, bool) {
        let Some(end) = address.checked_add(bytes) else { return (None, true) };
        let aligned = address.is_multiple_of(PAGE_BYTES) && end.is_multiple_of(PAGE_BYTES);
        let first = u32::try_from(address.div_ceil(PAGE_BYTES));
        let last = (end / PAGE_BYTES).checked_sub(1).map(u32::try_from);
        match (first, last) {
            (Ok(first), Some(Ok(last))) => (Self::new(first, last), !aligned),
            _ => (None, !aligned),
        }
    }

    /// Number of the first page.
    #[must_use]
    pub fn first(self) -> u32 {
        self.first
    }

    /// Number of the last page.
    #[must_use]
    pub fn last(self) -> u32 {
        self.last
    }

    /// How many pages.
    #[must_use]
    pub fn count(self) -> u64 {
        u64::from(self.last).saturating_sub(u64::from(self.first)).saturating_add(1)
    }

    /// The pages in both ranges.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, last: u32) -> Option<PageRange> {
        PageRange::new(first, last)
    }

    #[test]
    fn only_whole_pages_lie_within_bytes() {
        assert_eq!(PageRange::within(0x1000, 0x2000), (range(1, 2), false));
        assert_eq!(PageRange::within(0x1001, 0x2000), (range(2, 2), true));
        assert_eq!(PageRange::within(0xfff, 0x1001), (range(1, 1), true));
        assert_eq!(PageRange::within(0x1001, 0xffe), (None, true));
        assert_eq!(PageRange::within(0, 0), (None, false));
        assert_eq!(PageRange::within(u64::MAX - 0xfff, 0x1000), (None, true));
        assert_eq!(PageRange::within((16 << 40) - 0x1000, 0x1000), (range(u32::MAX, u32::MAX), false));
        assert_eq!(PageRange::within(16 << 40, 0x1000), (None, false));
    }

    #[test]
    fn counts_and_intersects() {
        assert_eq!(range(0, u32::MAX).unwrap().count(), 1 << 32);
        assert_eq!(range(3, 9).unwrap().intersection(range(8, 12).unwrap()), range(8, 9));
        assert_eq!(range(3, 7).unwrap().intersection(range(8, 12).unwrap()), None);
        assert_eq!(range(4, 3), None);
    }
}

//! How low a ceiling may go: below what it needed to start, no guest lives.

use super::statistics::Values;
use crate::PAGE_BYTES;

/// The floor of every guest: about what a distribution's kernel of 256 MiB holds with a small workload.
pub const LEAST_FLOOR_BYTES: u64 = 96 << 20;

/// What a guest is left above what it used at its start: a shell and its libraries.
const BOOT_ROOM_BYTES: u64 = 16 << 20;

/// What a guest needs is an estimate: it is rounded up to what people read and type.
const STEP_BYTES: u64 = 1 << 20;

/// The least that the guest is left, in pages. The first sample of statistics fixes it, for good: a guest that
/// uses more later on must not be able to raise it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    pages: u64,
    fixed: bool,
}

impl Floor {
    pub(super) fn new(bytes: u64) -> Self {
        Self { pages: bytes.div_ceil(PAGE_BYTES), fixed: false }
    }

    pub(super) fn pages(self) -> u64 {
        self.pages
    }

    /// Takes note of what a guest of `size_bytes` says of itself.
    pub(super) fn observe(&mut self, values: &Values, size_bytes: u64) {
        let Some(left_bytes) = values.available_bytes.or(values.free_bytes) else { return };
        if !std::mem::replace(&mut self.fixed, true) {
            let needed_bytes = size_bytes.saturating_sub(left_bytes).saturating_add(BOOT_ROOM_BYTES);
            self.pages =
                self.pages.max(needed_bytes.div_ceil(STEP_BYTES).saturating_mul(STEP_BYTES / PAGE_BYTES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const PAGES: u64 = MIB / PAGE_BYTES;

    #[test]
    fn the_first_sample_fixes_the_floor() {
        let sample =
            |free, available| Values { free_bytes: free, available_bytes: available, ..Values::default() };
        let mut floor = Floor::new(96 * MIB);
        floor.observe(&sample(None, None), 512 * MIB);
        assert_eq!(floor.pages(), 96 * PAGES, "it says nothing");
        floor.observe(&sample(Some(100 * MIB), Some(400 * MIB)), 512 * MIB);
        assert_eq!(floor.pages(), 128 * PAGES);
        floor.observe(&sample(None, Some(MIB)), 512 * MIB);
        assert_eq!(floor.pages(), 128 * PAGES, "it has been fixed");
    }

    #[test]
    fn a_floor_is_what_people_type() {
        for left_bytes in [200 * MIB + 1, 201 * MIB - 1, 200 * MIB + PAGE_BYTES] {
            let mut floor = Floor::new(96 * MIB);
            floor.observe(&Values { free_bytes: Some(left_bytes), ..Values::default() }, 512 * MIB);
            assert_eq!(floor.pages(), 328 * PAGES, "{left_bytes}");
        }
        let mut floor = Floor::new(96 * MIB);
        floor.observe(&Values { free_bytes: Some(0), ..Values::default() }, u64::MAX);
        assert!(floor.pages() > u64::MAX / PAGE_BYTES - PAGES);
    }

    #[test]
    fn a_small_guest_keeps_the_least() {
        let mut floor = Floor::new(96 * MIB);
        floor.observe(&Values { free_bytes: Some(200 * MIB), ..Values::default() }, 256 * MIB);
        assert_eq!(floor.pages(), 96 * PAGES);
    }
}

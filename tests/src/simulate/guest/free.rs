//! Free memory of a guest that the host still holds, and how it comes back: free page reporting and the balloon.
//!
//! Eviction frees single pages, of which half lie in no free block large enough to be reported at the default order
//! until neighbours are freed, or the guest compacts, or a smaller order is asked for. Pure. Counts are pages.

/// Upstream's `PAGE_REPORTING_DELAY`, in seconds.
const DELAY_S: f64 = 2.0;

/// Share of evicted pages that lies scattered. The recordings of HyperAlloc's authors leave 8.0 of 16 GiB behind at
/// order 9 after all caches are dropped.
const SCATTERED: f64 = 0.5;

/// Share of pages freed in bulk that lies scattered.
const SCATTERED_BULK: f64 = 0.1;

/// Time in which scattered pages find neighbours, in seconds.
const MERGE_S: f64 = 300.0;

/// Highest order at which scattered pages are found: four pages of 4 KiB.
const FINE_ORDER: u8 = 4;

/// Share of scattered pages that one compaction brings together.
const COMPACTED: f64 = 0.9;

/// What the balloon of Ballast does a second, in pages: 512 MiB inflated in 1.119 s and deflated in 0.157 s.
pub const INFLATE_PER_S: f64 = 117_000.0;
/// As [`INFLATE_PER_S`].
pub const DEFLATE_PER_S: f64 = 834_000.0;

/// Free pages that the host still holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Free {
    whole: f64,
    scattered: f64,
    /// Least order of the blocks that are reported.
    pub order: u8,
}

impl Free {
    /// As the kernel starts: whole huge pages are reported.
    #[must_use]
    pub fn new() -> Self {
        Self { whole: 0.0, scattered: 0.0, order: 9 }
    }

    /// All of them.
    #[must_use]
    pub fn pages(&self) -> f64 {
        self.whole + self.scattered
    }

    /// Evicted pages have become free.
    pub fn evicted(&mut self, pages: f64) {
        self.scattered += pages * SCATTERED;
        self.whole += pages * (1.0 - SCATTERED);
    }

    /// A process has freed memory.
    pub fn freed(&mut self, pages: f64) {
        self.scattered += pages * SCATTERED_BULK;
        self.whole += pages * (1.0 - SCATTERED_BULK);
    }

    /// Pages are allocated: scattered ones first, as the buddy allocator splits no larger block than it must.
    pub fn take(&mut self, pages: f64) {
        let scattered = pages.min(self.scattered);
        self.scattered -= scattered;
        self.whole = (self.whole - (pages - scattered)).max(0.0);
    }

    /// Of all free pages of the guest no more than `free` are there.
    pub fn bound(&mut self, free: f64) {
        let ratio = (free.max(0.0) / self.pages().max(1e-9)).min(1.0);
        self.whole *= ratio;
        self.scattered *= ratio;
    }

    /// Brings scattered pages together.
    pub fn compact(&mut self) {
        self.whole += self.scattered * COMPACTED;
        self.scattered *= 1.0 - COMPACTED;
    }

    /// Reports for a tick. Pages leave for the host at the rate that a pass in each [`DELAY_S`] gives.
    pub fn report(&mut self, seconds: f64) {
        let merged = self.scattered * (seconds / MERGE_S).min(1.0);
        self.scattered -= merged;
        self.whole += merged;
        let left = 1.0 - (seconds / DELAY_S).min(1.0);
        self.whole *= left;
        if self.order <= FINE_ORDER {
            self.scattered *= left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_order_leaves_half_of_what_is_evicted_and_a_fine_one_nothing() {
        let mut free = Free::new();
        free.evicted(1000.0);
        (0..10).for_each(|_| free.report(1.0));
        assert!((free.pages() - 500.0).abs() < 30.0, "{free:?}");
        free.order = 0;
        (0..10).for_each(|_| free.report(1.0));
        assert!(free.pages() < 5.0, "{free:?}");
    }

    #[test]
    fn compaction_makes_them_whole() {
        let mut free = Free::new();
        free.evicted(1000.0);
        free.compact();
        (0..10).for_each(|_| free.report(1.0));
        assert!((free.pages() - 50.0).abs() < 10.0, "{free:?}");
    }
}

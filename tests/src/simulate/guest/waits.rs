//! What a guest's processes have yet to wait for memory, and what its kernel calls so. Pure.

/// Most of a tick that can be lost to it.
const MOST: f64 = 0.95;

/// Time that processes have yet to wait.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    all_s: f64,
    /// Of it, what the kernel tells as pressure: reclaim, and pages that had been in use when they were evicted.
    told_s: f64,
}

impl Waits {
    /// So much more, as the kernel tells.
    pub(super) fn owe(&mut self, seconds: f64) {
        self.all_s += seconds;
        self.told_s += seconds;
    }

    /// So much more, of which the kernel says nothing.
    pub(super) fn owe_untold(&mut self, seconds: f64) {
        self.all_s += seconds;
    }

    /// A tick goes by: what is waited of it, and what of that is told.
    pub(super) fn pass(&mut self, seconds: f64) -> (f64, f64) {
        let waited = self.all_s.min(MOST * seconds);
        let told = self.told_s * waited / self.all_s.max(1e-12);
        self.all_s -= waited;
        self.told_s -= told;
        (waited, told)
    }
}

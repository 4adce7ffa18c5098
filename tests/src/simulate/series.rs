//! One guest over time, for plots. Pure.

/// One second of it. Sizes are pages.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since the run began.
    pub second: u64,
    /// What the host held for it.
    pub footprint: f64,
    /// What it was allowed.
    pub ceiling: f64,
    /// What was not free in it.
    pub used: f64,
    /// Share of the second that it lost.
    pub stall: f64,
    /// Cumulative refaults.
    pub refaults: f64,
}

/// A guest over time.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its place in the plan.
    pub guest: usize,
    /// Second by second.
    pub moments: Vec<Moment>,
}

impl Series {
    /// Of the guest at a place in the plan.
    #[must_use]
    pub fn new(guest: usize) -> Self {
        Self { guest, moments: Vec::new() }
    }

    /// Adds a second.
    pub fn push(&mut self, moment: Moment) {
        self.moments.push(moment);
    }
}

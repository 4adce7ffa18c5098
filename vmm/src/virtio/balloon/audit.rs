//! Whether the page books add up. They are kept so that they must: if not, it is a fault of ours, and is told.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use balloon::frames::{Books, Imbalance};

/// Looks through the books now and then.
#[derive(Debug)]
pub(super) struct Audit {
    check: fn(&Books) -> Result<(), Imbalance>,
    imbalances: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self { check: Books::check, imbalances: 0 }
    }
}

impl Audit {
    /// Recounts `books`: two bits a page, some milliseconds for a TiB of guest memory.
    pub(super) fn look_through(&mut self, books: &Books) {
        let Err(imbalance) = (self.check)(books) else { return };
        self.imbalances = self.imbalances.saturating_add(1);
        // It will hardly heal, and the log is for others, too; but one message alone may be lost.
        if self.imbalances.is_power_of_two() {
            log::error!("please report this fault of Ballast (no. {}): {imbalance}", self.imbalances);
        }
    }

    /// How often they did not add up.
    pub(super) fn imbalances(&self) -> u64 {
        self.imbalances
    }

    /// One that finds `check`'s faults.
    #[cfg(test)]
    pub(super) fn finding(check: fn(&Books) -> Result<(), Imbalance>) -> Self {
        Self { check, imbalances: 0 }
    }
}

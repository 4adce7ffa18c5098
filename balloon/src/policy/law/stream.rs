//! Recycling: page cache may grow only as refaults explain. A stream, whose pages nobody needs twice, recycles its own.

use crate::PAGE_BYTES;
use crate::policy::Tuning;
use crate::policy::arithmetic::permille;
use crate::policy::meter::Delta;
use crate::policy::sample::Sample;

/// The page cache that is explained.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stream {
    explained_bytes: Option<u64>,
}

/// Page cache that came in and that nothing explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Excess {
    /// Beyond what is explained.
    pub(super) grown_bytes: u64,
    /// What may be unexplained.
    pub(super) allowance_bytes: u64,
    /// What to take, so that half the allowance is left.
    pub(super) bytes: u64,
}

impl Stream {
    /// Whatever is there is explained.
    pub(super) fn accept(&mut self, sample: &Sample) {
        self.explained_bytes = Some(sample.file_bytes());
    }

    /// Takes note of a sample. Each refault explains some growth.
    pub(super) fn passed(&mut self, sample: &Sample, delta: &Delta, tuning: &Tuning) {
        let file_bytes = sample.file_bytes();
        let explained = self.explained_bytes.unwrap_or(file_bytes);
        let refaulted =
            delta.refault_file.saturating_mul(PAGE_BYTES).saturating_mul(tuning.growth_per_refault);
        self.explained_bytes = Some(explained.saturating_add(refaulted).min(file_bytes));
    }

    /// What is to be recycled now.
    pub(super) fn excess(&self, sample: &Sample, tuning: &Tuning) -> Option<Excess> {
        // What is dirty must be written first.
        let clean_bytes = sample.file_bytes().saturating_sub(sample.dirty_bytes);
        let grown_bytes = clean_bytes.saturating_sub(self.explained_bytes?);
        let allowance_bytes = permille(sample.file_bytes(), tuning.stream_permille)
            .clamp(tuning.stream_least_bytes, tuning.stream_most_bytes);
        let bytes = grown_bytes.saturating_sub(allowance_bytes.div_euclid(2));
        (grown_bytes > allowance_bytes).then_some(Excess { grown_bytes, allowance_bytes, bytes })
    }
}

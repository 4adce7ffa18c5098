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
    /// Refaults, in pages, that explain nothing: of what is recycled some are wrong victims, and what they need is
    /// the room of the stream's pages.
    expected: u64,
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

    /// Pages were evicted to recycle a stream.
    pub(super) fn recycled(&mut self, pages: u64, tuning: &Tuning) {
        let most = tuning.stream_most_bytes.div_euclid(PAGE_BYTES);
        let more = permille(pages, tuning.wrong_permille);
        self.expected = self.expected.saturating_add(more).min(most);
    }

    /// Takes note of a sample. Each refault that was not to be expected explains some growth.
    pub(super) fn passed(&mut self, sample: &Sample, delta: &Delta, tuning: &Tuning) {
        let expected = self.expected.min(delta.refault_file);
        self.expected = self.expected.saturating_sub(expected);
        let refaults = delta.refault_file.saturating_sub(expected);
        let file_bytes = sample.file_bytes();
        let explained = self.explained_bytes.unwrap_or(file_bytes);
        let refaulted = refaults.saturating_mul(PAGE_BYTES).saturating_mul(tuning.growth_per_refault);
        self.explained_bytes = Some(explained.saturating_add(refaulted).min(file_bytes));
    }

    /// What is to be recycled now.
    pub(super) fn excess(&self, sample: &Sample, tuning: &Tuning) -> Option<Excess> {
        // What is dirty must be written first.
        let clean_bytes = sample.file_bytes().saturating_sub(sample.dirty_bytes);
        let grown_bytes = clean_bytes.saturating_sub(self.explained_bytes?);
        let allowance_bytes = permille(sample.file_bytes(), tuning.stream_permille)
            .max(tuning.stream_least_bytes)
            .min(tuning.stream_most_bytes);
        let bytes = grown_bytes.saturating_sub(allowance_bytes.div_euclid(2));
        (grown_bytes > allowance_bytes).then_some(Excess { grown_bytes, allowance_bytes, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// What a cache of 200 MiB may take of a stream of 64 MiB a second, of which a share comes back when it was recycled.
    fn explained(refault_permille: u64) -> u64 {
        let (mut stream, tuning) = (Stream::default(), Tuning::default());
        let mut sample = Sample { inactive_file_bytes: 200 * MIB, ..Sample::default() };
        stream.accept(&sample);
        let mut recycled = 0;
        for _ in 0..60 {
            sample.inactive_file_bytes = sample.inactive_file_bytes.saturating_add(64 * MIB);
            let refault_file = permille(recycled, refault_permille);
            stream.passed(&sample, &Delta { refault_file, ..Delta::default() }, &tuning);
            let taken = stream.excess(&sample, &tuning).map_or(0, |excess| excess.bytes);
            sample.inactive_file_bytes = sample.inactive_file_bytes.saturating_sub(taken);
            recycled = taken.div_euclid(PAGE_BYTES);
            stream.recycled(recycled, &tuning);
        }
        stream.explained_bytes.unwrap_or(0)
    }

    #[test]
    fn wrong_victims_explain_nothing_and_a_set_that_is_read_again_itself() {
        assert_eq!(explained(100), 200 * MIB);
        assert!(explained(1000) > 1024 * MIB, "{}", explained(1000));
    }
}

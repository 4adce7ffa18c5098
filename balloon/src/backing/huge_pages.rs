//! Where the host must not use huge pages: in ranges of which a part went back, to the balloon or reported free.
//!
//! Left alone, the host undoes that: `khugepaged` fills a range that has one page left up to a whole huge page
//! (`max_ptes_none` under /sys/kernel/mm/transparent_hugepage/khugepaged, 511 by default), and where no page is left the
//! guest's first touch does. A range that went back as a whole needs no such care, nor does one of which nothing did.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::frames::{Bitmap, Layout, Run};
use std::ops::Range;

/// Pages of a huge page (x86's PMD size: 2 MiB).
pub const PAGES_PER_HUGE_PAGE: u64 = 512;

/// To the host, each run of such ranges is a mapping of its own, and a process may have 65530 (`max_map_count`,
/// Documentation/admin-guide/sysctl/vm.rst). A guest that scatters its balloon over more than 64 GiB gets no further
/// ones: new parts of it go without advice, and what lies amid others stays on small pages.
const MOST_RUNS: u64 = 16 << 10;

/// Advice to be given to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// No huge pages here.
    Small,
    /// Huge pages again.
    Huge,
}

/// The advice in force.
#[derive(Debug)]
pub(super) struct HugePages {
    /// For each region a bit for each range of a huge page: small pages only.
    small: Vec<Bitmap>,
    runs: u64,
    /// Ranges that stay on small pages whatever the balloon does, with their region.
    kept: Vec<(usize, Range<u64>)>,
}

impl HugePages {
    pub(super) fn new(layout: &Layout) -> Self {
        let ranges = layout.regions().map(|pages| pages.count().div_ceil(PAGES_PER_HUGE_PAGE));
        Self { small: ranges.map(Bitmap::new).collect(), runs: 0, kept: Vec::new() }
    }

    /// Keeps huge pages out of `ranges` of a region for good.
    pub(super) fn keep_small(&mut self, region: usize, ranges: Range<u64>) {
        self.kept.push((region, ranges));
    }

    fn is_kept(&self, region: usize, range: u64) -> bool {
        self.kept.iter().any(|(of, ranges)| *of == region && ranges.contains(&range))
    }

    /// Whether huge pages are kept out of a range.
    pub(super) fn is_small(&self, region: usize, range: u64) -> bool {
        self.is_kept(region, range) || self.small.get(region).is_some_and(|small| small.count(range, 1) > 0)
    }

    /// The ranges that `run` touches, by number in its region.
    pub(super) fn ranges(run: Run) -> impl Iterator<Item = u64> {
        let end = run.first().saturating_add(run.count());
        run.first() / PAGES_PER_HUGE_PAGE..end.div_ceil(PAGES_PER_HUGE_PAGE)
    }

    /// What to advise for a range of whose `pages` pages `kept` want small ones, if that is new.
    pub(super) fn wanted(&self, region: usize, range: u64, kept: u64, pages: u64) -> Option<Advice> {
        let small = self.small.get(region).filter(|_| !self.is_kept(region, range))?;
        let room = self.runs < MOST_RUNS;
        match (kept, small.count(range, 1)) {
            // What would cut a run in two needs room, as what begins one does.
            (0, 1) if room || neighbours(small, range) < 2 => Some(Advice::Huge),
            (1.., 0) if kept < pages && (room || neighbours(small, range) > 0) => Some(Advice::Small),
            _ => None,
        }
    }

    /// The host took this `advice`, which was [wanted](Self::wanted).
    pub(super) fn given(&mut self, region: usize, range: u64, advice: Advice) {
        let Some(small) = self.small.get_mut(region) else { return };
        let neighbours = neighbours(small, range);
        match advice {
            Advice::Huge => {
                small.clear(range, 1);
                // Ends a run, shortens one, or cuts one in two.
                self.runs = self.runs.saturating_add(neighbours).saturating_sub(1);
            }
            Advice::Small => {
                small.set(range, 1);
                self.runs = self.runs.saturating_add(1).saturating_sub(neighbours);
            }
        }
    }
}

/// How many of a range's two neighbours are small.
fn neighbours(small: &Bitmap, range: u64) -> u64 {
    let bit = |number: Option<u64>| number.map_or(0, |number| small.count(number, 1));
    bit(range.checked_sub(1)).saturating_add(bit(range.checked_add(1)))
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: u64 = crate::BLOCK_BYTES;

    fn subject(blocks: u64) -> HugePages {
        HugePages::new(&Layout::new(&[(0, blocks * BLOCK), (2 * blocks * BLOCK, BLOCK)]).unwrap())
    }

    /// What is wanted, and given.
    fn change(pages: &mut HugePages, region: usize, range: u64, ballooned: u64, of: u64) -> Option<Advice> {
        let advice = pages.wanted(region, range, ballooned, of)?;
        pages.given(region, range, advice);
        Some(advice)
    }

    #[test]
    fn only_a_part_of_a_range_makes_it_small_and_nothing_huge_again() {
        let mut pages = subject(1);
        assert_eq!(change(&mut pages, 0, 0, 512, 512), None, "all of it went at once");
        assert_eq!(change(&mut pages, 0, 0, 511, 512), Some(Advice::Small));
        assert_eq!(change(&mut pages, 0, 0, 100, 512), None);
        assert_eq!(change(&mut pages, 0, 0, 512, 512), None, "it may stay as it is");
        assert_eq!(change(&mut pages, 1, 0, 1, 512), Some(Advice::Small), "another region");
        assert_eq!(pages.runs, 2);
        assert_eq!(change(&mut pages, 0, 0, 0, 512), Some(Advice::Huge));
        assert_eq!(change(&mut pages, 1, 0, 0, 512), Some(Advice::Huge));
        assert_eq!(change(&mut pages, 0, 0, 0, 512), None);
        assert_eq!(change(&mut pages, 7, 0, 1, 512), None, "no such region");
        assert_eq!(pages.runs, 0);
    }

    #[test]
    fn what_is_kept_small_stays_so() {
        let mut pages = subject(2);
        pages.keep_small(0, 1..3);
        assert_eq!([0, 1, 2, 3].map(|range| pages.is_small(0, range)), [false, true, true, false]);
        assert!(!pages.is_small(1, 1), "another region");
        for ballooned in [1, 0] {
            assert_eq!(change(&mut pages, 0, 1, ballooned, 512), None);
            assert!(change(&mut pages, 0, 3, ballooned, 512).is_some());
        }
        assert!(pages.is_small(0, 1) && !pages.is_small(0, 3));
    }

    #[test]
    fn mappings_of_the_host_are_bounded() {
        let mut pages = subject(3 * MOST_RUNS);
        let made =
            (0..6 * MOST_RUNS).step_by(2).filter(|range| change(&mut pages, 0, *range, 1, 512).is_some());
        assert_eq!(made.count() as u64, MOST_RUNS);
        assert_eq!(change(&mut pages, 0, 1, 1, 512), Some(Advice::Small), "this one joins two runs");
        assert_eq!(
            change(&mut pages, 0, 3 * MOST_RUNS, 1, 512),
            Some(Advice::Small),
            "now there is room for another"
        );
    }

    #[test]
    fn a_run_is_not_cut_into_more_than_there_may_be() {
        let mut pages = subject(3 * MOST_RUNS);
        for range in 0..6 * MOST_RUNS {
            assert_eq!(change(&mut pages, 0, range, 1, 512), Some(Advice::Small));
        }
        for range in (1..6 * MOST_RUNS).step_by(2) {
            change(&mut pages, 0, range, 0, 512);
        }
        assert_eq!(pages.runs, MOST_RUNS);
        let last = 6 * MOST_RUNS - 2;
        assert_eq!(change(&mut pages, 0, last, 0, 512), Some(Advice::Huge), "an end cuts nothing");
    }

    #[test]
    fn a_run_touches_the_ranges_of_its_ends_and_between() {
        let layout = Layout::new(&[(0, 2 * BLOCK)]).unwrap();
        let ranges =
            |first, count| HugePages::ranges(layout.run(0, first, count).unwrap()).collect::<Vec<_>>();
        assert_eq!(ranges(511, 1), [0]);
        assert_eq!(ranges(511, 2), [0, 1]);
        assert_eq!(ranges(512, 512), [1]);
        assert_eq!(ranges(0, 2048), [0, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn runs_are_counted(changes in prop::collection::vec((0u64..16, 0u64..3), 0..100)) {
            let mut pages = subject(8);
            let mut model = [false; 16];
            for (range, ballooned) in changes {
                // None, a part or all of it.
                let small = &mut model[range as usize];
                let advice = change(&mut pages, 0, range, ballooned, 2);
                let expected = match (ballooned, *small) {
                    (0, true) => Some(Advice::Huge),
                    (1, false) => Some(Advice::Small),
                    _ => None,
                };
                prop_assert_eq!(advice, expected);
                *small = advice.map_or(*small, |advice| advice == Advice::Small);
                let runs = model.chunk_by(|one, two| one == two).filter(|run| run[0]).count();
                prop_assert_eq!(pages.runs, runs as u64);
            }
        }
    }
}

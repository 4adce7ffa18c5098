//! Where a VM's memory lies: block-aligned regions with holes between them, in ascending order.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::blocks::Blocks;
use crate::pages::PageRange;
use crate::{BLOCK_BYTES, PAGE_BYTES};

/// Regions that are no layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A region is empty, or does not begin and end at a block.
    #[error(
        "guest memory at {address:#x}, {bytes} bytes, is not made of whole blocks of {BLOCK_BYTES} bytes"
    )]
    Unaligned {
        /// Guest-physical address of the region.
        address: u64,
        /// Its length.
        bytes: u64,
    },
    /// A region begins before the one before it ends.
    #[error("guest memory at {address:#x} overlaps or precedes the region before it")]
    Order {
        /// Guest-physical address of the region.
        address: u64,
    },
    /// Page numbers of the balloon have 32 bits.
    #[error("guest memory reaches 16 TiB, where the balloon has no page numbers")]
    TooLarge,
}

/// Pages that follow one another in one region. Only a [`Layout`] makes them, so they never leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    region: u32,
    first: u32,
    count: u32,
}

impl Run {
    /// Which region of the layout.
    #[must_use]
    pub fn region(self) -> usize {
        usize::try_from(self.region).unwrap_or(usize::MAX)
    }

    /// First page, counted from the region's begin.
    #[must_use]
    pub fn first(self) -> u64 {
        self.first.into()
    }

    /// How many pages.
    #[must_use]
    pub fn count(self) -> u64 {
        self.count.into()
    }

    /// The run's first `count` pages, if that is a shorter run.
    pub(crate) fn prefix(self, count: u64) -> Option<Self> {
        let count = u32::try_from(count).ok().filter(|&count| count > 0 && count < self.count)?;
        Some(Self { count, ..self })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Region {
    pages: PageRange,
    /// Pages in the regions before it.
    base: u64,
}

/// The regions of one VM's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    regions: Vec<Region>,
    blocks: Blocks,
    pages: u64,
}

impl Layout {
    /// A layout of `regions`: guest-physical address and length in bytes of each, ascending.
    ///
    /// # Errors
    /// A region is empty, unaligned, overlaps the one before it, or ends beyond 16 TiB.
    pub fn new(regions: &[(u64, u64)]) -> Result<Self, Error> {
        let mut layout =
            Self { regions: Vec::with_capacity(regions.len()), blocks: Blocks::default(), pages: 0 };
        for (number, &(address, bytes)) in (0..).zip(regions) {
            if bytes == 0 || !address.is_multiple_of(BLOCK_BYTES) || !bytes.is_multiple_of(BLOCK_BYTES) {
                return Err(Error::Unaligned { address, bytes });
            }
            // Without the very last number, so that a region's count has 32 bits too.
            let pages = PageRange::within(address, bytes).0.filter(|pages| pages.last() < u32::MAX);
            let pages = pages.ok_or(Error::TooLarge)?;
            if layout.regions.last().is_some_and(|before| before.pages.last() >= pages.first()) {
                return Err(Error::Order { address });
            }
            layout.blocks.push(number, pages);
            layout.regions.push(Region { pages, base: layout.pages });
            layout.pages = layout.pages.saturating_add(pages.count());
        }
        Ok(layout)
    }

    /// Pages in all regions.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Pages of each region, in order.
    pub fn regions(&self) -> impl ExactSizeIterator<Item = PageRange> + '_ {
        self.regions.iter().map(|region| region.pages)
    }

    /// Appends to `runs` what of `range` is memory, cut at the regions' borders; returns how many pages of it
    /// are none.
    pub fn cut(&self, range: PageRange, runs: &mut Vec<Run>) -> u64 {
        let mut foreign = range.count();
        let Some(first) = self.blocks.region_from(range.first()) else { return foreign };
        for (number, region) in self.regions.iter().enumerate().skip(first) {
            let Some(common) = region.pages.intersection(range) else { break };
            let count = common.count();
            foreign = foreign.saturating_sub(count);
            let offset = common.first().saturating_sub(region.pages.first());
            if let (Ok(region), Ok(count)) = (u32::try_from(number), u32::try_from(count)) {
                runs.push(Run { region, first: offset, count });
            }
        }
        foreign
    }

    /// The run of `count` pages from page `first` of region `region` on, if it lies within it.
    #[must_use]
    pub fn run(&self, region: usize, first: u64, count: u64) -> Option<Run> {
        let pages = self.regions.get(region)?.pages.count();
        let inside = count > 0 && first.checked_add(count)? <= pages;
        let run = Run {
            region: u32::try_from(region).ok()?,
            first: u32::try_from(first).ok()?,
            count: u32::try_from(count).ok()?,
        };
        inside.then_some(run)
    }

    /// All pages from `from` on and before `to`, each a region and a page of it, as a run a region.
    pub fn between(&self, from: (usize, u64), to: (usize, u64)) -> impl Iterator<Item = Run> + '_ {
        let regions = self.regions.iter().enumerate().take(to.0.saturating_add(1)).skip(from.0);
        regions.filter_map(move |(number, region)| {
            let first = if number == from.0 { from.1 } else { 0 };
            let end = if number == to.0 { to.1 } else { region.pages.count() };
            self.run(number, first, end.checked_sub(first)?)
        })
    }

    /// Where the bits of `run` begin in a bitmap over all regions.
    pub(crate) fn bit(&self, run: Run) -> u64 {
        // A run of another layout has no bits here: it maps beyond the end, where bitmaps ignore it.
        self.regions.get(run.region()).map_or(u64::MAX, |region| region.base.saturating_add(run.first()))
    }

    /// Guest-physical address of the first byte of `run`.
    #[must_use]
    pub fn address(&self, run: Run) -> u64 {
        let region = self.regions.get(run.region()).map_or(0, |region| u64::from(region.pages.first()));
        region.saturating_add(run.first()).saturating_mul(PAGE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = BLOCK_BYTES;
    const BLOCK_PAGES: u32 = 1024;

    fn layout() -> Layout {
        Layout::new(&[(0, BLOCK), (4 * BLOCK, 2 * BLOCK), (6 * BLOCK, BLOCK)]).unwrap()
    }

    fn cut(first: u32, last: u32) -> (Vec<(usize, u64, u64)>, u64) {
        let mut runs = Vec::new();
        let foreign = layout().cut(PageRange::new(first, last).unwrap(), &mut runs);
        (runs.iter().map(|run| (run.region(), run.first(), run.count())).collect(), foreign)
    }

    #[test]
    fn a_range_that_leaves_its_region_is_cut() {
        assert_eq!(cut(5, 5), (vec![(0, 5, 1)], 0));
        assert_eq!(cut(BLOCK_PAGES - 1, BLOCK_PAGES), (vec![(0, 1023, 1)], 1), "one page past the end");
        assert_eq!(cut(BLOCK_PAGES, 4 * BLOCK_PAGES - 1), (vec![], 3 * 1024), "all of it in the hole");
        assert_eq!(cut(1000, 4 * BLOCK_PAGES + 9), (vec![(0, 1000, 24), (1, 0, 10)], 3 * 1024));
        assert_eq!(
            cut(6 * BLOCK_PAGES - 1, 6 * BLOCK_PAGES),
            (vec![(1, 2047, 1), (2, 0, 1)], 0),
            "neighbours in guest memory need not be neighbours in the host's"
        );
        assert_eq!(cut(0, u32::MAX).1, (1 << 32) - 4096);
        assert_eq!(cut(u32::MAX, u32::MAX), (vec![], 1));
    }

    #[test]
    fn only_whole_ascending_blocks_are_a_layout() {
        let unaligned = |address, bytes| Err(Error::Unaligned { address, bytes });
        assert_eq!(Layout::new(&[(0, 0)]), unaligned(0, 0));
        assert_eq!(Layout::new(&[(4096, BLOCK)]), unaligned(4096, BLOCK));
        assert_eq!(Layout::new(&[(0, BLOCK + 4096)]), unaligned(0, BLOCK + 4096));
        assert_eq!(Layout::new(&[(BLOCK, BLOCK), (0, BLOCK)]), Err(Error::Order { address: 0 }));
        assert_eq!(Layout::new(&[(0, 2 * BLOCK), (BLOCK, BLOCK)]), Err(Error::Order { address: BLOCK }));
        assert_eq!(Layout::new(&[(16 << 40, BLOCK)]), Err(Error::TooLarge));
        assert_eq!(Layout::new(&[(0, 16 << 40)]), Err(Error::TooLarge));
        assert_eq!(Layout::new(&[(0, (16 << 40) - BLOCK)]).unwrap().pages(), (1 << 32) - 1024);
    }

    #[test]
    fn what_lies_between_two_pages_is_a_run_a_region() {
        let layout = layout();
        let runs = |from, to| {
            let runs = layout.between(from, to).map(|run| (run.region(), run.first(), run.count()));
            runs.collect::<Vec<_>>()
        };
        assert_eq!(runs((0, 0), (3, 0)), [(0, 0, 1024), (1, 0, 2048), (2, 0, 1024)]);
        assert_eq!(runs((0, 1000), (1, 7)), [(0, 1000, 24), (1, 0, 7)]);
        assert_eq!(runs((1, 7), (1, 9)), [(1, 7, 2)]);
        assert_eq!(runs((0, 1024), (1, 0)), [], "an end and a begin");
        assert_eq!(runs((1, 9), (1, 7)), []);
    }

    #[test]
    fn runs_are_made_within_a_region_only() {
        let layout = layout();
        assert_eq!(layout.address(layout.run(1, 3, 4).unwrap()), 4 * BLOCK + 3 * 4096);
        for (region, first, count) in [(0, 0, 0), (0, 1024, 1), (0, 1023, 2), (3, 0, 1), (1, u64::MAX, 2)] {
            assert_eq!(layout.run(region, first, count), None);
        }
    }
}

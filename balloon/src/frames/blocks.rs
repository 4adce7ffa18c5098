//! In which region a page lies, and so in which zone: a number for each block, so that a look-up is one read.

use crate::pages::PageRange;
use crate::{BLOCK_BYTES, PAGE_BYTES};

// A region is made of whole blocks: no block has pages of two.
const PAGES_PER_BLOCK: u64 = BLOCK_BYTES / PAGE_BYTES;

/// For each block up to the end of the last region the region that it lies in, or, of a hole, the next one behind it.
/// Takes four bytes a block, a millionth of the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    regions: Vec<u32>,
}

impl Blocks {
    /// Adds a region of whole blocks behind all others; `region` is its number.
    pub(super) fn push(&mut self, region: u32, pages: PageRange) {
        self.regions.resize(block(pages.last()).saturating_add(1), region);
    }

    /// The region that `page` lies in or before, whichever is next; nothing behind the last.
    pub(super) fn region_from(&self, page: u32) -> Option<usize> {
        self.regions.get(block(page)).and_then(|region| usize::try_from(*region).ok())
    }
}

fn block(page: u32) -> usize {
    usize::try_from(u64::from(page) / PAGES_PER_BLOCK).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "a test may fail by it")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGES: u32 = PAGES_PER_BLOCK as u32;

    fn table(regions: &[PageRange]) -> Blocks {
        let mut blocks = Blocks::default();
        (0..).zip(regions).for_each(|(number, pages)| blocks.push(number, *pages));
        blocks
    }

    #[test]
    fn a_hole_leads_to_what_lies_behind_it() {
        let pages = |first: u32, end: u32| PageRange::new(first * PAGES, end * PAGES - 1).unwrap();
        let table = table(&[pages(1, 3), pages(5, 6), pages(6, 8)]);
        let at = |block: u32| [block * PAGES, (block + 1) * PAGES - 1].map(|page| table.region_from(page));
        assert_eq!([0, 1, 2].map(at), [[Some(0); 2]; 3]);
        assert_eq!([3, 4, 5].map(at), [[Some(1); 2]; 3]);
        assert_eq!([6, 7].map(at), [[Some(2); 2]; 2]);
        assert_eq!((table.region_from(8 * PAGES), table.region_from(u32::MAX)), (None, None));
        assert_eq!(Blocks::default().region_from(0), None);
    }

    proptest! {
        #[test]
        fn a_table_finds_what_a_search_finds(
            list in prop::collection::vec((0u32..4, 1u32..6), 0..6),
            pages in prop::collection::vec(0u32..64 * PAGES, 32),
        ) {
            let (mut regions, mut end) = (Vec::new(), 0);
            for (hole, blocks) in list {
                let first = end + hole * PAGES;
                end = first + blocks * PAGES;
                regions.push(PageRange::new(first, end - 1).unwrap());
            }
            let table = table(&regions);
            for page in pages {
                prop_assert_eq!(table.region_from(page), regions.iter().position(|region| region.last() >= page));
            }
        }
    }
}

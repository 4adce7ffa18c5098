//! Pages of one pass of a queue, as runs: in order, without duplicates, as long as they can be, each in one
//! region.
//!
//! Drivers hand out pages mostly in order, upwards or downwards. So runs grow while page numbers are read, and
//! only the pieces are sorted: a stream in order costs less than a nanosecond a page, a scattered one a sort of
//! 64-bit numbers, a few hundredths of what the kernel takes to release it.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::frames::{Layout, Run};
use crate::pages::PageRange;

/// A batch under construction; kept and refilled, so that no pass allocates once it has grown.
#[derive(Debug, Default)]
pub struct Batch {
    /// The ranges so far: first page in the upper half, last page in the lower, so that numbers sort as ranges.
    pieces: Vec<u64>,
    /// Pages added, duplicates included.
    added: u64,
    /// What the last batch came to.
    runs: Vec<Run>,
    /// How many of these have been taken.
    taken: usize,
}

/// A part of a batch that has ended.
#[derive(Debug)]
pub struct Settled<'a> {
    /// Pages that are guest memory.
    pub runs: &'a [Run],
    /// Pages of the whole batch that were added more than once. None but in its first part.
    pub duplicates: u64,
    /// Pages of the whole batch that are not guest memory. None but in its first part.
    pub foreign: u64,
}

impl Batch {
    /// Pages added since the batch was settled, duplicates included.
    #[must_use]
    pub fn added(&self) -> u64 {
        self.added
    }

    /// Adds the page numbers in `array`, 32 bits each, little-endian (virtio 1.3, 5.5.6). An incomplete last one
    /// is ignored.
    pub fn push_array(&mut self, array: &[u8]) {
        let (numbers, _) = array.as_chunks::<4>();
        let Some((number, mut rest)) = numbers.split_first() else { return };
        let number = u32::from_le_bytes(*number);
        let (mut first, mut last) = (number, number);
        // Only a run that has begun is tried by the block, so that scattered numbers cost nothing more.
        let mut joined = false;
        loop {
            if joined && let Some((block, after)) = rest.split_first_chunk::<BLOCK>() {
                if let Some(end) = block_upwards(block, last) {
                    (last, rest) = (end, after);
                    continue;
                }
                if let Some(end) = block_downwards(block, first) {
                    (first, rest) = (end, after);
                    continue;
                }
            }
            let Some((number, after)) = rest.split_first() else { break };
            let number = u32::from_le_bytes(*number);
            rest = after;
            joined = true;
            if last.checked_add(1) == Some(number) {
                last = number;
            } else if number.checked_add(1) == Some(first) {
                first = number;
            } else {
                self.pieces.push(pack(first, last));
                (first, last) = (number, number);
                joined = false;
            }
        }
        self.pieces.push(pack(first, last));
        self.added = self.added.saturating_add(numbers.len() as u64);
    }

    /// Adds all pages of `range`.
    pub fn push(&mut self, range: PageRange) {
        self.pieces.push(pack(range.first(), range.last()));
        self.added = self.added.saturating_add(range.count());
    }

    /// Ends the batch, if it has not, and takes of what was added the next runs of `layout`: as many as cost no more than
    /// `most` together, or else one. They are asked for their `cost` in order.
    pub fn settle(&mut self, layout: &Layout, most: u64, mut cost: impl FnMut(Run) -> u64) -> Settled<'_> {
        let (duplicates, foreign) = if self.rest().is_empty() { self.join(layout) } else { (0, 0) };
        let mut room = Some(most);
        let mut fits = |run: &Run| {
            room = room.and_then(|room| room.checked_sub(cost(*run)));
            room.is_some()
        };
        let rest = self.rest();
        let count = rest.iter().take_while(|run| fits(run)).count().max(1).min(rest.len());
        let from = self.taken;
        self.taken = from.saturating_add(count);
        Settled { runs: self.runs.get(from..self.taken).unwrap_or_default(), duplicates, foreign }
    }

    /// Whether all that was added has been taken.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.rest().is_empty() && self.pieces.is_empty()
    }

    /// Forgets what was added and not taken.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.added = 0;
        self.taken = self.runs.len();
    }

    fn rest(&self) -> &[Run] {
        self.runs.get(self.taken..).unwrap_or_default()
    }

    /// What was added becomes runs. Returns how many pages are duplicates, and how many foreign.
    fn join(&mut self, layout: &Layout) -> (u64, u64) {
        self.runs.clear();
        self.taken = 0;
        self.pieces.sort_unstable();
        let (mut duplicates, mut foreign) = (0u64, 0u64);
        let mut open: Option<PageRange> = None;
        for range in self.pieces.iter().filter_map(|piece| unpack(*piece)) {
            open = match open {
                Some(before) if u64::from(range.first()) <= u64::from(before.last()).saturating_add(1) => {
                    duplicates =
                        duplicates.saturating_add(before.intersection(range).map_or(0, PageRange::count));
                    PageRange::new(before.first(), before.last().max(range.last()))
                }
                before => {
                    foreign = foreign.saturating_add(before.map_or(0, |b| layout.cut(b, &mut self.runs)));
                    Some(range)
                }
            };
        }
        foreign = foreign.saturating_add(open.map_or(0, |range| layout.cut(range, &mut self.runs)));
        self.pieces.clear();
        self.added = 0;
        (duplicates, foreign)
    }
}

/// Numbers that are looked at together, which takes a few vector instructions.
const BLOCK: usize = 16;
const BLOCK_NUMBERS: u32 = 16;

/// The last number of `block` if it goes on upwards from `last`.
fn block_upwards(block: &[[u8; 4]; BLOCK], last: u32) -> Option<u32> {
    let end = last.checked_add(BLOCK_NUMBERS)?;
    let expected = (1..=BLOCK_NUMBERS).map(|step| last.wrapping_add(step));
    all_equal(block, expected).then_some(end)
}

/// The last number of `block` if it goes on downwards from `first`.
fn block_downwards(block: &[[u8; 4]; BLOCK], first: u32) -> Option<u32> {
    let end = first.checked_sub(BLOCK_NUMBERS)?;
    let expected = (1..=BLOCK_NUMBERS).map(|step| first.wrapping_sub(step));
    all_equal(block, expected).then_some(end)
}

fn all_equal(block: &[[u8; 4]; BLOCK], expected: impl Iterator<Item = u32>) -> bool {
    let difference = |(number, expected): (&[u8; 4], u32)| u32::from_le_bytes(*number) ^ expected;
    block.iter().zip(expected).map(difference).fold(0, |all, one| all | one) == 0
}

fn pack(first: u32, last: u32) -> u64 {
    u64::from(first) << 32 | u64::from(last)
}

fn unpack(piece: u64) -> Option<PageRange> {
    PageRange::new(u32::try_from(piece >> 32).ok()?, u32::try_from(piece & u64::from(u32::MAX)).ok()?)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const BLOCK: u64 = crate::BLOCK_BYTES;

    fn layout() -> Layout {
        Layout::new(&[(0, BLOCK), (2 * BLOCK, BLOCK), (3 * BLOCK, BLOCK)]).unwrap()
    }

    fn all<'a>(batch: &'a mut Batch, layout: &Layout) -> Settled<'a> {
        batch.settle(layout, u64::MAX, |_| 0)
    }

    fn array(numbers: impl IntoIterator<Item = u32>) -> Vec<u8> {
        numbers.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    /// Numbers alone and in runs up and down.
    fn any_array() -> impl Strategy<Value = Vec<u32>> {
        let number = || prop_oneof![0u32..40, 1000u32..1040, 2040u32..4200];
        let run = (number(), 1u32..60, any::<bool>()).prop_map(|(first, count, up)| {
            let numbers = first..first + count;
            if up { numbers.collect() } else { numbers.rev().collect::<Vec<_>>() }
        });
        let piece = prop_oneof![number().prop_map(|number| vec![number]), run];
        prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    #[test]
    fn streams_in_order_are_one_run_either_way() {
        let layout = layout();
        let mut batch = Batch::default();
        let up = array(0..256);
        let down = array((256..512).rev());
        batch.push_array(&up);
        batch.push_array(&down);
        assert_eq!((batch.added(), batch.pieces.len()), (512, 2));
        let settled = all(&mut batch, &layout);
        assert_eq!(settled.runs, [layout.run(0, 0, 512).unwrap()]);
        assert_eq!((settled.duplicates, settled.foreign), (0, 0));
        assert_eq!(batch.added(), 0);
    }

    #[test]
    fn an_incomplete_number_and_the_largest_one_are_harmless() {
        let mut batch = Batch::default();
        batch.push_array(&[1, 2, 3]);
        batch.push_array(&[]);
        assert!(all(&mut batch, &layout()).runs.is_empty());
        // Upwards past the largest number and downwards past zero is no run.
        let wrapping =
            |first: u32, step: u32| (0..40).map(move |i: u32| first.wrapping_add(i.wrapping_mul(step)));
        batch.push_array(&array(wrapping(u32::MAX - 19, 1)));
        batch.push_array(&array(wrapping(19, u32::MAX)));
        let settled = all(&mut batch, &layout());
        assert_eq!(
            (settled.runs, settled.duplicates, settled.foreign),
            (&[layout().run(0, 0, 20).unwrap()][..], 40, 20)
        );
        batch.push_array(&array([u32::MAX, 0, u32::MAX, u32::MAX - 1]));
        let settled = all(&mut batch, &layout());
        assert_eq!((settled.runs.len(), settled.duplicates, settled.foreign), (1, 1, 2));
    }

    #[test]
    fn what_costs_too_much_is_taken_in_parts() {
        let layout = layout();
        let mut batch = Batch::default();
        let run = |first, count| layout.run(0, first, count).unwrap();
        batch.push_array(&array([9, 1, 2, 20, 5, 5, 1024, 30, 31, 32]));
        let settle = |batch: &mut Batch| {
            let settled = batch.settle(&layout, 3, Run::count);
            (settled.runs.to_vec(), settled.duplicates, settled.foreign)
        };
        assert_eq!(settle(&mut batch), (vec![run(1, 2), run(5, 1)], 1, 1));
        assert!(!batch.is_settled());
        assert_eq!(settle(&mut batch), (vec![run(9, 1), run(20, 1)], 0, 0));
        batch.push_array(&array(40..47));
        assert_eq!(settle(&mut batch), (vec![run(30, 3)], 0, 0), "the next batch waits");
        assert!(!batch.is_settled());
        assert_eq!(settle(&mut batch), (vec![run(40, 7)], 0, 0), "one goes whatever it costs");
        assert!(batch.is_settled());
        batch.push_array(&array([1, 5, 9, 11]));
        assert_eq!(settle(&mut batch).0.len(), 3);
        batch.clear();
        assert!(batch.is_settled() && settle(&mut batch).0.is_empty());
    }

    proptest! {
        #[test]
        fn runs_are_the_set_of_pages_added(
            arrays in prop::collection::vec(any_array(), 0..6),
            ranges in prop::collection::vec((0u32..4200, 0u32..1500), 0..4),
        ) {
            let layout = layout();
            let mut batch = Batch::default();
            let mut model = BTreeSet::new();
            let mut added = 0;
            for numbers in arrays {
                batch.push_array(&array(numbers.iter().copied()));
                added += numbers.len() as u64;
                model.extend(numbers);
            }
            for (first, more) in ranges {
                batch.push(PageRange::new(first, first + more).unwrap());
                added += u64::from(more) + 1;
                model.extend(first..=first + more);
            }
            prop_assert_eq!(batch.added(), added);
            let settled = all(&mut batch, &layout);
            prop_assert_eq!(settled.duplicates, added - model.len() as u64);
            let inside: BTreeSet<_> =
                model.iter().copied().filter(|page| *page < 1024 || (2048..4096).contains(page)).collect();
            prop_assert_eq!(settled.foreign, (model.len() - inside.len()) as u64);
            let pages = |run: &Run| {
                let first = (layout.address(*run) / 4096) as u32;
                first..first + run.count() as u32
            };
            let listed: Vec<_> = settled.runs.iter().flat_map(pages).collect();
            prop_assert!(listed.is_sorted_by(|one, two| one < two));
            prop_assert_eq!(listed, inside.into_iter().collect::<Vec<_>>());
            // Maximal: neighbours of one region are one run.
            for pair in settled.runs.windows(2) {
                let joint = pair[0].region() == pair[1].region()
                    && pair[0].first() + pair[0].count() == pair[1].first();
                prop_assert!(!joint);
            }
        }
    }
}

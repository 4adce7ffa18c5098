//! Moves ranges of memory to a node, a piece at a time. Pure but for what [`Nodes`] does.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::host::Nodes;
use crate::PAGE_BYTES;
use crate::backing::HostRange;
use std::io;

/// Bytes that one step moves: a millisecond or two of copying. Kernels before 6.7 let nobody of the process map a page
/// meanwhile.
const PIECE_BYTES: usize = 4 << 20;

/// How often pages are tried that did not move: those that a device or the guest's kernel has in hand at one moment are
/// free at the next.
const ROUNDS: u32 = 3;

/// Where memory lies, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// On the node.
    pub there: u64,
    /// On others.
    pub elsewhere: u64,
    /// What has been seen to move.
    pub moved: u64,
}

/// A move under way.
#[derive(Debug)]
pub struct Mover {
    ranges: Vec<HostRange>,
    node: u32,
    round: u32,
    range: usize,
    offset: usize,
    /// Of this round.
    placed: Placed,
    /// Something did not move in this round.
    left: bool,
}

impl Mover {
    /// Has all of `ranges` taken from `node` from now on, and gets ready to move what they hold.
    ///
    /// # Errors
    /// The host's answer: there is no such node. The ranges are then taken from `before`, as they were.
    pub fn begin(
        nodes: &mut impl Nodes,
        ranges: Vec<HostRange>,
        node: u32,
        before: Option<u32>,
    ) -> io::Result<Self> {
        prefer(nodes, &ranges, Some(node), before)?;
        Ok(Self { ranges, node, round: 1, range: 0, offset: 0, placed: Placed::default(), left: false })
    }

    /// Moves a piece. Where everything lies, once all of it has been tried.
    ///
    /// # Errors
    /// The host's answer. What has moved stays there, and what is touched comes from the new node.
    pub fn step(&mut self, nodes: &mut impl Nodes) -> io::Result<Option<Placed>> {
        let Some(range) = self.ranges.get(self.range) else { return Ok(self.end_round()) };
        let Some(piece) = range.part(self.offset, PIECE_BYTES) else {
            (self.range, self.offset) = (self.range.saturating_add(1), 0);
            return Ok(None);
        };
        self.offset = self.offset.saturating_add(piece.bytes());
        // Not only what is seen to lie elsewhere: what the host watches for its own balancing is in no count.
        let (before, _) = nodes.count(piece, self.node)?;
        self.left |= !nodes.move_to(piece, self.node)?;
        let (there, elsewhere) = nodes.count(piece, self.node)?;
        let Placed { there: all_there, elsewhere: all_elsewhere, moved } = &mut self.placed;
        add(all_there, there);
        add(all_elsewhere, elsewhere);
        add(moved, there.saturating_sub(before));
        Ok(None)
    }

    fn end_round(&mut self) -> Option<Placed> {
        if !self.left || self.round >= ROUNDS {
            return Some(self.placed);
        }
        let moved = self.placed.moved;
        (self.round, self.range, self.offset, self.left) = (self.round.saturating_add(1), 0, 0, false);
        self.placed = Placed { moved, ..Placed::default() };
        None
    }
}

/// Has all of `ranges` taken from `node` from now on, or from anywhere; what they hold stays.
///
/// # Errors
/// The host's answer. The ranges are then taken from `before`, as they were.
pub fn prefer(
    nodes: &mut impl Nodes,
    ranges: &[HostRange],
    node: Option<u32>,
    before: Option<u32>,
) -> io::Result<()> {
    for (done, range) in ranges.iter().enumerate() {
        nodes.prefer(*range, node).inspect_err(|_| {
            // What was taken from there until now can be again: this fails for want of memory at most.
            ranges.iter().take(done).for_each(|range| drop(nodes.prefer(*range, before)));
        })?;
    }
    Ok(())
}

fn add(bytes: &mut u64, pages: u64) {
    *bytes = bytes.saturating_add(pages.saturating_mul(PAGE_BYTES));
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::BLOCK_BYTES;
    use crate::backing::simulated::Simulated;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const FIRST: usize = 1 << 30;
    const PAGE: usize = PAGE_BYTES as usize;

    /// A host of two nodes.
    #[derive(Clone, Debug, Default)]
    struct Model {
        /// The node of each page that there is.
        pages: BTreeMap<usize, u32>,
        /// How often a page is busy before it can be moved.
        busy: BTreeMap<usize, u32>,
        /// Pages that the host watches: in no count until they have moved.
        watched: BTreeSet<usize>,
        preferred: BTreeMap<usize, Option<u32>>,
        refuse_beyond: Option<usize>,
        largest: usize,
    }

    impl Nodes for Model {
        fn prefer(&mut self, range: HostRange, node: Option<u32>) -> io::Result<()> {
            if node.is_some_and(|node| node > 1)
                || self.refuse_beyond.is_some_and(|end| range.address() >= end)
            {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            self.preferred.insert(range.address(), node);
            Ok(())
        }

        fn move_to(&mut self, range: HostRange, node: u32) -> io::Result<bool> {
            self.largest = self.largest.max(range.bytes());
            let mut all = true;
            for (page, lies) in self.pages.range_mut(range.address()..range.address() + range.bytes()) {
                match self.busy.get_mut(page) {
                    _ if *lies == node => {}
                    Some(busy) if *busy > 0 => (*busy, all) = (*busy - 1, false),
                    _ => {
                        *lies = node;
                        self.watched.remove(page);
                    }
                }
            }
            Ok(all)
        }

        fn count(&mut self, range: HostRange, node: u32) -> io::Result<(u64, u64)> {
            let pages = || {
                let pages = self.pages.range(range.address()..range.address() + range.bytes());
                pages.filter(|(page, _)| !self.watched.contains(page))
            };
            let there = pages().filter(|(_, lies)| **lies == node).count() as u64;
            Ok((there, pages().count() as u64 - there))
        }
    }

    fn ranges(sizes: &[u64]) -> Vec<HostRange> {
        let range = |(number, bytes): (usize, &u64)| Simulated::mapping(FIRST * (number + 1), *bytes).whole();
        sizes.iter().enumerate().filter_map(range).collect()
    }

    fn run(mover: &mut Mover, model: &mut Model) -> Placed {
        for _ in 0..1000 {
            if let Some(placed) = mover.step(model).unwrap() {
                return placed;
            }
        }
        panic!("it does not end")
    }

    proptest! {
        /// Every page is on the new node or counted, in pieces, whatever is busy how long.
        #[test]
        fn what_is_not_there_afterwards_is_counted(
            blocks in prop::collection::vec(1u64..4, 1..4),
            pages in prop::collection::btree_map(0usize..3 * 3072, (0u32..2, 0u32..5, any::<bool>()), 0..200),
        ) {
            let ranges = ranges(&blocks.iter().map(|blocks| blocks * BLOCK_BYTES).collect::<Vec<_>>());
            let mut model = Model::default();
            for (number, (node, busy, watched)) in pages {
                let Some(range) = ranges.get(number / 3072) else { continue };
                if number % 3072 * PAGE < range.bytes() {
                    let address = range.address() + number % 3072 * PAGE;
                    model.pages.insert(address, node);
                    model.busy.insert(address, busy);
                    if watched {
                        model.watched.insert(address);
                    }
                }
            }
            let Model { pages: before, busy, watched, .. } = model.clone();
            let mut mover = Mover::begin(&mut model, ranges.clone(), 1, None).unwrap();
            let placed = run(&mut mover, &mut model);
            let is_stuck = |address: &usize| before[address] == 0 && busy[address] >= ROUNDS;
            prop_assert!(model.pages.iter().all(|(address, node)| *node == u32::from(!is_stuck(address))));
            // What is watched is seen once it has moved.
            let bytes = |is: &dyn Fn(&usize) -> bool| before.keys().filter(|address| is(address)).count() as u64 * PAGE_BYTES;
            let moved = bytes(&|address| before[address] == 0 && !is_stuck(address));
            let expected = Placed {
                there: moved + bytes(&|address| before[address] == 1 && !watched.contains(address)),
                elsewhere: bytes(&|address| is_stuck(address) && !watched.contains(address)),
                moved,
            };
            prop_assert_eq!(placed, expected);
            prop_assert!(ranges.iter().all(|range| model.preferred[&range.address()] == Some(1)));
            prop_assert!(model.largest <= PIECE_BYTES);
        }
    }

    #[test]
    fn what_is_there_already_is_not_said_to_have_moved() {
        let mut model = Model::default();
        model.pages.insert(FIRST, 1);
        let mut mover = Mover::begin(&mut model, ranges(&[BLOCK_BYTES]), 1, None).unwrap();
        let there = Placed { there: PAGE_BYTES, elsewhere: 0, moved: 0 };
        assert_eq!(run(&mut mover, &mut model), there);
    }

    #[test]
    fn a_refused_node_changes_nothing() {
        let mut model = Model { refuse_beyond: Some(2 * FIRST), ..Model::default() };
        let both = ranges(&[BLOCK_BYTES, BLOCK_BYTES]);
        assert!(Mover::begin(&mut model, both.clone(), 1, Some(0)).is_err());
        assert_eq!(model.preferred, BTreeMap::from([(FIRST, Some(0))]));
        assert!(Mover::begin(&mut Model::default(), both, 2, None).is_err());
    }
}

//! Has the host swap out guest memory, a piece at a time. [`Pager`] is pure but for what [`Swap`] does; [`Host`] is the
//! Linux that this process runs on.
//!
//! `madvise(MADV_PAGEOUT)` takes what it is shown, cold or not, and no page that others map too. So an order goes on where
//! the last one ended: what was taken wrongly has come back by itself and is not next again. Reclaim of the VMM's cgroup
//! (`memory.reclaim`) would know what is cold, but before Linux 6.9 it cannot be told to leave page cache alone, and
//! image layers are charged to whoever touched them first: neighbours would pay.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::PAGE_BYTES;
use crate::backing::HostRange;
use crate::resident::{self, Extent, Survey};
use std::io;

/// Bytes that one step looks at: a huge page, so that none is taken in parts. To compress so much, or to write it, takes a
/// millisecond or two.
const PIECE_BYTES: usize = 2 << 20;

/// [`PAGE_BYTES`].
const PAGE: usize = 4096;

/// Who can say what is in memory, and swap it out.
pub trait Swap {
    /// As [`Survey::survey`].
    ///
    /// # Errors
    /// The host's answer.
    fn survey(&mut self, range: HostRange, found: &mut Vec<Extent>) -> io::Result<u64>;

    /// Swaps out what of `range` can be.
    ///
    /// # Errors
    /// The host's answer: it knows no such advice.
    fn page_out(&mut self, range: HostRange) -> io::Result<()>;
}

/// The Linux that this process runs on.
#[derive(Debug)]
pub struct Host(resident::Host);

impl Host {
    /// Asks the host what it can do, once; later nothing is opened.
    #[must_use]
    pub fn probe() -> Self {
        Self(resident::Host::probe())
    }
}

impl Swap for Host {
    fn survey(&mut self, range: HostRange, found: &mut Vec<Extent>) -> io::Result<u64> {
        self.0.survey(range, found)
    }

    #[expect(unsafe_code, reason = "here the kernel is called")]
    fn page_out(&mut self, range: HostRange) -> io::Result<()> {
        let (address, bytes) = (range.address() as *mut libc::c_void, range.bytes());
        // SAFETY: the range is mapped as long as the process lives; the call changes no content, only where it is kept.
        match unsafe { libc::madvise(address, bytes, libc::MADV_PAGEOUT) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Swaps out memory of a microVM, as much as it is asked to.
#[derive(Debug, Default)]
pub struct Pager {
    ranges: Vec<HostRange>,
    /// Where it goes on: which of them, and from which byte.
    range: usize,
    offset: usize,
    /// What is still wanted.
    left_bytes: usize,
    /// What has still to be looked at for it.
    unseen_bytes: usize,
    found: Vec<Extent>,
}

impl Pager {
    /// Of these ranges; nothing is asked for yet.
    #[must_use]
    pub fn new(ranges: Vec<HostRange>) -> Self {
        Self { ranges, ..Self::default() }
    }

    /// So much is wanted from now on, and nothing of what was before. All memory is looked at once for it.
    pub fn ask(&mut self, bytes: u64) {
        self.left_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.unseen_bytes = self.ranges.iter().fold(0, |sum, range| sum.saturating_add(range.bytes()));
    }

    /// Whether there is anything to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.left_bytes < PAGE || self.unseen_bytes == 0
    }

    /// Goes on with a piece. What was tried counts as done, whether it could be swapped out or not: the host's charge shows
    /// what came of it, and whoever asks asks again.
    ///
    /// # Errors
    /// The host's answer; nothing more is done then.
    pub fn step(&mut self, host: &mut impl Swap) -> io::Result<()> {
        if self.is_idle() {
            return Ok(());
        }
        let Some(piece) = self.ranges.get(self.range).and_then(|range| range.part(self.offset, PIECE_BYTES))
        else {
            let next = self.range.saturating_add(1);
            (self.range, self.offset) = (if next < self.ranges.len() { next } else { 0 }, 0);
            return Ok(());
        };
        let outcome = self.page_out(piece, host);
        let seen = *outcome.as_ref().unwrap_or(&0);
        self.offset = self.offset.saturating_add(seen);
        self.unseen_bytes = self.unseen_bytes.saturating_sub(seen);
        outcome.map(drop).inspect_err(|_| self.left_bytes = 0)
    }

    /// Returns how many bytes it has looked at.
    fn page_out(&mut self, piece: HostRange, host: &mut impl Swap) -> io::Result<usize> {
        self.found.clear();
        let seen = bytes(host.survey(piece, &mut self.found)?).clamp(PAGE, piece.bytes());
        for extent in self.found.iter().filter(|extent| !extent.swapped) {
            let wanted = self.left_bytes.min(bytes(extent.pages));
            let whole_pages = wanted.saturating_sub(wanted.checked_rem(PAGE).unwrap_or(0));
            let Some(part) = piece.part(bytes(extent.first), whole_pages) else { continue };
            host.page_out(part)?;
            self.left_bytes = self.left_bytes.saturating_sub(part.bytes());
        }
        Ok(seen)
    }
}

fn bytes(pages: u64) -> usize {
    usize::try_from(pages.saturating_mul(PAGE_BYTES)).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]
mod tests {
    use super::*;
    use crate::backing;
    use crate::scratch::Scratch;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const START: usize = 1 << 30;

    /// Pages in memory by number, from `START` on; looks at so many at once.
    struct Simulated {
        resident: BTreeSet<usize>,
        look: usize,
        fails: bool,
    }

    impl Swap for Simulated {
        fn survey(&mut self, range: HostRange, found: &mut Vec<Extent>) -> io::Result<u64> {
            let first = (range.address() - START) / PAGE;
            let pages = (range.bytes() / PAGE).min(self.look);
            let here = self.resident.range(first..first + pages);
            found.extend(here.map(|page| Extent {
                first: (page - first) as u64,
                pages: 1,
                huge: false,
                swapped: false,
            }));
            Ok(pages as u64)
        }

        fn page_out(&mut self, range: HostRange) -> io::Result<()> {
            if self.fails {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let first = (range.address() - START) / PAGE;
            self.resident.retain(|page| !(first..first + range.bytes() / PAGE).contains(page));
            Ok(())
        }
    }

    fn range(first: usize, pages: usize) -> HostRange {
        let mapping = backing::simulated::Simulated::mapping(START + first * PAGE, (pages * PAGE) as u64);
        mapping.whole().unwrap()
    }

    fn run(pager: &mut Pager, host: &mut Simulated) {
        for _ in 0..100_000 {
            if pager.is_idle() {
                return;
            }
            let _ = pager.step(host);
        }
        panic!("it does not end: {pager:?}");
    }

    #[test]
    fn the_next_order_goes_on_where_the_last_one_ended() {
        let mut host = Simulated { resident: (0..2000).collect(), look: 4096, fails: false };
        let mut pager = Pager::new(vec![range(0, 1000), range(1000, 1000)]);
        pager.ask(600 * PAGE_BYTES);
        run(&mut pager, &mut host);
        assert_eq!(host.resident, (600..2000).collect());
        pager.ask(500 * PAGE_BYTES);
        run(&mut pager, &mut host);
        // The rest of a piece of which a part was enough has its turn in the next round.
        assert_eq!(host.resident, (600..1000).chain(1500..2000).collect());
        pager.ask(u64::MAX);
        run(&mut pager, &mut host);
        assert!(host.resident.is_empty());
    }

    #[test]
    fn a_host_that_knows_no_such_advice_is_not_asked_again() {
        let mut host = Simulated { resident: (0..9).collect(), look: 4096, fails: true };
        let mut pager = Pager::new(vec![range(0, 100)]);
        pager.ask(PAGE_BYTES);
        assert!(pager.step(&mut host).is_err() && pager.is_idle());
    }

    #[test]
    fn the_host_takes_the_advice_and_keeps_what_is_there() {
        let scratch = Scratch::anonymous(4 << 20);
        scratch.fill(0, 1024, 7);
        let mut pager = Pager::new(vec![scratch.mapping().whole().unwrap()]);
        pager.ask(1 << 20);
        let mut host = Host::probe();
        while !pager.is_idle() {
            pager.step(&mut host).unwrap();
        }
        assert_eq!(pager.left_bytes, 0, "all of it was there to be tried");
        assert!((0..1024).all(|page| scratch.byte(page) == 7));
    }

    proptest! {
        /// Never more than asked, never less than there is of it, and it ends, however little the host looks at at once.
        #[test]
        fn as_much_as_is_asked_and_there(
            resident in prop::collection::btree_set(0..3000usize, 0..600),
            order in 0..4000usize,
            look in 1..5000usize,
            split in 1..2999usize,
        ) {
            let before = resident.len();
            let mut host = Simulated { resident, look, fails: false };
            let mut pager = Pager::new(vec![range(0, split), range(split, 3000 - split)]);
            pager.ask((order * PAGE) as u64 + 17);
            run(&mut pager, &mut host);
            prop_assert_eq!(before - host.resident.len(), order.min(before));
        }
    }
}

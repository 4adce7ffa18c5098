//! The books themselves: two bits a page, and how many are set in each region.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::{Bitmap, Layout, Run};
use crate::backing::Released;
use serde::{Deserialize, Serialize};

/// Which of a VM's pages are ballooned, reported or its own.
#[derive(Clone, Debug)]
pub struct Books {
    layout: Layout,
    ballooned: Bitmap,
    reported: Bitmap,
    /// What is marked in each region, so that nobody who asks has the bits counted.
    marked: Vec<Marked>,
    reported_ever: u64,
    entries: u64,
}

/// Pages of one region by state; the others are the guest's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// Pages in the balloon.
    pub ballooned: u64,
    /// Pages last known as reported free and not taken back.
    pub reported: u64,
}

/// Pages by state, and what was ever returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// All pages of the VM.
    pub size: u64,
    /// Pages in the balloon.
    pub ballooned: u64,
    /// Pages last known as reported free and not taken back.
    pub reported: u64,
    /// Pages returned by reporting since the machine started, counted each time.
    pub reported_ever: u64,
}

impl Totals {
    /// Pages that are the guest's own.
    #[must_use]
    pub fn guest_owned(self) -> u64 {
        self.size.saturating_sub(self.ballooned).saturating_sub(self.reported)
    }
}

/// What an entry changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Pages whose state it changed.
    pub changed: u64,
    /// Pages that it could not change: already ballooned, or not ballooned when deflated.
    pub unchanged: u64,
}

/// What residency says of the books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Reported pages that the guest has taken back; they are its own again.
    pub taken_back: u64,
    /// Ballooned pages that the host holds, by the guest's touch or with a huge page of the host.
    pub ballooned_resident: u64,
}

/// Books that contradict themselves. None of their operations leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Imbalance {
    /// A region has not as many pages marked as it is said to.
    #[error("page books do not add up: region {region} is kept with {kept:?}, and {counted:?} are marked")]
    Count {
        /// Its number in the layout.
        region: usize,
        /// What is kept of it.
        kept: Marked,
        /// What its bits say.
        counted: Marked,
    },
    /// A page is ballooned and reported.
    #[error("page books do not add up: some pages are marked as ballooned and as reported")]
    Both,
}

impl Books {
    /// Books in which every page is the guest's.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        let size = layout.pages();
        let marked = vec![Marked::default(); layout.regions().len()];
        Self {
            layout,
            ballooned: Bitmap::new(size),
            reported: Bitmap::new(size),
            marked,
            reported_ever: 0,
            entries: 0,
        }
    }

    /// Where the memory lies.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Pages by state.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let sum = |pages: fn(&Marked) -> u64| self.marked.iter().map(pages).fold(0, u64::saturating_add);
        Totals {
            size: self.layout.pages(),
            ballooned: sum(|marked| marked.ballooned),
            reported: sum(|marked| marked.reported),
            reported_ever: self.reported_ever,
        }
    }

    /// How often something was entered that the driver did. What residency corrects is no entry.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// What is marked in each region of the layout, in order.
    #[must_use]
    pub fn marked(&self) -> &[Marked] {
        &self.marked
    }

    /// Released pages are in the balloon now, whatever they were. [`Entry::unchanged`] were there before.
    pub fn balloon(&mut self, released: &Released<'_>) -> Entry {
        self.entries = self.entries.saturating_add(1);
        let mut entry = Entry::default();
        for run in released.runs() {
            let bit = self.layout.bit(*run);
            let new = self.ballooned.set(bit, run.count());
            let reported = self.reported.clear(bit, run.count());
            self.mark(*run, |marked| {
                marked.ballooned = marked.ballooned.saturating_add(new);
                marked.reported = marked.reported.saturating_sub(reported);
            });
            entry.add(new, run.count());
        }
        entry
    }

    /// The driver takes pages out of the balloon; they are the guest's. [`Entry::unchanged`] were not in it.
    pub fn deflate(&mut self, runs: &[Run]) -> Entry {
        self.entries = self.entries.saturating_add(1);
        let mut entry = Entry::default();
        for run in runs {
            let old = self.ballooned.clear(self.layout.bit(*run), run.count());
            self.mark(*run, |marked| marked.ballooned = marked.ballooned.saturating_sub(old));
            entry.add(old, run.count());
        }
        entry
    }

    /// Released pages were reported free. [`Entry::unchanged`] are ballooned and stay so; a page that is
    /// reported again, having been taken back unseen, counts as changed.
    pub fn report(&mut self, released: &Released<'_>) -> Entry {
        self.entries = self.entries.saturating_add(1);
        let mut entry = Entry::default();
        for run in released.runs() {
            let bit = self.layout.bit(*run);
            let ballooned = self.ballooned.count(bit, run.count());
            let mut new = self.reported.set(bit, run.count());
            if ballooned > 0 {
                new = new.saturating_sub(self.reported.subtract(&self.ballooned, bit, run.count()));
            }
            self.mark(*run, |marked| marked.reported = marked.reported.saturating_add(new));
            entry.add(run.count().saturating_sub(ballooned), run.count());
        }
        self.reported_ever = self.reported_ever.saturating_add(entry.changed);
        entry
    }

    /// The driver is gone: what was in the balloon is the guest's. What was reported stays so. The books are gone through
    /// only if there was something in it.
    pub fn reset(&mut self) {
        self.entries = self.entries.saturating_add(1);
        if self.totals().ballooned > 0 {
            self.ballooned.clear_all();
            self.marked.iter_mut().for_each(|marked| marked.ballooned = 0);
        }
    }

    /// Corrects the books by residency: `held` are the runs that the host has in memory or has swapped out. Pages released
    /// between the reading and this call lose their mark as reported; the next reading cannot restore it, only
    /// the next report can. Read and reconcile under one lock.
    pub fn reconcile(&mut self, held: impl IntoIterator<Item = Run>) -> Reconciled {
        let mut result = Reconciled::default();
        for run in held {
            let bit = self.layout.bit(run);
            let taken_back = self.reported.clear(bit, run.count());
            self.mark(run, |marked| marked.reported = marked.reported.saturating_sub(taken_back));
            result.taken_back = result.taken_back.saturating_add(taken_back);
            let intruded = self.ballooned.count(bit, run.count());
            result.ballooned_resident = result.ballooned_resident.saturating_add(intruded);
        }
        result
    }

    /// Ballooned pages in `run`.
    #[must_use]
    pub fn ballooned_in(&self, run: Run) -> u64 {
        self.ballooned.count(self.layout.bit(run), run.count())
    }

    /// Reported pages in `run`.
    #[must_use]
    pub fn reported_in(&self, run: Run) -> u64 {
        self.reported.count(self.layout.bit(run), run.count())
    }

    /// Pages in `run` that a huge page of the host would bring back unasked: what is in the balloon, or else what was
    /// reported. None if all of the run was reported, as then the guest's next touch may fill it.
    #[must_use]
    pub fn kept_small(&self, run: Run) -> u64 {
        match (self.ballooned_in(run), self.reported_in(run)) {
            (0, reported) if reported < run.count() => reported,
            (ballooned, _) => ballooned,
        }
    }

    /// Recounts everything: each region has as many pages ballooned and reported as it is said to, and none is both.
    ///
    /// # Errors
    /// What is kept is not what the bits say.
    pub fn check(&self) -> Result<(), Imbalance> {
        for (region, (pages, kept)) in self.layout.regions().zip(&self.marked).enumerate() {
            let all = self.layout.run(region, 0, pages.count());
            let counted = all.map_or_else(Marked::default, |all| Marked {
                ballooned: self.ballooned_in(all),
                reported: self.reported_in(all),
            });
            if counted != *kept {
                return Err(Imbalance::Count { region, kept: *kept, counted });
            }
        }
        if self.ballooned.is_disjoint(&self.reported) { Ok(()) } else { Err(Imbalance::Both) }
    }

    /// A run of another layout has no bits here either.
    fn mark(&mut self, run: Run, change: impl FnOnce(&mut Marked)) {
        if let Some(marked) = self.marked.get_mut(run.region()) {
            change(marked);
        }
    }
}

impl Entry {
    fn add(&mut self, changed: u64, of: u64) {
        self.changed = self.changed.saturating_add(changed);
        self.unchanged = self.unchanged.saturating_add(of.saturating_sub(changed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backing::simulated::{Simulated, backing};

    /// Books of which some pages are ballooned and others reported.
    fn books() -> Books {
        let layout =
            Layout::new(&[(0, crate::BLOCK_BYTES), (4 * crate::BLOCK_BYTES, crate::BLOCK_BYTES)]).unwrap();
        let mut books = Books::new(layout.clone());
        let mut backing = backing(&layout, &[], Simulated::default());
        let _ = books.balloon(&backing.release(&[layout.run(0, 0, 10).unwrap()]));
        let _ = books.report(&backing.release(&[layout.run(0, 100, 20).unwrap()]));
        assert_eq!(books.check(), Ok(()));
        books
    }

    #[test]
    fn books_that_contradict_themselves_are_found() {
        let changes: [fn(&mut Books); 6] = [
            |books| books.marked[0].ballooned = 9,
            |books| books.marked[0].reported = 21,
            // The sums are right.
            |books| {
                books.marked[0].ballooned -= 1;
                books.marked[1].ballooned += 1;
            },
            |books| {
                let _ = books.ballooned.set(500, 1);
            },
            |books| {
                let _ = books.reported.clear(100, 1);
            },
            // One page is both, and the counts are right.
            |books| {
                let _ = (books.reported.clear(119, 1), books.reported.set(9, 1));
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut books = books();
            change(&mut books);
            let Err(found) = books.check() else { panic!("change {number} is not found") };
            match found {
                Imbalance::Count { region, kept, counted } => {
                    assert_eq!((region, kept), (0, books.marked[0]), "change {number}");
                    assert!(number < 5 && kept != counted, "change {number}: {found}");
                }
                Imbalance::Both => assert_eq!(number, 5),
            }
        }
    }
}

//! What it costs the host to take memory back, in one unit, so that a pass can be bounded in that. Pure.
//!
//! The unit is what a page of small memory takes in a long run. On a Linux 6.18 host, itself a guest, that is 0.45 us;
//! cutting a huge page, by a page table for it and advice on it, takes 15 to 25 us, and splitting one 0.9 to 1 ms.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::huge_pages::PAGES_PER_HUGE_PAGE;
use super::kernel::Kernel;
use super::mapping::Mapping;
use super::release::Backing;
use crate::frames::Run;

/// What a range of a huge page that goes back in part costs. About the same where it has been cut before: that its
/// pages are a run of their own.
pub const CUT_PAGES: u64 = 64;

/// What it costs if the range is split then.
pub const SPLIT_PAGES: u64 = 2048;

impl<K: Kernel> Backing<K> {
    /// Says what each run costs, asked in order; with `splits`, [split](Self::split_huge_pages) besides.
    pub fn costs(&self, splits: bool) -> impl FnMut(Run) -> u64 + '_ {
        let mut last = None;
        move |run| {
            let region = run.region();
            let can_split =
                splits && self.has_huge_pages && self.mappings.get(region).is_some_and(Mapping::may_be_huge);
            cut(run).fold(run.count(), |sum, range| {
                // Once it is on small pages, there is nothing to split.
                let whole = can_split && !self.huge_pages.is_small(region, range);
                let is_new = last.replace((region, range)) != Some((region, range));
                sum.saturating_add(if whole && is_new { SPLIT_PAGES } else { CUT_PAGES })
            })
        }
    }
}

/// The ranges of a huge page that `run` touches in part: at most those of its ends.
fn cut(run: Run) -> impl Iterator<Item = u64> {
    let (first, end) = (run.first(), run.first().saturating_add(run.count()));
    let partly =
        |page: u64| (!page.is_multiple_of(PAGES_PER_HUGE_PAGE)).then_some(page / PAGES_PER_HUGE_PAGE);
    let (head, tail) = (partly(first), partly(end));
    head.into_iter().chain(tail.filter(|_| tail != head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backing::simulated::{Answer, layout, runs, subject};

    #[test]
    fn a_run_cuts_at_most_the_ranges_of_its_ends() {
        for (first, count, expected) in [
            (0, 512, &[][..]),
            (0, 1024, &[]),
            (0, 1, &[0]),
            (511, 1, &[0]),
            (3, 4, &[0]),
            (511, 2, &[0, 1]),
            (1, 511, &[0]),
            (512, 511, &[1]),
            (1, 1022, &[0, 1]),
        ] {
            let run = layout().run(0, first, count).unwrap();
            assert_eq!(cut(run).collect::<Vec<_>>(), expected, "{first} {count}");
        }
    }

    #[test]
    fn a_split_is_paid_once_and_only_where_there_is_one() {
        let mut subject = subject(&[]);
        let asked = runs(&[(0, 1, 1), (0, 9, 1), (0, 511, 2), (1, 0, 512), (2, 5, 1)]);
        let costs = |subject: &super::Backing<_>, splits| {
            asked.iter().copied().map(subject.costs(splits)).collect::<Vec<_>>()
        };
        let cut = 1 + CUT_PAGES;
        assert_eq!(costs(&subject, false), [cut, cut, 2 + 2 * CUT_PAGES, 512, cut]);
        let both = 2 + CUT_PAGES + SPLIT_PAGES;
        assert_eq!(
            costs(&subject, true),
            [1 + SPLIT_PAGES, cut, both, 512, cut],
            "of a file nothing is split"
        );
        subject.split_huge_pages(&layout(), &asked[..1], |_| 1);
        assert_eq!(costs(&subject, true), [cut, cut, both, 512, cut]);
        subject.kernel_mut().script(&[Answer::Errno(libc::EINVAL)]);
        subject.split_huge_pages(&layout(), &asked, |_| 1);
        assert_eq!(costs(&subject, true), costs(&subject, false), "a host without huge pages");
    }
}

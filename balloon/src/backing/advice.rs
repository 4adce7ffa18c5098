//! Tells the host where it must not use huge pages, as `huge_pages` has it.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::huge_pages::{Advice, HugePages, PAGES_PER_HUGE_PAGE};
use super::kernel::Kernel;
use super::mapping::{HostRange, Mapping};
use super::release::Backing;
use crate::frames::{Layout, Run};
use std::ops::Range;

/// Neighbouring ranges of one region that want the same advice.
struct Stretch {
    region: usize,
    ranges: Range<u64>,
    advice: Advice,
}

impl Stretch {
    /// Whether a range was its next one, and now belongs to it.
    fn take_up(&mut self, region: usize, range: u64, advice: Advice) -> bool {
        let next = (self.region, self.ranges.end, self.advice) == (region, range, advice);
        if next {
            self.ranges.end = range.saturating_add(1);
        }
        next
    }
}

impl<K: Kernel> Backing<K> {
    /// Keeps the host's huge pages out of what the balloon holds a part of, around `runs`, whose state has changed, and
    /// lets them in again where it holds nothing any more. `ballooned` says how many pages of a run it holds. Advice:
    /// a host that refuses it runs the guest all the same, and is asked again when the range changes again.
    ///
    /// `runs` are in order, as a batch leaves them: then neighbours share a system call.
    pub fn adapt_huge_pages(&mut self, layout: &Layout, runs: &[Run], ballooned: impl Fn(Run) -> u64) {
        let mut stretch: Option<Stretch> = None;
        let mut last = None;
        for run in runs {
            let region = run.region();
            if !self.mappings.get(region).is_some_and(Mapping::may_be_huge) {
                continue;
            }
            for range in HugePages::ranges(*run) {
                if last.replace((region, range)) == Some((region, range)) {
                    continue;
                }
                let first = range.saturating_mul(PAGES_PER_HUGE_PAGE);
                let Some(pages) = layout.run(region, first, PAGES_PER_HUGE_PAGE) else { continue };
                let wanted = self.huge_pages.wanted(region, range, ballooned(pages), PAGES_PER_HUGE_PAGE);
                let Some(advice) = wanted else { continue };
                if !stretch.as_mut().is_some_and(|stretch| stretch.take_up(region, range, advice)) {
                    let ranges = range..range.saturating_add(1);
                    let next = Stretch { region, ranges, advice };
                    stretch.replace(next).into_iter().for_each(|done| self.advise_stretch(layout, &done));
                }
            }
        }
        stretch.into_iter().for_each(|done| self.advise_stretch(layout, &done));
    }

    /// Lets the host's huge pages in everywhere: the balloon is empty. Tried once: where the host refuses, the guest
    /// stays on small pages until the balloon has been there again.
    pub fn allow_huge_pages(&mut self) {
        if !self.huge_pages.any() {
            return;
        }
        self.huge_pages.clear();
        for region in 0..self.mappings.len() {
            let mapping = self.mappings.get(region).filter(|mapping| mapping.may_be_huge());
            if let Some(range) = mapping.and_then(Mapping::whole) {
                self.advise(range, Advice::Huge);
            }
        }
    }

    /// Leaves region `region` to small pages, which its mapping was made with: without this it would get huge ones where
    /// the balloon has been.
    pub fn keep_small_pages(&mut self, region: usize) {
        self.mappings.get_mut(region).into_iter().for_each(Mapping::keep_small_pages);
    }

    /// Whether the host has huge pages, as far as it has said.
    #[must_use]
    pub fn has_huge_pages(&self) -> bool {
        self.has_huge_pages
    }

    fn advise_stretch(&mut self, layout: &Layout, stretch: &Stretch) {
        let Stretch { region, ranges, advice } = stretch;
        let first = ranges.start.saturating_mul(PAGES_PER_HUGE_PAGE);
        let pages = ranges.end.saturating_mul(PAGES_PER_HUGE_PAGE).saturating_sub(first);
        let run = layout.run(*region, first, pages);
        let range = run.and_then(|run| self.mappings.get(*region)?.range(run));
        if range.is_some_and(|range| self.advise(range, *advice)) {
            ranges.clone().for_each(|range| self.huge_pages.given(*region, range, *advice));
        }
    }

    /// Whether the host took it.
    fn advise(&mut self, range: HostRange, advice: Advice) -> bool {
        if !self.has_huge_pages {
            return false;
        }
        self.calls = self.calls.saturating_add(1);
        match self.kernel.allow_huge_pages(range, advice == Advice::Huge) {
            Ok(()) => true,
            // So answers a kernel without them (mm/madvise.c, madvise_behavior_valid).
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.has_huge_pages = false;
                false
            }
            Err(error) => {
                self.failures.advice = self.failures.advice.saturating_add(1);
                self.failures.last_errno = error.raw_os_error().or(self.failures.last_errno);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backing::Failures;
    use crate::backing::simulated::{Answer, Simulated, layout, runs, subject};

    fn is_small(subject: &mut Backing<Simulated>, run: Run) -> bool {
        let range = subject.mappings()[run.region()].range(run).unwrap();
        subject.kernel_mut().is_small(range)
    }

    #[test]
    fn what_the_host_refuses_is_counted_and_advised_again() {
        let runs = runs(&[(0, 0, 512)]);
        let mut subject = subject(&[Answer::Errno(libc::ENOMEM)]);
        for (ballooned, small, calls, refused) in
            [(9, false, 1, 1), (10, true, 2, 1), (11, true, 2, 1), (0, false, 3, 1), (1, true, 4, 1)]
        {
            subject.adapt_huge_pages(&layout(), &runs, |_| ballooned);
            assert_eq!(is_small(&mut subject, runs[0]), small, "{ballooned}");
            assert_eq!((subject.calls(), subject.failures().advice), (calls, refused), "{ballooned}");
        }
        subject.kernel_mut().script(&[Answer::Errno(libc::ENOMEM)]);
        subject.adapt_huge_pages(&layout(), &runs, |_| 0);
        assert!(is_small(&mut subject, runs[0]));
        subject.adapt_huge_pages(&layout(), &runs, |_| 0);
        assert!(!is_small(&mut subject, runs[0]), "once more, and taken");
    }

    #[test]
    fn neighbours_share_a_call_and_regions_do_not() {
        let mut subject = subject(&[]);
        let asked = runs(&[(0, 1, 1), (0, 3, 1), (0, 511, 2), (0, 600, 1), (1, 0, 1), (2, 0, 1)]);
        subject.adapt_huge_pages(&layout(), &asked, |_| 1);
        assert_eq!(subject.calls(), 2);
        assert!(is_small(&mut subject, runs(&[(0, 0, 1024)])[0]));
        assert!(is_small(&mut subject, runs(&[(1, 0, 512)])[0]));
        assert!(!is_small(&mut subject, runs(&[(1, 512, 1)])[0]));
        // One of two neighbours changes.
        subject.adapt_huge_pages(&layout(), &asked, |run| u64::from(run.first() > 0));
        assert!(!is_small(&mut subject, runs(&[(0, 0, 1)])[0]));
        assert!(is_small(&mut subject, runs(&[(0, 512, 512)])[0]));
        assert_eq!(subject.calls(), 4, "the other region's changed, too");
    }

    #[test]
    fn a_region_of_small_pages_gets_no_advice() {
        let mut subject = subject(&[]);
        subject.keep_small_pages(0);
        for ballooned in [1, 0] {
            subject.adapt_huge_pages(&layout(), &runs(&[(0, 0, 512), (1, 0, 512)]), |_| ballooned);
        }
        assert_eq!(subject.calls(), 2, "both for the other region");
        subject.adapt_huge_pages(&layout(), &runs(&[(1, 0, 512)]), |_| 1);
        subject.allow_huge_pages();
        assert_eq!(subject.calls(), 4, "the same");
    }

    #[test]
    fn a_host_without_huge_pages_is_asked_once() {
        let mut subject = subject(&[Answer::Errno(libc::EINVAL)]);
        for ballooned in [1, 2, 3] {
            subject.adapt_huge_pages(&layout(), &runs(&[(0, 0, 512), (1, 0, 512)]), |_| ballooned);
        }
        subject.allow_huge_pages();
        assert_eq!((subject.calls(), subject.failures()), (1, Failures::default()));
    }
}

//! Tells the host where it must not use huge pages, as `huge_pages` has it.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::huge_pages::{Advice, HugePages, PAGES_PER_HUGE_PAGE};
use super::kernel::Kernel;
use super::mapping::{HostRange, Mapping};
use super::release::Backing;
use crate::frames::{Layout, Run};
use std::ops::Range;
use std::slice;

/// [`PAGES_PER_HUGE_PAGE`] in bytes.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Most ranges whose advice is deferred: of a GiB. At worst each then takes a call, of some 20 us.
const MOST_DEFERRED: usize = 512;

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

/// The ranges that `runs` touch, each with its region: in their order, and as often as they do.
fn touched(runs: &[Run]) -> impl Iterator<Item = (usize, u64)> + '_ {
    runs.iter().flat_map(|run| HugePages::ranges(*run).map(|range| (run.region(), range)))
}

/// The first and the last range that `runs` touch, which are in order, if they are one or neighbours.
fn amid(runs: &[Run]) -> Option<[(usize, u64); 2]> {
    let first = touched(runs).next()?;
    let last = touched(runs.last().map_or(&[], slice::from_ref)).last()?;
    (first.0 == last.0 && last.1.saturating_sub(first.1) <= 1).then_some([first, last])
}

impl<K: Kernel> Backing<K> {
    /// Keeps the host's huge pages out of what went back in part, around `runs`, whose state has changed, and lets them in
    /// again where nothing of it is left. `kept` says for how many pages of a run small ones are wanted. Advice:
    /// a host that refuses it runs the guest all the same, and is asked again with the next call.
    ///
    /// `runs` are in order, as a batch leaves them: then neighbours share a system call.
    pub fn adapt_huge_pages(&mut self, layout: &Layout, runs: &[Run], kept: impl Fn(Run) -> u64) {
        self.adapt(layout, touched(runs), kept, false);
    }

    /// As [`Self::adapt_huge_pages`], when [asked](Self::give_deferred_advice): a driver that inflates leaves few ranges in
    /// part in the end, and those side by side. What is too much is left to the next call that looks there.
    pub fn defer_huge_page_advice(&mut self, runs: &[Run]) {
        for range in touched(runs) {
            if self.deferred.len() >= MOST_DEFERRED {
                self.deferred.sort_unstable();
                self.deferred.dedup();
            }
            if self.deferred.len() >= MOST_DEFERRED {
                return;
            }
            if self.deferred.last() != Some(&range) {
                self.deferred.push(range);
            }
        }
    }

    /// As [`Self::adapt_huge_pages`], of a driver that deflates. One that does it in order is amid a range or two, whose
    /// advice would be undone by what it sends next: that waits until it is elsewhere, or [arrives](Self::give_deferred_advice).
    pub fn adapt_huge_pages_behind(&mut self, layout: &Layout, runs: &[Run], kept: impl Fn(Run) -> u64) {
        let amid = amid(runs);
        let mut ranges = std::mem::take(&mut self.deferred);
        match amid {
            Some(amid) => ranges.retain(|range| !amid.contains(range)),
            None => ranges.extend(touched(runs)),
        }
        ranges.sort_unstable();
        self.adapt(layout, ranges.iter().copied(), kept, false);
        ranges.clear();
        ranges.extend(amid.into_iter().flatten());
        self.deferred = ranges;
    }

    /// Does what [`Self::defer_huge_page_advice`] and [`Self::adapt_huge_pages_behind`] have deferred.
    pub fn give_deferred_advice(&mut self, layout: &Layout, kept: impl Fn(Run) -> u64) {
        let mut ranges = std::mem::take(&mut self.deferred);
        ranges.sort_unstable();
        self.adapt(layout, ranges.iter().copied(), kept, false);
        // Back, for no kick to allocate.
        ranges.clear();
        self.deferred = ranges;
    }

    /// Leaves what was deferred to the next call that looks there.
    pub fn forget_deferred_advice(&mut self) {
        self.deferred.clear();
    }

    /// As [`Self::adapt_huge_pages`], and has the host split huge pages of which a part went back, for it to have that part
    /// at once and not when it is short of memory. That costs more than it brings where the rest follows soon.
    pub fn split_huge_pages(&mut self, layout: &Layout, runs: &[Run], kept: impl Fn(Run) -> u64) {
        self.adapt(layout, touched(runs), kept, true);
    }

    fn adapt(
        &mut self,
        layout: &Layout,
        ranges: impl Iterator<Item = (usize, u64)>,
        kept: impl Fn(Run) -> u64,
        split: bool,
    ) {
        let mut stretch: Option<Stretch> = None;
        let mut last = None;
        for (region, range) in ranges {
            if last.replace((region, range)) == Some((region, range))
                || !self.mappings.get(region).is_some_and(Mapping::may_be_huge)
            {
                continue;
            }
            let first = range.saturating_mul(PAGES_PER_HUGE_PAGE);
            let Some(pages) = layout.run(region, first, PAGES_PER_HUGE_PAGE) else { continue };
            let wanted = self.huge_pages.wanted(region, range, kept(pages), PAGES_PER_HUGE_PAGE);
            let Some(advice) = wanted else { continue };
            if !stretch.as_mut().is_some_and(|stretch| stretch.take_up(region, range, advice)) {
                let next = Stretch { region, ranges: range..range.saturating_add(1), advice };
                stretch.replace(next).into_iter().for_each(|done| self.advise_stretch(layout, &done, split));
            }
        }
        stretch.into_iter().for_each(|done| self.advise_stretch(layout, &done, split));
    }

    /// Leaves region `region` to small pages, which its mapping was made with: without this it would get huge ones where
    /// the balloon has been.
    pub fn keep_small_pages(&mut self, region: usize) {
        self.mappings.get_mut(region).into_iter().for_each(Mapping::keep_small_pages);
    }

    /// As [`Self::keep_small_pages`], of some ranges of a huge page, by number in the region.
    pub fn keep_small_ranges(&mut self, region: usize, ranges: Range<u64>) {
        self.huge_pages.keep_small(region, ranges);
    }

    /// Gives `range` of region `region`, whose memory is new and without any advice, that of the memory around it.
    pub(super) fn advise_anew(&mut self, region: usize, range: HostRange) {
        let Some((whole, may_be_huge)) =
            self.mappings.get(region).and_then(|mapping| Some((mapping.whole()?, mapping.may_be_huge())))
        else {
            return;
        };
        let begin = range.address().saturating_sub(whole.address());
        let mut done = 0;
        loop {
            let at = begin.saturating_add(done);
            let to_next = HUGE_PAGE_BYTES.saturating_sub(at.checked_rem(HUGE_PAGE_BYTES).unwrap_or(0));
            let Some(piece) = range.part(done, to_next) else { return };
            let number = u64::try_from(at.checked_div(HUGE_PAGE_BYTES).unwrap_or(0)).unwrap_or(u64::MAX);
            let small = !may_be_huge || self.huge_pages.is_small(region, number);
            self.advise(piece, if small { Advice::Small } else { Advice::Huge });
            done = done.saturating_add(piece.bytes());
        }
    }

    /// Whether the host has huge pages, as far as it has said.
    #[must_use]
    pub fn has_huge_pages(&self) -> bool {
        self.has_huge_pages
    }

    fn advise_stretch(&mut self, layout: &Layout, stretch: &Stretch, split: bool) {
        let Stretch { region, ranges, advice } = stretch;
        let first = ranges.start.saturating_mul(PAGES_PER_HUGE_PAGE);
        let pages = ranges.end.saturating_mul(PAGES_PER_HUGE_PAGE).saturating_sub(first);
        let run = layout.run(*region, first, pages);
        let range = run.and_then(|run| self.mappings.get(*region)?.range(run));
        let Some(range) = range.filter(|range| self.advise(*range, *advice)) else { return };
        ranges.clone().for_each(|range| self.huge_pages.given(*region, range, *advice));
        if split && *advice == Advice::Small {
            self.work.calls = self.work.calls.saturating_add(1);
            self.work.splits = self.work.splits.saturating_add(ranges.end.saturating_sub(ranges.start));
            // A host that splits nothing here does so when it is short of memory.
            let _ = self.kernel.split_huge_pages(range);
        }
    }

    /// Whether the host took it.
    fn advise(&mut self, range: HostRange, advice: Advice) -> bool {
        if !self.has_huge_pages {
            return false;
        }
        self.work.calls = self.work.calls.saturating_add(1);
        self.work.advice = self.work.advice.saturating_add(1);
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
            assert_eq!((subject.work().calls, subject.failures().advice), (calls, refused), "{ballooned}");
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
        assert_eq!(subject.work().calls, 2);
        assert!(is_small(&mut subject, runs(&[(0, 0, 1024)])[0]));
        assert!(is_small(&mut subject, runs(&[(1, 0, 512)])[0]));
        assert!(!is_small(&mut subject, runs(&[(1, 512, 1)])[0]));
        // One of two neighbours changes.
        subject.adapt_huge_pages(&layout(), &asked, |run| u64::from(run.first() > 0));
        assert!(!is_small(&mut subject, runs(&[(0, 0, 1)])[0]));
        assert!(is_small(&mut subject, runs(&[(0, 512, 512)])[0]));
        assert_eq!(subject.work().calls, 4, "the other region's changed, too");
    }

    #[test]
    fn a_region_of_small_pages_gets_no_advice() {
        let mut subject = subject(&[]);
        subject.keep_small_pages(0);
        for ballooned in [1, 0] {
            subject.adapt_huge_pages(&layout(), &runs(&[(0, 0, 512), (1, 0, 512)]), |_| ballooned);
        }
        assert_eq!(subject.work().calls, 2, "both for the other region");
    }

    #[test]
    fn a_host_without_huge_pages_is_asked_once() {
        let mut subject = subject(&[Answer::Errno(libc::EINVAL)]);
        for ballooned in [1, 2, 3] {
            subject.adapt_huge_pages(&layout(), &runs(&[(0, 0, 512), (1, 0, 512)]), |_| ballooned);
        }
        assert_eq!((subject.work().calls, subject.failures()), (1, Failures::default()));
    }

    #[test]
    fn a_driver_that_deflates_in_order_is_followed_behind() {
        let mut subject = subject(&[]);
        let layout = layout();
        // Downwards, as Linux does: what it is amid is a part of a range until its next pages come.
        let left = |upper, lower| move |run: Run| if run.first() == 512 { upper } else { lower };
        for (first, count, upper, lower) in
            [(768, 256, 256, 512), (512, 256, 0, 512), (448, 64, 0, 448), (256, 256, 0, 256)]
        {
            subject.adapt_huge_pages_behind(&layout, &runs(&[(0, first, count)]), left(upper, lower));
            assert_eq!(subject.work().calls, 0, "{first}");
        }
        // It has gone on, and left a part. Over the border of two regions there are no neighbours.
        subject.adapt_huge_pages_behind(&layout, &runs(&[(0, 1023, 1), (1, 0, 1)]), left(0, 256));
        assert!(
            is_small(&mut subject, runs(&[(0, 0, 512)])[0]) && is_small(&mut subject, runs(&[(1, 0, 1)])[0])
        );
        assert!(!is_small(&mut subject, runs(&[(0, 512, 512)])[0]));
        // Amid two neighbours, and then elsewhere.
        let calls = subject.work().calls;
        subject.adapt_huge_pages_behind(&layout, &runs(&[(1, 511, 2)]), |_| 1);
        assert_eq!(subject.work().calls, calls);
        subject.adapt_huge_pages_behind(&layout, &runs(&[(0, 5, 1)]), |_| 1);
        assert!(is_small(&mut subject, runs(&[(1, 512, 512)])[0]));
        // Here and there: at once.
        subject.adapt_huge_pages_behind(&layout, &runs(&[(0, 1, 1), (0, 600, 1), (1, 1, 1)]), |_| 1);
        assert!(is_small(&mut subject, runs(&[(0, 512, 512)])[0]));
        // It stays where it is amid: told at the end.
        subject.adapt_huge_pages_behind(&layout, &runs(&[(1, 600, 1)]), |_| 0);
        assert!(is_small(&mut subject, runs(&[(1, 512, 512)])[0]));
        subject.give_deferred_advice(&layout, |_| 0);
        assert!(!is_small(&mut subject, runs(&[(1, 512, 512)])[0]));
    }

    #[test]
    fn a_part_that_is_reported_is_split_off_once() {
        let mut subject = subject(&[]);
        let part = runs(&[(0, 1, 1)]);
        subject.adapt_huge_pages(&layout(), &part, |_| 1);
        assert_eq!(subject.kernel_mut().split, []);
        subject.adapt_huge_pages(&layout(), &part, |_| 0);
        for _ in 0..2 {
            subject.split_huge_pages(&layout(), &part, |_| 1);
            let first = subject.mappings()[0].range(runs(&[(0, 0, 512)])[0]).unwrap();
            assert_eq!(subject.kernel_mut().split, [first]);
        }
        subject.split_huge_pages(&layout(), &runs(&[(1, 0, 512)]), |_| 512);
        assert_eq!(subject.kernel_mut().split.len(), 1, "all of it went");
    }
}

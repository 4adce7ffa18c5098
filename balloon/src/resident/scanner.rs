//! Reads the residency of guest memory step by step.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::host::{Extent, Survey};
use crate::PAGE_BYTES;
use crate::backing::Mapping;
use crate::frames::{Layout, Run};
use serde::{Deserialize, Serialize};
use std::io;

/// What the host holds of a VM's memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residency {
    /// In memory. The host's shared page of zeroes, which a read of untouched memory maps, is not.
    pub resident: u64,
    /// Of these: on huge pages. Absent where the host cannot tell.
    pub huge: Option<u64>,
    /// Swapped out by the host. Absent where the host cannot tell.
    pub swapped: Option<u64>,
    /// In memory, of each region of the layout.
    pub regions: Vec<u64>,
    /// Ballooned memory that was resident: the guest touched what it had given away, or the host's huge pages
    /// brought it back with a neighbour.
    pub ballooned_resident: u64,
}

/// A reading under way.
#[derive(Debug)]
pub struct Scanner<S> {
    survey: S,
    region: usize,
    /// Next page of the region.
    page: u64,
    sum: Residency,
    extents: Vec<Extent>,
}

impl<S: Survey> Scanner<S> {
    /// A scanner at the begin of memory.
    #[must_use]
    pub fn new(survey: S) -> Self {
        Self { survey, region: 0, page: 0, sum: Residency::default(), extents: Vec::new() }
    }

    /// Where the next step begins: a region, and a page of it.
    #[must_use]
    pub fn position(&self) -> (usize, u64) {
        (self.region, self.page)
    }

    /// Reads on, at most `max_pages` pages. `held` is told each run that is in memory or swapped out, so that somebody has
    /// written to it, and answers how many of its pages should not be. Returns the whole reading once the end of memory is reached; the next step
    /// begins another.
    ///
    /// # Errors
    /// The host's answer; the reading begins anew.
    pub fn step(
        &mut self,
        layout: &Layout,
        mappings: &[Mapping],
        max_pages: u64,
        mut held: impl FnMut(Run) -> u64,
    ) -> io::Result<Option<Residency>> {
        let mut left = max_pages;
        while let Some(mapping) = mappings.get(self.region) {
            let pages = mapping.bytes() / PAGE_BYTES;
            let rest = pages.saturating_sub(self.page).min(left);
            let Some(range) = layout.run(self.region, self.page, rest).and_then(|run| mapping.range(run))
            else {
                if self.page < pages {
                    return Ok(None);
                }
                self.region = self.region.saturating_add(1);
                self.page = 0;
                continue;
            };
            self.extents.clear();
            let walked = self.survey.survey(range, &mut self.extents).inspect_err(|_| {
                (self.region, self.page, self.sum) = (0, 0, Residency::default());
            })?;
            self.account(layout, &mut held);
            // A survey that gets nowhere must not keep us here.
            let walked = walked.clamp(1, rest);
            self.page = self.page.saturating_add(walked);
            left = left.saturating_sub(walked);
        }
        self.region = 0;
        self.page = 0;
        let mut sum = std::mem::take(&mut self.sum);
        sum.regions.resize(mappings.len(), 0);
        Ok(Some(sum))
    }

    fn account(&mut self, layout: &Layout, held: &mut impl FnMut(Run) -> u64) {
        let tells = self.survey.tells_huge_and_swapped();
        self.sum.regions.resize(self.region.saturating_add(1), 0);
        for extent in &self.extents {
            let bytes = extent.pages.saturating_mul(PAGE_BYTES);
            let first = self.page.saturating_add(extent.first);
            let Some(run) = layout.run(self.region, first, extent.pages) else { continue };
            let unwanted = held(run).saturating_mul(PAGE_BYTES);
            if extent.swapped {
                add(self.sum.swapped.get_or_insert(0), bytes);
                continue;
            }
            add(&mut self.sum.ballooned_resident, unwanted);
            add(&mut self.sum.resident, bytes);
            if let Some(region) = self.sum.regions.get_mut(self.region) {
                add(region, bytes);
            }
            if extent.huge {
                add(self.sum.huge.get_or_insert(0), bytes);
            }
        }
        if tells {
            self.sum.huge.get_or_insert(0);
            self.sum.swapped.get_or_insert(0);
        }
    }
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::backing::HostRange;
    use crate::backing::simulated::Simulated;
    use crate::resident::Host;
    use crate::scratch::Scratch;
    use std::collections::BTreeSet;

    const BLOCK: u64 = crate::BLOCK_BYTES;
    const FIRST: usize = 1 << 30;

    /// Pages at made-up addresses, each an extent, at most three a call.
    #[derive(Default)]
    struct Scripted {
        resident: BTreeSet<usize>,
        fail: bool,
    }

    impl Survey for Scripted {
        fn survey(&mut self, range: HostRange, found: &mut Vec<Extent>) -> io::Result<u64> {
            if std::mem::take(&mut self.fail) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            for page in 0..(range.bytes() / 4096) as u64 {
                if self.resident.contains(&(range.address() + page as usize * 4096)) {
                    if found.len() == 3 {
                        return Ok(page);
                    }
                    found.push(Extent { first: page, pages: 1, huge: page % 2 == 0, swapped: false });
                }
            }
            Ok((range.bytes() / 4096) as u64)
        }

        fn tells_huge_and_swapped(&self) -> bool {
            true
        }
    }

    fn two_regions() -> (Layout, Vec<Mapping>) {
        let layout = Layout::new(&[(0, BLOCK), (3 * BLOCK, 2 * BLOCK)]).unwrap();
        (layout, vec![Simulated::mapping(FIRST, BLOCK), Simulated::mapping(2 * FIRST, 2 * BLOCK)])
    }

    #[test]
    fn a_reading_takes_as_many_steps_as_it_must_and_finds_every_page_once() {
        let (layout, mappings) = two_regions();
        for max_pages in [1, 7, 1000, 1024, 5000] {
            let resident = [0, 1, 5, 1023].map(|page| FIRST + page * 4096);
            let more = [0, 700, 2047].map(|page| 2 * FIRST + page * 4096);
            let resident = resident.into_iter().chain(more).collect();
            let mut scanner = Scanner::new(Scripted { resident, fail: false });
            for _ in 0..2 {
                let mut found = Vec::new();
                let mut steps = 0;
                let reading = loop {
                    steps += 1;
                    let note = |run: Run| {
                        found.push((run.region(), run.first()));
                        u64::from(run.first() == 700)
                    };
                    if let Some(reading) = scanner.step(&layout, &mappings, max_pages, note).unwrap() {
                        break reading;
                    }
                };
                assert_eq!(found, [(0, 0), (0, 1), (0, 5), (0, 1023), (1, 0), (1, 700), (1, 2047)]);
                assert_eq!(reading.regions, [4 * 4096, 3 * 4096]);
                assert_eq!((reading.resident, reading.ballooned_resident), (7 * 4096, 4096));
                assert!(steps <= 1 + 3072 / max_pages.min(3072), "{steps}");
            }
        }
    }

    #[test]
    fn a_failed_reading_begins_anew() {
        let (layout, mappings) = two_regions();
        let mut scanner = Scanner::new(Scripted { resident: [FIRST].into(), fail: false });
        assert_eq!(scanner.step(&layout, &mappings, 100, |_| 0).unwrap(), None);
        scanner.survey.fail = true;
        assert!(scanner.step(&layout, &mappings, 100, |_| 0).is_err());
        let reading = scanner.step(&layout, &mappings, 4000, |_| 0).unwrap().unwrap();
        assert_eq!(reading.resident, 4096);
    }

    #[test]
    fn this_host_tells_what_was_touched() {
        let layout = Layout::new(&[(0, BLOCK), (2 * BLOCK, BLOCK)]).unwrap();
        let scratch = [Scratch::anonymous(BLOCK), Scratch::memfd(BLOCK)];
        scratch.iter().for_each(Scratch::without_huge_pages);
        scratch[0].fill(3, 5, 1);
        scratch[1].fill(0, 2, 1);
        assert_eq!(scratch[0].byte(100), 0, "a page that is only read is none");
        let mappings: Vec<_> = scratch.iter().map(Scratch::mapping).collect();
        for survey in [Host::probe(), Host::mincore()] {
            let tells = survey.tells_huge_and_swapped();
            let mut runs = Vec::new();
            let note = |run: Run| {
                runs.push((run.region(), run.first(), run.count()));
                0
            };
            let reading = Scanner::new(survey).step(&layout, &mappings, 1 << 20, note).unwrap().unwrap();
            if tells {
                assert_eq!(reading.regions, [5 * 4096, 2 * 4096]);
                assert_eq!(runs, [(0, 3, 5), (1, 0, 2)]);
                assert_eq!((reading.huge, reading.swapped), (Some(0), Some(0)));
            } else {
                assert_eq!(reading.regions[1], 2 * 4096);
                assert!((5 * 4096..=6 * 4096).contains(&reading.regions[0]), "mincore counts the zero page");
            }
        }
    }
}

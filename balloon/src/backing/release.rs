//! Runs in, system calls out, and a receipt for what really went back.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::huge_pages::HugePages;
use super::kernel::{Kernel, MAX_RANGES};
use super::mapping::{HostRange, Mapping};
use crate::PAGE_BYTES;
use crate::frames::{Layout, Run};
use serde::{Deserialize, Serialize};
use std::io;

/// The kernel cuts longer vectors short (`MAX_RW_COUNT` in include/linux/fs.h: 2 GiB less a page).
const MAX_VECTOR_BYTES: usize = 1 << 30;

/// Mappings that do not fit their layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are more or fewer mappings than regions.
    #[error("guest memory has {regions} regions, but {mappings} mappings were given to release it")]
    Count {
        /// Regions of the layout.
        regions: usize,
        /// Mappings.
        mappings: usize,
    },
    /// The host's pages are larger: discarding one of the balloon's would discard its neighbours.
    #[error(
        "this host has pages of {host_bytes} bytes, and the balloon's have {PAGE_BYTES}: it needs a host with those"
    )]
    PageSize {
        /// The host's page size.
        host_bytes: u64,
    },
    /// A mapping is not as long as its region.
    #[error("region {region} of guest memory is not as long as its mapping")]
    Length {
        /// Which region.
        region: usize,
    },
}

/// Proof that the memory of these runs went back to the host. Only a [`Backing`] issues it.
#[derive(Debug)]
#[must_use]
pub struct Released<'a> {
    runs: &'a [Run],
}

impl Released<'_> {
    /// The released runs, in the order given.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        self.runs
    }

    /// Pages in them.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.count()))
    }
}

/// Releases that the host refused, since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// System calls that failed or stopped early.
    pub calls: u64,
    /// Pages that were to be released and are still the guest's.
    pub pages: u64,
    /// Advice on huge pages that was not taken: some may undo the balloon, or be missing to the guest, until its range
    /// changes again.
    pub advice: u64,
    /// The host's last error number.
    pub last_errno: Option<i32>,
}

/// The memory of one VM, ready to be released.
#[derive(Debug)]
pub struct Backing<K> {
    pub(super) kernel: K,
    pub(super) mappings: Vec<Mapping>,
    vectored: bool,
    /// Runs released by the last call; kept so that no call allocates.
    done: Vec<Run>,
    vector: Vec<HostRange>,
    pub(super) huge_pages: HugePages,
    /// The host has said nothing else yet.
    pub(super) has_huge_pages: bool,
    pub(super) failures: Failures,
    pub(super) calls: u64,
}

impl<K: Kernel> Backing<K> {
    /// The memory behind `layout`: a mapping for each of its regions, in order.
    ///
    /// # Errors
    /// The mappings are not the layout's, or the host's pages are larger than the balloon's.
    pub fn new(mut kernel: K, layout: &Layout, mappings: Vec<Mapping>) -> Result<Self, Error> {
        if kernel.page_bytes() != PAGE_BYTES {
            return Err(Error::PageSize { host_bytes: kernel.page_bytes() });
        }
        let regions = layout.regions();
        if regions.len() != mappings.len() {
            return Err(Error::Count { regions: regions.len(), mappings: mappings.len() });
        }
        for (region, (pages, mapping)) in regions.zip(&mappings).enumerate() {
            if pages.count().checked_mul(PAGE_BYTES) != Some(mapping.bytes()) {
                return Err(Error::Length { region });
            }
        }
        let vectored = kernel.takes_vectors();
        let vector = Vec::with_capacity(if vectored { MAX_RANGES } else { 0 });
        Ok(Self {
            kernel,
            mappings,
            vectored,
            done: Vec::new(),
            vector,
            huge_pages: HugePages::new(layout),
            has_huge_pages: true,
            failures: Failures::default(),
            calls: 0,
        })
    }

    /// What the host refused so far.
    #[must_use]
    pub fn failures(&self) -> Failures {
        self.failures
    }

    /// System calls made so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Whether several runs go in one system call.
    #[must_use]
    pub fn vectored(&self) -> bool {
        self.vectored
    }

    /// The mappings, one a region.
    #[must_use]
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// The kernel behind it.
    pub fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Gives the memory of `runs` back to the host. What the host refuses is counted and missing from the
    /// receipt; it is not tried again, and the runs after it are released all the same.
    pub fn release(&mut self, runs: &[Run]) -> Released<'_> {
        self.done.clear();
        let mut rest = runs;
        while let Some((run, after)) = rest.split_first() {
            rest = if self.vectored && self.gather(rest) > 1 {
                self.release_vector(rest)
            } else {
                self.release_one(*run);
                after
            };
        }
        Released { runs: &self.done }
    }

    /// Fills the vector with the anonymous runs at the begin of `runs`, as many as one call takes; returns how
    /// many these are.
    fn gather(&mut self, runs: &[Run]) -> usize {
        self.vector.clear();
        let mut bytes = 0usize;
        let ranges = runs.iter().take(MAX_RANGES).map_while(|run| {
            let mapping = self.mappings.get(run.region()).filter(|mapping| mapping.is_anonymous())?;
            let range = mapping.range(*run).filter(|range| mapping.image_in(*range).is_none())?;
            bytes = bytes.checked_add(range.bytes()).filter(|&bytes| bytes <= MAX_VECTOR_BYTES)?;
            Some(range)
        });
        self.vector.extend(ranges);
        self.vector.len()
    }

    fn release_one(&mut self, run: Run) {
        let Some(mapping) = self.mappings.get(run.region()) else { return self.fail(run.count(), None) };
        let Some(range) = mapping.range(run) else { return self.fail(run.count(), None) };
        self.calls = self.calls.saturating_add(1);
        let result = match mapping.file(run) {
            Some((file, offset)) => self.kernel.punch_hole(file, offset, range),
            // First what would read as the file otherwise.
            None => match mapping.image_in(range) {
                None => self.kernel.discard(range),
                Some(image) => self.kernel.replace(image).and_then(|()| {
                    self.advise_anew(run.region(), image);
                    self.kernel.discard(range)
                }),
            },
        };
        match result {
            Ok(()) => self.done.push(run),
            Err(error) => self.fail(run.count(), Some(&error)),
        }
    }

    /// Releases the runs that [`Self::gather`] found at the begin of `runs` with one system call. Returns the
    /// runs that are left: at least one is done or has failed, unless the host has turned out to take no vectors.
    fn release_vector<'r>(&mut self, runs: &'r [Run]) -> &'r [Run] {
        self.calls = self.calls.saturating_add(1);
        let (bytes, error) = match self.kernel.discard_all(&self.vector) {
            Ok(bytes) => (bytes, None),
            Err(error) if takes_no_vectors(&error) => {
                self.vectored = false;
                return runs;
            }
            Err(error) => (0, Some(error)),
        };
        let mut left = u64::try_from(bytes).unwrap_or(u64::MAX) / PAGE_BYTES;
        let mut rest = runs;
        while let Some((run, after)) = rest.split_first() {
            let Some(pages) = left.checked_sub(run.count()) else { break };
            self.done.push(*run);
            (left, rest) = (pages, after);
        }
        // All done, or stopped before a run: the next call begins with it and says why.
        let Some((run, after)) = rest.split_first() else { return rest };
        if rest.len() < runs.len() && left == 0 {
            return rest;
        }
        // The first run failed, or the host stopped within one: its begin is done.
        self.done.extend(run.prefix(left));
        self.fail(run.count().saturating_sub(left), error.as_ref());
        after
    }

    fn fail(&mut self, pages: u64, error: Option<&io::Error>) {
        self.failures.calls = self.failures.calls.saturating_add(1);
        self.failures.pages = self.failures.pages.saturating_add(pages);
        self.failures.last_errno = error.and_then(io::Error::raw_os_error).or(self.failures.last_errno);
    }
}

/// Whether the error speaks of the call as such, not of a range: a sandbox or the host refuses it.
fn takes_no_vectors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EBADF))
        || error.kind() == io::ErrorKind::Unsupported
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::backing::simulated::{Answer, Simulated, backing, runs, subject};
    use proptest::prelude::*;

    const BLOCK: u64 = crate::BLOCK_BYTES;

    #[test]
    fn all_anonymous_runs_go_in_one_call_and_shared_ones_one_by_one() {
        let mut subject = subject(&[]);
        let asked = runs(&[(0, 1, 2), (0, 9, 1), (1, 0, 1024), (2, 3, 1), (2, 5, 1)]);
        assert_eq!(subject.release(&asked).runs(), asked);
        assert_eq!(subject.calls(), 3);
        assert_eq!(subject.kernel_mut().released_pages(), 1029);
        assert_eq!(subject.failures(), Failures::default());
    }

    #[test]
    fn a_single_run_needs_no_vector() {
        let mut subject = subject(&[Answer::Errno(libc::EIO)]);
        assert_eq!(subject.release(&runs(&[(0, 1, 2)])).runs(), []);
        assert_eq!(
            subject.failures(),
            Failures { calls: 1, pages: 2, advice: 0, last_errno: Some(libc::EIO) }
        );
        assert_eq!(subject.kernel_mut().vectors, 0);
    }

    #[test]
    fn a_host_that_stops_halfway_is_believed_to_the_page() {
        for (stop, released, failed) in [
            (Answer::Bytes(0), &[(0, 9, 3), (1, 4, 4)][..], 2),
            (Answer::Bytes(2 * 4096), &[(0, 1, 2), (0, 9, 3), (1, 4, 4)], 0),
            (Answer::Bytes(4 * 4096 + 7), &[(0, 1, 2), (0, 9, 2), (1, 4, 4)], 1),
            (Answer::Bytes(5 * 4096), &[(0, 1, 2), (0, 9, 3), (1, 4, 4)], 0),
            (Answer::Errno(libc::EAGAIN), &[(0, 9, 3), (1, 4, 4)], 2),
        ] {
            let mut subject = subject(&[stop]);
            let receipt = subject.release(&runs(&[(0, 1, 2), (0, 9, 3), (1, 4, 4)]));
            assert_eq!(receipt.runs(), runs(released), "{stop:?}");
            assert_eq!(subject.failures().pages, failed, "{stop:?}");
        }
    }

    #[test]
    fn every_error_loses_one_run_and_no_more() {
        for errno in [libc::ENOMEM, libc::EINVAL, libc::EAGAIN, libc::EINTR, libc::EIO] {
            let mut subject = subject(&[Answer::Bytes(4096), Answer::Errno(errno)]);
            let asked = runs(&[(0, 1, 1), (0, 3, 1), (0, 5, 1), (2, 0, 7)]);
            let rest = runs(&[(0, 1, 1), (0, 5, 1), (2, 0, 7)]);
            assert_eq!(subject.release(&asked).runs(), rest);
            assert_eq!(
                subject.failures(),
                Failures { calls: 1, pages: 1, advice: 0, last_errno: Some(errno) }
            );
        }
    }

    #[test]
    fn a_host_that_refuses_vectors_gets_run_after_run() {
        for errno in [libc::ENOSYS, libc::EPERM, libc::EBADF] {
            let mut subject = subject(&[Answer::Errno(errno)]);
            let asked = runs(&[(0, 1, 1), (0, 3, 1)]);
            assert_eq!(subject.release(&asked).runs(), asked);
            assert_eq!((subject.calls(), subject.failures().calls), (3, 0));
            assert!(!subject.vectored());
        }
    }

    #[test]
    fn vectors_stay_within_what_the_kernel_takes() {
        let layout = Layout::new(&[(0, 4 << 30)]).unwrap();
        let mut subject = backing(&layout, &[], Simulated::default());
        let pages = (1 << 30) / PAGE_BYTES;
        let asked: Vec<_> = [(0, 1), (2, pages - 2), (pages + 1, 2 * pages)]
            .map(|(first, count)| layout.run(0, first, count).unwrap())
            .into();
        assert_eq!(subject.release(&asked).runs(), asked);
        assert_eq!(subject.kernel_mut().longest_vector, (1 << 30) - 4096);
        let many: Vec<_> = (0..2500).map(|i| layout.run(0, 2 * i, 1).unwrap()).collect();
        let before = subject.calls();
        assert_eq!(subject.release(&many).pages(), 2500);
        assert_eq!(subject.calls() - before, 3);
    }

    #[test]
    fn mappings_must_be_those_of_the_layout() {
        let two = Layout::new(&[(0, BLOCK), (2 * BLOCK, BLOCK)]).unwrap();
        let mapping = |bytes| Simulated::mapping(1 << 30, bytes);
        let new = |mappings| Backing::new(Simulated::default(), &two, mappings).map(|_| ());
        assert_eq!(new(vec![mapping(BLOCK)]), Err(Error::Count { regions: 2, mappings: 1 }));
        assert_eq!(new(vec![mapping(BLOCK), mapping(2 * BLOCK)]), Err(Error::Length { region: 1 }));
    }

    #[test]
    fn a_host_with_larger_pages_is_refused_as_it_would_discard_neighbours() {
        let layout = Layout::new(&[(0, BLOCK)]).unwrap();
        for host_bytes in [16 << 10, 64 << 10] {
            let mut kernel = Simulated::default();
            kernel.page_bytes = Some(host_bytes);
            let backing = Backing::new(kernel, &layout, vec![Simulated::mapping(1 << 30, BLOCK)]);
            assert_eq!(backing.map(|_| ()), Err(Error::PageSize { host_bytes }));
        }
    }

    #[test]
    fn a_run_of_another_layout_touches_nothing() {
        let large =
            Layout::new(&[(0, 4 * BLOCK), (5 * BLOCK, BLOCK), (7 * BLOCK, BLOCK), (9 * BLOCK, BLOCK)]);
        let large = large.unwrap();
        let mut subject = subject(&[]);
        let asked =
            [large.run(0, 1023, 2).unwrap(), large.run(3, 0, 1).unwrap(), large.run(0, 0, 1).unwrap()];
        assert_eq!(subject.release(&asked).runs(), &asked[2..]);
        assert_eq!(subject.failures().pages, 3);
        assert_eq!(subject.kernel_mut().released_pages(), 1);
    }

    proptest! {
        /// Whatever the host answers: the receipt names pages that went back, each asked for and named once, and
        /// receipt and failures together are what was asked.
        #[test]
        fn receipts_are_true(
            pieces in prop::collection::vec((0usize..3, 0u64..60, 1u64..4), 0..60),
            answers in prop::collection::vec(Answer::any(), 0..40),
        ) {
            let mut asked = Vec::new();
            for (region, slot, count) in pieces {
                asked.push((region, slot * 4, count));
            }
            asked.sort_unstable();
            asked.dedup_by_key(|(region, first, _)| (*region, *first));
            let asked = runs(&asked);
            let mut subject = subject(&answers);
            let released = subject.release(&asked).runs().to_vec();
            let sum = |runs: &[Run]| runs.iter().map(|run| run.count()).sum::<u64>();
            prop_assert_eq!(sum(&released) + subject.failures().pages, sum(&asked));
            prop_assert!(released.is_sorted());
            for run in &released {
                let whole = asked.iter().find(|a| (a.region(), a.first()) == (run.region(), run.first()));
                prop_assert!(whole.is_some_and(|whole| whole.count() >= run.count()));
                let range = subject.mappings()[run.region()].range(*run).unwrap();
                prop_assert!(subject.kernel_mut().is_released(range));
            }
            prop_assert!(subject.calls() <= 1 + 2 * asked.len() as u64);
        }
    }
}

//! Runs in, system calls out, and a receipt for what really went back.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::huge_pages::HugePages;
use super::kernel::{Kernel, MAX_RANGES, REPLACE_CALLS};
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
    /// Advice on huge pages that was not taken: some may undo the balloon, or be missing to the guest, until it is given
    /// again.
    pub advice: u64,
    /// The host's last error number.
    pub last_errno: Option<i32>,
}

/// What the host was asked to do, since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// System calls; of the replacement of what was mapped from a file, the most that it can take.
    pub calls: u64,
    /// Of these, advice on where huge pages may be.
    pub advice: u64,
    /// Ranges of a huge page that were to be split.
    pub splits: u64,
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
    /// Ranges whose advice waits, each with its region.
    pub(super) deferred: Vec<(usize, u64)>,
    /// The host has said nothing else yet.
    pub(super) has_huge_pages: bool,
    pub(super) failures: Failures,
    pub(super) work: Work,
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
            deferred: Vec::new(),
            has_huge_pages: true,
            failures: Failures::default(),
            work: Work::default(),
        })
    }

    /// What the host refused so far.
    #[must_use]
    pub fn failures(&self) -> Failures {
        self.failures
    }

    /// What the host was asked to do so far.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
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
        let range = self.mappings.get(run.region()).and_then(|mapping| mapping.range(run));
        let Some(range) = range else { return self.fail(run.count(), None) };
        // First what would read as the file otherwise.
        match self.replace_image(run.region(), range).and_then(|()| self.discard(run, range)) {
            Ok(()) => self.done.push(run),
            Err(error) => self.fail(run.count(), Some(&error)),
        }
    }

    fn discard(&mut self, run: Run, range: HostRange) -> io::Result<()> {
        self.work.calls = self.work.calls.saturating_add(1);
        match self.mappings.get(run.region()).and_then(|mapping| mapping.file(run)) {
            Some((file, offset)) => self.kernel.punch_hole(file, offset, range),
            None => self.kernel.discard(range),
        }
    }

    /// Replaces what of `range` is mapped from a file copy-on-write: once and for all.
    fn replace_image(&mut self, region: usize, range: HostRange) -> io::Result<()> {
        let Some(mapping) = self.mappings.get_mut(region) else { return Ok(()) };
        let Some(part) = mapping.image_in(range) else { return Ok(()) };
        self.work.calls = self.work.calls.saturating_add(REPLACE_CALLS);
        self.kernel.replace(part)?;
        mapping.replaced(part);
        self.advise_anew(region, part);
        Ok(())
    }

    /// Releases the runs that [`Self::gather`] found at the begin of `runs` with one system call. Returns the
    /// runs that are left: at least one is done or has failed, unless the host has turned out to take no vectors.
    fn release_vector<'r>(&mut self, runs: &'r [Run]) -> &'r [Run] {
        self.work.calls = self.work.calls.saturating_add(1);
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

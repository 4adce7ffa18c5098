//! Asks the host's kernel which pages of a mapping are in memory.
//!
//! `PAGEMAP_SCAN` (Linux 6.7, fs/proc/task_mmu.c) walks page tables and returns runs, huge pages as such: a GiB
//! on huge pages takes microseconds, on small ones a few milliseconds. Before it there is `mincore`, a byte a
//! page, which knows neither huge nor swapped pages and takes the shared page of zeroes for memory.

#![expect(unsafe_code, reason = "the kernel is asked about memory that is mapped")]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::PAGE_BYTES;
use crate::backing::HostRange;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Pages of a surveyed range that are in memory, or swapped out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First page, counted from the range's begin.
    pub first: u64,
    /// How many.
    pub pages: u64,
    /// They are parts of huge pages, mapped as such.
    pub huge: bool,
    /// They are in swap, not in memory.
    pub swapped: bool,
}

/// Who can say what is in memory.
pub trait Survey {
    /// Appends to `found` what of `range` is in memory or swapped, ascending; returns how many pages from its
    /// begin on it has looked at, at least one.
    ///
    /// # Errors
    /// The host's answer.
    fn survey(&mut self, range: HostRange, found: &mut Vec<Extent>) -> io::Result<u64>;

    /// Whether huge and swapped pages are told apart from others.
    fn tells_huge_and_swapped(&self) -> bool;
}

/// The Linux that this process runs on.
#[derive(Debug)]
pub struct Host {
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// This process's `/proc/self/pagemap`, and room for answers.
    Scan(File, Vec<PageRegion>),
    /// Room for answers.
    Mincore(Vec<u8>),
}

/// Runs that one scan returns.
const REGIONS: usize = 512;
const PAGE: usize = PAGE_BYTES as usize;
/// Bytes that one `mincore` looks at.
const MINCORE_BYTES: usize = 16 << 20;

impl Host {
    /// Asks the host what it can do, once. Afterwards no call opens anything, so a sandbox may be closed.
    #[must_use]
    pub fn probe() -> Self {
        let mut regions = vec![PageRegion::default(); REGIONS];
        // A process may be barred from its own pagemap, by a missing /proc or as it is not dumpable.
        match File::open("/proc/self/pagemap") {
            // An empty range: answered with nothing where the call exists.
            Ok(file) if scan(&file, 0, 0, &mut regions).is_ok() => Self { way: Way::Scan(file, regions) },
            _ => Self::mincore(),
        }
    }

    /// The way of hosts before Linux 6.7.
    #[must_use]
    pub fn mincore() -> Self {
        Self { way: Way::Mincore(Vec::new()) }
    }
}

impl Survey for Host {
    fn survey(&mut self, range: HostRange, found: &mut Vec<Extent>) -> io::Result<u64> {
        match &mut self.way {
            Way::Scan(file, regions) => survey_by_scan(file, regions, range, found),
            Way::Mincore(bytes) => survey_by_mincore(bytes, range, found),
        }
    }

    fn tells_huge_and_swapped(&self) -> bool {
        matches!(self.way, Way::Scan(..))
    }
}

/// `struct page_region` of include/uapi/linux/fs.h.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg` of include/uapi/linux/fs.h.
#[derive(Debug, Default)]
#[repr(C)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
const PAGE_IS_HUGE: u64 = 1 << 6;
/// `_IOWR('f', 16, struct pm_scan_arg)`.
pub const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;

/// Fills `regions` with what is in memory or swapped from `start` to `end`; returns how many of them it filled
/// and where it stopped.
fn scan(file: &File, start: u64, end: u64, regions: &mut [PageRegion]) -> io::Result<(usize, u64)> {
    let mut arguments = ScanArguments {
        size: size_of::<ScanArguments>() as u64,
        start,
        end,
        vec: regions.as_mut_ptr() as u64,
        vec_len: regions.len() as u64,
        // Not the page of zeroes, and in memory or swapped.
        category_inverted: PAGE_IS_PFNZERO,
        category_mask: PAGE_IS_PFNZERO,
        category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_HUGE,
        ..ScanArguments::default()
    };
    // SAFETY: the structure is the kernel's, says its own size, and names a vector that is as long as it says and
    // borrowed for the call. Without write-protection flags the scanned pages are not changed.
    let filled = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &raw mut arguments) };
    let filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
    Ok((filled, arguments.walk_end))
}

fn survey_by_scan(
    file: &File,
    regions: &mut [PageRegion],
    range: HostRange,
    found: &mut Vec<Extent>,
) -> io::Result<u64> {
    let start = range.address() as u64;
    let end = start.saturating_add(range.bytes() as u64);
    let (filled, walked) = scan(file, start, end, regions)?;
    let page = |address: u64| address.saturating_sub(start) / PAGE_BYTES;
    found.extend(regions.iter().take(filled).map(|region| Extent {
        first: page(region.start),
        pages: page(region.end).saturating_sub(page(region.start)),
        huge: region.categories & PAGE_IS_HUGE != 0,
        swapped: region.categories & PAGE_IS_PRESENT == 0,
    }));
    Ok(page(walked.min(end)))
}

fn survey_by_mincore(bytes: &mut Vec<u8>, range: HostRange, found: &mut Vec<Extent>) -> io::Result<u64> {
    let length = range.bytes().min(MINCORE_BYTES);
    bytes.resize(length / PAGE, 0);
    // SAFETY: the range comes from a mapping, which the call does not touch; it writes a byte a page into the
    // vector, which has that many.
    let result = unsafe { libc::mincore(range.address() as *mut _, length, bytes.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut first = 0u64;
    for run in bytes.chunk_by(|one, two| one & 1 == two & 1) {
        let pages = run.len() as u64;
        if run.first().is_some_and(|page| page & 1 != 0) {
            found.push(Extent { first, pages, huge: false, swapped: false });
        }
        first = first.saturating_add(pages);
    }
    Ok(bytes.len() as u64)
}

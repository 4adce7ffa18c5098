//! Gives a guest's memory back to the host, and proves it with a receipt.
//!
//! [`Backing`] holds the mappings of one VM, region by region of its [`Layout`](crate::frames::Layout), and
//! releases [runs](crate::frames::Run) of pages in as few system calls as the host allows. Its receipt, a
//! [`Released`], is all that the page books accept: a page whose memory did not go back cannot be counted.
//!
//! Runs, not addresses, come in; they lie in one region each by construction, and a mapping turns one into host
//! addresses only after checking that all of it is inside. System calls go through [`Kernel`], where tests put
//! the host's failures.
//!
//! | memory | released by |
//! |---|---|
//! | anonymous, private | `process_madvise(MADV_DONTNEED)` of all runs at once (Linux 6.13 on), else `madvise` a run |
//! | private, mapped from a file copy-on-write | `mmap(MAP_FIXED)` of anonymous memory in its place, once, then as above: `MADV_DONTNEED` would bring the file back |
//! | memfd or file, shared | `fallocate(FALLOC_FL_PUNCH_HOLE)` a run: `MADV_DONTNEED` would only unmap it |
//!
//! In every case the guest reads zeroes from a released page.
//!
//! Runs are as long as a pass of the device allows, so a huge page that is released whole goes back as such, some
//! twenty times cheaper than in parts; one that is released in part is split by the kernel, and what is kept stays
//! resident. The host's own huge pages would bring ballooned memory back unasked; where, and what is done about it,
//! says `huge_pages`. Ballooned pages that came back all the same are what
//! [`Residency::ballooned_resident`](crate::resident::Residency::ballooned_resident) counts.

mod advice;
mod cost;
mod huge_pages;
mod kernel;
mod mapping;
mod release;
#[cfg(test)]
mod release_tests;
#[cfg(test)]
#[expect(unsafe_code)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;

pub use cost::{CUT_PAGES, SPLIT_PAGES};
pub use huge_pages::PAGES_PER_HUGE_PAGE;
pub use kernel::{Host, Kernel, MAX_RANGES};
pub use mapping::{HostRange, Kind, Mapping};
pub use release::{Backing, Error, Failures, Released, Work};

//! The system calls that release memory, behind a trait so that tests can make them fail.

#![expect(unsafe_code, reason = "here the kernel is called: each method is a system call")]

use super::mapping::HostRange;
use crate::numa;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What releases memory. One method is one system call, but for [`Kernel::replace`], which is up to [`REPLACE_CALLS`].
pub trait Kernel: Send {
    /// Discards private anonymous memory (`MADV_DONTNEED`).
    ///
    /// # Errors
    /// The host's answer. Part of the range may have been discarded.
    fn discard(&mut self, range: HostRange) -> io::Result<()>;

    /// Puts fresh private anonymous memory, which reads zero, in the place of a range that was mapped from a file. It is
    /// taken from the NUMA nodes that the range was to be taken from; no advice on huge pages is in force for it.
    ///
    /// # Errors
    /// The host's answer; nothing changed.
    fn replace(&mut self, range: HostRange) -> io::Result<()>;

    /// Discards several ranges of private anonymous memory at once, at most [`MAX_RANGES`] of them. Returns
    /// how many bytes were done: all ranges up to the first that failed.
    ///
    /// # Errors
    /// The host's answer to the first range.
    fn discard_all(&mut self, ranges: &[HostRange]) -> io::Result<usize>;

    /// Allows or forbids huge pages in a range of private anonymous memory (`MADV_HUGEPAGE`, `MADV_NOHUGEPAGE`).
    ///
    /// # Errors
    /// The host's answer; none of its contents changed.
    fn allow_huge_pages(&mut self, range: HostRange, allow: bool) -> io::Result<()>;

    /// Splits the huge pages of which only a part is left in a range of private anonymous memory, so that the host has the
    /// other part (`MADV_COLD`: mm/madvise.c, `madvise_cold_or_pageout_pte_range()`, splits what is mapped in part). The
    /// rest counts as unused for a while to a host that swaps.
    ///
    /// # Errors
    /// The host's answer; none of its contents changed.
    fn split_huge_pages(&mut self, range: HostRange) -> io::Result<()>;

    /// Bytes in a page of the host, to which it rounds what it discards.
    fn page_bytes(&self) -> u64;

    /// Whether this host takes [`Kernel::discard_all`] at all.
    fn takes_vectors(&mut self) -> bool;

    /// Frees the pages of `file` behind `range`, which begin at its byte `offset`.
    ///
    /// # Errors
    /// The host's answer. Part of the range may have been freed.
    fn punch_hole(&mut self, file: BorrowedFd<'_>, offset: u64, range: HostRange) -> io::Result<()>;
}

/// Most system calls of one [`Kernel::replace`]: the mapping itself, and what keeps its policy and its place in dumps.
pub const REPLACE_CALLS: u64 = 4;

/// Ranges that one [`Kernel::discard_all`] takes: `UIO_MAXIOV` of the kernel's include/uapi/linux/uio.h.
pub const MAX_RANGES: usize = 1024;

/// The Linux that this process runs on.
#[derive(Debug)]
pub struct Host {
    /// This very process, if the host takes vectors.
    process: Option<OwnedFd>,
}

impl Host {
    /// Asks the host what it can do, once: `process_madvise` takes `MADV_DONTNEED` for oneself from Linux 6.13
    /// on (mm/madvise.c, `process_madvise_remote_valid`). Tried on two pages of its own. Afterwards no call
    /// opens anything, so a sandbox may be closed.
    #[must_use]
    pub fn probe() -> Self {
        Self { process: this_process().filter(discards_own_pages) }
    }

    /// A host without `process_madvise`, to measure and test the other way.
    #[must_use]
    pub fn without_vectors() -> Self {
        Self { process: None }
    }
}

impl Kernel for Host {
    fn discard(&mut self, range: HostRange) -> io::Result<()> {
        // SAFETY: a range comes from a `Mapping`, whose maker vouched that its contents may vanish.
        check(unsafe { libc::madvise(range.address() as *mut _, range.bytes(), libc::MADV_DONTNEED) })
    }

    fn replace(&mut self, range: HostRange) -> io::Result<()> {
        let address = range.address() as *mut libc::c_void;
        let policy = numa::Policy::of(range);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: a range comes from a `Mapping`, whose maker vouched that its contents may vanish, and stays mapped, as
        // the kernel replaces it in one step.
        if unsafe { libc::mmap(address, range.bytes(), protection, flags, -1, 0) } == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // As the rest of guest memory; a host that refuses has it in a core dump.
        // SAFETY: advice changes no content.
        unsafe { libc::madvise(address, range.bytes(), libc::MADV_DONTDUMP) };
        policy.apply(range);
        Ok(())
    }

    fn discard_all(&mut self, ranges: &[HostRange]) -> io::Result<usize> {
        let Some(process) = &self.process else { return Err(io::ErrorKind::Unsupported.into()) };
        madvise_vector(process, ranges)
    }

    fn allow_huge_pages(&mut self, range: HostRange, allow: bool) -> io::Result<()> {
        let advice = if allow { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // SAFETY: advice changes no content.
        check(unsafe { libc::madvise(range.address() as *mut _, range.bytes(), advice) })
    }

    fn split_huge_pages(&mut self, range: HostRange) -> io::Result<()> {
        // SAFETY: advice changes no content.
        check(unsafe { libc::madvise(range.address() as *mut _, range.bytes(), libc::MADV_COLD) })
    }

    fn page_bytes(&self) -> u64 {
        // SAFETY: takes a number and returns one.
        u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or_default()
    }

    fn takes_vectors(&mut self) -> bool {
        self.process.is_some()
    }

    fn punch_hole(&mut self, file: BorrowedFd<'_>, offset: u64, range: HostRange) -> io::Result<()> {
        let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let offset = libc::off64_t::try_from(offset).map_err(too_large)?;
        let bytes = libc::off64_t::try_from(range.bytes()).map_err(too_large)?;
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: the file is guest memory, as the maker of its `Mapping` vouched; no memory of ours is passed.
        check(unsafe { libc::fallocate64(file.as_raw_fd(), mode, offset, bytes) })
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn this_process() -> Option<OwnedFd> {
    // SAFETY: takes numbers only and returns a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: the kernel just made this descriptor, and nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn madvise_vector(process: &OwnedFd, ranges: &[HostRange]) -> io::Result<usize> {
    let ranges = ranges.get(..MAX_RANGES).unwrap_or(ranges);
    // SAFETY: `HostRange` has the layout of `struct iovec`, and the kernel only reads the vector. What the ranges
    // name comes from a `Mapping`, whose maker vouched that its contents may vanish.
    let done = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            process.as_raw_fd(),
            ranges.as_ptr(),
            ranges.len(),
            libc::MADV_DONTNEED,
            0,
        )
    };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// Discards two pages of its own, which are not neighbours, and looks whether they are gone.
fn discards_own_pages(process: &OwnedFd) -> bool {
    const PAGE: usize = crate::PAGE_BYTES as usize;
    const BYTES: usize = 3 * PAGE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let scratch = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, protection, flags, -1, 0) };
    if scratch == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: the mapping made above, all of it, writable, and nobody else has its address.
    unsafe { std::ptr::write_bytes(scratch.cast::<u8>(), 1, BYTES) };
    // SAFETY: as for the write above; dropped before it is unmapped.
    let mapping = unsafe { super::Mapping::new(scratch as usize, BYTES as u64, super::Kind::Anonymous) };
    let page = |number| {
        let layout = crate::frames::Layout::new(&[(0, crate::BLOCK_BYTES)]).ok()?;
        mapping.range(layout.run(0, number, 1)?)
    };
    let done = match (page(0), page(2)) {
        (Some(first), Some(third)) => madvise_vector(process, &[first, third]).ok(),
        _ => None,
    };
    let byte = |page: usize| {
        let first = scratch.cast::<u8>().wrapping_add(page.wrapping_mul(PAGE));
        // SAFETY: within the mapping, which is readable and still there.
        unsafe { first.read_volatile() }
    };
    let works = done == Some(2 * PAGE) && (byte(0), byte(1), byte(2)) == (0, 1, 0);
    // SAFETY: the mapping made above; nothing refers to it any more.
    unsafe { libc::munmap(scratch, BYTES) };
    works
}

//! Memory of the host for tests, with a canary page on each side.

#![expect(unsafe_code, reason = "tests map memory of the host by system calls")]

use crate::backing::{Kind, Mapping};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const PAGE: usize = crate::PAGE_BYTES as usize;
const HUGE_PAGE: usize = 2 << 20;

/// A mapping that begins at a huge page, between two canary pages of the same kind. Filled with zeroes.
pub struct Scratch {
    start: *mut u8,
    bytes: usize,
    reserved: (*mut u8, usize),
    memfd: Option<OwnedFd>,
}

impl Scratch {
    pub fn anonymous(bytes: u64) -> Self {
        Self::map(bytes as usize, None)
    }

    pub fn memfd(bytes: u64) -> Self {
        // SAFETY: the name is a NUL-terminated string that outlives the call.
        let fd = unsafe { libc::memfd_create(c"scratch".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: a new descriptor that nobody else knows.
        Self::map(bytes as usize, Some(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn map(bytes: usize, memfd: Option<OwnedFd>) -> Self {
        let reserved = bytes + 2 * HUGE_PAGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), reserved, 3, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        let first = (base as usize + PAGE).next_multiple_of(HUGE_PAGE);
        let start = base.wrapping_byte_add(first - base as usize).cast::<u8>();
        if let Some(memfd) = &memfd {
            let length = bytes + 2 * PAGE;
            // SAFETY: a descriptor of our own.
            assert_eq!(unsafe { libc::ftruncate(memfd.as_raw_fd(), length as i64) }, 0);
            let flags = libc::MAP_SHARED | libc::MAP_FIXED;
            let at = start.wrapping_sub(PAGE).cast();
            // SAFETY: replaces a part of the mapping made above, which nobody has seen yet.
            assert_ne!(unsafe { libc::mmap(at, length, 3, flags, memfd.as_raw_fd(), 0) }, libc::MAP_FAILED);
        }
        let scratch = Self { start, bytes, reserved: (base.cast(), reserved), memfd };
        // SAFETY: the pages before and behind lie within the reservation.
        unsafe { std::ptr::write_bytes(start.wrapping_sub(PAGE), 0xca, PAGE) };
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes(start.wrapping_add(bytes), 0xca, PAGE) };
        scratch
    }

    /// The mapping as the backing sees it; offset one page in the memfd, where the canary is.
    pub fn mapping(&self) -> Mapping {
        let kind = match &self.memfd {
            None => Kind::Anonymous,
            Some(memfd) => Kind::Shared { file: memfd.try_clone().unwrap(), offset: PAGE as u64 },
        };
        self.mapping_as(kind)
    }

    /// The mapping as if it were made of `kind`.
    pub fn mapping_as(&self, kind: Kind) -> Mapping {
        // SAFETY: tests keep the scratch as long as the mapping and rely on its contents only as on a guest's.
        unsafe { Mapping::new(self.start as usize, self.bytes as u64, kind) }
    }

    pub fn without_huge_pages(&self) {
        // SAFETY: advice on a mapping of our own changes no content.
        unsafe { libc::madvise(self.start.cast(), self.bytes, libc::MADV_NOHUGEPAGE) };
    }

    /// Maps a file whose bytes are all `value` over some pages, copy-on-write.
    pub fn map_over(&self, first_page: usize, pages: usize, value: u8) {
        assert!((first_page + pages) * PAGE <= self.bytes);
        let file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut &file, &vec![value; pages * PAGE]).unwrap();
        let (at, flags) =
            (self.start.wrapping_add(first_page * PAGE).cast(), libc::MAP_PRIVATE | libc::MAP_FIXED);
        // SAFETY: replaces a part of the mapping, into which nobody holds a reference.
        assert_ne!(unsafe { libc::mmap(at, pages * PAGE, 3, flags, file.as_raw_fd(), 0) }, libc::MAP_FAILED);
    }

    pub fn fill(&self, first_page: usize, pages: usize, value: u8) {
        assert!((first_page + pages) * PAGE <= self.bytes);
        // SAFETY: within the mapping.
        unsafe { std::ptr::write_bytes(self.start.wrapping_add(first_page * PAGE), value, pages * PAGE) };
    }

    /// First byte of `page`.
    pub fn byte(&self, page: usize) -> u8 {
        assert!((page + 1) * PAGE <= self.bytes);
        // SAFETY: within the mapping.
        unsafe { self.start.wrapping_add(page * PAGE).read_volatile() }
    }

    pub fn canaries_live(&self) -> bool {
        let canary = |page: *mut u8| {
            (0..PAGE).all(|offset| {
                // SAFETY: a canary page lies within the reservation.
                unsafe { page.wrapping_add(offset).read_volatile() == 0xca }
            })
        };
        canary(self.start.wrapping_sub(PAGE)) && canary(self.start.wrapping_add(self.bytes))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: the reservation made in `map`, all of it.
        unsafe { libc::munmap(self.reserved.0.cast(), self.reserved.1) };
    }
}

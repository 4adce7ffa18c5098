//! The memory that is released, and the raw ways to do it.

use balloon::backing::{Backing, Kernel, Kind, Mapping};
use balloon::device::{Balloon, OFFERED};
use balloon::frames::{Books, Layout};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub const PAGE: usize = balloon::PAGE_BYTES as usize;
const HUGE_PAGE: usize = 2 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    Small,
    Huge,
    Memfd,
}

impl Memory {
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "anonymous, 4 KiB",
            Self::Huge => "anonymous, 2 MiB",
            Self::Memfd => "memfd",
        }
    }
}

/// Memory that is touched and released again and again.
pub struct Subject {
    pub kind: Memory,
    start: *mut u8,
    bytes: usize,
    memfd: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
}

impl Subject {
    pub fn new(kind: Memory, bytes: usize) -> Self {
        let reserved = bytes + HUGE_PAGE;
        let memfd = (kind == Memory::Memfd).then(|| {
            // SAFETY: the name is a NUL-terminated string that outlives the call.
            let fd = unsafe { libc::memfd_create(c"bench".as_ptr(), libc::MFD_CLOEXEC) };
            assert!(fd >= 0);
            // SAFETY: a new descriptor that nobody else knows.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            // SAFETY: a descriptor of our own.
            assert_eq!(unsafe { libc::ftruncate(fd.as_raw_fd(), bytes as i64) }, 0);
            fd
        });
        let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), reserved, 3, private, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        let start = base.wrapping_byte_add(base.align_offset(HUGE_PAGE));
        if let Some(fd) = &memfd {
            let flags = libc::MAP_SHARED | libc::MAP_FIXED;
            // SAFETY: replaces a part of the mapping made above, which nobody has seen yet.
            assert_ne!(unsafe { libc::mmap(start, bytes, 3, flags, fd.as_raw_fd(), 0) }, libc::MAP_FAILED);
        }
        // SAFETY: takes numbers only.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) } as i32;
        // SAFETY: a new descriptor that nobody else knows.
        let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
        Self { kind, start: start.cast(), bytes, memfd, pidfd }
    }

    pub fn pages(&self) -> usize {
        self.bytes / PAGE
    }

    /// Fills all of it, with pages of its kind whatever a device has advised since.
    pub fn touch(&self) {
        if self.kind == Memory::Huge {
            // A new page table: what was split stays split otherwise.
            self.release(0, self.pages());
        }
        let advice = if self.kind == Memory::Huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // SAFETY: advice on a mapping of our own changes no content.
        unsafe { libc::madvise(self.start.cast(), self.bytes, advice) };
        for page in 0..self.pages() {
            let first = self.start.wrapping_add(page * PAGE);
            // SAFETY: within the mapping.
            unsafe { first.write_volatile(1) };
        }
    }

    /// Permille of it on huge pages, by the kernel's count for this process, which has no others.
    pub fn huge_permille(&self) -> usize {
        let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap();
        let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
        (kib << 10) * 1000 / self.bytes
    }

    pub fn release(&self, first: usize, pages: usize) {
        let (offset, bytes) = (first * PAGE, pages * PAGE);
        let start = self.start.wrapping_add(offset);
        let result = match &self.memfd {
            // SAFETY: within the mapping, whose contents nobody needs.
            None => unsafe { libc::madvise(start.cast(), bytes, libc::MADV_DONTNEED) },
            Some(fd) => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                // SAFETY: takes numbers only; nobody needs the file's contents.
                unsafe { libc::fallocate(fd.as_raw_fd(), mode, offset as i64, bytes as i64) }
            }
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// False if the host does not take it.
    pub fn release_vectored(&self, runs: &[(usize, usize)]) -> bool {
        let vector: Vec<_> = runs
            .iter()
            .map(|&(first, pages)| libc::iovec {
                iov_base: self.start.wrapping_add(first * PAGE).cast(),
                iov_len: pages * PAGE,
            })
            .collect();
        let Some(pidfd) = self.pidfd.as_ref().map(AsRawFd::as_raw_fd) else { return false };
        // SAFETY: the vector outlives the call and names our own mapping, whose contents nobody needs.
        let done = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                pidfd,
                vector.as_ptr(),
                vector.len(),
                libc::MADV_DONTNEED,
                0,
            )
        };
        done == runs.iter().map(|run| (run.1 * PAGE) as i64).sum::<i64>()
    }

    pub fn device<K: Kernel>(&self, host: K) -> Balloon<K> {
        let layout = Layout::new(&[(0, self.bytes as u64)]).unwrap();
        let kind = match &self.memfd {
            None => Kind::Anonymous,
            Some(fd) => Kind::Shared { file: fd.try_clone().unwrap(), offset: 0 },
        };
        // SAFETY: mapped for the length of the program, and nobody needs its contents.
        let mapping = unsafe { Mapping::new(self.start as usize, self.bytes as u64, kind) };
        let backing = Backing::new(host, &layout, vec![mapping]).unwrap();
        let mut balloon = Balloon::new(Books::new(layout), backing, 0);
        balloon.activate(OFFERED, 0);
        balloon
    }
}

//! A disk in a file or on a block device of the host.
//!
//! Transfers go straight between guest memory and the file; only what direct I/O cannot take as it is goes
//! through a [bounce buffer](super::bounce). The file is opened elsewhere, with or without `O_DIRECT`.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::backend::Backend;
use super::bounce::{Bounce, Cursor, windows};
use super::direct::{Alignment, direct_alignment, set_direct};
use super::lookup::Slice;
use super::request::SECTOR_BYTES;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use vmm_sys_util::fallocate::{FallocateMode, fallocate};

/// Pieces of memory that one system call takes (`UIO_MAXIOV`).
const MAX_VECTORS: usize = 1024;

/// A file as a disk. The disk ends with the file's last whole sector and never grows.
#[derive(Debug)]
pub struct FileBackend {
    file: File,
    len: u64,
    can_discard: bool,
    /// What direct I/O asks for; nothing where the host caches.
    alignment: Option<Alignment>,
    bounce: Bounce,
    /// The error by which the host said that it lost what it cached.
    lost: Option<i32>,
}

impl FileBackend {
    /// A disk in `file`, which nobody else may write. Turns direct I/O off where the file's length forbids it:
    /// its last bytes could not be written without making it longer.
    ///
    /// # Errors
    /// The file cannot be measured.
    pub fn new(file: File) -> io::Result<Self> {
        let end = (&file).seek(SeekFrom::End(0))?;
        let len = (end / SECTOR_BYTES).saturating_mul(SECTOR_BYTES);
        let mut alignment = direct_alignment(&file)?;
        if alignment.is_some_and(|alignment| !len.is_multiple_of(alignment.offset)) {
            set_direct(&file, false)?;
            alignment = None;
        }
        let bounce = Bounce::new(alignment.map_or(1, |alignment| alignment.memory));
        // A hole behind the end changes nothing, but a file system without holes says so. A block device
        // calls the range invalid, which says nothing: it is asked when the guest asks.
        let probe = allocate(&file, Allocation::Hole, end, SECTOR_BYTES);
        let can_discard = !probe.is_err_and(|error| error.kind() == io::ErrorKind::Unsupported);
        Ok(Self { file, len, can_discard, alignment, bounce, lost: None })
    }

    /// Whether transfers bypass the host's page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.alignment.is_some()
    }

    /// What a transfer must be widened to: nothing if it can go as it is.
    fn needs_bounce(&self, offset: u64, slices: &[Slice<'_>]) -> Option<Alignment> {
        self.alignment.filter(|alignment| {
            let fits = |slice: &Slice<'_>| {
                (slice.ptr_guard().as_ptr() as usize).is_multiple_of(alignment.memory)
                    && (slice.len() as u64).is_multiple_of(alignment.offset)
            };
            !(offset.is_multiple_of(alignment.offset) && slices.iter().all(fits))
        })
    }

    /// Writes `len` bytes from `offset` on through the bounce buffer; `fill` is handed the room for them, piece
    /// by piece. What a block holds beside them is read first and written back.
    fn write_bounced(&mut self, offset: u64, len: u64, mut fill: impl FnMut(&mut [u8])) -> io::Result<()> {
        let alignment = self.alignment.map_or(1, |alignment| alignment.offset);
        for window in windows(alignment, offset, len) {
            let buffer = self.bounce.get(window.len);
            if window.is_partial() {
                self.file.read_exact_at(buffer, window.start)?;
            }
            fill(window.wanted(buffer));
            self.file.write_all_at(buffer, window.start)?;
        }
        Ok(())
    }
}

impl Backend for FileBackend {
    fn len_bytes(&self) -> u64 {
        self.len
    }

    fn can_discard(&self) -> bool {
        self.can_discard
    }

    fn read_at(&mut self, offset: u64, into: &[Slice<'_>]) -> io::Result<()> {
        let Some(alignment) = self.needs_bounce(offset, into) else {
            return transfer(&self.file, Direction::Read, offset, into);
        };
        let mut cursor = Cursor::new(into);
        for window in windows(alignment.offset, offset, total(into)) {
            let buffer = self.bounce.get(window.len);
            self.file.read_exact_at(buffer, window.start)?;
            cursor.write(window.wanted(buffer));
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, from: &[Slice<'_>]) -> io::Result<()> {
        if self.needs_bounce(offset, from).is_none() {
            return transfer(&self.file, Direction::Write, offset, from);
        }
        let mut cursor = Cursor::new(from);
        self.write_bounced(offset, total(from), |room| cursor.read(room))
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(errno) = self.lost {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let flushed = self.file.sync_data();
        if let (Err(error), false) = (&flushed, self.is_direct()) {
            // Linux takes pages that it could not write for written, and would tell the next flush that all is well.
            self.lost = error.raw_os_error();
        }
        flushed
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        // A device with large blocks refuses parts of them; what is left out keeps its storage, no more.
        let (offset, len) = self.alignment.map_or((offset, len), |alignment| alignment.inward(offset, len));
        match allocate(&self.file, Allocation::Hole, offset, len) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            done => done,
        }
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        // Neither may be to be had, or not for parts of a device's blocks.
        let cannot = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
        };
        for way in [unmap.then_some(Allocation::Hole), Some(Allocation::Zeros)].into_iter().flatten() {
            match allocate(&self.file, way, offset, len) {
                Err(error) if cannot(&error) => {}
                done => return done,
            }
        }
        self.write_bounced(offset, len, |room| room.fill(0))
    }
}

fn total(slices: &[Slice<'_>]) -> u64 {
    slices.iter().map(|slice| slice.len() as u64).sum()
}

/// What becomes of a range's storage. It reads zero either way.
#[derive(Clone, Copy)]
enum Allocation {
    Hole,
    Zeros,
}

/// Changes the storage of a range, never the file's length. An empty range is nothing to do; the kernel would
/// call it invalid.
fn allocate(file: &File, allocation: Allocation, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    loop {
        let mode = match allocation {
            Allocation::Hole => FallocateMode::PunchHole,
            Allocation::Zeros => FallocateMode::ZeroRange,
        };
        match fallocate(file, mode, true, offset, len).map_err(|error| error.errno()) {
            Ok(()) => return Ok(()),
            Err(libc::EINTR) => {}
            Err(libc::EOPNOTSUPP | libc::ENOSYS) => return Err(io::ErrorKind::Unsupported.into()),
            Err(errno) => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

/// Transfers all of `slices`, going on after short transfers and interruptions.
fn transfer(file: &File, direction: Direction, offset: u64, slices: &[Slice<'_>]) -> io::Result<()> {
    let len = total(slices);
    let mut done = 0u64;
    while done < len {
        let at = offset.saturating_add(done);
        match transfer_some(file, direction, at, &vectors(slices, done)) {
            Ok(0) if matches!(direction, Direction::Read) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done = done.saturating_add(count as u64),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What is left of `slices` after their first `done` bytes, as many as one call takes.
fn vectors(slices: &[Slice<'_>], done: u64) -> Vec<libc::iovec> {
    let mut skip = usize::try_from(done).unwrap_or(usize::MAX);
    let rest = slices.iter().filter_map(|slice| {
        let skipped = skip.min(slice.len());
        skip = skip.saturating_sub(skipped);
        slice.offset(skipped).ok().filter(|rest| !rest.is_empty())
    });
    rest.take(MAX_VECTORS)
        .map(|rest| libc::iovec { iov_base: rest.ptr_guard_mut().as_ptr().cast(), iov_len: rest.len() })
        .collect()
}

fn transfer_some(
    file: &File,
    direction: Direction,
    offset: u64,
    vectors: &[libc::iovec],
) -> io::Result<usize> {
    let count = libc::c_int::try_from(vectors.len()).map_err(io::Error::other)?;
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let fd = file.as_raw_fd();
    let done = match direction {
        // SAFETY: `count` vectors, made from slices that outlive the call. The memory is the guest's or a
        // buffer of ours that is borrowed mutably; what races with a guest is its own loss.
        Direction::Read => unsafe { libc::preadv(fd, vectors.as_ptr(), count, offset) },
        // SAFETY: as above, and the memory is only read.
        Direction::Write => unsafe { libc::pwritev(fd, vectors.as_ptr(), count, offset) },
    };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#[path = "file_tests.rs"]
mod tests;

//! Direct I/O as a property of an open file: whether it is on, and what it asks of a transfer.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// What direct I/O wants, in bytes, both powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Memory addresses are multiples of it.
    pub memory: usize,
    /// File offsets and the lengths of all pieces are multiples of it.
    pub offset: u64,
}

impl Alignment {
    /// The largest aligned range within `len` bytes from `offset` on; empty if there is none.
    #[must_use]
    pub fn inward(self, offset: u64, len: u64) -> (u64, u64) {
        let down = |at: u64| at.checked_rem(self.offset).and_then(|over| at.checked_sub(over)).unwrap_or(at);
        let start = offset.checked_next_multiple_of(self.offset).unwrap_or(u64::MAX);
        (start, down(offset.saturating_add(len)).saturating_sub(start))
    }
}

/// What to assume where the kernel cannot tell (before 6.1): a page, which every file system and disk takes.
const ASSUMED: Alignment = Alignment { memory: 4096, offset: 4096 };

/// What transfers to and from `file` must be aligned to, or nothing if the host caches them: `O_DIRECT` is
/// off, or the file system takes the flag but does not heed it.
///
/// # Errors
/// The descriptor cannot be asked.
pub fn direct_alignment(file: &File) -> io::Result<Option<Alignment>> {
    if status_flags(file)? & libc::O_DIRECT == 0 {
        return Ok(None);
    }
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty C string, which with AT_EMPTY_PATH names the descriptor itself, and the
    // buffer is as large as the kernel's structure.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            buffer.as_mut_ptr(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed above, and every bit pattern is valid for its integers.
    let stat = unsafe { buffer.assume_init() };
    if stat.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Ok(Some(ASSUMED));
    }
    Ok(alignment(stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

/// Both numbers are zero where direct I/O is not to be had (statx(2)).
fn alignment(memory: u32, offset: u32) -> Option<Alignment> {
    (memory.is_power_of_two() && offset.is_power_of_two())
        .then(|| Some(Alignment { memory: usize::try_from(memory).ok()?, offset: u64::from(offset) }))?
}

/// Turns direct I/O on `file` on or off, for all who share its open file description.
///
/// # Errors
/// `EINVAL` where the file system has no direct I/O.
pub fn set_direct(file: &File, on: bool) -> io::Result<()> {
    let flags = status_flags(file)?;
    let flags = if on { flags | libc::O_DIRECT } else { flags & !libc::O_DIRECT };
    // SAFETY: sets flags of a descriptor that is open for the time of the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn status_flags(file: &File) -> io::Result<libc::c_int> {
    // SAFETY: reads flags of a descriptor that is open for the time of the call.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 { Err(io::Error::last_os_error()) } else { Ok(flags) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_flag() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert_eq!(direct_alignment(&file).unwrap(), None);
        if set_direct(&file, true).is_ok() {
            let alignment = direct_alignment(&file).unwrap().unwrap();
            assert!(alignment.memory <= 4096 && alignment.offset >= 512, "{alignment:?}");
            set_direct(&file, false).unwrap();
            assert_eq!(direct_alignment(&file).unwrap(), None);
        }
    }

    #[test]
    fn ranges_shrink_to_whole_blocks() {
        let alignment = Alignment { memory: 1, offset: 4096 };
        for ((offset, len), wanted) in [
            ((0, 4096), (0, 4096)),
            ((512, 4096), (4096, 0)),
            ((512, 8192), (4096, 4096)),
            ((4095, 2), (4096, 0)),
            ((4096, 8191), (4096, 4096)),
        ] {
            assert_eq!(alignment.inward(offset, len), wanted, "{len} bytes at {offset}");
        }
    }

    #[test]
    fn zeros_mean_no_direct_io() {
        assert_eq!(alignment(0, 0), None);
        assert_eq!(alignment(4, 512), Some(Alignment { memory: 4, offset: 512 }));
    }
}

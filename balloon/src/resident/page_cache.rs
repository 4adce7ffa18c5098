//! How much of mapped files the host's page cache holds, read step by step.
//!
//! `mincore` of a mapping of a file tells of the page cache, whoever brought a page there, if the file is this user's
//! (mm/mincore.c, `can_do_mincore`); of another's it calls every page resident. It walks the cache, a few nanoseconds a
//! page.

#![expect(unsafe_code, reason = "the kernel is asked about memory that is mapped")]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::PAGE_BYTES;
use std::io;

/// Bytes that one call looks at.
const STEP_BYTES: usize = 16 << 20;

/// A mapping of a whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMapping {
    address: usize,
    bytes: usize,
}

impl FileMapping {
    /// The mapping of `bytes` bytes at host address `address`.
    ///
    /// # Safety
    /// The range is page-aligned and mapped for as long as the value lives.
    #[must_use]
    pub unsafe fn new(address: usize, bytes: usize) -> Self {
        Self { address, bytes }
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A reading under way, and the last one that ended.
#[derive(Debug, Default)]
pub struct PageCache {
    files: Vec<FileMapping>,
    /// Bytes of the file that is next, and of it.
    file: usize,
    offset: usize,
    sums: Vec<u64>,
    last: Option<Vec<u64>>,
    vector: Vec<u8>,
}

impl PageCache {
    /// Of these files, before the first reading.
    #[must_use]
    pub fn new(files: Vec<FileMapping>) -> Self {
        Self { files, ..Self::default() }
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[FileMapping] {
        &self.files
    }

    /// What of each file was in the page cache at the last reading that ended, in bytes.
    #[must_use]
    pub fn last(&self) -> Option<&[u64]> {
        self.last.as_deref()
    }

    /// Reads on, at most `bytes` of the files or one step more; says whether a reading has ended. The next begins another.
    ///
    /// # Errors
    /// The host's answer; the reading begins anew.
    pub fn read_on(&mut self, bytes: usize) -> io::Result<bool> {
        let mut left = bytes;
        while let Some(file) = self.files.get(self.file) {
            let rest = file.bytes.saturating_sub(self.offset);
            if rest == 0 {
                (self.file, self.offset) = (self.file.saturating_add(1), 0);
                continue;
            }
            if left == 0 {
                return Ok(false);
            }
            let length = rest.min(STEP_BYTES);
            let resident = resident(file.address.saturating_add(self.offset), length, &mut self.vector)
                .inspect_err(|_| {
                    (self.file, self.offset) = (0, 0);
                    self.sums.clear();
                })?;
            self.sums.resize(self.files.len(), 0);
            if let Some(sum) = self.sums.get_mut(self.file) {
                *sum = sum.saturating_add(resident);
            }
            self.offset = self.offset.saturating_add(length);
            left = left.saturating_sub(length);
        }
        (self.file, self.offset) = (0, 0);
        self.sums.resize(self.files.len(), 0);
        self.last = Some(std::mem::take(&mut self.sums));
        Ok(true)
    }
}

/// Bytes in memory of a part of a [`FileMapping`].
fn resident(address: usize, length: usize, vector: &mut Vec<u8>) -> io::Result<u64> {
    vector.resize(length.div_ceil(PAGE_BYTES as usize), 0);
    // SAFETY: the range is mapped, by the contract of `FileMapping`; the call does not touch it and writes a byte a page
    // into the vector, which has that many.
    if unsafe { libc::mincore(address as *mut _, length, vector.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let pages = vector.iter().filter(|page| **page & 1 != 0).count() as u64;
    Ok(pages.saturating_mul(PAGE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    const MIB: usize = 1 << 20;

    fn map(file: &File, bytes: usize) -> FileMapping {
        file.set_len(bytes as u64).unwrap();
        // SAFETY: a new mapping at an address of the kernel's choice, never unmapped.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(address, libc::MAP_FAILED);
        // SAFETY: as said.
        unsafe { FileMapping::new(address as usize, bytes) }
    }

    #[test]
    fn what_was_written_is_resident_and_holes_are_not() {
        let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        let mut cache = PageCache::new(vec![map(&files[0], 40 * MIB), map(&files[1], 2 * MIB)]);
        assert_eq!(cache.last(), None);
        assert!(cache.read_on(usize::MAX).unwrap());
        assert_eq!(cache.last(), Some([0, 0].as_slice()));
        // In the first step, the last, and across two.
        for offset in [0, 16 * MIB - 4096, 16 * MIB, 40 * MIB - 4096] {
            files[0].write_all_at(&[1; 4096], offset as u64).unwrap();
        }
        files[1].write_all_at(&[1; 8192], 4096).unwrap();
        // One step after another: what was read last is told meanwhile.
        for _ in 0..3 {
            assert!(!cache.read_on(1).unwrap());
            assert_eq!(cache.last(), Some([0, 0].as_slice()));
        }
        assert!(cache.read_on(usize::MAX).unwrap());
        assert_eq!(cache.last(), Some([4 * 4096, 2 * 4096].as_slice()));
    }

    #[test]
    fn no_files_are_read_at_once() {
        let mut cache = PageCache::new(Vec::new());
        assert!(cache.read_on(0).unwrap());
        assert_eq!(cache.last(), Some([].as_slice()));
    }
}

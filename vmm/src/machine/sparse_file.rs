//! Reads a file into guest memory that nobody has touched yet, and passes over the file's holes.
//!
//! Untouched memory reads zero, as a hole does: to leave it alone saves the host both the copy and the page. Called
//! by [`super::boot`] for the kernel, whose image is a third zeroes and is cached with holes in their place. Where a
//! file system keeps no holes, all is data and is copied.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsRawFd;
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

/// A piece of a file, in bytes.
enum Extent {
    Hole(usize),
    /// None at the end of the file.
    Data(usize),
}

/// A regular file whose holes are passed over when it is read into guest memory.
#[derive(Debug)]
pub struct SparseFile<'a> {
    file: &'a mut File,
    bytes: u64,
    /// Passed over as if it were a hole.
    left_out: Range<u64>,
}

impl<'a> SparseFile<'a> {
    /// Reads `file`, from where it stands.
    ///
    /// # Errors
    /// The host does not tell the file's size.
    pub fn new(file: &'a mut File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes, left_out: 0..0 })
    }

    /// The same, with these bytes of the file passed over as if they were a hole.
    #[must_use]
    pub fn leaving_out(self, left_out: Range<u64>) -> Self {
        Self { left_out, ..self }
    }

    /// What comes next, at most `limit` bytes of it. The file then stands at the data, or behind the hole.
    fn next_extent(&mut self, limit: usize) -> io::Result<Extent> {
        let at_most = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(limit);
        let start = self.file.stream_position()?;
        if self.left_out.contains(&start) {
            let bytes = at_most(self.left_out.end.saturating_sub(start));
            self.file.seek(SeekFrom::Start(start.saturating_add(bytes as u64)))?;
            return Ok(Extent::Hole(bytes));
        }
        // What comes before it, at most.
        let limit = match self.left_out.start.checked_sub(start) {
            Some(before) if before > 0 => limit.min(usize::try_from(before).unwrap_or(usize::MAX)),
            _ => limit,
        };
        let at_most = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(limit);
        let hole = at_most(self.find(start, libc::SEEK_DATA)?.saturating_sub(start));
        if hole > 0 {
            self.file.seek(SeekFrom::Start(start.saturating_add(hole as u64)))?;
            return Ok(Extent::Hole(hole));
        }
        let data = at_most(self.find(start, libc::SEEK_HOLE)?.saturating_sub(start));
        self.file.seek(SeekFrom::Start(start))?;
        Ok(Extent::Data(data))
    }

    /// Where data or a hole begins (`lseek(2)`), from `start` on; the file's end where none does. The file then stands
    /// anywhere.
    fn find(&self, start: u64, whence: libc::c_int) -> io::Result<u64> {
        let offset = libc::off_t::try_from(start).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: lseek touches no memory.
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), offset, whence) };
        match u64::try_from(found) {
            Ok(found) => Ok(found),
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENXIO) => Ok(self.bytes),
                error => Err(error),
            },
        }
    }
}

impl Read for SparseFile<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Seek for SparseFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl ReadVolatile for SparseFile<'_> {
    /// Fills all of `memory`, which reads zero, or what the file has left: vm-memory does not ask again.
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        memory: &mut VolatileSlice<B>,
    ) -> Result<usize, VolatileMemoryError> {
        let mut filled = 0;
        while filled < memory.len() {
            let extent = self.next_extent(memory.len().saturating_sub(filled));
            let passed = match extent.map_err(VolatileMemoryError::IOError)? {
                Extent::Hole(bytes) => bytes,
                Extent::Data(bytes) => self.file.read_volatile(&mut memory.subslice(filled, bytes)?)?,
            };
            if passed == 0 {
                break;
            }
            filled = filled.saturating_add(passed);
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory;
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

    const MEMORY: usize = 4 << 20;

    /// Reads `length` bytes from `from` on into fresh memory.
    fn read(file: &mut File, from: u64, length: usize) -> Result<Vec<u8>, vm_memory::GuestMemoryError> {
        let memory = memory::ram(MEMORY as u64);
        let mut sparse = SparseFile::new(file).unwrap();
        sparse.seek(SeekFrom::Start(from)).unwrap();
        memory.read_exact_volatile_from(GuestAddress(0), &mut sparse, length)?;
        assert_eq!(sparse.stream_position().unwrap(), from + length as u64);
        let mut bytes = vec![0xaa; length];
        memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        Ok(bytes)
    }

    #[test]
    fn a_hole_costs_no_memory() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.set_len(MEMORY as u64).unwrap();
        let memory = memory::ram(MEMORY as u64);
        let mut sparse = SparseFile::new(&mut file).unwrap();
        memory.read_exact_volatile_from(GuestAddress(0), &mut sparse, MEMORY).unwrap();
        let resident = |address: u64| {
            let host = memory.get_host_address(GuestAddress(address)).unwrap();
            let mut resident = 0u8;
            // SAFETY: asks about one page of the mapping that `memory` owns, and has room for the answer.
            assert_eq!(unsafe { libc::mincore(host.cast(), 4096, &raw mut resident) }, 0);
            resident & 1 == 1
        };
        assert!(resident(0));
        assert!(!resident(3 << 20));
    }

    #[test]
    fn what_is_left_out_is_not_touched() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 40_960], 0).unwrap();
        let memory = memory::ram(MEMORY as u64);
        memory.write_slice(&[9; 40_960], GuestAddress(0)).unwrap();
        let mut sparse = SparseFile::new(&mut file).unwrap().leaving_out(8192..16_384);
        memory.read_exact_volatile_from(GuestAddress(0), &mut sparse, 40_960).unwrap();
        let mut bytes = vec![0; 40_960];
        memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        let expected = [vec![1; 8192], vec![9; 8192], vec![1; 24_576]].concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn the_end_of_the_file_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        assert_eq!(read(&mut file, 4096, 4096).unwrap(), [0; 4096]);
        assert!(read(&mut file, 4096, 4097).is_err());
        assert!(read(&mut file, 8192, 1).is_err());
        assert!(read(&mut file, 9000, 1).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn reads_what_is_in_the_file(
            pieces in prop::collection::vec((0usize..200_000, 1usize..20_000), 0..8),
            tail in 0usize..20_000,
            from in any::<prop::sample::Index>(),
            to in any::<prop::sample::Index>(),
        ) {
            let mut file = tempfile::tempfile().unwrap();
            let mut model = Vec::new();
            for (gap, length) in pieces {
                model.resize(model.len() + gap, 0);
                let at = model.len();
                model.extend((0..length).map(|i| i as u8 | 1));
                file.write_all_at(&model[at..], at as u64).unwrap();
            }
            model.resize(model.len() + tail, 0);
            file.set_len(model.len() as u64).unwrap();
            let (a, b) = (from.index(model.len() + 1), to.index(model.len() + 1));
            let (from, to) = (a.min(b), a.max(b));
            prop_assert_eq!(&read(&mut file, from as u64, to - from).unwrap(), &model[from..to]);
        }
    }
}

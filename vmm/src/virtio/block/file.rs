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
        Ok(Self { file, len, can_discard, alignment, bounce })
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
        self.file.sync_data()
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    const LEN: usize = 1 << 20;

    /// A disk of [`LEN`] bytes in a new file under `directory`.
    fn disk(directory: &Path, direct: bool) -> FileBackend {
        let file = tempfile::tempfile_in(directory).unwrap();
        file.set_len(LEN as u64).unwrap();
        if direct {
            set_direct(&file, true).unwrap();
        }
        let disk = FileBackend::new(file).unwrap();
        assert_eq!(disk.is_direct(), direct);
        disk
    }

    fn on_disk() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    /// Disks of every kind this host has: bypassing its cache, through it, and in a file system without
    /// direct I/O in which zeroing a range is no operation either.
    fn disks() -> Vec<FileBackend> {
        let mut disks = vec![disk(on_disk(), true), disk(on_disk(), false)];
        if Path::new("/dev/shm").is_dir() {
            disks.push(disk(Path::new("/dev/shm"), false));
        }
        // A disk of larger blocks, as far as our side of it goes.
        let mut large = disk(on_disk(), true);
        large.alignment = Some(Alignment { memory: 4096, offset: 4096 });
        large.bounce = Bounce::new(4096);
        disks.push(large);
        disks
    }

    /// Calls `act` with `bytes` cut into slices of `lens`.
    fn with_slices<T>(bytes: &mut [u8], lens: &[usize], act: impl FnOnce(&[Slice<'_>]) -> T) -> T {
        let mut rest = bytes;
        let mut slices = Vec::new();
        for &len in lens {
            let (now, later) = rest.split_at_mut(len);
            slices.push(Slice::from(now));
            rest = later;
        }
        act(&slices)
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Read { sector: usize, skew: usize, lens: Vec<usize> },
        Write { sector: usize, skew: usize, lens: Vec<usize>, seed: u8 },
        Zero { sector: usize, sectors: usize, unmap: bool },
        Flush,
    }

    /// Pieces that sum up to whole sectors, few of them whole sectors themselves.
    fn pieces() -> impl Strategy<Value = Vec<usize>> {
        let sectors = prop_oneof![1usize..20, 200usize..300];
        (sectors, prop::collection::vec(prop_oneof![1usize..3000, Just(512), Just(4096)], 0..5)).prop_map(
            |(sectors, cuts)| {
                let mut left = sectors * 512;
                let mut lens = Vec::new();
                for cut in cuts {
                    let len = cut.min(left);
                    lens.push(len);
                    left -= len;
                }
                lens.push(left);
                lens
            },
        )
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let skew = prop_oneof![Just(0usize), Just(512), 1usize..4096];
        prop_oneof![
            (0usize..1700, skew.clone(), pieces()).prop_map(|(sector, skew, lens)| Operation::Read {
                sector,
                skew,
                lens
            }),
            (0usize..1700, skew, pieces(), any::<u8>())
                .prop_map(|(sector, skew, lens, seed)| { Operation::Write { sector, skew, lens, seed } }),
            (0usize..1700, 0usize..300, any::<bool>())
                .prop_map(|(sector, sectors, unmap)| { Operation::Zero { sector, sectors, unmap } }),
            Just(Operation::Flush),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Every kind of disk behaves like bytes in memory, whatever the alignment of disk and memory.
        #[test]
        fn behaves_like_memory(operations in prop::collection::vec(operation(), 1..25)) {
            for mut disk in disks() {
                let mut model = vec![0u8; LEN];
                for operation in operations.clone() {
                    match operation {
                        Operation::Read { sector, skew, lens } => {
                            let len: usize = lens.iter().sum();
                            let mut memory = vec![0xa5; 4096 + skew + len + 1];
                            let start = memory.as_ptr().align_offset(4096);
                            let memory = &mut memory[start..=start + skew + len];
                            with_slices(&mut memory[skew..], &lens, |slices| {
                                disk.read_at(sector as u64 * 512, slices)
                            }).unwrap();
                            let end = skew + len;
                            prop_assert!(memory[skew..end] == model[sector * 512..][..len], "wrong data");
                            prop_assert!(memory[..skew].iter().chain(&memory[end..]).all(|&b| b == 0xa5));
                        }
                        Operation::Write { sector, skew, lens, seed } => {
                            let len: usize = lens.iter().sum();
                            let mut memory = vec![0; 4096 + skew + len];
                            let start = memory.as_ptr().align_offset(4096);
                            let memory = &mut memory[start..start + skew + len];
                            for (i, byte) in memory.iter_mut().enumerate() {
                                *byte = seed.wrapping_add((i / 7) as u8);
                            }
                            let data = memory[skew..].to_vec();
                            with_slices(&mut memory[skew..], &lens, |slices| {
                                disk.write_at(sector as u64 * 512, slices)
                            }).unwrap();
                            model[sector * 512..][..len].copy_from_slice(&data);
                        }
                        Operation::Zero { sector, sectors, unmap } => {
                            disk.write_zeroes(sector as u64 * 512, sectors as u64 * 512, unmap).unwrap();
                            model[sector * 512..][..sectors * 512].fill(0);
                        }
                        Operation::Flush => disk.flush().unwrap(),
                    }
                }
                let mut all = vec![0; LEN];
                with_slices(&mut all, &[LEN], |slices| disk.read_at(0, slices)).unwrap();
                prop_assert!(all == model, "the disk differs");
                prop_assert_eq!(disk.file.metadata().unwrap().len(), LEN as u64);
            }
        }
    }

    fn fill(disk: &mut FileBackend) {
        let mut memory = vec![0x5a; LEN];
        with_slices(&mut memory, &[LEN], |slices| disk.write_at(0, slices)).unwrap();
        disk.flush().unwrap();
    }

    fn blocks(disk: &FileBackend) -> u64 {
        disk.file.metadata().unwrap().blocks()
    }

    #[test]
    fn discards_return_storage() {
        for mut disk in disks() {
            fill(&mut disk);
            let full = blocks(&disk);
            assert!(full >= LEN as u64 / 512);
            disk.discard(LEN as u64 / 4, LEN as u64 / 2).unwrap();
            assert_eq!(full - blocks(&disk), LEN as u64 / 2 / 512, "half of the disk comes back");
            disk.discard(0, 0).unwrap();
        }
    }

    #[test]
    fn zeroing_keeps_storage_unless_told_otherwise() {
        for mut disk in disks() {
            fill(&mut disk);
            let full = blocks(&disk);
            disk.write_zeroes(0, LEN as u64 / 2, false).unwrap();
            assert!(blocks(&disk) >= full, "zeros take room");
            disk.write_zeroes(0, LEN as u64 / 2, true).unwrap();
            assert_eq!(full - blocks(&disk), LEN as u64 / 2 / 512);
        }
    }

    #[test]
    fn an_odd_length_is_cut_and_cached() {
        let file = tempfile::tempfile_in(on_disk()).unwrap();
        file.set_len(4096 + 512 + 100).unwrap();
        set_direct(&file, true).unwrap();
        let alignment = direct_alignment(&file).unwrap().unwrap();
        let disk = FileBackend::new(file).unwrap();
        assert_eq!(disk.len_bytes(), 4096 + 512);
        assert_eq!(disk.is_direct(), alignment.offset == 512);
    }

    #[test]
    fn a_file_cut_short_is_an_error() {
        for mut disk in disks() {
            disk.file.set_len(4096).unwrap();
            let mut memory = vec![0; 8192];
            let error = with_slices(&mut memory, &[8192], |slices| disk.read_at(0, slices)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn more_pieces_than_one_call_takes() {
        let mut disk = disk(on_disk(), false);
        let mut memory: Vec<u8> = (0..3 * 1024 * 4u32).map(|i| (i / 5) as u8).collect();
        let wanted = memory.clone();
        let lens = vec![4; 3 * 1024];
        with_slices(&mut memory, &lens, |slices| disk.write_at(512, slices)).unwrap();
        memory.fill(0);
        with_slices(&mut memory, &lens, |slices| disk.read_at(512, slices)).unwrap();
        assert_eq!(memory, wanted);
    }
}

use super::*;
use proptest::prelude::*;
use std::os::fd::OwnedFd;
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
fn what_the_host_lost_of_its_cache_stays_lost() {
    for direct in [false, true] {
        let mut disk = disk(on_disk(), direct);
        let (pipe, _writer) = io::pipe().unwrap();
        // Of a pipe nothing can be made durable.
        let file = std::mem::replace(&mut disk.file, OwnedFd::from(pipe).into());
        assert_eq!(disk.flush().unwrap_err().raw_os_error(), Some(libc::EINVAL));
        disk.file = file;
        for _ in 0..2 {
            let again = disk.flush().map_err(|error| error.raw_os_error());
            assert_eq!(again, if direct { Ok(()) } else { Err(Some(libc::EINVAL)) });
        }
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

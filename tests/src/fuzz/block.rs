//! A disk under a hostile driver: every access of the backend lies within the disk and is a whole number of
//! sectors.

use super::bytes::Bytes;
use super::driver::{drive, memory};
use std::io;
use vmm::virtio::block::Block;
use vmm::virtio::block::backend::Backend;
use vmm::virtio::block::lookup::Slice;

const SECTOR: u64 = 512;

/// A disk in memory that checks what is asked of it.
struct Checked(Vec<u8>);

impl Checked {
    fn range(&self, offset: u64, len: u64) -> std::ops::Range<usize> {
        assert!(offset.is_multiple_of(SECTOR) && len.is_multiple_of(SECTOR), "{offset}+{len}");
        let end = offset.checked_add(len).filter(|end| *end <= self.len_bytes());
        offset as usize..end.expect("a request beyond the end of the disk") as usize
    }
}

fn total(slices: &[Slice<'_>]) -> u64 {
    slices.iter().map(|slice| slice.len() as u64).sum()
}

impl Backend for Checked {
    fn len_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn can_discard(&self) -> bool {
        true
    }

    fn read_at(&mut self, offset: u64, into: &[Slice<'_>]) -> io::Result<()> {
        let range = self.range(offset, total(into));
        let mut rest = &self.0[range];
        for slice in into {
            slice.copy_from(&rest[..slice.len()]);
            rest = &rest[slice.len()..];
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, from: &[Slice<'_>]) -> io::Result<()> {
        let range = self.range(offset, total(from));
        let mut rest = &mut self.0[range];
        for slice in from {
            let (now, later) = rest.split_at_mut(slice.len());
            slice.copy_to(now);
            rest = later;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.range(offset, len);
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        let range = self.range(offset, len);
        self.0[range].fill(0);
        Ok(())
    }
}

pub fn run(input: &[u8]) {
    let mut input = Bytes(input);
    let read_only = input.u8() % 4 == 0;
    let disk = Block::new(Checked(vec![0x5a; 64 << 10]), "a disk", "volume", read_only, memory());
    drive(disk, memory(), &mut input, |_, _| {});
}

//! What the hostile guest is told of its machine, and its memory as it begins: code and page tables.

use super::interpreter::{CODE, TABLES, code};
use vmm::machine::layout;

const PAGE: u64 = balloon::PAGE_BYTES;
/// GiB that the page tables map to themselves.
const MAPPED_GIB: u64 = 5;
/// Bytes of the page tables: a table of each upper level, a directory a GiB.
pub const TABLE_BYTES: usize = (2 + MAPPED_GIB as usize) * PAGE as usize;

/// Present and writable.
const TABLE: u64 = 3;
/// Present, writable, a page of 2 MiB.
const HUGE: u64 = 0x83;

/// A machine to be abused: two regions of RAM and a balloon.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Start and length of each region.
    pub regions: [(u64, u64); 2],
    /// Address of the balloon's registers.
    pub balloon: u64,
}

impl Machine {
    /// The first address behind the first region.
    #[must_use]
    pub fn hole(&self) -> u64 {
        self.regions[0].0 + self.regions[0].1
    }

    /// The first address behind all memory.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.regions[1].0 + self.regions[1].1
    }
}

/// Where the registers of the device in `slot` are.
#[must_use]
pub const fn registers(slot: u64) -> u64 {
    layout::VIRTIO_START + slot * layout::VIRTIO_STRIDE
}

/// What lies from [`CODE`] on before the first program: code and page tables.
#[must_use]
pub fn image() -> Vec<u8> {
    let mut image = code().to_vec();
    image.resize((TABLES - CODE) as usize, 0);
    let table = |index: u64| TABLES + index * PAGE;
    let mut entries = vec![0_u64; TABLE_BYTES / 8];
    let per_table = (PAGE / 8) as usize;
    entries[0] = table(1) | TABLE;
    for gib in 0..MAPPED_GIB {
        entries[per_table + gib as usize] = table(2 + gib) | TABLE;
    }
    for (number, entry) in (0_u64..).zip(&mut entries[2 * per_table..]) {
        *entry = number << 21 | HUGE;
    }
    image.extend(entries.iter().flat_map(|entry| entry.to_le_bytes()));
    image
}

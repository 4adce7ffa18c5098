//! How much of guest memory the host really holds.

use crate::virtio::device::Memory;
use std::time::{Duration, Instant};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// A reading is good for so long: it walks the page tables of all guest memory.
const KEPT: Duration = Duration::from_secs(1);
const PAGE_BYTES: usize = balloon::PAGE_BYTES as usize;
/// Pages asked about in one call: a byte of buffer each.
const CHUNK_PAGES: usize = 64 << 10;

/// Counts resident guest memory, at most once a second.
#[derive(Debug)]
pub struct Meter {
    memory: Memory,
    last: Option<(Instant, u64)>,
}

impl Meter {
    /// A meter of `memory`.
    #[must_use]
    pub fn new(memory: Memory) -> Self {
        Self { memory, last: None }
    }

    /// Bytes of guest memory in the host's memory; nothing if the host does not say.
    pub fn read(&mut self) -> Option<u64> {
        if let Some((at, bytes)) = self.last
            && at.elapsed() < KEPT
        {
            return Some(bytes);
        }
        let regions = self.memory.iter().map(|region| {
            let size = usize::try_from(region.len()).ok()?;
            // vm-memory's address of the region, which stays mapped as long as `self.memory` lives.
            resident_pages(region.get_host_address(vm_memory::MemoryRegionAddress(0)).ok()?, size)
        });
        let pages: usize = regions.sum::<Option<usize>>()?;
        let bytes = pages as u64 * balloon::PAGE_BYTES;
        self.last = Some((Instant::now(), bytes));
        Some(bytes)
    }
}

/// Pages of the mapping that are resident, by mincore(2).
fn resident_pages(start: *mut u8, size_bytes: usize) -> Option<usize> {
    let mut pages = vec![0_u8; CHUNK_PAGES.min(size_bytes.div_ceil(PAGE_BYTES))];
    let mut resident = 0;
    for offset in (0..size_bytes).step_by(CHUNK_PAGES * PAGE_BYTES) {
        let length = (size_bytes - offset).min(CHUNK_PAGES * PAGE_BYTES);
        // SAFETY: the kernel checks the range and only reads its page tables; `pages` has a byte for each page.
        let status = unsafe { libc::mincore(start.wrapping_add(offset).cast(), length, pages.as_mut_ptr()) };
        if status != 0 {
            return None;
        }
        resident += pages.iter().take(length.div_ceil(PAGE_BYTES)).filter(|page| **page & 1 != 0).count();
    }
    Some(resident)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memory::map_ram;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn what_was_touched_is_resident() {
        let memory = map_ram(64 << 20).unwrap();
        let mut meter = Meter::new(memory.clone());
        assert_eq!(meter.read(), Some(0));
        memory.write_slice(&[1; 8 << 20], GuestAddress(5 << 20)).unwrap();
        assert_eq!(meter.read(), Some(0), "the last reading is kept");
        meter.last = None;
        // Huge pages may round it up at both ends.
        let bytes = meter.read().unwrap();
        assert!((8 << 20..=12 << 20).contains(&bytes), "{bytes}");
    }
}

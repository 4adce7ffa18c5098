//! Guest memory between canaries: an anonymous region and a memfd one, a page that must never change on each side
//! of both. For the fuzz targets two blocks, kept from one input to the next; for a whole machine of any size.

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous};
use std::fs::File;
use std::ptr::{null_mut, slice_from_raw_parts, with_exposed_provenance};
use std::sync::Arc;
use vm_memory::GuestMemoryRegion;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};
use vmm::virtio::device::Memory;

/// Bytes of each region: a block.
pub const REGION_BYTES: u64 = balloon::BLOCK_BYTES;
/// Guest-physical addresses of the regions.
pub const STARTS: [u64; 2] = [0, 4 * REGION_BYTES];

const PAGE: usize = balloon::PAGE_BYTES as usize;
const CANARY: u8 = 0xca;

thread_local! {
    static FENCED: Fenced = Fenced::new(STARTS.map(|start| (start, REGION_BYTES)));
}

/// The mappings, kept until the program ends.
pub struct Fenced {
    /// The first and the last page of each mapping: addresses of canaries.
    canaries: [[usize; 2]; 2],
    memory: Memory,
}

impl Fenced {
    /// Calls `work` with memory full of zeroes.
    pub fn with(work: impl FnOnce(&Self)) {
        FENCED.with(|fenced| {
            fenced.clear();
            work(fenced);
        });
    }

    fn clear(&self) {
        for region in self.memory.iter() {
            let (address, bytes) = (region.as_ptr().cast(), region.len() as usize);
            match region.file_offset() {
                // SAFETY: the bytes between the canaries, which no reference lends.
                None => unsafe { madvise(address, bytes, Advice::LinuxDontNeed) }.unwrap(),
                Some(file) => {
                    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    fallocate(file.file(), hole, file.start(), region.len()).unwrap();
                }
            }
        }
    }

    /// An anonymous and a memfd region, each with its guest-physical address and length in bytes.
    #[must_use]
    pub fn new(regions: [(u64, u64); 2]) -> Self {
        let [mapped, mapped_shared] = regions.map(|(_, bytes)| bytes as usize + 2 * PAGE);
        let file = File::from(memfd_create(c"guest", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, mapped_shared as u64).unwrap();
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let anonymous = unsafe { mmap_anonymous(null_mut(), mapped, prot, flags) }.unwrap();
        // SAFETY: as above.
        let shared = unsafe { mmap(null_mut(), mapped_shared, prot, MapFlags::SHARED, &file, 0) }.unwrap();
        let mappings = [(anonymous.cast::<u8>(), mapped), (shared.cast(), mapped_shared)];
        let canaries = mappings.map(|(mapping, mapped)| {
            [0, mapped - PAGE].map(|offset| {
                let canary = mapping.wrapping_add(offset);
                // SAFETY: within a mapping made above, which nobody else knows yet.
                unsafe { std::ptr::write_bytes(canary, CANARY, PAGE) };
                canary.expose_provenance()
            })
        });
        let file = FileOffset::new(file, PAGE as u64);
        let region =
            |(mapping, _): (*mut u8, usize), file: Option<FileOffset>, (start, bytes): (u64, u64)| {
                let kind = if file.is_some() { MapFlags::SHARED } else { MapFlags::PRIVATE };
                let flags = i32::try_from(kind.bits()).unwrap();
                let builder = MmapRegionBuilder::new(bytes as usize).with_mmap_flags(flags);
                let builder = match file {
                    Some(file) => builder.with_file_offset(file),
                    None => builder,
                };
                // SAFETY: the bytes between the canaries, mapped for good.
                let builder = unsafe { builder.with_raw_mmap_pointer(mapping.wrapping_add(PAGE)) };
                GuestRegionMmap::new(builder.build().unwrap(), GuestAddress(start)).unwrap()
            };
        let regions =
            vec![region(mappings[0], None, regions[0]), region(mappings[1], Some(file), regions[1])];
        Self { canaries, memory: Arc::new(GuestMemoryMmap::from_regions(regions).unwrap()) }
    }

    #[must_use]
    pub fn memory(&self) -> Memory {
        self.memory.clone()
    }

    /// Panics if anything was written or released beside the regions.
    pub fn check(&self) {
        for canary in self.canaries.as_flattened() {
            let page = slice_from_raw_parts(with_exposed_provenance::<u8>(*canary), PAGE);
            // SAFETY: within a mapping, outside the region: nobody writes it, which is what is checked.
            let page = unsafe { &*page };
            assert!(page.iter().all(|byte| *byte == CANARY), "memory beside the guest's has changed");
        }
    }
}

//! Guest memory between canaries: an anonymous region and a memfd one, a page that must never change on each side
//! of both.

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous};
use std::ffi::c_void;
use std::fs::File;
use std::ptr::{null_mut, slice_from_raw_parts};
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
const MAPPED: usize = REGION_BYTES as usize + 2 * PAGE;
const CANARY: u8 = 0xca;

thread_local! {
    static FENCED: Fenced = Fenced::new();
}

/// The mappings, one pair a thread, kept until the program ends.
pub struct Fenced {
    mappings: [*mut c_void; 2],
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
            let (address, bytes) = (region.as_ptr().cast(), REGION_BYTES as usize);
            match region.file_offset() {
                // SAFETY: the bytes between the canaries, which no reference lends.
                None => unsafe { madvise(address, bytes, Advice::LinuxDontNeed) }.unwrap(),
                Some(file) => {
                    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    fallocate(file.file(), hole, file.start(), REGION_BYTES).unwrap();
                }
            }
        }
    }

    fn new() -> Self {
        let file = File::from(memfd_create(c"guest", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, MAPPED as u64).unwrap();
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let anonymous = unsafe { mmap_anonymous(null_mut(), MAPPED, prot, flags) }.unwrap();
        // SAFETY: as above.
        let shared = unsafe { mmap(null_mut(), MAPPED, prot, MapFlags::SHARED, &file, 0) }.unwrap();
        let mappings = [anonymous, shared];
        for mapping in mappings {
            for canary in [0, MAPPED - PAGE] {
                // SAFETY: within a mapping made above, which nobody else knows yet.
                unsafe { std::ptr::write_bytes(mapping.cast::<u8>().wrapping_add(canary), CANARY, PAGE) };
            }
        }
        let file = FileOffset::new(file, PAGE as u64);
        let region = |mapping: *mut c_void, file: Option<FileOffset>, start| {
            let builder = MmapRegionBuilder::new(REGION_BYTES as usize);
            let builder = match file {
                Some(file) => builder.with_file_offset(file),
                None => builder,
            };
            // SAFETY: the bytes between the canaries, mapped for good.
            let builder = unsafe { builder.with_raw_mmap_pointer(mapping.cast::<u8>().wrapping_add(PAGE)) };
            GuestRegionMmap::new(builder.build().unwrap(), GuestAddress(start)).unwrap()
        };
        let regions = vec![region(anonymous, None, STARTS[0]), region(shared, Some(file), STARTS[1])];
        Self { mappings, memory: Arc::new(GuestMemoryMmap::from_regions(regions).unwrap()) }
    }

    #[must_use]
    pub fn memory(&self) -> Memory {
        self.memory.clone()
    }

    /// Panics if anything was written or released beside the regions.
    pub fn check(&self) {
        for mapping in self.mappings {
            for canary in [0, MAPPED - PAGE] {
                let page = slice_from_raw_parts(mapping.cast::<u8>().wrapping_add(canary).cast_const(), PAGE);
                // SAFETY: within a mapping, outside the region: nobody writes it, which is what is checked.
                let page = unsafe { &*page };
                assert!(page.iter().all(|byte| *byte == CANARY), "memory beside the guest's has changed");
            }
        }
    }
}

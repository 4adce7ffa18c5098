//! Guest memory between canaries: an anonymous region, of which a part is mapped from a file copy-on-write, and a memfd
//! one, a page that must never change on each side of both. The host may have huge pages in the first. For the fuzz
//! targets two blocks, kept from one input to the next; for a whole machine of any size.

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::ptr::{null_mut, slice_from_raw_parts, with_exposed_provenance};
use std::sync::Arc;
use vm_memory::GuestMemoryRegion;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};
use vmm::config::ImagePart;
use vmm::virtio::device::Memory;

/// Bytes of each region: a block.
pub const REGION_BYTES: u64 = balloon::BLOCK_BYTES;
/// Guest-physical addresses of the regions.
pub const STARTS: [u64; 2] = [0, 4 * REGION_BYTES];

const PAGE: usize = balloon::PAGE_BYTES as usize;
const HUGE_PAGE: usize = 2 << 20;
const CANARY: u8 = 0xca;
/// Every byte of the file that a part of the first region is mapped from.
const IMAGE: u8 = 0xa5;
/// Across the border of two huge pages.
const IMAGE_PAGES: std::ops::Range<u64> = 300..700;

thread_local! {
    static FENCED: Fenced = {
        let [address, end] = [IMAGE_PAGES.start, IMAGE_PAGES.end].map(|page| page * balloon::PAGE_BYTES);
        Fenced::new(STARTS.map(|start| (start, REGION_BYTES)), address, end - address)
    };
}

/// The mappings, kept until the program ends.
pub struct Fenced {
    /// The first and the last page of each mapping: addresses of canaries.
    canaries: [[usize; 2]; 2],
    memory: Memory,
    image: File,
    part: ImagePart,
}

impl Fenced {
    /// Calls `work` with memory full of zeroes but for the image.
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
        self.lay_out();
    }

    /// Puts the image where the host's memory has taken its place, and forgets what was advised.
    fn lay_out(&self) {
        let region = self.memory.iter().next().unwrap();
        let (address, bytes) = (region.as_ptr(), region.len() as usize);
        let image = address.wrapping_add((self.part.address - region.start_addr().0) as usize);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        let (prot, length) = (ProtFlags::READ | ProtFlags::WRITE, self.part.bytes as usize);
        // SAFETY: within the region, which no reference lends.
        let mapped = unsafe { mmap(image.cast(), length, prot, flags, &self.image, 0) };
        assert_eq!(mapped.unwrap().cast(), image);
        // SAFETY: advice changes no content. A host without huge pages takes none.
        let _ = unsafe { madvise(address.cast(), bytes, Advice::LinuxHugepage) };
    }

    /// An anonymous and a memfd region, each with its guest-physical address and length in bytes. Of the first,
    /// `image_bytes` bytes from `image` on are mapped from a file.
    #[must_use]
    pub fn new(regions: [(u64, u64); 2], image: u64, image_bytes: u64) -> Self {
        let file = File::from(memfd_create(c"guest", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, (HUGE_PAGE + PAGE) as u64 + regions[1].1).unwrap();
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        let mappings = regions.map(|(_, bytes)| {
            let mapped = bytes as usize + 2 * PAGE;
            // SAFETY: a new mapping at an address of the kernel's choice.
            let reserved = unsafe { mmap_anonymous(null_mut(), mapped + HUGE_PAGE, prot, flags) }.unwrap();
            // The region begins at a huge page.
            let canary = reserved.cast::<u8>().wrapping_add(PAGE);
            (canary.wrapping_add(canary.align_offset(HUGE_PAGE)).wrapping_sub(PAGE), mapped)
        });
        let (shared, mapped) = (mappings[1].0.cast(), mappings[1].1);
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: within the second mapping made above, which nobody else knows yet.
        unsafe { mmap(shared, mapped, prot, flags, &file, (HUGE_PAGE - PAGE) as u64) }.unwrap();
        let canaries = mappings.map(|(mapping, mapped)| {
            [0, mapped - PAGE].map(|offset| {
                let canary = mapping.wrapping_add(offset);
                // SAFETY: as above.
                unsafe { std::ptr::write_bytes(canary, CANARY, PAGE) };
                canary.expose_provenance()
            })
        });
        let file = FileOffset::new(file, HUGE_PAGE as u64);
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
        let memory = Arc::new(GuestMemoryMmap::from_regions(regions).unwrap());
        let part = ImagePart { offset: 0, address: image, bytes: image_bytes };
        let image = File::from(memfd_create(c"image", MemfdFlags::CLOEXEC).unwrap());
        image.write_all_at(&vec![IMAGE; image_bytes as usize], 0).unwrap();
        let fenced = Self { canaries, memory, image, part };
        fenced.lay_out();
        fenced
    }

    /// Which part of the first region is mapped from a file.
    #[must_use]
    pub fn image(&self) -> ImagePart {
        self.part
    }

    #[must_use]
    pub fn memory(&self) -> Memory {
        self.memory.clone()
    }

    /// Panics if anything was written or released beside the regions, or written to the image's file.
    pub fn check(&self) {
        let mut image = vec![0; self.part.bytes as usize];
        self.image.read_exact_at(&mut image, 0).unwrap();
        assert!(image.iter().all(|byte| *byte == IMAGE), "the file of all guests has changed");
        for canary in self.canaries.as_flattened() {
            let page = slice_from_raw_parts(with_exposed_provenance::<u8>(*canary), PAGE);
            // SAFETY: within a mapping, outside the region: nobody writes it, which is what is checked.
            let page = unsafe { &*page };
            assert!(page.iter().all(|byte| *byte == CANARY), "memory beside the guest's has changed");
        }
    }
}

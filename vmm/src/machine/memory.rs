//! Maps guest RAM and shared zones into this process.
//!
//! Owns the mappings; everyone else sees [`Memory`] (RAM) or a [`SharedZone`]'s address and size.
//! RAM is anonymous private memory at huge-page-aligned addresses, so that `MADV_DONTNEED` gives it back and
//! the host's huge pages fit the guest's.

use super::layout::{Ram, SPARSE_RANGES};
use crate::config::ImagePart;
use crate::virtio::device::Memory;
use balloon::PAGE_BYTES;
use balloon::backing::{HostRange, Kind, Mapping};
use balloon::numa::{self, Nodes};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};

/// Size of a transparent huge page of x86.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A failure to map memory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host gives no address space or memory.
    #[error("cannot map {bytes} bytes of guest memory: is `ulimit -v` or vm.overcommit_memory in the way?")]
    MapRam {
        /// How much was asked for.
        bytes: u64,
        /// The host's answer.
        source: io::Error,
    },
    /// The host has no such node, or no nodes.
    #[error(
        "cannot take guest memory from the host's node {node}: `ls /sys/devices/system/node` shows which there are"
    )]
    Node {
        /// The node.
        node: u32,
        /// The host's answer.
        source: io::Error,
    },
    /// vm-memory refuses the regions.
    #[error("cannot lay out {bytes} bytes of guest memory")]
    Layout {
        /// How much was asked for.
        bytes: u64,
        /// Its reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A part of the kernel's image cannot be mapped into guest memory.
    #[error("cannot map the kernel's image: remove the `cache` in the data directory, it is made again")]
    MapKernel(#[source] io::Error),
    /// An image layer cannot be mapped.
    #[error("cannot map an image layer; import the image again")]
    MapLayer(#[source] io::Error),
    /// An image layer is not padded as virtio-pmem needs it.
    #[error("an image layer of {0} bytes is not a multiple of 2 MiB; import the image again")]
    LayerSize(u64),
}

/// What a zone's memory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Node of the host from which it is taken while that has some.
    pub host_node: Option<u32>,
    /// The host may use huge pages for it.
    pub huge_pages: bool,
}

impl Default for Zone {
    fn default() -> Self {
        Self { host_node: None, huge_pages: true }
    }
}

/// Maps guest RAM: for each range of `ram` a region, made of what `zones` says of its zone.
///
/// # Errors
/// The host refuses the mapping.
pub fn map_ram(ram: &Ram, zones: &[Zone]) -> Result<Memory, Error> {
    let bytes = ram.bytes();
    let layout_error = |source: Box<dyn std::error::Error + Send + Sync>| Error::Layout { bytes, source };
    let mut regions = Vec::new();
    for (number, range) in ram.ranges() {
        let zone = zones.get(*number).copied().unwrap_or_default();
        let size = usize::try_from(range.bytes).map_err(|e| layout_error(e.into()))?;
        let address = map_anonymous(size, *number, zone.huge_pages)
            .map_err(|source| Error::MapRam { bytes, source })?;
        if range.start == 0 {
            let sparse = usize::try_from(SPARSE_RANGES).unwrap_or(0).saturating_mul(HUGE_PAGE_BYTES);
            // SAFETY: advice on a part of the mapping made above changes no content; a host without huge pages refuses it.
            unsafe { libc::madvise(address, sparse.min(size), libc::MADV_NOHUGEPAGE) };
        }
        // SAFETY: `map_anonymous` returned a mapping of exactly `size` bytes that nothing else uses and that
        // stays until the process ends.
        let builder = unsafe { MmapRegionBuilder::new(size).with_raw_mmap_pointer(address.cast()) };
        let region = builder
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
            .build()
            .map_err(|e| layout_error(e.into()))?;
        let region = GuestRegionMmap::new(region, GuestAddress(range.start))
            .ok_or_else(|| layout_error("a region does not fit 64 bits".into()))?;
        regions.push(region);
    }
    GuestMemoryMmap::from_regions(regions).map(Arc::new).map_err(|e| layout_error(e.into()))
}

/// Has the memory of each zone of `ram` taken from the host's node that `zones` names, all that is mapped into it included:
/// so what is to be mapped there is mapped before.
///
/// # Errors
/// The host has no such node.
pub fn place(memory: &Memory, ram: &Ram, zones: &[Zone]) -> Result<(), Error> {
    for (region, (number, _)) in memory.iter().zip(ram.ranges()) {
        let node = zones.get(*number).and_then(|zone| zone.host_node);
        if let (Some(node), Some(range)) = (node, host_range(region)) {
            let preferred = numa::Host::default().prefer(range, Some(node));
            preferred.map_err(|source| Error::Node { node, source })?;
        }
    }
    Ok(())
}

/// Maps a part of a kernel's image over guest memory that nobody has touched yet, copy-on-write: until the guest writes to
/// a page it is that of the host's page cache, which all guests of this kernel share. To discard such a page brings the
/// file's content back ([`Mapping::with_image`]).
///
/// # Errors
/// The part lies in no region of guest memory, or not in the file, or the host refuses the mapping; nothing changed.
pub fn map_image(memory: &Memory, file: &File, part: ImagePart) -> Result<(), Error> {
    let refuse = |why: &'static str| Error::MapKernel(io::Error::new(io::ErrorKind::InvalidInput, why));
    let bytes = usize::try_from(part.bytes).map_err(|_| refuse("it is too large"))?;
    let offset = libc::off_t::try_from(part.offset).map_err(|_| refuse("it lies too far behind"))?;
    let file_bytes = file.metadata().map_err(Error::MapKernel)?.len();
    if part.offset.checked_add(part.bytes).is_none_or(|end| end > file_bytes) {
        return Err(refuse("the file is cut off"));
    }
    let aligned =
        [part.offset, part.address, part.bytes].iter().all(|number| number.is_multiple_of(PAGE_BYTES));
    // All of it, in one region.
    let place = memory.get_slice(GuestAddress(part.address), bytes).ok().filter(|_| aligned && bytes > 0);
    let place = place.ok_or_else(|| refuse("guest memory has no room for it: raise -m"))?.ptr_guard_mut();
    let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: replaces whole pages within one mapping of guest memory, into which nobody holds a reference, by others of
    // the same length and protection.
    let mapped =
        unsafe { libc::mmap(place.as_ptr().cast(), bytes, protection, flags, file.as_raw_fd(), offset) };
    if mapped == libc::MAP_FAILED {
        return Err(Error::MapKernel(io::Error::last_os_error()));
    }
    // SAFETY: advice changes no content; as of the rest of guest memory.
    unsafe { libc::madvise(mapped, bytes, libc::MADV_DONTDUMP) };
    Ok(())
}

/// Where regions of RAM, by number, lie in this process.
#[must_use]
pub fn host_ranges(memory: &Memory, regions: &[usize]) -> Vec<HostRange> {
    let chosen = memory.iter().enumerate().filter(|(number, _)| regions.contains(number));
    chosen.filter_map(|(_, region)| host_range(region)).collect()
}

fn host_range(region: &GuestRegionMmap<()>) -> Option<HostRange> {
    // SAFETY: mapped by `map_ram`, page-aligned and private, until the process ends; it is guest memory, on whose contents
    // nobody here relies.
    unsafe { Mapping::new(region.as_ptr() as usize, region.len(), Kind::Anonymous) }.whole()
}

/// All shared zones at their guest addresses as one memory that must only be read: it is mapped read-only.
///
/// # Errors
/// The zones overlap or exceed the address space.
pub fn read_only_memory(zones: &[SharedZone], starts: &[u64]) -> Result<Memory, Error> {
    let bytes = zones.iter().map(SharedZone::bytes).sum();
    let layout_error = |source: Box<dyn std::error::Error + Send + Sync>| Error::Layout { bytes, source };
    let regions =
        zones.iter().zip(starts).map(|(zone, start)| zone.region(*start)).collect::<Option<Vec<_>>>();
    let regions = regions.ok_or_else(|| layout_error("a layer does not fit the address space".into()))?;
    if regions.is_empty() {
        return Ok(Arc::new(GuestMemoryMmap::new()));
    }
    GuestMemoryMmap::from_regions(regions).map(Arc::new).map_err(|e| layout_error(e.into()))
}

/// Maps anonymous memory that starts at a huge page, named so that `/proc/PID/smaps` shows it apart, and each zone of
/// it.
fn map_anonymous(size: usize, zone: usize, huge_pages: bool) -> io::Result<*mut libc::c_void> {
    let reserved =
        size.checked_add(HUGE_PAGE_BYTES).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            reserved,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let head = start.align_offset(HUGE_PAGE_BYTES).min(HUGE_PAGE_BYTES);
    let aligned = start.wrapping_byte_add(head);
    let end = aligned.wrapping_byte_add(size);
    if head > 0 {
        // SAFETY: these bytes, before the aligned start, belong to the mapping made above and to nobody else.
        unsafe { libc::munmap(start, head) };
    }
    if head < HUGE_PAGE_BYTES {
        // SAFETY: as above for what lies behind the aligned range.
        unsafe { libc::munmap(end, HUGE_PAGE_BYTES.wrapping_sub(head)) };
    }
    // Advice and a name: a host without them still runs the VM, only with smaller pages or without the name.
    let huge = if huge_pages { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    // SAFETY: advice on a mapping of our own changes no content.
    unsafe { libc::madvise(aligned, size, huge) };
    // SAFETY: as above; a core dump of the VMM must not hold the guest's memory.
    unsafe { libc::madvise(aligned, size, libc::MADV_DONTDUMP) };
    let name = if zone == 0 { "guest-ram".into() } else { format!("guest-ram-{zone}") };
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: the name is a NUL-terminated string that outlives the call, which copies it.
    unsafe {
        libc::prctl(libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME, aligned, size, name.as_ptr());
    }
    Ok(aligned)
}

/// An image layer mapped read-only and shared: one copy in the host's page cache for all VMs.
#[derive(Debug)]
pub struct SharedZone {
    address: u64,
    bytes: u64,
}

impl SharedZone {
    /// Maps the whole of `file`.
    ///
    /// # Errors
    /// The file's size is no multiple of 2 MiB or the host refuses the mapping.
    pub fn map(file: &File) -> Result<Self, Error> {
        let bytes = file.metadata().map_err(Error::MapLayer)?.len();
        let size = usize::try_from(bytes).unwrap_or(0);
        if size == 0 || size % HUGE_PAGE_BYTES != 0 {
            return Err(Error::LayerSize(bytes));
        }
        // SAFETY: a new read-only mapping at an address of the kernel's choice; nobody writes through it. Should
        // the file be truncated, which its store never does, the guest's access ends in an error of KVM_RUN; a
        // disk that copies from the mapping (an unaligned write out of it) would die of SIGBUS.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(Error::MapLayer(io::Error::last_os_error()));
        }
        Ok(Self { address: address as u64, bytes })
    }

    /// The zone as vm-memory knows memory, for devices that read what the guest points them to.
    fn region(&self, guest_address: u64) -> Option<GuestRegionMmap<()>> {
        let size = usize::try_from(self.bytes).ok()?;
        // SAFETY: the mapping covers exactly these bytes and stays until the process ends.
        let builder = unsafe { MmapRegionBuilder::new(size).with_raw_mmap_pointer(self.address as *mut u8) };
        let region =
            builder.with_mmap_prot(libc::PROT_READ).with_mmap_flags(libc::MAP_SHARED).build().ok()?;
        GuestRegionMmap::new(region, GuestAddress(guest_address))
    }

    /// Host address of the first byte, for KVM's memory slot.
    #[must_use]
    pub fn host_address(&self) -> u64 {
        self.address
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// RAM of one zone, for tests.
#[cfg(test)]
pub(crate) fn ram(bytes: u64) -> Memory {
    Ram::lay(&[bytes]).and_then(|ram| map_ram(&ram, &[Zone::default()]).ok()).expect("memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn ram_lies_around_the_hole_and_reads_zero() {
        let memory = ram((4 << 30) + (8 << 20));
        let regions: Vec<_> = memory.iter().map(|r| (r.start_addr().0, r.len())).collect();
        assert_eq!(regions, [(0, 3 << 30), (4 << 30, (1 << 30) + (8 << 20))]);
        assert_eq!(memory.read_obj::<u64>(GuestAddress(4 << 30)).unwrap(), 0);
        memory.write_obj(7u64, GuestAddress((3 << 30) - 8)).unwrap();
        assert!(
            memory.write_obj(7u64, GuestAddress((3 << 30) - 4)).is_err(),
            "a range that leaves its region"
        );
    }

    #[test]
    fn ram_starts_at_a_huge_page() {
        let memory = ram(8 << 20);
        let host = memory.get_host_address(GuestAddress(0)).unwrap();
        assert_eq!(host as usize % HUGE_PAGE_BYTES, 0);
    }

    #[test]
    fn a_part_of_a_file_is_mapped_and_what_the_guest_writes_is_its_own() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 4 << 12], 0).unwrap();
        let memory = ram(8 << 20);
        let part = ImagePart { offset: 4096, address: 3 << 20, bytes: 2 << 12 };
        map_image(&memory, &file, part).unwrap();
        let byte = |address: u64| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
        let edges = [(3 << 20) - 1, 3 << 20, (3 << 20) + (2 << 12) - 1, (3 << 20) + (2 << 12)];
        assert_eq!(edges.map(byte), [0, 7, 7, 0]);
        memory.write_obj(9u8, GuestAddress(3 << 20)).unwrap();
        let mut content = [0; 1];
        file.read_exact_at(&mut content, 4096).unwrap();
        assert_eq!((byte(3 << 20), content), (9, [7]));
        for bad in [
            ImagePart { offset: 3 << 12, ..part },
            ImagePart { address: (8 << 20) - 4096, ..part },
            ImagePart { address: 1, ..part },
            ImagePart { bytes: 0, ..part },
            ImagePart { offset: u64::MAX - 4095, ..part },
        ] {
            assert!(matches!(map_image(&memory, &file, bad), Err(Error::MapKernel(_))), "{bad:?}");
        }
    }

    #[test]
    fn what_is_mapped_of_a_kernel_is_placed_with_its_zone() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 12).unwrap();
        let memory = ram(8 << 20);
        map_image(&memory, &file, ImagePart { offset: 0, address: 3 << 20, bytes: 2 << 12 }).unwrap();
        let on = |node| {
            let zone = Zone { host_node: Some(node), ..Zone::default() };
            place(&memory, &Ram::lay(&[8 << 20]).unwrap(), &[zone])
        };
        match on(0) {
            // A kernel without nodes.
            Err(Error::Node { source, .. }) if source.raw_os_error() == Some(libc::ENOSYS) => return,
            result => result.unwrap(),
        }
        let maps = std::fs::read_to_string("/proc/self/numa_maps").unwrap();
        for address in [0u64, 3 << 20, (3 << 20) + (2 << 12)] {
            let host = memory.get_host_address(GuestAddress(address)).unwrap() as usize;
            let line = maps.lines().find(|line| line.starts_with(&format!("{host:x} "))).unwrap();
            assert_eq!(line.split(' ').nth(1), Some("prefer:0"), "{address:#x}");
        }
        assert!(matches!(on(1000), Err(Error::Node { node: 1000, .. })));
    }

    #[test]
    fn layers_must_be_padded() {
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(SharedZone::map(&file), Err(Error::LayerSize(0))));
        file.set_len(3 << 20).unwrap();
        assert!(matches!(SharedZone::map(&file), Err(Error::LayerSize(_))));
        file.set_len(4 << 20).unwrap();
        assert_eq!(SharedZone::map(&file).unwrap().bytes(), 4 << 20);
    }
}

//! Loads kernel, initramfs, command line and zero page into guest memory.
//!
//! The kernel is an ELF image entered at its 64-bit entry point. Host-side only: the files are the operator's,
//! and nothing of the guest has run yet.

use super::layout::{self, Ram, RamRange};
use super::sparse_file::SparseFile;
use super::{acpi, registers};
use crate::config::ImagePart;
use crate::virtio::device::Memory;
use linux_loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::{Elf, KernelLoader};
use std::fs::File;
use std::io;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
/// "No assigned id" of the boot protocol's loader types.
const LOADER_UNDEFINED: u8 = 0xff;
const KERNEL_ALIGNMENT: u32 = 0x100_0000;
const PAGE: u64 = balloon::PAGE_BYTES;

/// A failure to put a kernel into guest memory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel is no ELF image that can be loaded.
    #[error(
        "cannot load the kernel into guest memory: is it an uncompressed x86-64 ELF image, and is -m large enough for it?"
    )]
    Kernel(#[source] linux_loader::loader::Error),
    /// The kernel's file is not one that can be read.
    #[error("cannot read the kernel")]
    KernelFile(#[source] io::Error),
    /// The initramfs cannot be read.
    #[error("cannot read the initramfs")]
    Initramfs(#[source] io::Error),
    /// The initramfs does not fit beside the kernel.
    #[error("{memory_bytes} bytes of memory are too few for kernel and initramfs: raise -m")]
    TooSmall {
        /// Guest memory.
        memory_bytes: u64,
    },
    /// The command line is too long.
    #[error("the kernel command line has {0} bytes, more than the kernel's {max}", max = layout::COMMAND_LINE_BYTES - 1)]
    CommandLine(usize),
    /// Boot structures do not fit guest memory.
    #[error("cannot write the boot structures into guest memory: raise -m")]
    Write(#[from] GuestMemoryError),
    /// The ACPI tables exceed their room.
    #[error("too many devices for the ACPI tables")]
    Acpi,
}

/// What is to boot.
#[derive(Debug)]
pub struct Payload<'a> {
    /// ELF kernel.
    pub kernel: &'a mut File,
    /// What of it guest memory is mapped from already.
    pub mapped: Option<ImagePart>,
    /// Initramfs.
    pub initramfs: &'a mut File,
    /// Kernel command line.
    pub command_line: &'a str,
    /// Where guest memory lies.
    pub ram: &'a Ram,
    /// ACPI tables, from [`acpi::tables`].
    pub acpi: &'a [u8],
}

/// Loads everything into memory that nobody has touched yet; returns the address at which the boot vCPU starts.
///
/// # Errors
/// A file cannot be read, or does not fit guest memory.
pub fn load(memory: &Memory, payload: &mut Payload<'_>) -> Result<u64, Error> {
    // What the image has as zeroes, the fresh memory has already.
    let mapped = payload.mapped.map_or(0..0, |part| part.offset..part.offset.saturating_add(part.bytes));
    let mut kernel = SparseFile::new(payload.kernel).map_err(Error::KernelFile)?.leaving_out(mapped);
    let kernel = Elf::load(&**memory, None, &mut kernel, Some(GuestAddress(layout::HIGH_RAM_START)))
        .map_err(Error::Kernel)?;
    let initramfs = load_initramfs(memory, payload, kernel.kernel_end)?;

    let command_line = payload.command_line.as_bytes();
    if command_line.len() >= layout::COMMAND_LINE_BYTES {
        return Err(Error::CommandLine(command_line.len()));
    }
    memory.write_slice(command_line, GuestAddress(layout::COMMAND_LINE))?;
    memory.write_slice(payload.acpi, GuestAddress(layout::ACPI))?;
    memory.write_obj(zero_page(payload, initramfs), GuestAddress(layout::ZERO_PAGE))?;
    registers::write_tables(memory)?;
    Ok(kernel.kernel_load.0)
}

/// Puts the initramfs at the top of low memory, page-aligned, where the kernel's own growth cannot meet it.
fn load_initramfs(memory: &Memory, payload: &mut Payload<'_>, kernel_end: u64) -> Result<RamRange, Error> {
    let too_small = Error::TooSmall { memory_bytes: payload.ram.bytes() };
    let bytes = payload.initramfs.metadata().map_err(Error::Initramfs)?.len();
    let Some(start) = payload.ram.low_end().checked_sub(bytes).map(|start| start & !(PAGE - 1)) else {
        return Err(too_small);
    };
    if start < kernel_end {
        return Err(too_small);
    }
    let length = usize::try_from(bytes).map_err(|_| too_small)?;
    io::Seek::rewind(payload.initramfs).map_err(Error::Initramfs)?;
    memory.read_exact_volatile_from(GuestAddress(start), payload.initramfs, length)?;
    Ok(RamRange { start, bytes })
}

fn zero_page(payload: &Payload<'_>, initramfs: RamRange) -> boot_params {
    let mut zero_page = boot_params::default();
    let header = &mut zero_page.hdr;
    header.type_of_loader = LOADER_UNDEFINED;
    header.boot_flag = BOOT_FLAG;
    header.header = HEADER_MAGIC;
    header.kernel_alignment = KERNEL_ALIGNMENT;
    header.cmd_line_ptr = layout::COMMAND_LINE as u32;
    header.cmdline_size = payload.command_line.len() as u32;
    header.ramdisk_image = initramfs.start as u32;
    header.ramdisk_size = initramfs.bytes as u32;
    zero_page.acpi_rsdp_addr = layout::ACPI;

    let mut map = [boot_e820_entry::default(); layout::ZONES + 4];
    let usable = payload.ram.usable().into_iter().map(|range| (range, E820_RAM));
    let reserved =
        RamRange { start: layout::LOW_RAM_END, bytes: layout::HIGH_RAM_START - layout::LOW_RAM_END };
    let mut entries = 0u8;
    for (slot, (range, kind)) in map.iter_mut().zip(usable.chain([(reserved, E820_RESERVED)])) {
        *slot = boot_e820_entry { addr: range.start, size: range.bytes, r#type: kind };
        entries += 1;
    }
    zero_page.e820_table[..map.len()].copy_from_slice(&map);
    zero_page.e820_entries = entries;
    zero_page
}

/// The ACPI nodes of `devices` virtio-mmio devices, in order.
#[must_use]
pub fn virtio_nodes(devices: usize) -> Vec<acpi::VirtioNode> {
    (0..devices as u32)
        .map(|n| acpi::VirtioNode {
            address: layout::VIRTIO_START as u32 + n * layout::VIRTIO_STRIDE as u32,
            gsi: layout::VIRTIO_FIRST_GSI + n,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::memory;
    use super::*;
    use std::os::unix::fs::FileExt;
    use vm_memory::GuestMemoryBackend;

    const MEMORY: u64 = 32 << 20;
    const ENTRY: u64 = 0x100_0000;

    struct Segment {
        offset: u64,
        address: u64,
        content: Vec<u8>,
        bss: u64,
    }

    /// An ELF kernel as a linker writes it: data where the segments are, holes between them.
    fn elf(segments: &[Segment]) -> File {
        let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
        header.extend([ENTRY, 64, 0].map(u64::to_le_bytes).concat());
        header.extend([0, 0, 0, 0, 64, 0, 56, 0, segments.len() as u8, 0, 64, 0, 0, 0, 0, 0]);
        let file = tempfile::tempfile().unwrap();
        for Segment { offset, address, content, bss } in segments {
            let size = content.len() as u64;
            header.extend([1, 0, 0, 0, 7, 0, 0, 0]);
            header.extend(
                [*offset, *address, *address, size, size + bss, 0x1000].map(u64::to_le_bytes).concat(),
            );
            file.write_all_at(content, *offset).unwrap();
        }
        file.write_all_at(&header, 0).unwrap();
        file
    }

    fn ram() -> Ram {
        Ram::lay(&[MEMORY]).unwrap()
    }

    fn load_into(memory: &Memory, mut kernel: File, initramfs: &[u8]) -> Result<u64, Error> {
        let mut initrd = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut initrd, initramfs).unwrap();
        let payload = &mut Payload {
            kernel: &mut kernel,
            mapped: None,
            initramfs: &mut initrd,
            command_line: "quiet",
            ram: &ram(),
            acpi: b"RSD PTR ",
        };
        load(memory, payload)
    }

    fn bytes(memory: &Memory, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0xaa; length];
        memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    #[test]
    fn memory_holds_what_the_image_says() {
        let mut text: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8 | 1).collect();
        text[70_000..200_000].fill(0);
        let data = vec![7; 5001];
        let kernel = elf(&[
            Segment { offset: 0x20_0000, address: ENTRY, content: text.clone(), bss: 0 },
            Segment { offset: 0x30_0123, address: 0x110_0123, content: data.clone(), bss: 100_000 },
        ]);
        let memory = memory::ram(MEMORY);
        assert_eq!(load_into(&memory, kernel, b"archive").unwrap(), ENTRY);
        assert_eq!(bytes(&memory, ENTRY, text.len()), text);
        assert_eq!(bytes(&memory, 0x110_0123, data.len()), data);
        assert_eq!(bytes(&memory, 0x110_0123 + 5001, 100_000), vec![0; 100_000]);
        assert_eq!(bytes(&memory, MEMORY - 4096, 8), b"archive\0");
        assert_eq!(bytes(&memory, layout::COMMAND_LINE, 6), b"quiet\0");
        assert_eq!(bytes(&memory, layout::ACPI, 8), b"RSD PTR ");
    }

    #[test]
    fn what_the_guest_writes_stays_in_the_guest() {
        let segment = Segment { offset: 0x1000, address: ENTRY, content: vec![5; 8192], bss: 4096 };
        let kernel = elf(&[segment]);
        let memory = memory::ram(MEMORY);
        load_into(&memory, kernel.try_clone().unwrap(), b"").unwrap();
        memory.write_slice(&[9; 12_288], GuestAddress(ENTRY)).unwrap();
        let mut content = vec![0; 8192];
        kernel.read_exact_at(&mut content, 0x1000).unwrap();
        assert_eq!(content, vec![5; 8192]);
    }

    /// Guest memory given back to the host must come back as zeroes, also where the kernel was loaded.
    #[test]
    fn memory_given_back_reads_zero() {
        let segment = Segment { offset: 0x1000, address: ENTRY, content: vec![5; 8192], bss: 0 };
        let memory = memory::ram(MEMORY);
        load_into(&memory, elf(&[segment]), b"").unwrap();
        let host = memory.get_host_address(GuestAddress(ENTRY)).unwrap();
        // SAFETY: discards a page of the mapping that `memory` owns; no reference into it exists.
        assert_eq!(unsafe { libc::madvise(host.cast(), 4096, libc::MADV_DONTNEED) }, 0);
        assert_eq!(bytes(&memory, ENTRY, 4096), vec![0; 4096]);
        assert_eq!(bytes(&memory, ENTRY + 4096, 4096), vec![5; 4096]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let memory = memory::ram(MEMORY);
        let beyond = Segment { offset: 0x1000, address: MEMORY - 4096, content: vec![5; 8192], bss: 0 };
        assert!(matches!(load_into(&memory, elf(&[beyond]), b""), Err(Error::Kernel(_))));
        let large =
            Segment { offset: 0x1000, address: ENTRY, content: vec![5; 8192], bss: MEMORY - ENTRY - 8192 };
        assert!(matches!(load_into(&memory, elf(&[large]), b"archive"), Err(Error::TooSmall { .. })));
        let kernel = elf(&[Segment { offset: 0x1000, address: ENTRY, content: vec![5; 8192], bss: 0 }]);
        kernel.set_len(0x2000).unwrap();
        assert!(matches!(load_into(&memory, kernel, b""), Err(Error::Kernel(_))), "a cut image");
    }
}

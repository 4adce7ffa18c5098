//! Where everything lies in guest-physical memory. Pure.
//!
//! ```text
//!          0  RAM; boot structures below 0x9fc00
//!    0x9fc00  reserved: ACPI tables from 0xe0000
//!      1 MiB  RAM; the kernel at 16 MiB, the initramfs at the top
//!      3 GiB  hole: virtio-mmio registers, I/O APIC, local APICs
//!      4 GiB  RAM beyond 3 GiB, then virtio-pmem
//! ```

/// 64-bit GDT of the boot vCPU.
pub const GDT: u64 = 0x500;
/// The kernel's zero page (`struct boot_params`, Documentation/arch/x86/zero-page.rst).
pub const ZERO_PAGE: u64 = 0x7000;
/// Stack of the boot vCPU; the kernel replaces it at once.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Top-level page table; the two tables below it follow, a page each.
pub const PML4: u64 = 0x9000;
/// Page directory pointer table.
pub const PDPT: u64 = 0xa000;
/// Page directory: the first GiB in 2 MiB pages.
pub const PAGE_DIRECTORY: u64 = 0xb000;
/// The kernel command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Longest command line including its final NUL, `COMMAND_LINE_SIZE` of x86.
pub const COMMAND_LINE_BYTES: usize = 2048;
/// End of usable memory below 1 MiB: where a PC's extended BIOS data area begins.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// The RSDP, in the range that `acpi_find_root_pointer` of any kernel scans; the other tables follow.
pub const ACPI: u64 = 0xe_0000;
/// Room for ACPI tables.
pub const ACPI_BYTES: u64 = 0x2_0000;
/// Start of RAM above the reserved range below 1 MiB.
pub const HIGH_RAM_START: u64 = 0x10_0000;
/// Start of the hole in RAM for devices.
pub const MMIO_START: u64 = 0xc000_0000;
/// End of the hole.
pub const MMIO_END: u64 = 0x1_0000_0000;
/// Registers of the first virtio-mmio device.
pub const VIRTIO_START: u64 = 0xd000_0000;
/// Distance between the registers of two virtio-mmio devices.
pub const VIRTIO_STRIDE: u64 = 0x1000;
/// I/O APIC.
pub const IO_APIC: u32 = 0xfec0_0000;
/// Local APICs.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages that KVM needs on Intel for real-mode emulation (`KVM_SET_TSS_ADDR`).
pub const KVM_TSS: u64 = 0xfffb_d000;
/// A page that KVM needs on Intel for its identity map (`KVM_SET_IDENTITY_MAP_ADDR`).
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// First interrupt of the virtio-mmio devices: pin of the I/O APIC and GSI alike.
pub const VIRTIO_FIRST_GSI: u32 = 5;
/// virtio-mmio devices that fit: the I/O APIC has 24 pins and the first five are taken.
pub const VIRTIO_DEVICES: usize = 19;
/// Alignment of virtio-pmem ranges: the kernel's memory section (`SECTION_SIZE_BITS`), so that none shares
/// one with RAM or with its neighbour.
pub const PMEM_ALIGNMENT: u64 = 128 << 20;
/// I/O port: a write of [`RESET_VALUE`] resets the machine (FADT reset register).
pub const RESET_PORT: u16 = 0x600;
/// What is written to [`RESET_PORT`].
pub const RESET_VALUE: u8 = 1;
/// I/O port: sleep control register of hardware-reduced ACPI.
pub const SLEEP_CONTROL_PORT: u16 = 0x604;
/// I/O port: sleep status register of hardware-reduced ACPI.
pub const SLEEP_STATUS_PORT: u16 = 0x605;
/// The `SLP_TYP` of state S5, power-off, as the DSDT's `_S5_` package says.
pub const SLEEP_TYPE_S5: u8 = 5;
/// First I/O port of the serial port that `--boot-log` adds.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Interrupt of the serial port.
pub const SERIAL_GSI: u32 = 4;

/// A piece of guest RAM: start and length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRange {
    /// First guest-physical address.
    pub start: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Lays `bytes` of RAM around the hole for devices.
#[must_use]
pub fn ram_ranges(bytes: u64) -> Vec<RamRange> {
    let low = bytes.min(MMIO_START);
    let mut ranges = vec![RamRange { start: 0, bytes: low }];
    if bytes > low {
        ranges.push(RamRange { start: MMIO_END, bytes: bytes.saturating_sub(low) });
    }
    ranges
}

/// Lays virtio-pmem ranges of these sizes above all RAM; returns their starts.
///
/// Returns nothing if they do not fit 64 bits.
#[must_use]
pub fn pmem_starts(ram_bytes: u64, sizes: &[u64]) -> Option<Vec<u64>> {
    let ram_end = ram_ranges(ram_bytes).last().and_then(|r| r.start.checked_add(r.bytes))?;
    let mut next = ram_end.max(MMIO_END);
    let mut starts = Vec::with_capacity(sizes.len());
    for size in sizes {
        let start = next.checked_next_multiple_of(PMEM_ALIGNMENT)?;
        starts.push(start);
        next = start.checked_add(*size)?;
    }
    Some(starts)
}

/// What the kernel is told of memory: `(start, bytes)` of usable RAM for the e820 map.
#[must_use]
pub fn usable_ranges(ram_bytes: u64) -> Vec<RamRange> {
    let mut usable = vec![RamRange { start: 0, bytes: LOW_RAM_END }];
    for (index, range) in ram_ranges(ram_bytes).into_iter().enumerate() {
        if index == 0 {
            usable
                .push(RamRange { start: HIGH_RAM_START, bytes: range.bytes.saturating_sub(HIGH_RAM_START) });
        } else {
            usable.push(range);
        }
    }
    usable
}

#[cfg(test)]
mod tests {
    use super::*;
    const GIB: u64 = 1 << 30;

    #[test]
    fn ram_avoids_the_hole() {
        assert_eq!(ram_ranges(GIB), [RamRange { start: 0, bytes: GIB }]);
        assert_eq!(ram_ranges(3 * GIB), [RamRange { start: 0, bytes: 3 * GIB }]);
        assert_eq!(
            ram_ranges(5 * GIB),
            [RamRange { start: 0, bytes: 3 * GIB }, RamRange { start: 4 * GIB, bytes: 2 * GIB }]
        );
    }

    #[test]
    fn pmem_lies_above_ram_in_sections_of_its_own() {
        let mib = 1 << 20;
        assert_eq!(
            pmem_starts(GIB, &[2 * mib, 130 * mib, 2 * mib]),
            Some(vec![4 * GIB, 4 * GIB + 128 * mib, 4 * GIB + 384 * mib])
        );
        assert_eq!(pmem_starts(5 * GIB + 4 * mib, &[mib]), Some(vec![6 * GIB + 128 * mib]));
        assert_eq!(pmem_starts(GIB, &[u64::MAX, 1]), None);
    }

    #[test]
    fn usable_ram_leaves_the_bios_range_out() {
        let usable = usable_ranges(5 * GIB);
        assert_eq!(usable.len(), 3);
        assert_eq!(usable[1], RamRange { start: HIGH_RAM_START, bytes: 3 * GIB - HIGH_RAM_START });
        assert_eq!(usable[2], RamRange { start: 4 * GIB, bytes: 2 * GIB });
    }
}

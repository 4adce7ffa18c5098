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
/// Ranges of a huge page, from the first on, of which a guest uses little: the kernel reserves the first MiB for good
/// (`reserve_bios_regions` and `setup_arch`, arch/x86/kernel), and all but some pages of it is never touched.
pub const SPARSE_RANGES: u64 = 1;
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

/// Zones that a machine may have: each is a node of the guest's, with memory management of its own.
pub const ZONES: usize = balloon::zone::MAX_ZONES;
/// A piece of guest memory: start and length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRange {
    /// First guest-physical address.
    pub start: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl RamRange {
    fn end(self) -> u64 {
        self.start.saturating_add(self.bytes)
    }
}

/// Where the RAM of a machine lies, zone by zone.
///
/// The first zone begins at address 0 and may lie on both sides of the hole for devices; it holds the kernel. Each
/// further one is a range of its own, above the one before, on one side of the hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ram {
    ranges: Vec<(usize, RamRange)>,
}

impl Ram {
    /// Lays zones of these sizes, in bytes, one above the other around the hole for devices.
    ///
    /// Returns nothing if they do not fit 64 bits.
    #[must_use]
    pub fn lay(zone_bytes: &[u64]) -> Option<Self> {
        let mut ranges = Vec::with_capacity(zone_bytes.len().saturating_add(1));
        let mut next = 0u64;
        for (zone, bytes) in zone_bytes.iter().copied().enumerate() {
            let below = MMIO_START.saturating_sub(next);
            let low = if zone == 0 { bytes.min(below) } else { bytes * u64::from(bytes <= below) };
            for bytes in [low, bytes.checked_sub(low)?] {
                if bytes > 0 {
                    let start =
                        if bytes > MMIO_START.saturating_sub(next) { next.max(MMIO_END) } else { next };
                    ranges.push((zone, RamRange { start, bytes }));
                    next = start.checked_add(bytes)?;
                }
            }
        }
        Some(Self { ranges })
    }

    /// Its ranges in order of their addresses, each with the number of its zone.
    #[must_use]
    pub fn ranges(&self) -> &[(usize, RamRange)] {
        &self.ranges
    }

    /// Number of zones.
    #[must_use]
    pub fn zones(&self) -> usize {
        self.ranges.last().map_or(0, |(zone, _)| zone.saturating_add(1))
    }

    /// All of it, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().fold(0, |sum, (_, range)| sum.saturating_add(range.bytes))
    }

    /// Where the low part of the first zone ends: kernel and initramfs lie below.
    #[must_use]
    pub fn low_end(&self) -> u64 {
        self.ranges.first().map_or(0, |(_, range)| range.end())
    }

    /// What the kernel is told of it in its e820 map: all but the range that a PC reserves below 1 MiB.
    #[must_use]
    pub fn usable(&self) -> Vec<RamRange> {
        let mut usable = vec![RamRange { start: 0, bytes: LOW_RAM_END }];
        for (_, range) in &self.ranges {
            let start = range.start.max(HIGH_RAM_START);
            let bytes = range.end().saturating_sub(start);
            usable.push(RamRange { start, bytes });
        }
        usable
    }

    /// Lays virtio-pmem ranges of these sizes above all RAM; returns their starts.
    ///
    /// Returns nothing if they do not fit 64 bits.
    #[must_use]
    pub fn pmem_starts(&self, sizes: &[u64]) -> Option<Vec<u64>> {
        let mut next = self.ranges.last()?.1.end().max(MMIO_END);
        let mut starts = Vec::with_capacity(sizes.len());
        for size in sizes {
            let start = next.checked_next_multiple_of(PMEM_ALIGNMENT)?;
            starts.push(start);
            next = start.checked_add(*size)?;
        }
        Some(starts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn ranges(zone_bytes: &[u64]) -> Vec<(usize, u64, u64)> {
        let ram = Ram::lay(zone_bytes).unwrap();
        assert_eq!(ram.bytes(), zone_bytes.iter().sum::<u64>());
        ram.ranges().iter().map(|(zone, range)| (*zone, range.start, range.bytes)).collect()
    }

    #[test]
    fn ram_avoids_the_hole() {
        assert_eq!(ranges(&[GIB]), [(0, 0, GIB)]);
        assert_eq!(ranges(&[3 * GIB]), [(0, 0, 3 * GIB)]);
        assert_eq!(ranges(&[5 * GIB]), [(0, 0, 3 * GIB), (0, 4 * GIB, 2 * GIB)]);
    }

    #[test]
    fn zones_lie_above_one_another_and_none_but_the_first_is_cut() {
        assert_eq!(
            ranges(&[GIB, 128 * MIB, GIB]),
            [(0, 0, GIB), (1, GIB, 128 * MIB), (2, GIB + 128 * MIB, GIB)]
        );
        assert_eq!(
            ranges(&[2 * GIB, 2 * GIB, 128 * MIB]),
            [(0, 0, 2 * GIB), (1, 4 * GIB, 2 * GIB), (2, 6 * GIB, 128 * MIB)],
            "the second does not fit below the hole, and none comes before it"
        );
        assert_eq!(ranges(&[5 * GIB, GIB]), [(0, 0, 3 * GIB), (0, 4 * GIB, 2 * GIB), (1, 6 * GIB, GIB)]);
        assert_eq!(ranges(&[3 * GIB, GIB]), [(0, 0, 3 * GIB), (1, 4 * GIB, GIB)]);
        assert_eq!(Ram::lay(&[GIB, u64::MAX]), None);
    }

    #[test]
    fn pmem_lies_above_ram_in_sections_of_its_own() {
        let starts = |ram: &[u64], sizes: &[u64]| Ram::lay(ram).unwrap().pmem_starts(sizes);
        assert_eq!(
            starts(&[GIB], &[2 * MIB, 130 * MIB, 2 * MIB]),
            Some(vec![4 * GIB, 4 * GIB + 128 * MIB, 4 * GIB + 384 * MIB])
        );
        assert_eq!(starts(&[5 * GIB + 4 * MIB], &[MIB]), Some(vec![6 * GIB + 128 * MIB]));
        assert_eq!(starts(&[3 * GIB, GIB], &[MIB]), Some(vec![5 * GIB]));
        assert_eq!(starts(&[GIB], &[u64::MAX, 1]), None);
    }

    #[test]
    fn usable_ram_leaves_the_bios_range_out() {
        let usable = Ram::lay(&[5 * GIB, GIB]).unwrap().usable();
        assert_eq!(usable.len(), 4);
        assert_eq!(usable[0], RamRange { start: 0, bytes: LOW_RAM_END });
        assert_eq!(usable[1], RamRange { start: HIGH_RAM_START, bytes: 3 * GIB - HIGH_RAM_START });
        assert_eq!(usable[2], RamRange { start: 4 * GIB, bytes: 2 * GIB });
        assert_eq!(usable[3], RamRange { start: 6 * GIB, bytes: GIB });
    }
}

//! The boot vCPU's registers at the kernel's 64-bit entry (Documentation/arch/x86/boot.rst, "64-bit boot
//! protocol"), and the tables in guest memory that they point to. Pure but for writing guest memory.

use super::layout;
use crate::virtio::device::Memory;
use kvm_bindings::{kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

const CR0_PE_ET_PG: u64 = 1 | 1 << 4 | 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME_LMA: u64 = 1 << 8 | 1 << 10;
/// Present and writable.
const TABLE: u64 = 3;
/// Present, writable, a 2 MiB page.
const HUGE: u64 = 0x83;
const MSR_IA32_MISC_ENABLE: u32 = 0x1a0;
/// Fast string operations on.
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, write-back by default: without it the kernel skips its PAT set-up. The fixed ranges stay off: they
/// are uncached until somebody sets them.
const MTRR_ENABLED_WRITE_BACK: u64 = 0x806;
const RFLAGS_RESERVED: u64 = 2;

/// Writes page tables for the first GiB and the GDT.
///
/// # Errors
/// Guest memory is smaller than the boot structures.
pub fn write_tables(memory: &Memory) -> Result<(), GuestMemoryError> {
    memory.write_obj(layout::PDPT | TABLE, GuestAddress(layout::PML4))?;
    memory.write_obj(layout::PAGE_DIRECTORY | TABLE, GuestAddress(layout::PDPT))?;
    for page in 0..512u64 {
        memory.write_obj(page << 21 | HUGE, GuestAddress(layout::PAGE_DIRECTORY + page * 8))?;
    }
    for (index, descriptor) in
        [0, 0, descriptor(&code_segment()), descriptor(&data_segment())].iter().enumerate()
    {
        memory.write_obj(*descriptor, GuestAddress(layout::GDT + 8 * index as u64))?;
    }
    Ok(())
}

/// General registers: at `entry`, with the zero page in RSI.
#[must_use]
pub fn general(entry: u64) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rsi: layout::ZERO_PAGE,
        rsp: layout::BOOT_STACK,
        rbp: layout::BOOT_STACK,
        rflags: RFLAGS_RESERVED,
        ..kvm_regs::default()
    }
}

/// Changes reset-state system registers into long mode on the tables of [`write_tables`].
pub fn set_long_mode(sregs: &mut kvm_sregs) {
    let data = data_segment();
    sregs.cs = code_segment();
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = 4 * 8 - 1;
    sregs.cr0 = CR0_PE_ET_PG;
    sregs.cr3 = layout::PML4;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME_LMA;
}

/// The floating-point unit as after FNINIT, with all SSE exceptions masked.
#[must_use]
pub fn floating_point() -> kvm_fpu {
    kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..kvm_fpu::default() }
}

/// Model-specific registers that firmware would have set.
#[must_use]
pub fn model_specific() -> [kvm_msr_entry; 2] {
    let entry = |index, data| kvm_msr_entry { index, data, ..kvm_msr_entry::default() };
    [entry(MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING), entry(MSR_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK)]
}

/// `__BOOT_CS`: selector 0x10, flat, 64-bit, execute and read.
fn code_segment() -> kvm_segment {
    kvm_segment { selector: 0x10, type_: 0xb, l: 1, ..flat_segment() }
}

/// `__BOOT_DS`: selector 0x18, flat, read and write.
fn data_segment() -> kvm_segment {
    kvm_segment { selector: 0x18, type_: 0x3, db: 1, ..flat_segment() }
}

fn flat_segment() -> kvm_segment {
    kvm_segment { base: 0, limit: 0xffff_ffff, present: 1, s: 1, g: 1, ..kvm_segment::default() }
}

/// The GDT entry of a flat segment (Intel SDM volume 3A, 3.4.5).
fn descriptor(segment: &kvm_segment) -> u64 {
    let flags = u64::from(segment.g) << 3 | u64::from(segment.db) << 2 | u64::from(segment.l) << 1;
    let access = u64::from(segment.present) << 7 | u64::from(segment.s) << 4 | u64::from(segment.type_);
    0xffff | access << 40 | 0xf << 48 | flags << 52
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memory::ram;

    #[test]
    fn descriptors_are_those_of_the_boot_protocol() {
        assert_eq!(descriptor(&code_segment()), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&data_segment()), 0x00cf_9300_0000_ffff);
    }

    #[test]
    fn the_first_gib_is_mapped_to_itself() {
        let memory = ram(4 << 20);
        write_tables(&memory).unwrap();
        let entry =
            |page: u64| memory.read_obj::<u64>(GuestAddress(layout::PAGE_DIRECTORY + 8 * page)).unwrap();
        assert_eq!(entry(0), 0x83);
        assert_eq!(entry(511), (511 << 21) | 0x83);
        assert_eq!(memory.read_obj::<u64>(GuestAddress(layout::PML4)).unwrap(), layout::PDPT | 3);
    }
}

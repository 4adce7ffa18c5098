//! What a vCPU says of itself. Pure: takes the host's `KVM_GET_SUPPORTED_CPUID`, returns one vCPU's leaves.
//!
//! Leaf and bit numbers follow the Intel SDM volume 2A (CPUID) and the AMD APM volume 3 appendix E.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf 1 ECX: the TSC deadline timer of the local APIC. KVM emulates it and does not list it.
const ECX_TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX: a hypervisor is present. Without it the kernel looks for no kvm-clock and calibrates for 30 s.
const ECX_HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 EDX: the logical processor count in EBX is valid.
const EDX_HTT: u32 = 1 << 28;
/// Leaf 1 ECX: VMX; leaf 0x8000_0001 ECX: SVM. A guest that runs guests of its own would be one more way into the
/// host's KVM; nothing here needs it.
const ECX_VMX: u32 = 1 << 5;
const ECX_SVM: u32 = 1 << 2;
/// Features of SVM.
const SVM_FEATURES: u32 = 0x8000_000a;
/// Level types of leaf 0xb ECX.
const LEVEL_SMT: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;

/// The leaves of vCPU `cpu` out of `cpus`, one package of single-threaded cores.
///
/// # Errors
/// More leaves than KVM takes.
pub fn for_vcpu(supported: &CpuId, cpu: u8, cpus: u8) -> Result<CpuId, vmm_sys_util::fam::Error> {
    let mut entries: Vec<kvm_cpuid_entry2> = supported
        .as_slice()
        .iter()
        .copied()
        .filter(|e| !matches!(e.function, 0xb | 0x1f | SVM_FEATURES))
        .collect();
    let extended_topology = entries.iter().any(|e| e.function == 0 && e.eax >= 0xb);
    for entry in &mut entries {
        patch(entry, cpu, cpus);
    }
    if extended_topology {
        entries.extend(topology(cpu, cpus));
    }
    CpuId::from_entries(&entries)
}

fn patch(entry: &mut kvm_cpuid_entry2, cpu: u8, cpus: u8) {
    let (id, count) = (u32::from(cpu), u32::from(cpus));
    match entry.function {
        0x1 => {
            entry.ebx = entry.ebx & 0x0000_ffff | id << 24 | count << 16;
            entry.ecx = entry.ecx & !ECX_VMX | ECX_HYPERVISOR | ECX_TSC_DEADLINE;
            if cpus > 1 {
                entry.edx |= EDX_HTT;
            }
        }
        // Deterministic cache parameters: bits 31:26 cores of the package, 25:14 sharers of this cache.
        0x4 if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 7;
            let cores = count.saturating_sub(1).min(0x3f);
            let sharers = if level >= 3 { count.saturating_sub(1) } else { 0 };
            entry.eax = entry.eax & 0x3fff | cores << 26 | sharers << 14;
        }
        0x8000_0001 => entry.ecx &= !ECX_SVM,
        0x8000_0008 => entry.ecx = count.saturating_sub(1) & 0xff,
        0x8000_001e => {
            entry.eax = id;
            entry.ebx = id;
            entry.ecx = 0;
        }
        _ => {}
    }
}

/// Leaf 0xb: a level of one thread a core, a level of `cpus` cores, and the end.
fn topology(cpu: u8, cpus: u8) -> [kvm_cpuid_entry2; 3] {
    let bits = u32::from(cpus).next_power_of_two().trailing_zeros();
    let level = |index: u32, eax: u32, ebx: u32, kind: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: kind | index,
        edx: u32::from(cpu),
        ..kvm_cpuid_entry2::default()
    };
    [level(0, 0, 1, LEVEL_SMT), level(1, bits, u32::from(cpus), LEVEL_CORE), level(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> CpuId {
        let leaf = |function, eax| kvm_cpuid_entry2 { function, eax, ebx: 0xffff_1234, ..Default::default() };
        CpuId::from_entries(&[
            leaf(0, 0x10),
            leaf(1, 0x600),
            leaf(4, 0x121),
            leaf(0xb, 9),
            kvm_cpuid_entry2 { function: 0x8000_0001, ecx: ECX_SVM | 1, ..Default::default() },
            leaf(0x8000_0008, 48),
            leaf(SVM_FEATURES, 1),
        ])
        .unwrap()
    }

    fn leaf(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid.as_slice().iter().find(|e| e.function == function && e.index == index).unwrap()
    }

    #[test]
    fn every_vcpu_has_its_own_id() {
        let second = for_vcpu(&host(), 1, 4).unwrap();
        assert_eq!(leaf(&second, 1, 0).ebx, 0x0104_1234);
        assert_eq!(leaf(&second, 0xb, 1).edx, 1);
        assert_eq!(leaf(&second, 0xb, 1).ebx, 4);
        assert_eq!(leaf(&second, 0xb, 1).eax, 2);
        assert_eq!(leaf(&second, 0x8000_0008, 0).ecx, 3);
    }

    #[test]
    fn a_guest_cannot_run_guests() {
        let mut host = host();
        host.as_mut_slice()[1].ecx = ECX_VMX;
        let only = for_vcpu(&host, 0, 1).unwrap();
        assert_eq!(leaf(&only, 1, 0).ecx & ECX_VMX, 0);
        assert_eq!(leaf(&only, 0x8000_0001, 0).ecx, 1);
        assert!(only.as_slice().iter().all(|entry| entry.function != SVM_FEATURES));
    }

    #[test]
    fn the_kernel_finds_kvm_clock_and_deadline_timer() {
        let only = for_vcpu(&host(), 0, 1).unwrap();
        assert_eq!(leaf(&only, 1, 0).ecx, ECX_HYPERVISOR | ECX_TSC_DEADLINE);
        assert_eq!(leaf(&only, 1, 0).edx & EDX_HTT, 0);
    }
}

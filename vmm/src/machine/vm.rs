//! The virtual machine as KVM sees it: memory slots, interrupt controllers, event wiring. Wiring only.

use super::memory::SharedZone;
use super::{cpuid, layout, registers};
use crate::virtio::device::Memory;
use balloon::size::Size;
use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, KVM_MEM_READONLY, Msrs, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

/// A refusal by KVM.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptor is no KVM of a known version.
    #[error("the host's KVM answers as version {0}, not {version}", version = KVM_API_VERSION)]
    Version(i32),
    /// A needed capability is absent.
    #[error("the host's KVM cannot do {0:?}, which every microVM needs")]
    Capability(Cap),
    /// More vCPUs than the host gives one machine.
    #[error("this host's KVM runs at most {0} CPUs in a microVM: lower --cpus")]
    Cpus(usize),
    /// Memory that KVM does not take.
    #[error("KVM takes no {size} of guest memory, more than its or the CPU's addresses: lower -m")]
    Memory {
        /// Of one piece.
        size: Size,
        /// Its answer.
        source: kvm_ioctls::Error,
    },
    /// An ioctl failed.
    #[error("KVM refuses to {doing}")]
    Ioctl {
        /// What was being done.
        doing: &'static str,
        /// KVM's answer.
        source: kvm_ioctls::Error,
    },
    /// The CPUID leaves exceed what KVM takes.
    #[error("the host's KVM lists too many CPUID leaves: {0}")]
    Cpuid(vmm_sys_util::fam::Error),
    /// Registers could not be set.
    #[error("KVM takes {0} of 2 model-specific registers")]
    Msrs(usize),
}

fn ioctl(doing: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    move |source| Error::Ioctl { doing, source }
}

/// Capabilities without which no microVM can be built.
pub const NEEDED: [Cap; 6] =
    [Cap::Irqchip, Cap::Irqfd, Cap::Ioeventfd, Cap::UserMemory, Cap::ReadonlyMem, Cap::TscDeadlineTimer];

/// A virtual machine without vCPUs.
pub struct Vm {
    fd: VmFd,
    supported: CpuId,
    next_slot: u32,
}

impl Vm {
    /// Creates the machine and its interrupt controllers, for `cpus` vCPUs.
    ///
    /// # Errors
    /// KVM lacks a capability, refuses or has not as many vCPUs.
    pub fn new(kvm: &Kvm, cpus: u8) -> Result<Self, Error> {
        let version = kvm.get_api_version();
        if u32::try_from(version) != Ok(KVM_API_VERSION) {
            return Err(Error::Version(version));
        }
        if let Some(missing) = NEEDED.into_iter().find(|cap| !kvm.check_extension(*cap)) {
            return Err(Error::Capability(missing));
        }
        let most = kvm.get_max_vcpus();
        if usize::from(cpus) > most {
            return Err(Error::Cpus(most));
        }
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(ioctl("list its CPUID"))?;
        let fd = kvm.create_vm().map_err(ioctl("create a virtual machine"))?;
        fd.set_tss_address(layout::KVM_TSS as usize).map_err(ioctl("place its TSS"))?;
        fd.set_identity_map_address(layout::KVM_IDENTITY_MAP).map_err(ioctl("place its identity map"))?;
        fd.create_irq_chip().map_err(ioctl("create the interrupt controllers"))?;
        Ok(Self { fd, supported, next_slot: 0 })
    }

    /// Gives the guest its RAM, a memory slot a region.
    ///
    /// # Errors
    /// KVM refuses a slot.
    pub fn add_ram(&mut self, memory: &Memory) -> Result<(), Error> {
        for region in memory.iter() {
            let bytes = region.len();
            self.add_slot(region.start_addr().0, bytes, region.as_ptr() as u64, 0)
                .map_err(|source| Error::Memory { size: Size::from_bytes(bytes), source })?;
        }
        Ok(())
    }

    /// Gives the guest a shared zone, read-only, at `guest_address`.
    ///
    /// # Errors
    /// KVM refuses the slot.
    pub fn add_shared_zone(&mut self, guest_address: u64, zone: &SharedZone) -> Result<(), Error> {
        self.add_slot(guest_address, zone.bytes(), zone.host_address(), KVM_MEM_READONLY)
            .map_err(ioctl("map a layer of the image"))
    }

    fn add_slot(&mut self, guest: u64, bytes: u64, host: u64, flags: u32) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot: self.next_slot,
            flags,
            guest_phys_addr: guest,
            memory_size: bytes,
            userspace_addr: host,
        };
        self.next_slot += 1;
        // SAFETY: the range at `host` is a whole mapping of this process that stays mapped until it ends.
        unsafe { self.fd.set_user_memory_region(region) }
    }

    /// Lets writes to `event` raise `gsi` as an edge.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn add_interrupt(&self, event: &EventFd, gsi: u32) -> Result<(), Error> {
        self.fd.register_irqfd(event, gsi).map_err(ioctl("connect an interrupt"))
    }

    /// Lets the guest's 32-bit write of `value` at `address` wake `event` without stopping the vCPU.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn add_kick(&self, event: &EventFd, address: u64, value: u32) -> Result<(), Error> {
        let address = IoEventAddress::Mmio(address);
        self.fd.register_ioevent(event, &address, value).map_err(ioctl("connect a queue notification"))
    }

    /// Creates vCPU `cpu` of `cpus`; the first starts at `entry`, the others wait for its INIT.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn add_vcpu(&self, cpu: u8, cpus: u8, entry: u64) -> Result<VcpuFd, Error> {
        let vcpu = self.fd.create_vcpu(u64::from(cpu)).map_err(ioctl("create a vCPU"))?;
        let leaves = cpuid::for_vcpu(&self.supported, cpu, cpus).map_err(Error::Cpuid)?;
        vcpu.set_cpuid2(&leaves).map_err(ioctl("set a vCPU's CPUID"))?;
        let msrs = Msrs::from_entries(&registers::model_specific()).map_err(Error::Cpuid)?;
        let set = vcpu.set_msrs(&msrs).map_err(ioctl("set a vCPU's model-specific registers"))?;
        if set != registers::model_specific().len() {
            return Err(Error::Msrs(set));
        }
        vcpu.set_fpu(&registers::floating_point()).map_err(ioctl("set a vCPU's floating-point unit"))?;
        if cpu == 0 {
            let mut sregs = vcpu.get_sregs().map_err(ioctl("read a vCPU's registers"))?;
            registers::set_long_mode(&mut sregs);
            vcpu.set_sregs(&sregs).map_err(ioctl("set a vCPU's system registers"))?;
            vcpu.set_regs(&registers::general(entry)).map_err(ioctl("set a vCPU's registers"))?;
        }
        Ok(vcpu)
    }
}

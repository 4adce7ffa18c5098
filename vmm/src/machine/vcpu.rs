//! A vCPU's thread: runs the guest until something stops it, and hands its accesses to the buses.

use super::stop::{Stop, StopSignal};
use crate::bus::Bus;
use crate::seccomp::Filters;
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::sync::Arc;
use std::{io, thread};

/// Where a vCPU's accesses go.
#[derive(Default)]
pub struct Buses {
    /// I/O ports.
    pub ports: Bus,
    /// Memory-mapped registers.
    pub registers: Bus,
}

/// Starts the thread of one vCPU.
///
/// # Errors
/// The host refuses a thread.
pub fn spawn(
    number: u8,
    mut vcpu: VcpuFd,
    buses: Arc<Buses>,
    stop: Arc<StopSignal>,
    filters: Filters,
) -> io::Result<()> {
    thread::Builder::new()
        .name(format!("vcpu{number}"))
        .stack_size(STACK_BYTES)
        .spawn(move || {
            if let Err(error) = filters.apply("vcpu") {
                return stop.stop(Stop::Kvm(format!("a vCPU's thread cannot be confined: {error}")));
            }
            let reason = loop {
                if let Some(reason) = step(&mut vcpu, &buses) {
                    break reason;
                }
            };
            stop.stop(reason);
        })
        .map(drop)
}

/// A vCPU thread only looks up buses and copies a few bytes.
const STACK_BYTES: usize = 256 << 10;

/// Runs the guest up to its next exit and serves that; says why the machine stops, if it does.
fn step(vcpu: &mut VcpuFd, buses: &Buses) -> Option<Stop> {
    match vcpu.run() {
        Ok(VcpuExit::MmioRead(address, data)) => buses.registers.read(address, data),
        Ok(VcpuExit::MmioWrite(address, data)) => buses.registers.write(address, data),
        Ok(VcpuExit::IoIn(port, data)) => buses.ports.read(u64::from(port), data),
        Ok(VcpuExit::IoOut(port, data)) => buses.ports.write(u64::from(port), data),
        // With the interrupt controllers in the kernel a halted vCPU waits there.
        Ok(VcpuExit::Hlt | VcpuExit::Intr) => {}
        Ok(VcpuExit::Shutdown) => return Some(Stop::TripleFault(whereabouts(vcpu))),
        Ok(VcpuExit::FailEntry(reason, cpu)) => {
            return Some(Stop::Kvm(format!(
                "the host CPU {cpu} cannot enter the guest (reason {reason:#x})"
            )));
        }
        Ok(VcpuExit::InternalError) => {
            let at = whereabouts(vcpu);
            return Some(Stop::Kvm(format!("KVM could not emulate an instruction of the guest ({at})")));
        }
        Ok(other) => {
            return Some(Stop::Kvm(format!(
                "KVM stopped the guest with an exit nobody asked for: {other:?}"
            )));
        }
        Err(error) => match error.errno() {
            libc::EINTR | libc::EAGAIN => {}
            libc::EFAULT | libc::ENOMEM | libc::EHWPOISON => {
                return Some(Stop::HostMemory(error.to_string()));
            }
            _ => return Some(Stop::Kvm(format!("KVM_RUN failed: {error}"))),
        },
    }
    None
}

/// Where a vCPU that stopped stands. After a shutdown that the processor itself raised, KVM on SVM has reset it:
/// ip 0xfff0.
fn whereabouts(vcpu: &VcpuFd) -> String {
    match (vcpu.get_regs(), vcpu.get_sregs()) {
        (Ok(general), Ok(system)) => format!(
            "ip {:#x}, sp {:#x}, cr0 {:#x}, cr2 {:#x}, cr3 {:#x}",
            general.rip, general.rsp, system.cr0, system.cr2, system.cr3
        ),
        _ => "its registers cannot be read".into(),
    }
}

//! What a guest's PID 1 that measures says without a driver: bytes on I/O ports.

use std::arch::asm;

/// QEMU's `debugcon`.
pub const QEMU_DEBUGCON: u16 = 0xe9;
/// `iopl` of x86-64.
const SYS_IOPL: u64 = 172;

/// Asks the kernel for all I/O ports, which PID 1 may have.
pub fn claim_ports() {
    // SAFETY: changes this thread's privilege only; clobbers as the syscall ABI says.
    unsafe {
        asm!("syscall", inlateout("rax") SYS_IOPL => _, in("rdi") 3, out("rcx") _, out("r11") _);
    }
}

/// Writes `value` to `port`; no device is harmed where there is none.
///
/// # Safety
/// [`claim_ports`] was called, in a virtual machine that has nothing else to do.
pub unsafe fn write_port(port: u16, value: u8) {
    // SAFETY: the caller promises that the access is allowed and that nothing depends on it.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

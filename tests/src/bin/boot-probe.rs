//! PID 1 of the boot benchmark: ends the virtual machine with its first instructions, so that the time from
//! the VMM's start to its end is the time to the guest's init.
//!
//! Writes QEMU's `isa-debug-exit` port and Ballast's reset register; the one that is not there is ignored.

use std::arch::asm;
use vmm::machine::layout::{RESET_PORT, RESET_VALUE};

const QEMU_DEBUG_EXIT: u16 = 0xf4;
/// `iopl` of x86-64.
const SYS_IOPL: u64 = 172;

fn main() {
    // SAFETY: asks the kernel for access to all I/O ports, which PID 1 may have; clobbers as the syscall ABI says.
    unsafe {
        asm!("syscall", inlateout("rax") SYS_IOPL => _, in("rdi") 3, out("rcx") _, out("r11") _);
    }
    for (port, value) in [(QEMU_DEBUG_EXIT, 0), (RESET_PORT, RESET_VALUE)] {
        // SAFETY: the ports are those of a virtual machine that is to end here.
        unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
    }
    loop {
        std::thread::park();
    }
}

//! PID 1 of the boot benchmark: says with its first instructions that it runs.
//!
//! QEMU's `debugcon` hears a byte, Ballast's reset register ends the virtual machine; the one that is not there is
//! ignored.
//!
//! With the argument `idle` it waits forever instead, which leaves a guest whose memory can be looked at.

// The standard runtime gives up where standard streams are closed and there is no /dev/null.
#![no_main]

use std::arch::asm;
use vmm::machine::layout::{RESET_PORT, RESET_VALUE};

const QEMU_DEBUGCON: u16 = 0xe9;
/// `iopl` of x86-64.
const SYS_IOPL: u64 = 172;

/// Entered from the C library's start code.
// SAFETY: this is the program's only `main`, with the signature that the C library expects.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> std::ffi::c_int {
    if std::env::args().any(|argument| argument == "idle") {
        wait_forever();
    }
    // SAFETY: asks the kernel for access to all I/O ports, which PID 1 may have; clobbers as the syscall ABI says.
    unsafe {
        asm!("syscall", inlateout("rax") SYS_IOPL => _, in("rdi") 3, out("rcx") _, out("r11") _);
    }
    for (port, value) in [(QEMU_DEBUGCON, b'i'), (RESET_PORT, RESET_VALUE)] {
        // SAFETY: the ports are those of a virtual machine that has nothing else to do.
        unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
    }
    wait_forever()
}

fn wait_forever() -> ! {
    loop {
        std::thread::park();
    }
}

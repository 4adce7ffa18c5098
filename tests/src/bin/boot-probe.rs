//! PID 1 of the boot benchmark: says with its first instructions that it runs.
//!
//! QEMU's `debugcon` hears a byte, Ballast's reset register ends the virtual machine; the one that is not there is
//! ignored.
//!
//! With the argument `idle` it waits forever instead, which leaves a guest whose memory can be looked at.

// The standard runtime gives up where standard streams are closed and there is no /dev/null.
#![no_main]

use tests::probe::{QEMU_DEBUGCON, claim_ports, write_port};
use vmm::machine::layout::{RESET_PORT, RESET_VALUE};

/// Entered from the C library's start code.
// SAFETY: this is the program's only `main`, with the signature that the C library expects.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> std::ffi::c_int {
    if std::env::args().any(|argument| argument == "idle") {
        wait_forever();
    }
    claim_ports();
    for (port, value) in [(QEMU_DEBUGCON, b'i'), (RESET_PORT, RESET_VALUE)] {
        // SAFETY: claimed above; the virtual machine has nothing else to do.
        unsafe { write_port(port, value) };
    }
    wait_forever()
}

fn wait_forever() -> ! {
    loop {
        std::thread::park();
    }
}

//! PID 1 of the balloon benchmark: `balloon-probe MIB` loads the modules, touches so much memory, frees it, says so and
//! waits.
//!
//! It says so to QEMU's `debugcon` and to the first serial port, where Ballast listens; the one that is not there is
//! ignored.

// The standard runtime gives up where standard streams are closed and there is no /dev/null.
#![no_main]

use std::fs::{self, File};
use std::path::PathBuf;
use tests::probe::{QEMU_DEBUGCON, claim_ports, write_port};
use vmm::machine::layout::SERIAL_PORT;

/// Modules, in the order of their names.
const MODULES: &str = "/modules";

/// Entered from the C library's start code.
// SAFETY: this is the program's only `main`, with the signature that the C library expects.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> std::ffi::c_int {
    claim_ports();
    let mib = std::env::args().nth(1).and_then(|mib| mib.parse().ok());
    say(if load_modules().is_ok() && mib.is_some_and(touch) { b'f' } else { b'e' });
    loop {
        std::thread::park();
    }
}

fn load_modules() -> std::io::Result<()> {
    let files = fs::read_dir(MODULES)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>();
    let mut files: Vec<PathBuf> = files?;
    files.sort();
    for file in files {
        rustix::system::finit_module(File::open(file)?, c"", 0)?;
    }
    Ok(())
}

/// Writes to each page of so much memory and gives it back to the kernel.
fn touch(mib: usize) -> bool {
    let mut memory = Vec::new();
    let fits = memory.try_reserve_exact(mib << 20).is_ok();
    if fits {
        memory.resize(mib << 20, 1_u8);
    }
    // Not to be optimised away.
    std::hint::black_box(&memory);
    fits
}

fn say(byte: u8) {
    for port in [QEMU_DEBUGCON, SERIAL_PORT] {
        // SAFETY: claimed by `main`; the virtual machine has nothing else to do.
        unsafe { write_port(port, byte) };
    }
}

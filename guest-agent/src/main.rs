//! PID 1 of every microVM: prepares the guest, runs one workload in it, and ends the machine with it.
//!
//! A straight script, from top to bottom: kernel file systems, drivers, the link to the VMM, the root, the
//! workload, its streams, its end. It has one thread. Without a link a failure goes to the kernel's log,
//! with one to the host; either way the machine is powered off.

// The standard runtime wants open standard streams, which the kernel does not always give to PID 1.
#![cfg_attr(not(test), no_main)]
// The test harness has a `main` of its own, and nothing else calls the script.
#![cfg_attr(test, expect(dead_code))]

mod capabilities;
mod cgroup;
mod clock;
mod command;
mod commands;
mod duties;
mod early;
mod ending;
mod environment;
mod error;
mod evict;
mod kernel_log;
mod layers;
mod link;
mod memory;
mod modules;
mod mount;
mod orders;
mod port;
mod proactive;
mod pump;
mod reclaim;
mod root;
mod sample;
mod script;
mod signals;
mod signature;
mod stdio;
mod supervise;
mod swap;
mod system;
mod user;
mod volumes;
mod wait;
mod worker;
mod workload;

/// Entered from the C library's start code.
#[cfg(not(test))]
// SAFETY: this is the program's only `main`, with the signature that the C library expects.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> libc::c_int {
    kernel_log::end_machine_on_panic();
    if let Err(error) = script::run() {
        kernel_log::error(&error::chain(&error));
    }
    kernel_log::power_off()
}

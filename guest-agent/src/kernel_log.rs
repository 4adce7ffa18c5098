//! Words for the kernel's log, which is where they go as long as there is no link, and the end of the machine.

#![forbid(unsafe_code)]

use std::thread;
use std::time::Duration;

use rustix::system::{RebootCommand, reboot};

/// Characters of a line. The kernel takes records of 1024 bytes, and a character has up to 4.
const MAX_LINE: usize = 240;

/// Writes a line at the level of an error, so that it also shows on a quiet console.
pub fn error(line: &str) {
    let line: String = line.chars().take(MAX_LINE).collect();
    // Standard error is /dev/kmsg, where one write is one record. When it cannot be written there is nowhere
    // left to say so.
    let _ = rustix::io::write(rustix::stdio::stderr(), format!("<3>ballast agent: {line}\n").as_bytes());
}

/// Has a panic leave its words in the kernel's log and end the machine, instead of a kernel panic.
pub fn end_machine_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        error(&panic.to_string().replace('\n', " "));
        power_off();
    }));
}

/// Ends the machine.
pub fn power_off() -> ! {
    loop {
        rustix::fs::sync();
        if let Err(errno) = reboot(RebootCommand::PowerOff) {
            error(&format!("powering off: {errno}"));
        }
        // Only reached when the machine cannot be powered off. PID 1 must not return; the host will notice.
        thread::sleep(Duration::from_secs(60));
    }
}

//! Why a microVM stopped running, and the one place where that is settled.
//!
//! vCPU threads and the power registers say it; the main thread waits on [`StopSignal::event`]. The first word
//! counts.

use super::layout;
use crate::bus::BusDevice;
use std::sync::{Arc, OnceLock};
use vmm_sys_util::eventfd::EventFd;

/// Why the guest's CPUs stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest powered itself off.
    PowerOff,
    /// The guest asked for a reset: `reboot`, or a kernel panic with `panic=-1`.
    Reset,
    /// The CPU shut down on a fault within a fault within a fault; where it stood then.
    TripleFault(String),
    /// The host could not give the guest a page (no memory, or a file under a mapping is gone).
    HostMemory(String),
    /// The VMM cannot serve a device any more.
    Device(String),
    /// KVM cannot go on.
    Kvm(String),
}

/// Tells the main thread, once, why the guest stopped.
#[derive(Debug)]
pub struct StopSignal {
    reason: OnceLock<Stop>,
    event: EventFd,
}

impl StopSignal {
    /// A signal that nobody has given yet.
    ///
    /// # Errors
    /// The host has no more file descriptors.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { reason: OnceLock::new(), event: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)? })
    }

    /// Says why; later words are ignored.
    pub fn stop(&self, reason: Stop) {
        if self.reason.set(reason).is_ok() {
            // An eventfd that was just created and written once cannot be full.
            let _ = self.event.write(1);
        }
    }

    /// What was said, if anything.
    #[must_use]
    pub fn reason(&self) -> Option<&Stop> {
        self.reason.get()
    }

    /// Readable once the guest has stopped.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }
}

/// The registers behind ACPI's reset, sleep control and sleep status (ACPI 6.4, 4.8.3.6 and 4.8.3.7).
#[derive(Debug)]
pub struct PowerRegisters(pub Arc<StopSignal>);

/// `SLP_EN` of the sleep control register; bits 4:2 hold `SLP_TYP`.
const SLEEP_ENABLE: u8 = 1 << 5;

impl PowerRegisters {
    /// First port.
    pub const PORT: u16 = layout::RESET_PORT;
    /// Number of ports.
    pub const PORTS: u64 = 6;
}

impl BusDevice for PowerRegisters {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        const RESET: u64 = 0;
        const SLEEP_CONTROL: u64 = (layout::SLEEP_CONTROL_PORT - layout::RESET_PORT) as u64;
        match (offset, data) {
            (RESET, [layout::RESET_VALUE]) => self.0.stop(Stop::Reset),
            (SLEEP_CONTROL, [value]) if *value == SLEEP_ENABLE | layout::SLEEP_TYPE_S5 << 2 => {
                self.0.stop(Stop::PowerOff);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_values_stop_the_machine() {
        let power = PowerRegisters(Arc::new(StopSignal::new().unwrap()));
        for (offset, data) in
            [(0, &[0u8][..]), (0, &[1, 0]), (4, &[0x20]), (4, &[5 << 2]), (5, &[0x34]), (1, &[1])]
        {
            power.write(offset, data);
            assert_eq!(power.0.reason(), None, "{offset} {data:?}");
        }
        power.write(4, &[0x34]);
        power.write(0, &[1]);
        assert_eq!(power.0.reason(), Some(&Stop::PowerOff), "the first word counts");
        assert_eq!(power.0.event().read().unwrap(), 1);
    }
}

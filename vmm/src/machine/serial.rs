//! The serial port of `--boot-log`: kernel messages from the first line on, at an exit a byte.

use crate::bus::BusDevice;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

/// Number of I/O ports of a 16550.
pub const PORTS: u64 = 8;

/// The interrupt line of the port.
struct Line(EventFd);

impl Trigger for Line {
    type E = std::io::Error;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0.write(1)
    }
}

/// A 16550 that writes to `W`.
pub struct SerialPort<W: Write>(Mutex<Serial<Line, NoEvents, W>>);

impl<W: Write> SerialPort<W> {
    /// A port with this interrupt and this other end.
    pub fn new(interrupt: EventFd, out: W) -> Self {
        Self(Mutex::new(Serial::new(Line(interrupt), out)))
    }
}

impl<W: Write + Send> BusDevice for SerialPort<W> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (Ok(offset), [value]) = (u8::try_from(offset), data) {
            *value = self.0.lock().unwrap_or_else(PoisonError::into_inner).read(offset);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (Ok(offset), [value]) = (u8::try_from(offset), data) {
            // A reader of the log that went away must not stop the guest.
            let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write(offset, *value);
        }
    }
}

//! The interrupt of one device: its reasons (virtio 1.3, 4.2.2 InterruptStatus) and the event KVM listens to.

use std::sync::atomic::{AtomicU32, Ordering};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

/// Raises a device's edge-triggered interrupt.
#[derive(Debug)]
pub struct Interrupt {
    status: AtomicU32,
    event: EventFd,
}

impl Interrupt {
    /// An interrupt at rest.
    ///
    /// # Errors
    /// The host has no more file descriptors.
    pub fn new() -> std::io::Result<Self> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Self { status: AtomicU32::new(0), event })
    }

    /// The event for KVM's irqfd.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Reasons not yet acknowledged.
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// Used buffers were added.
    pub fn queue(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    /// The configuration or the device's status changed.
    pub fn config(&self) {
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    /// The driver has seen `reasons`.
    pub fn acknowledge(&self, reasons: u32) {
        self.status.fetch_and(!reasons, Ordering::SeqCst);
    }

    /// Nothing is pending any more.
    pub fn clear(&self) {
        self.status.store(0, Ordering::SeqCst);
    }

    fn raise(&self, reason: u32) {
        self.status.fetch_or(reason, Ordering::SeqCst);
        // KVM drains the event; its counter cannot overflow by ones.
        let _ = self.event.write(1);
    }
}

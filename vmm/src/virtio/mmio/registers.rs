//! The registers of one virtio-mmio device, version 2 (virtio 1.3, 4.2.2), as a strict state machine. Pure.
//!
//! ```text
//! 0 -> ACKNOWLEDGE -> +DRIVER -> +FEATURES_OK -> +DRIVER_OK     any -> 0 (reset)
//!                     features     queues          live         any -> +FAILED
//! ```
//!
//! Each register is writable in its phase only: features before FEATURES_OK, queues between it and DRIVER_OK.
//! From DRIVER_OK on the queues are latched: nothing that the driver writes changes where they lie. A write out
//! of phase is ignored and counted; a status that contradicts itself demands a reset (NEEDS_RESET).

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER as DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK, VIRTIO_CONFIG_S_FAILED as FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET as NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::*;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "BLST", little-endian: says which VMM this is, nothing depends on it.
const VENDOR: u32 = 0x5453_4c42;
/// `VIRTIO_MMIO_SHM_*` of a region that is absent: length and base are all ones (virtio 1.3, 4.2.2).
const NO_SHARED_MEMORY: u32 = u32::MAX;
/// Offered by the transport for every device.
const TRANSPORT_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX;

/// What a register write asks of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Request {
    /// Nothing further.
    Nothing,
    /// The driver kicked this queue.
    Notify(u32),
    /// The driver has seen these interrupt reasons.
    Acknowledge(u32),
    /// The driver reset the device.
    Reset,
    /// The driver set DRIVER_OK: build the queues, start the device.
    Activate,
    /// The driver takes this queue out of use.
    StopQueue(usize),
    /// The driver contradicted itself after DRIVER_OK: tell it that the device needs a reset.
    Alarm,
    /// The driver gave up on the device: nothing comes of it until a reset.
    GiveUp,
}

/// Writes that a correct driver never makes, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misuse {
    /// Writes to registers that do not exist or cannot be written.
    pub register: u64,
    /// Writes outside the register's phase.
    pub phase: u64,
    /// Statuses that contradict what was before.
    pub status: u64,
    /// Accesses to a queue that the device does not have, and impossible queue sizes.
    pub queue: u64,
}

impl Misuse {
    /// Each kind by a name, and how often it happened.
    #[must_use]
    pub fn by_kind(&self) -> [(&'static str, u64); 4] {
        [
            ("impossible_registers", self.register),
            ("untimely_writes", self.phase),
            ("impossible_statuses", self.status),
            ("impossible_queues", self.queue),
        ]
    }
}

/// What the driver said of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRegisters {
    /// The device's limit on `size`.
    pub max_size: u16,
    /// Number of descriptors.
    pub size: u16,
    /// The driver finished setting the queue up.
    pub ready: bool,
    /// Descriptor table, guest-physical.
    pub descriptors: u64,
    /// Available ring, guest-physical.
    pub available: u64,
    /// Used ring, guest-physical.
    pub used: u64,
}

/// All registers of one device but the configuration space.
#[derive(Clone, Debug)]
pub struct Registers {
    device_id: u32,
    offered: u64,
    offered_sel: u32,
    accepted: u64,
    accepted_sel: u32,
    status: u32,
    queue_sel: u32,
    queues: Vec<QueueRegisters>,
    misuse: Misuse,
}

impl Registers {
    /// The registers of a device after reset.
    #[must_use]
    pub fn new(device_id: u32, features: u64, queue_sizes: &[u16]) -> Self {
        let queue = |max_size: &u16| QueueRegisters {
            max_size: *max_size,
            size: *max_size,
            ready: false,
            descriptors: 0,
            available: 0,
            used: 0,
        };
        Self {
            device_id,
            offered: features | TRANSPORT_FEATURES,
            offered_sel: 0,
            accepted: 0,
            accepted_sel: 0,
            status: 0,
            queue_sel: 0,
            queues: queue_sizes.iter().map(queue).collect(),
            misuse: Misuse::default(),
        }
    }

    /// What the driver wrote that it should not have, since the machine started.
    #[must_use]
    pub fn misuse(&self) -> Misuse {
        self.misuse
    }

    /// The features both sides agreed on; meaningful from FEATURES_OK on.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.accepted
    }

    /// Whether both sides agreed on event indices.
    #[must_use]
    pub fn event_idx(&self) -> bool {
        self.accepted & 1 << VIRTIO_RING_F_EVENT_IDX != 0
    }

    /// What the driver said of each queue.
    #[must_use]
    pub fn queues(&self) -> &[QueueRegisters] {
        &self.queues
    }

    /// Whether the device runs: DRIVER_OK is set, the driver has not given up, and no reset is due.
    #[must_use]
    pub fn live(&self) -> bool {
        self.status & (DRIVER_OK | NEEDS_RESET | FAILED) == DRIVER_OK
    }

    /// Whether the device waits for the driver's reset: it demanded one, or the driver gave up on what it had set live.
    #[must_use]
    pub fn needs_reset(&self) -> bool {
        let gave_up = DRIVER_OK | FAILED;
        self.status & NEEDS_RESET != 0 || self.status & gave_up == gave_up
    }

    /// Demands a reset of the driver; true if it is newly demanded of a driver that must be told: one that has set
    /// DRIVER_OK (virtio 1.3, 2.1.2).
    #[must_use]
    pub fn demand_reset(&mut self) -> bool {
        let tell = self.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK;
        self.status |= NEEDS_RESET;
        tell
    }

    /// Everything as after power-on, but for the count of misuse.
    pub fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|q| q.max_size).collect();
        *self = Self { misuse: self.misuse, ..Self::new(self.device_id, self.offered, &sizes) };
    }

    /// The value of the register at `offset`; registers that do not exist read zero.
    #[must_use]
    pub fn read(&self, offset: u32, interrupt_status: u32) -> u32 {
        match offset {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.device_id,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => half(self.offered, self.offered_sel),
            VIRTIO_MMIO_QUEUE_NUM_MAX => self.selected().map_or(0, |q| u32::from(q.max_size)),
            VIRTIO_MMIO_QUEUE_READY => self.selected().map_or(0, |q| u32::from(q.ready)),
            VIRTIO_MMIO_INTERRUPT_STATUS => interrupt_status,
            VIRTIO_MMIO_STATUS => self.status,
            VIRTIO_MMIO_SHM_LEN_LOW
            | VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW
            | VIRTIO_MMIO_SHM_BASE_HIGH => NO_SHARED_MEMORY,
            // No device here changes its configuration in more than one field at a time.
            VIRTIO_MMIO_CONFIG_GENERATION => 0,
            _ => 0,
        }
    }

    /// Takes the driver's write of `value` to the register at `offset`.
    pub fn write(&mut self, offset: u32, value: u32) -> Request {
        match offset {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.offered_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.accepted_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.accept(value),
            VIRTIO_MMIO_QUEUE_SEL => self.queue_sel = value,
            VIRTIO_MMIO_QUEUE_NUM => self.set_size(value),
            VIRTIO_MMIO_QUEUE_READY => return self.set_ready(value),
            VIRTIO_MMIO_QUEUE_NOTIFY => return Request::Notify(value),
            VIRTIO_MMIO_INTERRUPT_ACK => return Request::Acknowledge(value),
            VIRTIO_MMIO_STATUS => return self.set_status(value),
            VIRTIO_MMIO_QUEUE_DESC_LOW => self.set_address(|q| set_low(&mut q.descriptors, value)),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => self.set_address(|q| set_high(&mut q.descriptors, value)),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => self.set_address(|q| set_low(&mut q.available, value)),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => self.set_address(|q| set_high(&mut q.available, value)),
            VIRTIO_MMIO_QUEUE_USED_LOW => self.set_address(|q| set_low(&mut q.used, value)),
            VIRTIO_MMIO_QUEUE_USED_HIGH => self.set_address(|q| set_high(&mut q.used, value)),
            // A region is chosen; there is none.
            VIRTIO_MMIO_SHM_SEL => {}
            _ => count(&mut self.misuse.register),
        }
        Request::Nothing
    }

    /// Counts an access that is not a whole, aligned register.
    pub fn misused_register(&mut self) {
        count(&mut self.misuse.register);
    }

    /// Counts a kick of a queue that does not exist.
    pub fn misused_queue(&mut self) {
        count(&mut self.misuse.queue);
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    fn accept(&mut self, value: u32) {
        if self.status & (DRIVER | FEATURES_OK) != DRIVER {
            return count(&mut self.misuse.phase);
        }
        match self.accepted_sel {
            0 => set_low(&mut self.accepted, value),
            1 => set_high(&mut self.accepted, value),
            // The driver may clear feature words that the device does not know (virtio 1.3, 4.2.2).
            _ if value == 0 => {}
            _ => count(&mut self.misuse.phase),
        }
    }

    /// The selected queue, if queues may be set up now and this one is not finished.
    fn configurable(&mut self) -> Option<&mut QueueRegisters> {
        if self.status & (FEATURES_OK | DRIVER_OK | NEEDS_RESET) != FEATURES_OK {
            count(&mut self.misuse.phase);
            return None;
        }
        let index = usize::try_from(self.queue_sel).unwrap_or(usize::MAX);
        match self.queues.get_mut(index) {
            None => {
                count(&mut self.misuse.queue);
                None
            }
            Some(queue) if queue.ready => {
                count(&mut self.misuse.phase);
                None
            }
            Some(queue) => Some(queue),
        }
    }

    fn set_size(&mut self, value: u32) {
        let Some(queue) = self.configurable() else { return };
        match u16::try_from(value) {
            Ok(size) if size.is_power_of_two() && size <= queue.max_size => queue.size = size,
            _ => count(&mut self.misuse.queue),
        }
    }

    fn set_address(&mut self, set: impl FnOnce(&mut QueueRegisters)) {
        if let Some(queue) = self.configurable() {
            set(queue);
        }
    }

    fn set_ready(&mut self, value: u32) -> Request {
        let index = usize::try_from(self.queue_sel).unwrap_or(usize::MAX);
        match (value, self.queues.get_mut(index)) {
            (_, None) => count(&mut self.misuse.queue),
            // Taking a queue out of use is legal at any time; after DRIVER_OK it does not come back.
            (0, Some(queue)) => {
                let was_ready = std::mem::replace(&mut queue.ready, false);
                if was_ready && self.status & DRIVER_OK != 0 {
                    return Request::StopQueue(index);
                }
            }
            (1, Some(_)) => {
                if let Some(queue) = self.configurable() {
                    queue.ready = true;
                }
            }
            _ => count(&mut self.misuse.queue),
        }
        Request::Nothing
    }

    fn set_status(&mut self, value: u32) -> Request {
        const KNOWN: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED;
        if value == 0 {
            return Request::Reset;
        }
        // NEEDS_RESET is the device's bit: a driver that writes it back says nothing.
        let (old, new) = (self.status & !NEEDS_RESET, value & !NEEDS_RESET);
        let added = new & !old;
        let cleared = old & !new;
        if cleared != 0 || new & !KNOWN != 0 || !in_order(new) {
            count(&mut self.misuse.status);
            return if self.demand_reset() { Request::Alarm } else { Request::Nothing };
        }
        let acceptable = self.accepted & !self.offered == 0 && self.accepted & 1 << VIRTIO_F_VERSION_1 != 0;
        if added & FEATURES_OK != 0 && !acceptable {
            // The driver learns of it by reading the status back (virtio 1.3, 3.1.1 step 6).
            self.status |= new & !(FEATURES_OK | DRIVER_OK);
            return Request::Nothing;
        }
        self.status |= new;
        if added & FAILED != 0 {
            return Request::GiveUp;
        }
        if added & DRIVER_OK != 0 && self.live() {
            return Request::Activate;
        }
        Request::Nothing
    }
}

/// Whether each step of the initialisation sequence has the one before it.
fn in_order(status: u32) -> bool {
    let needs = |bit: u32, before: u32| status & bit == 0 || status & before == before;
    needs(DRIVER, ACKNOWLEDGE) && needs(FEATURES_OK, DRIVER) && needs(DRIVER_OK, FEATURES_OK)
}

fn count(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}

fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => low(value),
        1 => low(value >> 32),
        _ => 0,
    }
}

#[expect(clippy::cast_possible_truncation)] // The low half is what is asked for.
fn low(value: u64) -> u32 {
    value as u32
}

fn set_low(target: &mut u64, value: u32) {
    *target = *target & !0xffff_ffff | u64::from(value);
}

fn set_high(target: &mut u64, value: u32) {
    *target = *target & 0xffff_ffff | u64::from(value) << 32;
}

#[cfg(test)]
#[path = "registers_tests.rs"]
mod tests;

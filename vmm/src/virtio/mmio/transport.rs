//! One device behind its registers: turns register accesses into calls of the device, and the device's
//! effects into interrupts.
//!
//! Locked as a whole: vCPUs come through the bus, the event loop through [`Transport::with_live`]. Interrupt
//! status lies outside the lock, so that acknowledging an interrupt never waits for a device at work.

use super::interrupt::Interrupt;
use super::registers::{Misuse, Registers, Request};
use crate::bus::BusDevice;
use crate::virtio::device::{BrokenQueue, Device, Effects, Memory};
use std::sync::{Mutex, MutexGuard, PoisonError};
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_CONFIG;
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

/// Register accesses are this wide.
const REGISTER_BYTES: usize = 4;
const CONFIG: u64 = VIRTIO_MMIO_CONFIG as u64;

/// A device, its registers and queues.
pub struct Transport<D> {
    inner: Mutex<Inner<D>>,
    memory: Memory,
    interrupt: Interrupt,
    kicks: Vec<EventFd>,
}

struct Inner<D> {
    registers: Registers,
    queues: Vec<Queue>,
    device: D,
}

impl<D: Device> Transport<D> {
    /// Puts `device` behind fresh registers.
    ///
    /// # Errors
    /// The host has no more file descriptors.
    pub fn new(device: D, memory: Memory) -> std::io::Result<Self> {
        let registers = Registers::new(device.id(), device.features(), device.queue_sizes());
        let kicks = device.queue_sizes().iter().map(|_| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC));
        let kicks = kicks.collect::<std::io::Result<_>>()?;
        let interrupt = Interrupt::new()?;
        Ok(Self {
            inner: Mutex::new(Inner { registers, queues: Vec::new(), device }),
            memory,
            interrupt,
            kicks,
        })
    }

    /// The event that raises the guest's interrupt.
    pub fn interrupt(&self) -> &EventFd {
        self.interrupt.event()
    }

    /// The events that the driver's kicks wake, a queue each.
    pub fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    /// Serves queue `index` after a kick.
    pub fn serve(&self, index: usize) {
        self.with_live(|device, queues, memory| device.serve(index, queues, memory), index);
    }

    /// Calls `work` on the device if the driver has set it live, and carries its effects out. `queue` is the
    /// queue that is served again should work remain.
    pub fn with_live(
        &self,
        work: impl FnOnce(&mut D, &mut [Queue], &Memory) -> Result<Effects, BrokenQueue>,
        queue: usize,
    ) {
        let mut inner = self.lock();
        let Inner { registers, queues, device } = &mut *inner;
        if !registers.live() {
            return;
        }
        match work(device, queues, &self.memory) {
            Ok(effects) => {
                if effects.interrupt {
                    self.interrupt.queue();
                }
                if effects.config {
                    self.interrupt.config();
                }
                if effects.again
                    && let Some(kick) = self.kicks.get(queue)
                {
                    // The counter of an eventfd cannot overflow by ones.
                    let _ = kick.write(1);
                }
            }
            Err(broken) => {
                log::warn!("device {}: the guest broke {broken}; waiting for its reset", device.id());
                if registers.demand_reset() {
                    self.interrupt.config();
                }
            }
        }
    }

    /// Calls `work` on the device, whether or not there is a driver.
    pub fn with_device<T>(&self, work: impl FnOnce(&mut D) -> T) -> T {
        work(self.hold().device())
    }

    /// Keeps driver and event loop away from the device for a while.
    pub fn hold(&self) -> Held<'_, D> {
        Held { inner: self.lock(), interrupt: &self.interrupt }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<D>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the event loop hear that the driver is gone: somebody may wait for it there.
    fn wake(&self) {
        if let Some(kick) = self.kicks.first() {
            // The counter of an eventfd cannot overflow by ones.
            let _ = kick.write(1);
        }
    }

    fn carry_out(&self, inner: &mut Inner<D>, request: Request) {
        match request {
            Request::Nothing => {}
            Request::Acknowledge(reasons) => self.interrupt.acknowledge(reasons),
            Request::Notify(queue) => match usize::try_from(queue).ok().and_then(|q| self.kicks.get(q)) {
                Some(kick) => {
                    let _ = kick.write(1);
                }
                None => inner.registers.misused_queue(),
            },
            // Its status has changed, which a driver that lives is told (virtio 1.3, 2.1.2).
            Request::Alarm => {
                log::warn!(
                    "device {}: the guest set an impossible status; waiting for its reset",
                    inner.device.id()
                );
                self.interrupt.config();
                self.wake();
            }
            Request::GiveUp => self.wake(),
            Request::Reset => {
                inner.registers.reset();
                inner.queues.clear();
                inner.device.reset();
                self.interrupt.clear();
                self.wake();
            }
            Request::StopQueue(index) => {
                if let Some(queue) = inner.queues.get_mut(index) {
                    queue.set_ready(false);
                }
            }
            Request::Activate => match build_queues(&inner.registers, &self.memory) {
                Some(queues) => {
                    inner.queues = queues;
                    inner.device.activate(inner.registers.features());
                    // What the driver put into a queue before DRIVER_OK is served now.
                    for kick in &self.kicks {
                        let _ = kick.write(1);
                    }
                }
                None => {
                    log::warn!("device {}: the guest set up an impossible queue", inner.device.id());
                    inner.registers.misused_queue();
                    if inner.registers.demand_reset() {
                        self.interrupt.config();
                    }
                }
            },
        }
    }
}

/// A device that nobody else touches as long as this lives.
pub struct Held<'a, D> {
    inner: MutexGuard<'a, Inner<D>>,
    interrupt: &'a Interrupt,
}

impl<D> Held<'_, D> {
    /// The device, whether or not there is a driver.
    pub fn device(&mut self) -> &mut D {
        &mut self.inner.device
    }

    /// Whether the driver has set the device live and broken nothing since.
    #[must_use]
    pub fn live(&self) -> bool {
        self.inner.registers.live()
    }

    /// Whether the driver broke something and has not reset the device since: nothing is served until it does.
    #[must_use]
    pub fn needs_reset(&self) -> bool {
        self.inner.registers.needs_reset()
    }

    /// What the driver did wrong with the registers so far.
    #[must_use]
    pub fn misuse(&self) -> Misuse {
        self.inner.registers.misuse()
    }

    /// Tells the driver, if it has set the device live, that the configuration space changed. Told under the lock: a
    /// driver that resets the device is told nothing after that.
    pub fn config_changed(&mut self) {
        if self.live() {
            self.interrupt.config();
        }
    }
}

/// Queues as the registers describe them; nothing if one cannot lie where the driver says.
fn build_queues(registers: &Registers, memory: &Memory) -> Option<Vec<Queue>> {
    let halves = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
    registers
        .queues()
        .iter()
        .map(|setup| {
            let mut queue = Queue::new(setup.max_size).ok()?;
            if !setup.ready {
                return Some(queue);
            }
            let (low, high) = halves(setup.descriptors);
            queue.set_desc_table_address(low, high);
            let (low, high) = halves(setup.available);
            queue.set_avail_ring_address(low, high);
            let (low, high) = halves(setup.used);
            queue.set_used_ring_address(low, high);
            queue.set_size(setup.size);
            queue.set_event_idx(registers.event_idx());
            queue.set_ready(true);
            let placed = queue.desc_table() == setup.descriptors
                && queue.avail_ring() == setup.available
                && queue.used_ring() == setup.used;
            (placed && queue.is_valid(&**memory)).then_some(queue)
        })
        .collect()
}

impl<D: Device> BusDevice for Transport<D> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.lock().device.read_config(offset, data);
        }
        match (u32::try_from(offset), <&mut [u8; REGISTER_BYTES]>::try_from(data)) {
            (Ok(offset), Ok(data)) if offset % 4 == 0 => {
                // An interrupt handler reads the status and nothing else: it must not wait for the lock.
                let value = if offset == virtio_bindings::virtio_mmio::VIRTIO_MMIO_INTERRUPT_STATUS {
                    self.interrupt.status()
                } else {
                    self.lock().registers.read(offset, self.interrupt.status())
                };
                *data = value.to_le_bytes();
            }
            _ => self.lock().registers.misused_register(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.lock().device.write_config(offset, data);
        }
        match (u32::try_from(offset), <&[u8; REGISTER_BYTES]>::try_from(data)) {
            (Ok(offset), Ok(data)) if offset % 4 == 0 => {
                let value = u32::from_le_bytes(*data);
                if offset == virtio_bindings::virtio_mmio::VIRTIO_MMIO_INTERRUPT_ACK {
                    return self.interrupt.acknowledge(value);
                }
                let mut inner = self.lock();
                let request = inner.registers.write(offset, value);
                self.carry_out(&mut inner, request);
            }
            _ => self.lock().registers.misused_register(),
        }
    }
}

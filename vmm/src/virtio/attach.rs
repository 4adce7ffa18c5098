//! Attaches virtio devices to a VM: registers on the bus, interrupt line, queue notifications. Wiring only.

use super::device::Device;
use super::mmio::Transport;
use crate::bus::Overlap;
use crate::machine::layout;
use crate::machine::vcpu::Buses;
use crate::machine::vm::{self, Vm};
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::sync::Arc;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY;

/// A device could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// All interrupt lines are taken.
    #[error("a microVM has room for {max} devices; merge image layers or use fewer volumes", max = layout::VIRTIO_DEVICES)]
    TooMany,
    /// The registers' addresses are taken.
    #[error("cannot place a device's registers")]
    Bus(#[from] Overlap),
    /// KVM refuses.
    #[error("cannot connect a device")]
    Kvm(#[from] vm::Error),
}

/// Hands out register ranges and interrupt lines, in the order of the DSDT's nodes.
#[derive(Debug, Default)]
pub struct Slots {
    taken: u32,
}

impl Slots {
    /// Puts `transport` into the next slot.
    ///
    /// # Errors
    /// No slot is left or KVM refuses.
    pub fn attach<D: Device + 'static>(
        &mut self,
        vm: &Vm,
        buses: &mut Buses,
        transport: &Arc<Transport<D>>,
    ) -> Result<(), Error> {
        let number = self.taken;
        if number as usize >= layout::VIRTIO_DEVICES {
            return Err(Error::TooMany);
        }
        let address = layout::VIRTIO_START + u64::from(number) * layout::VIRTIO_STRIDE;
        buses.registers.insert(address, layout::VIRTIO_STRIDE, Arc::clone(transport) as _)?;
        vm.add_interrupt(transport.interrupt(), layout::VIRTIO_FIRST_GSI + number)?;
        for (index, kick) in (0..).zip(transport.kicks()) {
            vm.add_kick(kick, address + u64::from(VIRTIO_MMIO_QUEUE_NOTIFY), index)?;
        }
        self.taken += 1;
        Ok(())
    }

    /// Devices attached so far.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken as usize
    }
}

/// Serves a device's queues when the driver kicks them.
pub struct QueueEvents<D>(pub Arc<Transport<D>>);

impl<D: Device> MutEventSubscriber for QueueEvents<D> {
    fn init(&mut self, ops: &mut EventOps) {
        for (index, kick) in (0..).zip(self.0.kicks()) {
            if let Err(error) = ops.add(Events::with_data(kick, index, EventSet::IN)) {
                log::error!("cannot wait for a queue: {error}");
            }
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        let index = events.data() as usize;
        if let Some(kick) = self.0.kicks().get(index) {
            // Level-triggered: an event that is not drained comes again.
            let _ = kick.read();
            self.0.serve(index);
        }
    }
}

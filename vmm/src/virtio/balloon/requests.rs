//! What the host asks of a balloon, through its transport.

use super::Balloon;
use crate::virtio::device::Effects;
use crate::virtio::mmio::registers::Misuse;
use crate::virtio::mmio::{Held, Transport};
use balloon::PAGE_BYTES;
use balloon::backing::Kernel;
use balloon::device::{CeilingError, MemoryReport, Queue, RequestError};
use std::io;

/// A request that is refused; nothing changed. The message is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nobody to ask, or it cannot answer.
    #[error(transparent)]
    Driver(#[from] RequestError),
    /// The driver broke the device and has not reset it: nothing that it says or is told counts.
    #[error(
        "the guest's balloon driver broke its device: memory stays as it is until the guest loads the driver anew \
         or is started again"
    )]
    Broken,
    /// No such ceiling.
    #[error(transparent)]
    Ceiling(#[from] CeilingError),
}

/// Everything known of a guest's memory at one moment, by the device and by the transport in front of it.
#[derive(Clone, Debug)]
pub struct Look {
    /// What the device knows.
    pub report: MemoryReport,
    /// The driver broke the device and has not reset it: it is none, whatever the report says of it.
    pub broken: bool,
    /// What the driver did wrong with the device's registers.
    pub misuse: Misuse,
    /// Each region of guest memory.
    pub regions: Vec<RegionLook>,
    /// At the ends of how many readings our page books contradicted themselves.
    pub book_imbalances: u64,
}

/// What our books say of a region of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionLook {
    /// Guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Bytes of it in the balloon.
    pub ballooned: u64,
    /// Bytes of it that were reported free and not seen to be taken again.
    pub reported: u64,
}

impl<K: Kernel> Transport<Balloon<K>> {
    /// Wants the guest to keep at most `bytes`, and tells its driver, if there is one, should that be new. What was set
    /// for a driver that is gone can so be undone.
    ///
    /// # Errors
    /// The ceiling is below the floor or beyond the guest's memory.
    pub fn set_ceiling(&self, bytes: u64) -> Result<(), CeilingError> {
        set_ceiling(&mut self.hold(), bytes)
    }

    /// Whether there is a driver that has not broken the device.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.hold().live()
    }

    /// As [`Self::set_ceiling`], of a driver that is there, and of at least `least_bytes` and at most `max_bytes`.
    ///
    /// # Errors
    /// There is no driver to reach it, or it broke its device, whatever the ceiling is; it is outside of these; or as
    /// above.
    pub fn demand_ceiling(&self, bytes: u64, least_bytes: u64, max_bytes: u64) -> Result<(), Refusal> {
        let mut held = self.hold();
        if !held.live() {
            return Err(nobody(&held));
        }
        // The device knows nothing of the other bounds.
        let report = held.device().report();
        let (floor_bytes, max_bytes) = (report.floor.max(least_bytes), max_bytes.min(report.size));
        if !(floor_bytes..=max_bytes).contains(&bytes) {
            return Err(CeilingError { bytes, floor_bytes, max_bytes }.into());
        }
        Ok(set_ceiling(&mut held, bytes)?)
    }

    /// Asks the guest for statistics; [`Self::memory_report`] has them once they are there.
    ///
    /// # Errors
    /// There is nobody to ask, or the last request is not answered.
    pub fn request_statistics(&self) -> Result<(), Refusal> {
        let index = self.with_device(|balloon| balloon.device.queue_index(Queue::Statistics));
        let index = index.unwrap_or(usize::MAX);
        let mut result = None;
        self.with_live(
            |balloon, queues, memory| {
                let asked = balloon.device.request_statistics((balloon.clock_ms)());
                result = Some(asked.map_err(Refusal::from));
                if asked.is_err() {
                    return Ok(Effects::default());
                }
                balloon.awaited = true;
                balloon.serve_statistics(index, queues, memory, true)
            },
            index,
        );
        result.unwrap_or_else(|| Err(nobody(&self.hold())))
    }

    /// Asks the guest how it does, if that decides whether its driver is told of the target again.
    pub fn follow_up(&self) {
        if self.with_device(|balloon| balloon.device.wants_statistics((balloon.clock_ms)())) {
            // A driver that cannot answer is not reminded.
            let _ = self.request_statistics();
        }
    }

    /// Whether the guest was asked for statistics, has not answered, and can.
    pub fn statistics_pending(&self) -> bool {
        statistics_pending(&mut self.hold())
    }

    /// Whether a request for statistics is over since this was asked last: they have come, or will not come as the
    /// driver is gone or broke its device.
    pub(super) fn statistics_over(&self) -> bool {
        let mut held = self.hold();
        let over = held.device().awaited && !statistics_pending(&mut held);
        if over {
            held.device().awaited = false;
        }
        over
    }

    /// Everything that the device knows of the guest's memory.
    pub fn memory_report(&self) -> MemoryReport {
        self.with_device(|balloon| balloon.report())
    }

    /// As [`Self::memory_report`], with what the transport knows.
    pub fn look(&self) -> Look {
        let mut held = self.hold();
        let (broken, misuse) = (held.needs_reset(), held.misuse());
        let balloon = held.device();
        let bytes = |pages: u64| pages.saturating_mul(PAGE_BYTES);
        let books = balloon.device.books();
        let regions = books.layout().regions().zip(books.marked()).map(|(pages, marked)| RegionLook {
            address: bytes(pages.first().into()),
            bytes: bytes(pages.count()),
            ballooned: bytes(marked.ballooned),
            reported: bytes(marked.reported),
        });
        let regions = regions.collect();
        Look {
            report: balloon.report(),
            broken,
            misuse,
            regions,
            book_imbalances: balloon.audit.imbalances(),
        }
    }

    /// Reads on for a client how much of the guest's memory the host holds, unless it has been read lately: some steps
    /// for all clients that ask at a time. What is left is read for later ones, or by the timer.
    ///
    /// # Errors
    /// The host cannot tell.
    pub fn refresh(&self) -> io::Result<()> {
        while self.with_device(Balloon::survey_for_client).transpose()?.is_some() {}
        Ok(())
    }

    /// A step of reading how much of the guest's memory the host holds; true at the end of a reading, or if there is no need
    /// for one as no memory has moved since the last.
    ///
    /// # Errors
    /// The host cannot tell.
    pub fn survey(&self) -> io::Result<bool> {
        self.with_device(Balloon::survey_by_timer)
    }
}

fn set_ceiling<K: Kernel>(held: &mut Held<'_, Balloon<K>>, bytes: u64) -> Result<(), CeilingError> {
    let balloon = held.device();
    let now_ms = (balloon.clock_ms)();
    if balloon.device.set_ceiling(bytes, now_ms)? {
        held.config_changed();
    }
    Ok(())
}

fn statistics_pending<K: Kernel>(held: &mut Held<'_, Balloon<K>>) -> bool {
    held.live() && held.device().device.statistics_pending()
}

/// Why a device that does not live serves nobody.
fn nobody<K: Kernel>(held: &Held<'_, Balloon<K>>) -> Refusal {
    if held.needs_reset() { Refusal::Broken } else { RequestError::NoDriver.into() }
}

//! What the host asks of a balloon, through its transport.

use super::Balloon;
use crate::virtio::device::Effects;
use crate::virtio::mmio::Transport;
use balloon::backing::Kernel;
use balloon::device::{CeilingError, MemoryReport, Queue, RequestError};
use std::io;

impl<K: Kernel> Transport<Balloon<K>> {
    /// Wants the guest to keep at most `bytes`, and tells its driver if that is new.
    ///
    /// # Errors
    /// The ceiling is below the floor or beyond the guest's memory.
    pub fn set_ceiling(&self, bytes: u64) -> Result<(), CeilingError> {
        let new = self.with_device(|balloon| balloon.device.set_ceiling(bytes, (balloon.clock_ms)()))?;
        if new {
            self.config_changed();
        }
        Ok(())
    }

    /// Asks the guest for statistics; [`Self::memory_report`] has them once they are there, within a second or
    /// marked stale.
    ///
    /// # Errors
    /// There is nobody to ask, or the last request is not answered.
    pub fn request_statistics(&self) -> Result<(), RequestError> {
        let index = self.with_device(|balloon| balloon.device.queue_index(Queue::Statistics));
        let index = index.unwrap_or(usize::MAX);
        let mut result = Err(RequestError::NoDriver);
        self.with_live(
            |balloon, queues, memory| {
                result = balloon.device.request_statistics((balloon.clock_ms)());
                if result.is_err() {
                    return Ok(Effects::default());
                }
                balloon.serve_statistics(index, queues, memory, true)
            },
            index,
        );
        result
    }

    /// Whether the guest was asked for statistics and has not answered.
    pub fn statistics_pending(&self) -> bool {
        self.with_device(|balloon| balloon.device.statistics_pending())
    }

    /// Everything known of the guest's memory.
    pub fn memory_report(&self) -> MemoryReport {
        self.with_device(|balloon| balloon.report())
    }

    /// A step of reading how much of the guest's memory the host holds; true at the end of a reading.
    ///
    /// # Errors
    /// The host cannot tell.
    pub fn survey(&self) -> io::Result<bool> {
        self.with_device(Balloon::survey)
    }
}

//! A running VM's memory as its balloon tells of it. Wiring between the control socket and the balloon's transport.

use super::api::{CeilingState, DriverState, GuestStatistics, MemoryDocument};
use super::memory::{Ceiling, Memory, Refusal};
use crate::virtio::balloon::{Balloon, Look};
use crate::virtio::mmio::Transport;
use balloon::backing::Kernel;
use balloon::device::RequestError;
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

/// The memory of a VM with a balloon.
pub struct Ballooned<K> {
    transport: Arc<Transport<Balloon<K>>>,
    /// A user set the ceiling.
    by_hand: bool,
    statistics: EventFd,
}

impl<K: Kernel> Ballooned<K> {
    /// The memory behind `transport`. `statistics` becomes readable when the guest has answered.
    pub fn new(transport: Arc<Transport<Balloon<K>>>, statistics: EventFd) -> Self {
        Self { transport, by_hand: false, statistics }
    }
}

impl<K: Kernel> Memory for Ballooned<K> {
    fn snapshot(&mut self) -> MemoryDocument {
        if let Err(error) = self.transport.refresh() {
            log::warn!("the host does not say how much of the guest's memory it holds: {error}");
        }
        document(&self.transport.look(), self.by_hand)
    }

    fn set_ceiling(&mut self, ceiling: Ceiling) -> Result<(), Refusal> {
        let bytes = match ceiling {
            Ceiling::Bytes(bytes) => Some(bytes),
            Ceiling::Auto => None,
        };
        self.transport.set_ceiling(bytes)?;
        self.by_hand = ceiling != Ceiling::Auto;
        Ok(())
    }

    fn request_statistics(&mut self) -> Result<(), Refusal> {
        match self.transport.request_statistics() {
            Err(Refusal::Driver(RequestError::Pending)) => Ok(()),
            result => result,
        }
    }

    fn statistics_pending(&self) -> bool {
        self.transport.statistics_pending()
    }

    fn statistics(&mut self) -> Option<GuestStatistics> {
        self.transport.memory_report().statistics
    }

    fn statistics_event(&self) -> Option<&EventFd> {
        Some(&self.statistics)
    }
}

fn document(look: &Look, by_hand: bool) -> MemoryDocument {
    let report = &look.report;
    let residency = report.residency.as_ref();
    let kinds = report.protocol_errors.by_kind().into_iter().filter(|(_, count)| *count > 0);
    MemoryDocument {
        size_bytes: report.size,
        max_bytes: report.size,
        floor_bytes: report.floor,
        ceiling: CeilingState { bytes: report.ceiling, auto: !by_hand },
        guest_bytes: report.size.saturating_sub(report.ballooned),
        ballooned_bytes: report.ballooned,
        actual_bytes: report.actual,
        skew_bytes: report.skew,
        reported_bytes: report.reported,
        reported_total_bytes: report.reported_total,
        resident_bytes: residency.map(|residency| residency.resident),
        resident_age_ms: report.residency_age_ms,
        huge_page_bytes: residency.and_then(|residency| residency.huge),
        swapped_bytes: residency.and_then(|residency| residency.swapped),
        ballooned_resident_bytes: residency.map(|residency| residency.ballooned_resident),
        taken_back_total_bytes: report.taken_back_total,
        release_failures: report.release_failures.calls,
        driver: if look.broken { DriverState::Broken } else { report.driver.into() },
        protocol_errors: kinds.map(|(kind, count)| (kind.to_owned(), count)).collect(),
    }
}

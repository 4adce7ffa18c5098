//! A running VM's memory as its balloon tells of it. Wiring between the control socket and the balloon's transport.

use super::api::{CeilingState, DriverState, GuestStatistics, MemoryDocument, RegionDocument};
use super::memory::{Ceiling, Memory, Refusal};
use crate::virtio::balloon::{Balloon, Look};
use crate::virtio::mmio::Transport;
use balloon::PAGE_BYTES;
use balloon::backing::Kernel;
use balloon::device::RequestError;
use std::collections::BTreeMap;
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
        match ceiling {
            Ceiling::Bytes(bytes) => self.transport.demand_ceiling(bytes)?,
            Ceiling::Auto => self.transport.set_ceiling(self.transport.memory_report().size)?,
        }
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

/// What `GET /v1/memory` says of `look`; `by_hand` says who chose the ceiling.
pub(super) fn document(look: &Look, by_hand: bool) -> MemoryDocument {
    let report = &look.report;
    let residency = report.residency.as_ref();
    let resident = |region: usize| residency.and_then(|residency| residency.regions.get(region)).copied();
    let regions = look.regions.iter().enumerate().map(|(number, (address, bytes))| RegionDocument {
        address: *address,
        size_bytes: *bytes,
        resident_bytes: resident(number),
    });
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
        reported_poisoned_total_bytes: report.reported_poisoned_total,
        resident_bytes: residency.map(|residency| residency.resident),
        resident_age_ms: report.residency_age_ms,
        regions: regions.collect(),
        huge_page_bytes: residency.and_then(|residency| residency.huge),
        swapped_bytes: residency.and_then(|residency| residency.swapped),
        ballooned_resident_bytes: residency.map(|residency| residency.ballooned_resident),
        taken_back_total_bytes: report.taken_back_total,
        release_failures: report.release_failures.calls,
        release_failed_bytes: report.release_failures.pages.saturating_mul(PAGE_BYTES),
        release_last_errno: report.release_failures.last_errno,
        advice_failures: report.release_failures.advice,
        book_imbalances: look.book_imbalances,
        driver: if look.broken { DriverState::Broken } else { report.driver.into() },
        protocol_errors: that_happened(&report.protocol_errors.by_kind()),
        register_errors: that_happened(&look.misuse.by_kind()),
    }
}

fn that_happened(kinds: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let some = kinds.iter().filter(|(_, count)| *count > 0);
    some.map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
}

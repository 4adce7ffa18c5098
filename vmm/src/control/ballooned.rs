//! A running VM's memory as its balloon tells of it. Wiring between the control socket and the balloon's transport.

use super::host_nodes::HostNodes;
use super::memory::{Ceiling, Memory, NodeError, Refusal};
use super::paging::Paging;
use super::shared::SharedZones;
use crate::cgroup::{Charge, HostCgroup};
use crate::virtio::balloon::{Balloon, Look, RegionLook};
use crate::virtio::mmio::Transport;
use balloon::PAGE_BYTES;
use balloon::backing::Kernel;
use balloon::control::api::{
    CeilingState, DriverState, GuestStatistics, HostDocument, MemoryDocument, RegionDocument, ZoneDocument,
    ZoneKind, ZonesDocument,
};
use balloon::device::{CeilingError, MemoryReport, RequestError};
use balloon::numa::Placed;
use balloon::policy::HostReading;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

/// The memory of a VM with a balloon.
pub struct Ballooned<K> {
    transport: Arc<Transport<Balloon<K>>>,
    zones: Vec<PrivateZone>,
    /// A user set the ceiling, to this.
    by_hand: Option<u64>,
    /// The highest ceiling; none is all of guest memory.
    max_bytes: Option<u64>,
    /// What the microVM is promised.
    min_bytes: u64,
    statistics: EventFd,
    host: Option<Rc<HostCgroup>>,
    shared: SharedZones,
    nodes: HostNodes,
    paging: Paging,
}

/// A private zone of guest memory, as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateZone {
    /// Its name.
    pub name: String,
    /// The regions of guest memory that it consists of, by number.
    pub regions: Vec<usize>,
    /// Node of the host from which it is taken.
    pub host_node: Option<u32>,
    /// The host may use huge pages for it.
    pub huge_pages: bool,
}

impl<K: Kernel> Ballooned<K> {
    /// The memory behind `transport`, divided into `zones` in the order of their nodes. `statistics` becomes readable
    /// when the guest has answered.
    pub fn new(transport: Arc<Transport<Balloon<K>>>, zones: Vec<PrivateZone>, statistics: EventFd) -> Self {
        Self {
            transport,
            zones,
            by_hand: None,
            max_bytes: None,
            min_bytes: 0,
            statistics,
            host: None,
            shared: SharedZones::default(),
            nodes: HostNodes::default(),
            paging: Paging::default(),
        }
    }

    /// The same, in `host`, a cgroup of the host.
    #[must_use]
    pub fn with_host(self, host: Option<Rc<HostCgroup>>) -> Self {
        Self { host, ..self }
    }

    /// The same, mapping `shared`.
    #[must_use]
    pub fn with_shared(self, shared: SharedZones) -> Self {
        Self { shared, ..self }
    }

    /// The same, its zones lying where `nodes` knows.
    #[must_use]
    pub fn with_nodes(self, nodes: HostNodes) -> Self {
        Self { nodes, ..self }
    }

    /// The same, swapped out by `paging`.
    #[must_use]
    pub fn with_paging(self, paging: Paging) -> Self {
        Self { paging, ..self }
    }

    /// What the guest needs, or is promised.
    fn floor(&self, report: &MemoryReport) -> u64 {
        report.floor.max(self.min_bytes).min(report.size)
    }

    fn look(&self) -> Look {
        if let Err(error) = self.transport.refresh() {
            log::warn!("the host does not say how much of the guest's memory it holds: {error}");
        }
        self.transport.look()
    }
}

impl<K: Kernel> Memory for Ballooned<K> {
    fn snapshot(&mut self) -> MemoryDocument {
        // Each lease comes by here, so that a limit that could not fall yet does while nobody asks for the charge.
        if let Some(Err(error)) = self.host.as_ref().map(|host| host.fall_on()) {
            log::warn!("the host does not lower its limit: {error}");
        }
        let look = self.look();
        let document = document(&look, self.by_hand.is_some());
        let max_bytes = self.max_bytes.unwrap_or(document.max_bytes);
        let floor_bytes = self.floor(&look.report);
        MemoryDocument { max_bytes, floor_bytes, ..document }
    }

    fn charge(&mut self) -> Option<HostDocument> {
        let charge = self.host.as_ref()?.charge();
        charge
            .inspect_err(|error| log::warn!("the host does not say what it charges: {error}"))
            .ok()
            .map(Into::into)
    }

    fn zones(&mut self) -> ZonesDocument {
        let look = self.look();
        let zones = (0..).zip(&self.zones).map(|(node, zone)| zone_document(&look, node, zone));
        ZonesDocument { zones: zones.collect() }
    }

    fn shared_zones(&mut self) -> Vec<ZoneDocument> {
        self.shared.documents()
    }

    fn set_node(&mut self, zone: usize, node: Option<u32>) -> Result<(), NodeError> {
        let Some(of) = self.zones.get_mut(zone) else { return Ok(()) };
        self.nodes.begin(zone, node, of.host_node)?;
        of.host_node = node;
        Ok(())
    }

    fn move_on(&mut self) -> Option<io::Result<Placed>> {
        self.nodes.go_on()
    }

    fn page_out(&mut self, bytes: u64) {
        self.paging.begin(bytes);
        let _ = self.statistics.write(1);
    }

    fn page_out_on(&mut self) {
        if self.paging.go_on() {
            let _ = self.statistics.write(1);
        }
    }

    fn set_ceiling(&mut self, ceiling: Ceiling) -> Result<(), Refusal> {
        let report = self.transport.memory_report();
        let max_bytes = self.max_bytes.unwrap_or(report.size);
        match ceiling {
            Ceiling::Bytes(bytes) => self.transport.demand_ceiling(bytes, self.min_bytes, max_bytes)?,
            Ceiling::Auto => self.transport.set_ceiling(max_bytes.max(report.floor))?,
        }
        self.by_hand = match ceiling {
            Ceiling::Bytes(bytes) => Some(bytes),
            Ceiling::Auto => None,
        };
        Ok(())
    }

    fn ceiling_by_hand(&self) -> Option<u64> {
        self.by_hand
    }

    fn follow_ceiling(&mut self, bytes: u64) -> Result<(), Refusal> {
        let report = self.transport.memory_report();
        let max_bytes = self.max_bytes.unwrap_or(report.size);
        Ok(self.transport.set_ceiling(bytes.min(max_bytes).max(self.floor(&report)))?)
    }

    fn reading(&mut self) -> HostReading {
        let report = self.transport.memory_report();
        HostReading {
            resident_bytes: report.residency.as_ref().map(|residency| residency.resident),
            ceiling_bytes: report.size.saturating_sub(report.ballooned),
            floor_bytes: self.floor(&report),
            min_bytes: self.min_bytes,
            balloon: self.transport.is_served(),
            ..HostReading::default()
        }
    }

    fn guest_floor_bytes(&self) -> u64 {
        let report = self.transport.memory_report();
        report.floor.min(report.size)
    }

    fn set_min(&mut self, bytes: u64) {
        self.min_bytes = bytes;
    }

    fn set_max(&mut self, bytes: u64) -> Result<(), Refusal> {
        // A floor that rose since must not refuse the way back. To raise the ceiling is the law's: it knows what the host
        // lacks, and what was set by hand.
        let report = self.transport.memory_report();
        if bytes > report.size {
            let floor_bytes = self.floor(&report);
            return Err(CeilingError { bytes, floor_bytes, max_bytes: report.size }.into());
        }
        self.transport.set_ceiling(report.ceiling.min(bytes).max(self.floor(&report)))?;
        self.max_bytes = Some(bytes);
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
        let last = self.transport.memory_report().statistics?;
        // A driver that broke its device answers no more.
        Some(GuestStatistics { stale: last.stale || !self.transport.is_served(), ..last })
    }

    fn statistics_event(&self) -> Option<&EventFd> {
        Some(&self.statistics)
    }
}

pub(super) fn zone_document(look: &Look, node: u32, zone: &PrivateZone) -> ZoneDocument {
    let regions = || zone.regions.iter().filter_map(|number| look.regions.get(*number));
    let sum = |of: fn(&RegionLook) -> u64| regions().map(of).fold(0, u64::saturating_add);
    let resident = look.report.residency.as_ref().map(|residency| {
        let regions = zone.regions.iter().filter_map(|number| residency.regions.get(*number));
        regions.copied().fold(0, u64::saturating_add)
    });
    ZoneDocument {
        name: zone.name.clone(),
        kind: ZoneKind::Private,
        node: Some(node),
        host_node: zone.host_node,
        huge_pages: zone.huge_pages,
        size_bytes: sum(|region| region.bytes),
        // Who keeps its limit is the agent.
        max_bytes: None,
        resident_bytes: resident,
        ballooned_bytes: sum(|region| region.ballooned),
        reported_bytes: sum(|region| region.reported),
    }
}

/// What `GET /v1/memory` says of `look`, without the host's word; `by_hand` says who chose the ceiling.
pub(super) fn document(look: &Look, by_hand: bool) -> MemoryDocument {
    let report = &look.report;
    let residency = report.residency.as_ref();
    let resident = |region: usize| residency.and_then(|residency| residency.regions.get(region)).copied();
    let regions = look.regions.iter().enumerate().map(|(number, region)| RegionDocument {
        address: region.address,
        size_bytes: region.bytes,
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
        host: None,
        driver: if look.broken { DriverState::Broken } else { report.driver.into() },
        protocol_errors: that_happened(&report.protocol_errors.by_kind()),
        register_errors: that_happened(&look.misuse.by_kind()),
    }
}

impl From<Charge> for HostDocument {
    fn from(charge: Charge) -> Self {
        Self {
            limit_bytes: charge.limit_bytes,
            charged_bytes: charge.current_bytes,
            anonymous_bytes: charge.anonymous_bytes,
            file_bytes: charge.file_bytes,
            kernel_bytes: charge.kernel_bytes,
            limit_reached_total: charge.events.at_limit,
        }
    }
}

fn that_happened(kinds: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let some = kinds.iter().filter(|(_, count)| *count > 0);
    some.map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
}

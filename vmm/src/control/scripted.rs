//! A VM whose memory does as a test says, and questions to it without a socket.

use super::memory::{Ceiling, Memory, NodeError, Refusal};
use super::orders::Orders;
use super::routes::{self, Answer, Parts};
use crate::reclaim::owner::Owner;
use balloon::control::api::*;
use balloon::control::http::Request;
use balloon::control::link::{Envelope, GroupPolicy, Inherited};
use balloon::device::{CeilingError, RequestError, Values};
use balloon::numa::Placed;
use balloon::policy::HostReading;
use serde_json::Value;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// A VM's memory that does at once what it is asked to.
#[derive(Debug)]
pub struct Scripted {
    pub document: MemoryDocument,
    /// The floor without what is promised.
    pub guest_floor_bytes: u64,
    pub statistics: Option<GuestStatistics>,
    /// Shared with who plays the guest.
    pub pending: Arc<AtomicBool>,
    /// A request is answered at once.
    pub prompt: bool,
    pub event: EventFd,
    /// Steps that are left of a zone's move, and how it ends.
    pub moving: Option<(u32, Result<Placed, i32>)>,
    /// How the next one ends.
    pub move_ends: Result<Placed, i32>,
    /// There is but the zone of the boot memory.
    pub only_zone: bool,
    /// What was to be swapped out, in sum.
    pub paged_out_bytes: Arc<AtomicU64>,
}

pub const MIB: u64 = 1 << 20;

impl Scripted {
    pub fn new() -> Self {
        Self {
            document: MemoryDocument {
                size_bytes: 512 * MIB,
                max_bytes: 512 * MIB,
                floor_bytes: 128 * MIB,
                ceiling: CeilingState { bytes: 512 * MIB, auto: true },
                guest_bytes: 400 * MIB,
                ballooned_bytes: 112 * MIB,
                actual_bytes: 111 * MIB,
                skew_bytes: -(MIB as i64),
                reported_bytes: 3 * MIB,
                reported_total_bytes: 70 * MIB,
                reported_poisoned_total_bytes: MIB,
                resident_bytes: Some(222 * MIB),
                resident_age_ms: Some(3),
                regions: vec![
                    RegionDocument { address: 0, size_bytes: 256 * MIB, resident_bytes: Some(222 * MIB) },
                    RegionDocument { address: 1 << 32, size_bytes: 256 * MIB, resident_bytes: None },
                ],
                huge_page_bytes: Some(200 * MIB),
                swapped_bytes: Some(0),
                ballooned_resident_bytes: Some(4096),
                taken_back_total_bytes: 5 * MIB,
                release_failures: 1,
                release_failed_bytes: 8192,
                release_last_errno: Some(libc::ENOMEM),
                advice_failures: 7,
                book_imbalances: 0,
                host: Some(HostDocument {
                    limit_bytes: Some(600 << 20),
                    charged_bytes: 300 << 20,
                    anonymous_bytes: 200 << 20,
                    file_bytes: 90 << 20,
                    kernel_bytes: 10 << 20,
                    limit_reached_total: 2,
                }),
                driver: DriverState::Moving,
                protocol_errors: [("duplicate_pages".to_owned(), 7)].into(),
                register_errors: [("impossible_statuses".to_owned(), 2)].into(),
            },
            guest_floor_bytes: 128 * MIB,
            statistics: None,
            pending: Arc::default(),
            prompt: true,
            event: EventFd::new(libc::EFD_NONBLOCK).unwrap(),
            moving: None,
            move_ends: Ok(Placed { there: 8192, elsewhere: 4096, moved: 8192 }),
            only_zone: false,
            paged_out_bytes: Arc::default(),
        }
    }

    /// As it comes from a guest that says everything.
    pub fn full_statistics() -> GuestStatistics {
        // Every field, whatever fields there are.
        let bytes: Vec<u8> =
            (0..16u16).flat_map(|tag| [&tag.to_le_bytes()[..], &4096u64.to_le_bytes()].concat()).collect();
        GuestStatistics { age_ms: 12, stale: false, values: Values::parse(&bytes).0 }
    }

    /// A guest whose driver is so.
    pub fn with_driver(driver: DriverState) -> Self {
        let mut memory = Self::new();
        memory.document.driver = driver;
        memory
    }

    /// A guest that answers no request.
    pub fn silent() -> Self {
        Self { prompt: false, ..Self::new() }
    }

    fn nobody(&self) -> Refusal {
        match self.document.driver {
            DriverState::Broken => Refusal::Broken,
            _ => RequestError::NoDriver.into(),
        }
    }
}

impl Memory for Scripted {
    fn snapshot(&mut self) -> MemoryDocument {
        MemoryDocument { host: None, ..self.document.clone() }
    }

    fn charge(&mut self) -> Option<HostDocument> {
        self.document.host
    }

    fn zones(&mut self) -> ZonesDocument {
        let zone = ZoneDocument {
            name: "ram".into(),
            kind: ZoneKind::Private,
            node: Some(0),
            host_node: Some(1),
            huge_pages: true,
            size_bytes: self.document.size_bytes,
            max_bytes: None,
            resident_bytes: self.document.resident_bytes,
            ballooned_bytes: self.document.ballooned_bytes,
            reported_bytes: self.document.reported_bytes,
        };
        let further = ZoneDocument {
            name: "cache".into(),
            node: Some(1),
            host_node: None,
            resident_bytes: None,
            ..zone.clone()
        };
        let further = (!self.only_zone).then_some(further);
        ZonesDocument { zones: [zone].into_iter().chain(further).collect() }
    }

    fn page_out(&mut self, bytes: u64) {
        self.paged_out_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn page_out_on(&mut self) {}

    fn shared_zones(&mut self) -> Vec<ZoneDocument> {
        vec![ZoneDocument {
            name: "0123456789ab".into(),
            kind: ZoneKind::Shared,
            node: None,
            host_node: None,
            huge_pages: false,
            size_bytes: 2 << 20,
            max_bytes: None,
            resident_bytes: None,
            ballooned_bytes: 0,
            reported_bytes: 0,
        }]
    }

    /// There is one other node, 1.
    fn set_node(&mut self, _: usize, node: Option<u32>) -> Result<(), NodeError> {
        if self.moving.is_some() {
            return Err(NodeError::Busy);
        }
        match node {
            None => {}
            Some(0 | 1) => self.moving = Some((3, self.move_ends)),
            Some(_) => return Err(io::Error::from_raw_os_error(libc::EINVAL).into()),
        }
        Ok(())
    }

    fn move_on(&mut self) -> Option<io::Result<Placed>> {
        let (left, end) = self.moving.as_mut()?;
        *left -= 1;
        let end = (*left == 0).then_some(*end)?;
        self.moving = None;
        Some(end.map_err(io::Error::from_raw_os_error))
    }

    fn set_ceiling(&mut self, ceiling: Ceiling) -> Result<(), Refusal> {
        let MemoryDocument { floor_bytes, max_bytes, .. } = self.document;
        self.document.ceiling = match ceiling {
            Ceiling::Bytes(_) if !self.document.driver.serves() => return Err(self.nobody()),
            Ceiling::Bytes(bytes) if !(floor_bytes..=max_bytes).contains(&bytes) => {
                return Err(CeilingError { bytes, floor_bytes, max_bytes }.into());
            }
            Ceiling::Bytes(bytes) => CeilingState { bytes, auto: false },
            Ceiling::Auto => CeilingState { bytes: self.document.max_bytes, auto: true },
        };
        Ok(())
    }

    fn set_max(&mut self, bytes: u64) -> Result<(), Refusal> {
        let MemoryDocument { floor_bytes, size_bytes, ceiling, .. } = self.document;
        if bytes > size_bytes {
            return Err(CeilingError { bytes, floor_bytes, max_bytes: size_bytes }.into());
        }
        self.document.max_bytes = bytes;
        let ceiling_bytes = ceiling.bytes.min(bytes).max(floor_bytes);
        self.document.ceiling = CeilingState { bytes: ceiling_bytes, ..ceiling };
        Ok(())
    }

    fn guest_floor_bytes(&self) -> u64 {
        self.guest_floor_bytes
    }

    fn set_min(&mut self, bytes: u64) {
        self.document.floor_bytes = self.guest_floor_bytes.max(bytes);
    }

    fn ceiling_by_hand(&self) -> Option<u64> {
        let ceiling = self.document.ceiling;
        (!ceiling.auto).then_some(ceiling.bytes)
    }

    fn follow_ceiling(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.document.ceiling.bytes = bytes;
        Ok(())
    }

    fn reading(&mut self) -> HostReading {
        HostReading {
            resident_bytes: self.document.resident_bytes,
            ceiling_bytes: self.document.guest_bytes,
            floor_bytes: self.document.floor_bytes,
            balloon: self.document.driver.serves(),
            ..HostReading::default()
        }
    }

    fn request_statistics(&mut self) -> Result<(), Refusal> {
        if !self.document.driver.serves() {
            return Err(self.nobody());
        }
        self.pending.store(!self.prompt, Ordering::Relaxed);
        Ok(())
    }

    fn statistics_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
    }

    fn statistics(&mut self) -> Option<GuestStatistics> {
        self.statistics
    }

    fn statistics_event(&self) -> Option<&EventFd> {
        Some(&self.event)
    }
}

pub fn vm() -> VmDocument {
    VmDocument {
        name: "web".into(),
        image: "nginx:latest".into(),
        kernel_release: "6.1.0-1-cloud-amd64".into(),
        pid: 4242,
        cpus: 2,
        memory_bytes: 512 * MIB,
        started_at_ms: 1_700_000_000_000,
        uptime_ms: 9,
        arbiter: None,
    }
}

pub fn envelope() -> Envelope {
    Envelope {
        sequence: 1,
        group: "ci".into(),
        lease_ms: 10_000,
        lambda_permille: 1000,
        max_bytes: 1 << 30,
        high_bytes: None,
        floor_bytes: 4096,
        grant_bytes: 0,
        take_bytes: 0,
        page_out_bytes: 4096,
        policy: Some(GroupPolicy {
            working_set_age_ms: Some(Inherited { group: "ci".into(), value: 60_000 }),
            stall_budget_ppm: None,
        }),
    }
}

pub fn route(request: &Request, memory: &mut dyn Memory, orders: &mut Orders) -> Answer {
    route_at(request, memory, orders, 0)
}

pub fn route_at(request: &Request, memory: &mut dyn Memory, orders: &mut Orders, now_ms: u64) -> Answer {
    let reclaim = &mut Owner::off(512 * MIB);
    routes::route(request, Parts { vm: &vm(), memory, orders, reclaim, now_ms })
}

pub fn ask(memory: &mut dyn Memory, method: &str, path: &str, body: &str) -> (u16, Value) {
    let request = Request::new(method, path, body.as_bytes());
    let mut orders = Orders::without_agent(512 * MIB);
    match route(&request, memory, &mut orders) {
        Answer::Now(response) => (response.status.code(), serde_json::from_slice(&response.body).unwrap()),
        Answer::Statistics | Answer::Later(_) => (0, Value::Null),
        Answer::Link | Answer::Command(_) => panic!("nobody asked for it"),
    }
}

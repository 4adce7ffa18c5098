//! The JSON documents of the control socket. Pure types; `vmm/openapi.yaml` describes them for others, and the
//! command line reads them with these.
//!
//! Sizes are in bytes and end in `_bytes`, times in milliseconds and end in `_ms`.

#![forbid(unsafe_code)]

use super::link::Envelope;
use crate::device;
/// `GET /v1/statistics`: what the guest says of itself.
pub use crate::device::Statistics as GuestStatistics;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `GET /v1/vm`: what this microVM is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmDocument {
    /// Its name.
    pub name: String,
    /// The image, as it was named to `ballast run`.
    pub image: String,
    /// Release of the guest's kernel, as `uname -r` says it there.
    pub kernel_release: String,
    /// Process of its VMM.
    pub pid: u32,
    /// Number of vCPUs.
    pub cpus: u8,
    /// Size of guest memory.
    pub memory_bytes: u64,
    /// When its VMM started, in milliseconds since 1970 of the host's clock.
    pub started_at_ms: u64,
    /// How long ago that was.
    pub uptime_ms: u64,
    /// What `ballastd` has leased to it; null without a daemon.
    pub arbiter: Option<ArbiterDocument>,
}

/// A lease of the daemon's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArbiterDocument {
    /// What it grants.
    pub envelope: Envelope,
    /// How long it still does.
    pub left_ms: u64,
}

/// How the guest's balloon driver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriverState {
    /// There is none, or none yet.
    Absent,
    /// It has reached the ceiling.
    Settled,
    /// It is on its way to the ceiling.
    Moving,
    /// It should be on its way and is not.
    Stuck,
    /// It broke its device and has not reset it. A driver of Linux never does by itself.
    Broken,
}

impl DriverState {
    /// Whether a driver can be asked for something.
    #[must_use]
    pub fn serves(self) -> bool {
        !matches!(self, Self::Absent | Self::Broken)
    }
}

impl From<device::DriverState> for DriverState {
    fn from(state: device::DriverState) -> Self {
        match state {
            device::DriverState::Absent => Self::Absent,
            device::DriverState::Settled => Self::Settled,
            device::DriverState::Moving => Self::Moving,
            device::DriverState::Stuck => Self::Stuck,
        }
    }
}

/// The guest memory that the balloon leaves the guest once its driver has done its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CeilingState {
    /// How much.
    pub bytes: u64,
    /// Ballast chose it; otherwise a user did.
    pub auto: bool,
}

/// `GET /v1/memory`: the books, the guest's word and the host's truth side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryDocument {
    /// All of guest memory.
    pub size_bytes: u64,
    /// Highest ceiling.
    pub max_bytes: u64,
    /// Lowest ceiling.
    pub floor_bytes: u64,
    /// What the guest is to have.
    pub ceiling: CeilingState,
    /// What the guest has now: size less ballooned.
    pub guest_bytes: u64,
    /// In the balloon by our books: given back to the host.
    pub ballooned_bytes: u64,
    /// In the balloon by the driver's word.
    pub actual_bytes: u64,
    /// The driver's word less our books. Not zero at rest: somebody did not do what it said.
    pub skew_bytes: i64,
    /// Free by the guest's report, given back to the host and not seen to be taken again.
    pub reported_bytes: u64,
    /// Ever given back by reports, each time counted.
    pub reported_total_bytes: u64,
    /// Reported free and not given back to the host, each time counted: the guest fills free pages with a pattern that
    /// they must keep.
    pub reported_poisoned_total_bytes: u64,
    /// Guest memory that the host really holds, at its last reading; null until the first reading has ended, or where
    /// the host does not say.
    pub resident_bytes: Option<u64>,
    /// How long ago that reading was made or, as no memory had moved, seen to hold; null as above.
    pub resident_age_ms: Option<u64>,
    /// The parts that guest memory consists of, by their addresses.
    pub regions: Vec<RegionDocument>,
    /// Of the resident memory, what is in huge pages; null as above.
    pub huge_page_bytes: Option<u64>,
    /// Guest memory that the host has swapped out; null as above.
    pub swapped_bytes: Option<u64>,
    /// Ballooned memory that was resident at the last reading: the guest touched what it had given away, or a huge
    /// page of the host brought it back with its neighbours. Null as above.
    pub ballooned_resident_bytes: Option<u64>,
    /// Reported memory that the guest was seen to take again, since its start.
    pub taken_back_total_bytes: u64,
    /// Calls by which the host refused to take memory back, since the guest's start. What it refused stays the
    /// guest's in our books.
    pub release_failures: u64,
    /// How much memory that was.
    pub release_failed_bytes: u64,
    /// The host's last error number (`errno`) with these calls and those for advice; null if there was none.
    pub release_last_errno: Option<i32>,
    /// Calls by which the host refused to keep its huge pages out of what the balloon holds a part of, or to let them in
    /// again: it may fill with them what was given back.
    pub advice_failures: u64,
    /// How often our page books contradicted themselves when they were recounted, after each reading: a fault of
    /// Ballast.
    pub book_imbalances: u64,
    /// What the host charges the microVM, and lets it have; null where the host has no cgroup for it, or does not say.
    pub host: Option<HostDocument>,
    /// How the guest's driver does.
    pub driver: DriverState,
    /// What the driver did wrong, by kind. Kinds that never happened may be absent.
    pub protocol_errors: BTreeMap<String, u64>,
    /// What it did wrong with the device's registers, likewise.
    pub register_errors: BTreeMap<String, u64>,
}

/// What the microVM's cgroup on the host says (the kernel's `admin-guide/cgroup-v2.rst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDocument {
    /// The most that the host lets it have: its guest's memory, the image layers that it maps, and room for the VMM; null
    /// if somebody took the limit away.
    pub limit_bytes: Option<u64>,
    /// What is charged to it now. A page of an image layer is charged to whoever touched it first, and so may be another's.
    pub charged_bytes: u64,
    /// Of it, memory that is no file's: mostly the guest's.
    pub anonymous_bytes: u64,
    /// Of it, page cache: of image layers that it touched first.
    pub file_bytes: u64,
    /// Of it, the kernel's own: page tables, KVM's books, stacks.
    pub kernel_bytes: u64,
    /// How often it was about to exceed the limit, since its start.
    pub limit_reached_total: u64,
}

/// A part of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionDocument {
    /// Where it begins, guest-physical.
    pub address: u64,
    /// How long it is.
    pub size_bytes: u64,
    /// What of it the host really holds, at its last reading; null until the first one has ended, or where the host
    /// does not say.
    pub resident_bytes: Option<u64>,
}

/// `GET /v1/zones`: what guest memory is divided into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonesDocument {
    /// Private ones in the order of their nodes, then shared ones in that of the image's layers.
    pub zones: Vec<ZoneDocument>,
}

/// Whose memory a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZoneKind {
    /// This microVM's only.
    Private,
    /// A layer of its image, one copy for all that map it. Its pages are the host's page cache.
    Shared,
}

/// A zone of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneDocument {
    /// Its name; of a shared zone the first digits of the layer's key.
    pub name: String,
    /// Whose it is.
    pub kind: ZoneKind,
    /// The guest's node that it is; null if it is shared.
    pub node: Option<u32>,
    /// Node of the host from which it is taken while that has memory; null: from any.
    pub host_node: Option<u32>,
    /// The host may use huge pages for it.
    pub huge_pages: bool,
    /// How long it is.
    pub size_bytes: u64,
    /// What the workload may use of it, which the guest's agent sees to; null: all.
    pub max_bytes: Option<u64>,
    /// What of it the host really holds, at its last reading; null until the first one has ended, or where the host
    /// does not say.
    pub resident_bytes: Option<u64>,
    /// Of it, in the balloon by our books.
    pub ballooned_bytes: u64,
    /// Of it, free by the guest's report, given back to the host and not seen to be taken again.
    pub reported_bytes: u64,
}

/// `PUT /v1/memory/ceiling`: one of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CeilingRequest {
    /// A ceiling that holds until another word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// True: the ceiling is Ballast's again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<bool>,
}

/// Every response that is not 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDocument {
    /// Its only member.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// A sentence for people.
    pub message: String,
    /// With a refused ceiling, the lowest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor_bytes: Option<u64>,
    /// With a refused ceiling, the highest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

impl ErrorDocument {
    /// An error that a sentence explains.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { error: ErrorDetail { message: message.into(), floor_bytes: None, max_bytes: None } }
    }
}

impl MemoryDocument {
    /// The memory of a VM whose guest has no balloon driver, all of it the guest's.
    #[must_use]
    pub fn fixed(size_bytes: u64, resident_bytes: u64) -> Self {
        Self {
            size_bytes,
            max_bytes: size_bytes,
            floor_bytes: size_bytes / 4,
            ceiling: CeilingState { bytes: size_bytes, auto: true },
            guest_bytes: size_bytes,
            ballooned_bytes: 0,
            actual_bytes: 0,
            skew_bytes: 0,
            reported_bytes: 0,
            reported_total_bytes: 0,
            reported_poisoned_total_bytes: 0,
            resident_bytes: Some(resident_bytes),
            resident_age_ms: Some(0),
            regions: vec![RegionDocument { address: 0, size_bytes, resident_bytes: Some(resident_bytes) }],
            huge_page_bytes: None,
            swapped_bytes: None,
            ballooned_resident_bytes: None,
            taken_back_total_bytes: 0,
            release_failures: 0,
            release_failed_bytes: 0,
            release_last_errno: None,
            advice_failures: 0,
            book_imbalances: 0,
            host: None,
            driver: DriverState::Absent,
            protocol_errors: BTreeMap::new(),
            register_errors: BTreeMap::new(),
        }
    }
}

//! The JSON documents of the daemon's socket, `ballastd.sock` in the state directory. Pure types.
//!
//! | | |
//! |---|---|
//! | `GET /v1/host` | [`HostDocument`] |
//! | `GET /v1/tree` | [`TreeDocument`] |
//! | `GET /v1/charging` | [`ChargingDocument`] |
//! | `GET /v1/events`, `GET /v1/events/NUMBER` | [`EventsDocument`](super::events::EventsDocument); with a number, those after it, for which the answer waits a little |
//! | `GET /metrics` | what there is to plot, as OpenMetrics or Prometheus text |
//! | `POST /v1/vms` | [`StartRequest`], answered by [`StartDocument`]: from now on the name is taken |
//! | `PUT /v1/vms/NAME/group` | [`GroupRequest`], answered by [`HostDocument`] |
//! | `PUT /v1/vms/NAME/limits` | [`Limits`], answered by [`HostDocument`] |
//! | `PUT /v1/groups` | [`GroupLimitsRequest`], answered by [`HostDocument`] |
//!
//! What is refused is explained as on a microVM's socket.

#![forbid(unsafe_code)]

use crate::zone::{Charging, Kind, Limits, Scope, Share};
use serde::{Deserialize, Deserializer, Serialize};

/// The socket's name in the state directory.
pub const SOCKET: &str = "ballastd.sock";

/// The host as the daemon sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDocument {
    /// Process of the daemon.
    pub pid: u32,
    /// The memory that microVMs may use together.
    pub capacity_bytes: u64,
    /// Whether the sum of maximums may exceed it.
    pub overcommit: bool,
    /// What no zone holds. Less than nothing when zones hold more than the pool has.
    pub main_bytes: i64,
    /// The sum of protected minimums.
    pub protected_bytes: u64,
    /// The sum of maximums.
    pub committed_bytes: u64,
    /// microVMs that run.
    pub vms: usize,
    /// microVMs that have ended and whose memory is not yet back.
    pub orphans: usize,
    /// What the host itself has available, microVMs or not.
    pub available_bytes: u64,
    /// The pressure on all microVMs, in thousandths: 1000 is none. Their working-set ages are divided by it.
    pub lambda_permille: u64,
    /// What they hold too much together, and are made to give back.
    pub deficit_bytes: u64,
    /// Whether no microVM is started, as what is lacking is protected or the host is at its end.
    pub refuses: bool,
}

/// Pool, groups, microVMs and zones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeDocument {
    /// The whole.
    pub host: HostDocument,
    /// Its nodes, each before those in it.
    pub nodes: Vec<NodeDocument>,
}

/// A node of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDocument {
    /// Its name: of a group the whole path, of the pool nothing.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How many it lies in.
    pub depth: usize,
    /// Its microVM has ended and its memory is not yet back.
    pub orphan: bool,
    /// What it may hold.
    pub limits: Limits,
    /// What it holds, with all that is in it.
    pub charge_bytes: u64,
    /// What it holds itself and its share of what it shares with others, as the group says that it is charged: of a shared
    /// zone nothing, as others hold it.
    pub footprint_bytes: u64,
    /// What of its charge is never taken.
    pub effective_min_bytes: u64,
    /// What of that is taken last.
    pub effective_low_bytes: u64,
    /// Of a microVM, whether the daemon has heard of it since it was admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linked: Option<bool>,
}

/// A microVM that is about to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// Its name.
    pub name: String,
    /// The path of its group; empty is none.
    #[serde(default)]
    pub group: String,
    /// Its limits.
    #[serde(default)]
    pub limits: Limits,
    /// How far it wants to share the layers of its image; absent: as its group says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

/// A microVM that was admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartDocument {
    /// Within what it shares the layers of its image.
    pub scope: Scope,
}

/// `GET /v1/charging`: the image layers that microVMs map, and who pays for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargingDocument {
    /// In no order that means anything.
    pub zones: Vec<SharedZoneDocument>,
}

/// An image layer as a shared zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedZoneDocument {
    /// The first digits of its key; two scopes may have one layer each.
    pub name: String,
    /// Those whose copy it is.
    pub scope: Scope,
    /// The group or microVM whose charge and limits have it, whatever the shares; empty is the pool.
    pub home: String,
    /// In which way its bytes are divided: as its home says.
    pub charging: Charging,
    /// How long it is.
    pub size_bytes: u64,
    /// What of it is in the host's page cache.
    pub resident_bytes: u64,
    /// How many microVMs map it.
    pub vms: usize,
    /// Who pays for the resident bytes. Each way adds up to them.
    pub shares: Vec<ShareDocument>,
}

/// What somebody pays for a shared zone, in each way to divide it ([`Charging`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareDocument {
    /// The microVM or group; the pool has no name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// By what each has mapped, pages divided by the number of those who have.
    pub proportional_bytes: u64,
    /// By who touched them first: an estimate where an image has several layers, as the host counts a process' files
    /// together.
    pub first_touch_bytes: u64,
    /// All of it to the nearest common ancestor.
    pub common_bytes: u64,
}

impl ShareDocument {
    /// Nothing, of `name`.
    #[must_use]
    pub fn new(name: String, kind: Kind) -> Self {
        Self { name, kind, proportional_bytes: 0, first_touch_bytes: 0, common_bytes: 0 }
    }
}

/// New limits of a group, until the daemon ends or reads its configuration anew. What is absent stays, null is no such
/// limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupLimitsRequest {
    /// The path of the group.
    pub group: String,
    /// Never taken.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub min: Option<Option<u64>>,
    /// Taken last.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub low: Option<Option<u64>>,
    /// Taken back to.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub high: Option<Option<u64>>,
    /// Never exceeded.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub max: Option<Option<u64>>,
    /// Its part under pressure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

impl GroupLimitsRequest {
    /// What `now` is to become.
    #[must_use]
    pub fn apply(&self, now: Limits) -> Limits {
        Limits {
            min: self.min.unwrap_or(now.min),
            low: self.low.unwrap_or(now.low),
            high: self.high.unwrap_or(now.high),
            max: self.max.unwrap_or(now.max),
            weight: self.weight.unwrap_or(now.weight),
        }
    }
}

/// A member that is there, be it null.
pub(super) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Where a microVM is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRequest {
    /// The path of the group; empty is none.
    pub group: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_stays_and_null_is_no_limit() {
        let now = Limits { min: Some(1), high: Some(2), max: Some(3), ..Limits::default() };
        let request: GroupLimitsRequest =
            serde_json::from_str(r#"{"group":"ci","high":null,"max":9,"weight":7}"#).unwrap();
        let then = Limits { min: Some(1), high: None, max: Some(9), weight: 7, ..Limits::default() };
        assert_eq!(request.apply(now), then);
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(text, r#"{"group":"ci","high":null,"max":9,"weight":7}"#);
        assert!(serde_json::from_str::<GroupLimitsRequest>(r#"{"group":"ci","hihg":1}"#).is_err());
    }
}

//! The JSON documents about what a microVM is ordered to do: limits, trims, moves. Pure types, as
//! [`super::api`]'s.

#![forbid(unsafe_code)]

use crate::zone::{DEFAULT_WEIGHT, Limits};
use serde::{Deserialize, Serialize};

/// `POST /v1/signal`, and the answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// Number of the signal for the workload's main process, 1 to 64.
    pub signal: u8,
}

/// `POST /v1/exec`: a command to run beside the workload. What is absent is as for the workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Absolute working directory.
    pub cwd: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub user: Option<String>,
    /// A terminal of this size instead of three pipes.
    pub tty: Option<TerminalSize>,
    /// The zone whose memory it uses.
    pub zone: Option<String>,
}

/// Size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// `GET /v1/limits`, and the answer to `PUT`: what the microVM may hold and what it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsDocument {
    /// Raised by each change; its `ETag` is the same number.
    pub generation: u64,
    /// Never taken from it; null is nothing.
    pub min_bytes: Option<u64>,
    /// Taken from it only when nothing unprotected is left; null is nothing.
    pub low_bytes: Option<u64>,
    /// What it is brought back to when it has more; null is no such limit.
    pub high_bytes: Option<u64>,
    /// Guest memory that it may use: its highest ceiling.
    pub max_bytes: u64,
    /// Scales the age to which it is trimmed under pressure.
    pub weight: u32,
}

/// `PUT /v1/limits`: all of them. What is absent or null is no such limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsRequest {
    /// As in [`LimitsDocument`].
    pub min_bytes: Option<u64>,
    /// As in [`LimitsDocument`].
    pub low_bytes: Option<u64>,
    /// As in [`LimitsDocument`].
    pub high_bytes: Option<u64>,
    /// As in [`LimitsDocument`]; without it, all of guest memory.
    pub max_bytes: Option<u64>,
    /// As in [`LimitsDocument`]; without it, 100.
    pub weight: Option<u32>,
}

impl From<LimitsDocument> for LimitsRequest {
    fn from(document: LimitsDocument) -> Self {
        let LimitsDocument { generation: _, min_bytes, low_bytes, high_bytes, max_bytes, weight } = document;
        Self { min_bytes, low_bytes, high_bytes, max_bytes: Some(max_bytes), weight: Some(weight) }
    }
}

impl From<LimitsRequest> for Limits {
    fn from(request: LimitsRequest) -> Self {
        Self {
            min: request.min_bytes,
            low: request.low_bytes,
            high: request.high_bytes,
            max: request.max_bytes,
            weight: request.weight.unwrap_or(DEFAULT_WEIGHT),
        }
    }
}

/// `POST /v1/trim`. With neither size, all that can be evicted is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrimRequest {
    /// Name of a zone; without it, all of the workload's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// How much to evict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How much the host is to hold afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_bytes: Option<u64>,
}

/// Why a trim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrimEnd {
    /// All that was asked for is evicted.
    Reached,
    /// The guest's kernel finds no more: the rest is in use, dirty or locked.
    NothingLeft,
    /// The rest is mostly anonymous memory, which only the law may swap out.
    NoSwap,
    /// The guest's kernel says that it reclaims and does not.
    Ineffective,
    /// It took too long.
    OutOfTime,
}

/// What came of a trim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrimDocument {
    /// The zone; null: all of the workload's memory.
    pub zone: Option<String>,
    /// What of the zone's or the guest's memory the host held before; null where the host does not say.
    pub before_bytes: Option<u64>,
    /// And afterwards, once that had stopped falling.
    pub after_bytes: Option<u64>,
    /// It has stopped falling: nothing more was seen to come back for some seconds.
    pub settled: bool,
    /// What the guest's kernel counted as evicted.
    pub reclaimed_bytes: u64,
    /// Page cache that the guest has left.
    pub file_bytes: u64,
    /// Anonymous and shared memory that it has left.
    pub anonymous_bytes: u64,
    /// Why the guest evicted no more.
    pub ended: TrimEnd,
}

/// `POST /v1/move`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// Process id in the guest.
    pub pid: u32,
    /// Name of the zone to move to.
    pub zone: String,
}

/// Where the memory that a moved process maps lies, by its own page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveDocument {
    /// In the zone that it moved to.
    pub there_bytes: u64,
    /// In others: what other processes map as well stays where it was.
    pub elsewhere_bytes: u64,
}

/// `POST /v1/zones/max`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneMaxRequest {
    /// Name of a private zone.
    pub zone: String,
    /// What the workload may use of it; null: all.
    pub max_bytes: Option<u64>,
}

/// The limit of a zone, once it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneMaxDocument {
    /// The zone.
    pub zone: String,
    /// What the workload may use of it; null: all.
    pub max_bytes: Option<u64>,
    /// What it uses, by the guest's word.
    pub current_bytes: u64,
}

/// `POST /v1/zones/node`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRequest {
    /// Name of a private zone.
    pub zone: String,
    /// Node of the host to move it to; null: its memory may come from any from now on, and stays where it is.
    pub node: Option<u32>,
}

/// What came of moving a zone to a node of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDocument {
    /// The zone.
    pub zone: String,
    /// Where its memory comes from now; null: from any node.
    pub node: Option<u32>,
    /// What was moved.
    pub moved_bytes: u64,
    /// What of it lies on the node.
    pub there_bytes: u64,
    /// What could not be moved: in somebody's hands all the while, or the node is full.
    pub elsewhere_bytes: u64,
}

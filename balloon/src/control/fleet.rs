//! The JSON documents of the daemon's socket, `ballastd.sock` in the state directory. Pure types.
//!
//! | | |
//! |---|---|
//! | `GET /v1/host` | [`HostDocument`] |
//! | `GET /v1/tree` | [`TreeDocument`] |
//! | `POST /v1/vms` | [`StartRequest`], answered by [`HostDocument`]: from now on the name is taken |
//! | `PUT /v1/vms/NAME/group` | [`GroupRequest`], answered by [`HostDocument`] |
//! | `PUT /v1/vms/NAME/limits` | [`Limits`], answered by [`HostDocument`] |
//!
//! What is refused is explained as on a microVM's socket.

#![forbid(unsafe_code)]

use crate::zone::{Kind, Limits};
use serde::{Deserialize, Serialize};

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
    /// What of that is never taken.
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
}

/// Where a microVM is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRequest {
    /// The path of the group; empty is none.
    pub group: String,
}

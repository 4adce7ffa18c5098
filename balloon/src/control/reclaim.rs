//! The JSON documents of a microVM's reclaim law. Pure types; `vmm/openapi.yaml` describes them for others.

#![forbid(unsafe_code)]

use super::fleet::present;
use crate::policy::{Capabilities, Mode, Status};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the law of a microVM does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReclaimDocument {
    /// What it may use.
    pub mode: Mode,
    /// Memory that is used at least that often is kept.
    pub working_set_age_ms: u64,
    /// Who says so.
    #[serde(default)]
    pub working_set_age_from: Origin,
    /// Share of time that the guest may lose to memory stalls, in millionths.
    pub stall_budget_ppm: u64,
    /// Who says so.
    #[serde(default)]
    pub stall_budget_from: Origin,
    /// What it does, and the numbers that it goes by. Times are milliseconds of the VMM's clock.
    pub status: Status,
    /// What the guest's kernel can tell and do; null while its agent has not said.
    pub capabilities: Option<Capabilities>,
    /// Samples that have come.
    pub samples_total: u64,
    /// How long ago the last one came; null if none has.
    pub sample_age_ms: Option<u64>,
    /// Memory that neither the balloon has nor the guest's kernel calls available, by the last sample; null if none has come.
    pub guest_used_bytes: Option<u64>,
    /// The last decision; null if there was none.
    pub last: Option<DecisionDocument>,
}

/// Where a figure comes from that a law works with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The microVM was told itself, at its start or later. Of an older Ballast it is always so.
    #[default]
    Own,
    /// The group at this path says so.
    Group(String),
    /// Nobody says anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("own"),
            Self::Group(path) => write!(f, "group {path}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// `GET /v1/decisions`: the last ones, the newest last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionsDocument {
    /// Each of them.
    pub decisions: Vec<DecisionDocument>,
}

/// A decision of the law's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionDocument {
    /// How long ago it was made.
    pub age_ms: u64,
    /// What was ordered, in words.
    pub order: String,
    /// Why, in words.
    pub reason: String,
    /// The same in numbers.
    pub decision: serde_json::Value,
}

/// `PUT /v1/reclaim`: what is absent stays, null is what the group says, or the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReclaimRequest {
    /// Memory that is used at least that often is kept.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub working_set_age_ms: Option<Option<u64>>,
    /// Share of time that the guest may lose to memory stalls, in millionths.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub stall_budget_ppm: Option<Option<u64>>,
}

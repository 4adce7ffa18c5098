//! The JSON documents of what has happened on a host, as `ballastd` tells it. Pure types; `balloon/openapi.yaml` describes
//! them for others.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Where the daemon's socket offers them: from the oldest that is kept, or behind a number those after it.
pub const PATH: &str = "/v1/events";
/// Most events of one answer.
pub const PAGE: usize = 64;
/// How long an answer waits for the next event.
pub const WAIT: Duration = Duration::from_secs(2);

/// Some events, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsDocument {
    /// At most [`PAGE`] of them.
    pub events: Vec<EventDocument>,
    /// What to ask for next: those after this number.
    pub next: u64,
    /// Number of the newest that there is.
    pub newest: u64,
    /// How many of this daemon's there were between those that were asked for and the first one here, and are kept no
    /// longer.
    pub forgotten: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventDocument {
    /// Ascending by one, and beginning anew with the time in milliseconds at which a daemon starts: also a later daemon's
    /// are greater.
    pub number: u64,
    /// When the daemon knew of it, in milliseconds since 1970 of the host's clock.
    pub time_ms: u64,
    /// What it is.
    pub kind: EventKind,
    /// The microVM that it happened to, or that was to be.
    pub vm: Option<String>,
    /// The group that it happened to, or that the microVM is in; null is none.
    pub group: Option<String>,
    /// What happened and why, in words.
    pub reason: String,
    /// The numbers behind it, by name; units end the names.
    pub figures: BTreeMap<String, u64>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The daemon has started.
    DaemonStarted,
    /// Its configuration was read anew.
    ConfigReloaded,
    /// It was not, and stays as it was.
    ConfigRefused,
    /// A microVM that was admitted runs.
    VmStarted,
    /// A microVM runs that this daemon did not admit.
    VmFound,
    /// A microVM has ended.
    VmEnded,
    /// A microVM's limits are others.
    VmLimits,
    /// A microVM is in another group.
    VmMoved,
    /// A user chose a microVM's ceiling, or left it to Ballast again.
    VmCeiling,
    /// A user told a microVM's law what to work with, or left that to its groups again.
    VmPolicy,
    /// A group's limits are others.
    GroupLimits,
    /// A microVM was not admitted.
    StartRefused,
    /// One was admitted and never came.
    StartForgotten,
    /// From now on none is.
    RefusingStarts,
    /// That is over.
    AdmittingStarts,
    /// The microVMs hold more than there is for them.
    MemoryShort,
    /// That is over.
    MemoryEnough,
    /// Pool, group or microVM holds more than its goal and is pressed.
    PressureBegun,
    /// It is pressed at least twice or at most half as hard as when that was told last.
    PressureChanged,
    /// It is pressed no longer.
    PressureEnded,
    /// A microVM is ordered to give back.
    TakeBegun,
    /// It has not been ordered to for a while.
    TakeEnded,
    /// The host is told to swap out memory of a microVM.
    PageOutBegun,
    /// It has not been told to for a while.
    PageOutEnded,
    /// Arbitration imposes a ceiling on a microVM.
    CeilingImposed,
    /// It lowers it further.
    CeilingLowered,
    /// It imposes none any more.
    CeilingLifted,
    /// A microVM is killed, as nothing else would have helped the host.
    VmKilled,
    /// A microVM was to be killed and the host refused.
    VmNotKilled,
    /// A microVM has ended and the host does not have its memory back yet.
    Orphaned,
    /// Now it has.
    Merged,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_as_in_json() {
        let text = serde_json::to_string(&EventKind::PressureBegun).unwrap();
        assert_eq!(text, format!("\"{}\"", EventKind::PressureBegun));
        assert_eq!(text, "\"pressure-begun\"");
    }
}

//! Everything there is to say about a VM's memory at one moment, for the control socket and the metrics.

use super::errors::ProtocolErrors;
use super::statistics::Statistics;
use crate::backing::Failures;
use crate::resident::Residency;
use serde::{Deserialize, Serialize};

/// What is known of the guest's balloon driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriverState {
    /// None has set the device up, or it has reset it.
    Absent,
    /// It has reached the target.
    Settled,
    /// It is on its way to the target.
    Moving,
    /// It has not moved for [`PROGRESS_DEADLINE_MS`](super::PROGRESS_DEADLINE_MS) although it should.
    Stuck,
}

/// A snapshot. Sizes are in bytes; books, residency and the guest's own words stand side by side, so that a
/// disagreement shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReport {
    /// All of the guest's memory.
    pub size: u64,
    /// What the balloon leaves the guest when it has reached its target: size less target.
    pub ceiling: u64,
    /// The least that a ceiling may be.
    pub floor: u64,
    /// In the balloon, by the books: returned to the host with a receipt.
    pub ballooned: u64,
    /// Reported free and not seen to be taken back, by the books.
    pub reported: u64,
    /// Neither: the guest's own.
    pub guest_owned: u64,
    /// Ever returned by reporting, each time counted.
    pub reported_total: u64,
    /// Reports that were not discarded, as the guest fills its free pages with a pattern.
    pub reported_poisoned_total: u64,
    /// In the balloon, by the driver's word.
    pub actual: u64,
    /// What the driver says is ballooned, less what the books say. Nonzero at rest: host or guest failed to do
    /// what it said.
    pub skew: i64,
    /// What the balloon should hold.
    pub target: u64,
    /// How the driver does.
    pub driver: DriverState,
    /// Reported memory found taken back so far.
    pub taken_back_total: u64,
    /// What the host really holds, at the last reading.
    pub residency: Option<Residency>,
    /// How long ago that was, or was seen to hold, in milliseconds.
    pub residency_age_ms: Option<u64>,
    /// The guest's own statistics.
    pub statistics: Option<Statistics>,
    /// What the host refused to take back.
    pub release_failures: Failures,
    /// What the driver did wrong.
    pub protocol_errors: ProtocolErrors,
}

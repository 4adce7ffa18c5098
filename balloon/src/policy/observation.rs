//! All that a law is told. What is not here, it does not know: it has no clock and asks nobody.

use super::sample::{Capabilities, Sample};
use crate::device::Values;
use serde::{Deserialize, Serialize};

/// What the law is told, one thing at a time, in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observation {
    /// Nothing but that time has passed.
    Tick,
    /// What the guest can do: an agent has said hello.
    Capabilities(Capabilities),
    /// A sample of the agent's.
    Sample(Sample),
    /// An order to reclaim has been carried out.
    Reclaimed(Reclaimed),
    /// Statistics of the balloon's driver.
    Statistics(Values),
    /// What the host sees.
    Host(HostReading),
    /// A lease of the daemon's.
    Envelope(Envelope),
    /// What the user wants.
    Settings(Settings),
}

/// What became of an order to reclaim, as the guest's counters say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reclaimed {
    /// Number of the order.
    pub number: u64,
    /// Pages of page cache that were evicted.
    pub file_pages: u64,
    /// Anonymous pages that were swapped out.
    pub anon_pages: u64,
    /// Wall time that it took.
    pub took_us: u64,
    /// Why it evicted no more.
    pub stopped: Stopped,
}

/// Why an order to reclaim ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stopped {
    /// All was evicted that was asked for.
    #[default]
    Done,
    /// The rest is in use or too young.
    InUse,
    /// The rest is anonymous memory, and there is no swap.
    NoSwap,
    /// The kernel says that it reclaimed, and its counters do not move.
    Unmoved,
    /// The time for it was over.
    TimedOut,
    /// It was refused or failed.
    Failed,
}

/// What the host sees of the microVM and of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostReading {
    /// Guest memory that the host really holds; none if it has not been read.
    pub resident_bytes: Option<u64>,
    /// What the balloon leaves the guest now, whatever it was asked for.
    pub ceiling_bytes: u64,
    /// The least that the balloon would leave it.
    pub floor_bytes: u64,
    /// What the microVM is promised.
    pub min_bytes: u64,
    /// The host's memory pressure, `some avg10`.
    pub stall_ppm: u64,
    /// Share of the host's memory that is available.
    pub available_permille: u64,
    /// Whether the balloon has a driver.
    pub balloon: bool,
}

/// What the daemon leases a microVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Ascends on one link; a lower one begins another link.
    pub sequence: u64,
    /// How long it holds.
    pub lease_ms: u64,
    /// Pressure on the microVM: 1000 is none. Its working-set age is divided by it.
    pub lambda_permille: u64,
    /// Lowest `max` of the microVM and all above it.
    pub max_bytes: u64,
    /// The ceiling that holds until the guest suffers.
    pub high_bytes: Option<u64>,
    /// What it is not taken below.
    pub floor_bytes: u64,
    /// By how much it may raise its ceiling under pressure, whatever the host has.
    pub grant_bytes: u64,
    /// What it is to give back now, at once, whatever that costs it. Each envelope's is given once.
    pub take_bytes: u64,
}

/// What the law may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Trim through the agent where there is one, else the balloon.
    #[default]
    Auto,
    /// Trim only; the balloon keeps limits.
    Trim,
    /// The balloon only.
    Balloon,
    /// Nothing: limits are all that is kept.
    Off,
}

/// What the user wants for one microVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What the law may use.
    pub mode: Mode,
    /// Memory used at least that often is kept.
    pub working_set_age_ms: u64,
    /// Share of time that the guest may lose to memory stalls.
    pub stall_budget_ppm: u64,
    /// The microVM's own `max`, and no more than its size.
    pub max_bytes: u64,
    /// The microVM's own `high`.
    pub high_bytes: Option<u64>,
    /// A ceiling set by hand, which suspends the law.
    pub ceiling_bytes: Option<u64>,
}

impl Settings {
    /// Working-set age that suits most: memory unused for five minutes is cheaper to fetch again than to keep (the
    /// five-minute rule of Gray and Putzolu has stood for disks, and does again for flash).
    pub const WORKING_SET_AGE_MS: u64 = 300_000;

    /// A thousandth of the time: the threshold that TMO (ASPLOS'22) runs millions of servers with.
    pub const STALL_BUDGET_PPM: u64 = 1000;

    /// The defaults, for a microVM that may have `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self {
            mode: Mode::Auto,
            working_set_age_ms: Self::WORKING_SET_AGE_MS,
            stall_budget_ppm: Self::STALL_BUDGET_PPM,
            max_bytes,
            high_bytes: None,
            ceiling_bytes: None,
        }
    }
}

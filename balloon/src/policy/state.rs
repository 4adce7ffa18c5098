//! What a law is doing, and what of it can be shown.

use super::fleet::{COLD_POINTS, Cold};
use super::meter::Totals;
use super::reason::Source;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a law is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The guest is young, or changed altogether: no step.
    #[default]
    Start,
    /// Steps.
    Trimming,
    /// The guest suffered: no step for a while, longer each time.
    Hold,
    /// Refaults cannot be seen: no step.
    Blind,
    /// Trimming brought the host nothing: no step for a long while, longer each time.
    NoGain,
    /// Nothing heard for some periods: no step.
    Stale,
    /// Nothing heard for long: no step, and the ceiling climbs.
    Safe,
    /// The user has set the ceiling.
    Manual,
    /// The user has switched the law off.
    Off,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "starting",
            Self::Trimming => "trimming",
            Self::Hold => "holding, as the guest suffered",
            Self::Blind => "blind, as the guest's kernel forgot evictions",
            Self::NoGain => "resting, as trimming brought nothing",
            Self::Stale => "waiting for the guest's agent",
            Self::Safe => "safe, as the guest's agent is silent",
            Self::Manual => "suspended, as the ceiling is set by hand",
            Self::Off => "off",
        })
    }
}

/// How it was noticed that a guest suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// The pressure trigger of the guest's kernel.
    Trigger,
    /// Allocations that waited for reclaim.
    Stall,
    /// A kill for want of memory.
    OutOfMemory,
    /// A stall of many times the budget.
    Budget,
    /// What was evicted is needed again and again.
    Thrash,
    /// Next to nothing is available.
    Scarce,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trigger => "its pressure trigger fired",
            Self::Stall => "allocations waited for reclaim",
            Self::OutOfMemory => "its kernel killed for want of memory",
            Self::Budget => "it stalls many times its budget",
            Self::Thrash => "it needs again and again what was evicted",
            Self::Scarce => "it has next to nothing available",
        })
    }
}

/// What can be shown of a law.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// Until when, if that is known.
    pub until_ms: Option<u64>,
    /// Where it has its numbers from.
    pub source: Source,
    /// The footprint that it wants the guest to have.
    pub target_bytes: u64,
    /// The ceiling that the balloon was last told.
    pub ceiling_bytes: u64,
    /// Working-set age as it stands under pressure.
    pub age_ms: u64,
    /// Memory stall of the window, without the agent's own.
    pub stall_ppm: u64,
    /// All refaults of the window, per second, in thousandths.
    pub refault_millis: u64,
    /// Harm: 1000 is as much as the budget allows.
    pub harm_permille: u64,
    /// Evicted by order and not yet needed again.
    pub evicted_bytes: u64,
    /// Mean time after which what was evicted is needed again, if any was.
    pub reuse_ms: Option<u64>,
    /// Verified to be older than the working-set age.
    pub cold_bytes: u64,
    /// How much is unused for how long, for arbitration.
    pub cold: [Cold; COLD_POINTS],
    /// What steps like the next give back, per second.
    pub yield_bytes_per_s: u64,
    /// Samples that made no sense.
    pub implausible_samples: u64,
    /// What the guest's kernel has counted since its first sample.
    #[serde(default)]
    pub totals: Totals,
}

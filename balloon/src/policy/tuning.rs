//! Every constant of the law, with its unit and why it is what it is.
//!
//! Users set none of them: theirs are the working-set age and the stall budget ([`Settings`](super::Settings)). The
//! simulator sweeps them, and a recording carries those that it was made with.

use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;

/// Constants of the law for one microVM. [`Tuning::default`] argues each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Time between two steps. TMO's six seconds: long enough for the refaults of one step to come before the next.
    pub step_ms: u64,
    /// Share of the lists that a step of gain 1 takes: TMO's reclaim ratio, 0.05 %.
    pub ratio_ppm: u64,
    /// Gain without pressure on the group. TMO has 1 and takes half an hour for the first 26 %; at 5 the model saves a
    /// third more at the same budget, and the gate below keeps the harm.
    pub gain: u64,
    /// Gain under pressure on the group: the largest step is reached, and no more than that.
    pub pressed_gain: u64,
    /// Most that a step takes of the lists where nothing is known of age. One per cent is TMO's and Senpai's bound: over
    /// two periods, which is the time until harm shows, two per cent can be taken too much.
    pub unverified_ppm: u64,
    /// Most that a step takes of the lists of an idle guest that has not missed anything for the whole window.
    pub quiet_ppm: u64,
    /// Verified cold memory is taken at such a rate that a step takes this time's part of it in a working-set age:
    /// three steps' time, so 6 % at 300 s, and a guest that went idle is trimmed to 2 % of it within four ages.
    pub cold_ms: u64,
    /// Most that a step takes of verified cold memory: half. A wrong guess costs half.
    pub cold_permille: u64,
    /// Most bytes that are ordered in a second. What an agent can reclaim beside its guest's work: a tenth of a CPU at
    /// the 300 MiB/s that reclaim of clean page cache does on one.
    pub bytes_per_s: u64,
    /// Least that is worth an order: one block, what the agent does at a time.
    pub least_bytes: u64,
    /// Time over which harm is measured. At 0.1 % of six seconds a single slow fault would exceed the budget.
    pub window_ms: u64,
    /// What one refault is taken to cost where the kernel has no pressure statistics: a read of fast flash.
    pub refetch_us: u64,
    /// Pages below which the memory that was evicted is too little to tell its mean re-use time: 4 MiB.
    pub evidence_pages: u64,
    /// What was evicted so many working-set ages ago says half as much.
    pub memory_ages: u64,
    /// No step so long after a start: Google's far memory leaves a job alone for the first minutes, and a boot takes one.
    pub start_ms: u64,
    /// First hold after pressure. Longer than the ten seconds of PSI's shortest average.
    pub hold_ms: u64,
    /// Longest hold, and time within which pressure counts as repeated: ten minutes, two periods of Senpai's longest
    /// back-off.
    pub longest_hold_ms: u64,
    /// First rest after trimming brought nothing, doubling up to [`longest_rest_ms`](Self::longest_rest_ms).
    pub rest_ms: u64,
    /// Longest rest: an hour.
    pub longest_rest_ms: u64,
    /// Share of the ceiling that it rises by under pressure.
    pub raise_permille: u64,
    /// Least that the ceiling rises by under pressure.
    pub raise_bytes: u64,
    /// Periods of silence after which no step is made.
    pub stale_periods: u64,
    /// Silence after which the ceiling climbs.
    pub silent_ms: u64,
    /// While safe: share of the size by which the ceiling climbs every [`climb_ms`](Self::climb_ms).
    pub climb_permille: u64,
    /// While safe: how often the ceiling climbs.
    pub climb_ms: u64,
    /// Pressure of the host above which no ceiling climbs or rises beyond a grant: 1 %.
    pub host_stall_ppm: u64,
    /// Available share of the host's memory below which it is short: 4 %, ESX's soft state.
    pub host_available_permille: u64,
    /// Page cache that may come in unexplained: share of the cache.
    pub stream_permille: u64,
    /// Page cache that may come in unexplained: at least.
    pub stream_least_bytes: u64,
    /// Page cache that may come in unexplained: at most.
    pub stream_most_bytes: u64,
    /// Pages by which page cache may grow for each that refaults.
    pub growth_per_refault: u64,
    /// CPU below which a guest is idle, in thousandths of one CPU.
    pub idle_cpu_permille: u64,
    /// Time between samples of a busy guest.
    pub busy_pace_ms: u64,
    /// Time between samples of an idle guest.
    pub idle_pace_ms: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            step_ms: 6000,
            ratio_ppm: 500,
            gain: 5,
            pressed_gain: 20,
            unverified_ppm: 10_000,
            quiet_ppm: 30_000,
            cold_ms: 18_000,
            cold_permille: 500,
            bytes_per_s: 32 * MIB,
            least_bytes: 256 << 10,
            window_ms: 30_000,
            refetch_us: 100,
            evidence_pages: 1024,
            memory_ages: 4,
            start_ms: 60_000,
            hold_ms: 10_000,
            longest_hold_ms: 600_000,
            rest_ms: 600_000,
            longest_rest_ms: 3_600_000,
            raise_permille: 250,
            raise_bytes: 128 * MIB,
            stale_periods: 3,
            silent_ms: 30_000,
            climb_permille: 50,
            climb_ms: 10_000,
            host_stall_ppm: 10_000,
            host_available_permille: 40,
            stream_permille: 31,
            stream_least_bytes: 16 * MIB,
            stream_most_bytes: 64 * MIB,
            growth_per_refault: 2,
            idle_cpu_permille: 10,
            busy_pace_ms: 1000,
            idle_pace_ms: 10_000,
        }
    }
}

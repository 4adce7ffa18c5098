//! What a workload says of itself and its kernel: one JSON document a line. Pure.

use super::latencies::Percentiles;
use serde::{Deserialize, Serialize};

/// Where the workload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It gets ready: nothing of that is measured.
    #[default]
    Warming,
    /// It has done nothing yet: what the host holds now is what such a guest needs at least.
    Booted,
    /// It works.
    Working,
    /// It has done its work, but for a last burst.
    Rested,
    /// It has done its work.
    Done,
}

/// One line. Numbers are cumulative since the guest's boot or the workload's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The guest's clock since its boot.
    pub at_ms: u64,
    /// Where it is.
    pub phase: Phase,
    /// Requests served, or units of work done.
    pub requests: u64,
    /// Time that they took in sum.
    pub busy_us: u64,
    /// Longest of them since the last beat.
    pub worst_us: u64,
    /// Time that the last burst took, once there was one.
    pub burst_us: Option<u64>,
    /// What its kernel counts.
    pub kernel: Counters,
    /// How long requests took, at the end.
    pub latencies: Option<Percentiles>,
}

/// Counters of the guest's kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// `workingset_refault_file`, pages.
    pub refault_file: u64,
    /// `workingset_refault_anon`, pages.
    pub refault_anon: u64,
    /// `workingset_restore_file` and `_anon`, pages.
    pub restore: u64,
    /// All of `pgsteal_*`, pages.
    pub steal: u64,
    /// Memory pressure of the workload's control group, `some total`.
    pub memory_some_us: u64,
    /// I/O pressure of the same.
    pub io_some_us: u64,
}

impl Counters {
    /// From `/proc/vmstat` and the two pressure files; what is not there is zero.
    #[must_use]
    pub fn parse(vmstat: &str, memory_pressure: &str, io_pressure: &str) -> Self {
        let mut counters = Self {
            memory_some_us: some_total(memory_pressure),
            io_some_us: some_total(io_pressure),
            ..Self::default()
        };
        for line in vmstat.lines() {
            let Some((name, value)) = line.split_once(' ') else { continue };
            let counter = match name {
                "workingset_refault_file" => &mut counters.refault_file,
                "workingset_refault_anon" => &mut counters.refault_anon,
                "workingset_restore_file" | "workingset_restore_anon" => &mut counters.restore,
                // Both divide the same pages once more: by kind, and by who reclaimed.
                "pgsteal_file" | "pgsteal_anon" => &mut counters.steal,
                _ => continue,
            };
            *counter += value.parse().unwrap_or(0);
        }
        counters
    }
}

fn some_total(pressure: &str) -> u64 {
    let some = pressure.lines().find(|line| line.starts_with("some "));
    let total = some.and_then(|line| line.rsplit_once("total="));
    total.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_where_the_kernel_has_them() {
        let vmstat = "pgsteal_kswapd 9\npgsteal_anon 2\npgsteal_file 7\nworkingset_refault_anon 1\n\
                      workingset_refault_file 20\nworkingset_restore_anon 3\nworkingset_restore_file 4\n";
        let memory = "some avg10=0.00 avg60=0.00 avg300=0.00 total=55\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let counters = Counters::parse(vmstat, memory, "some avg10=1.00 avg60=0.00 avg300=0.00 total=6\n");
        let expected = Counters {
            refault_file: 20,
            refault_anon: 1,
            restore: 7,
            steal: 9,
            memory_some_us: 55,
            io_some_us: 6,
        };
        assert_eq!(counters, expected);
        assert_eq!(Counters::parse("", "", ""), Counters::default());
    }
}

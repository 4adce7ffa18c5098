//! What the guest's kernel can tell and do, found out by asking it. Wiring.

#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::path::Path;

use proto::Capabilities;

use crate::cgroup::WORKLOAD;
use crate::mount::FileSystem;

const DEBUG: &str = "/sys/kernel/debug";
/// Generations of pages.
pub const LRU_GEN: &str = "/sys/kernel/debug/lru_gen";
/// The order from which on free pages are reported.
pub const REPORTING_ORDER: &str = "/sys/module/page_reporting/parameters/page_reporting_order";
/// Has free pages joined to blocks.
pub const COMPACT: &str = "/proc/sys/vm/compact_memory";

/// Asks the kernel for all but [`Capabilities::swap`]. Takes it some milliseconds, so not before the workload runs.
/// `psi_trigger`: it has taken one.
pub fn probe(psi_trigger: bool) -> Capabilities {
    let has = |path: &str| Path::new(path).exists();
    let stat = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Capabilities {
        psi: has(&format!("{WORKLOAD}/memory.pressure")) || has("/proc/pressure/memory"),
        psi_trigger,
        memory_reclaim: has(&format!("{WORKLOAD}/memory.reclaim")),
        // One that does not know the key refuses all of it (Linux before 6.10); one that does has nothing to reclaim.
        reclaim_swappiness: fs::write(format!("{WORKLOAD}/memory.reclaim"), "0 swappiness=60").is_ok(),
        ages: has_generations(),
        swap: false,
        reporting_order: OpenOptions::new().write(true).open(REPORTING_ORDER).is_ok(),
        compaction: has(COMPACT),
        proactive_counter: stat("/proc/vmstat").contains("pgsteal_proactive"),
    }
}

/// Whether the multi-generational LRU is in use, and can be asked and told through debugfs, which a kernel may have locked.
fn has_generations() -> bool {
    let enabled = fs::read_to_string("/sys/kernel/mm/lru_gen/enabled").unwrap_or_default();
    let bits = u32::from_str_radix(enabled.trim().trim_start_matches("0x"), 16).unwrap_or(0);
    if bits & 1 == 0 {
        return false;
    }
    if !Path::new(LRU_GEN).exists() {
        let mounted = FileSystem { kind: "debugfs", ..FileSystem::default() }.mount(DEBUG);
        if mounted.is_err() {
            return false;
        }
    }
    OpenOptions::new().read(true).write(true).open(LRU_GEN).is_ok()
}

//! What a guest's agent says of its kernel: raw numbers, as the kernel has them.
//!
//! Counters are cumulative since the guest's boot, in pages unless said otherwise. Whoever uses them takes deltas
//! ([`Meter`](super::meter::Meter)), so that what is lost, repeated or late does no harm. All of it is a claim.

use serde::{Deserialize, Serialize};

/// Generations that a sample can have: as many as the kernel keeps (`MAX_NR_GENS`).
pub const GENERATIONS: usize = 4;

/// Why a sample was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Its time had come.
    #[default]
    Periodic,
    /// The pressure trigger fired.
    Pressure,
    /// An allocation had to wait for reclaim.
    Stall,
    /// The kernel killed for want of memory.
    OutOfMemory,
}

/// One generation of the multi-generational LRU (`Documentation/admin-guide/mm/multigen_lru.rst`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Generation {
    /// How long ago it was begun.
    pub age_ms: u64,
    /// Anonymous memory in it.
    pub anon_bytes: u64,
    /// Page cache in it.
    pub file_bytes: u64,
}

/// One sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sample {
    /// Of this boot of the guest: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: [u8; 16],
    /// Ascends by one with each sample of a boot.
    pub sequence: u64,
    /// The guest's clock since its boot.
    pub monotonic_us: u64,
    /// Why it was sent.
    pub cause: Cause,

    /// `workingset_refault_file`: evicted page cache that was needed again.
    pub refault_file: u64,
    /// `workingset_refault_anon`.
    pub refault_anon: u64,
    /// `workingset_activate_file`. Under the multi-generational LRU only page faults count here.
    pub activate_file: u64,
    /// `workingset_activate_anon`.
    pub activate_anon: u64,
    /// `workingset_restore_file`: refaults of what had been in use when it was evicted.
    pub restore_file: u64,
    /// `workingset_restore_anon`.
    pub restore_anon: u64,
    /// `workingset_nodereclaim`: the kernel forgot evictions, so that refaults are under-reported.
    pub nodereclaim: u64,
    /// `pgsteal_kswapd`.
    pub steal_kswapd: u64,
    /// `pgsteal_direct` but for what the agent had evicted by generation.
    pub steal_direct: u64,
    /// `pgsteal_proactive`: evicted by request.
    pub steal_proactive: u64,
    /// `pgscan_kswapd`.
    pub scan_kswapd: u64,
    /// `pgscan_direct`.
    pub scan_direct: u64,
    /// `pswpin`.
    pub swap_in: u64,
    /// `pswpout`.
    pub swap_out: u64,
    /// `pgmajfault`: events.
    pub major_faults: u64,
    /// `allocstall_*` in sum: events.
    pub alloc_stall: u64,
    /// `oom_kill`: events.
    pub oom_kill: u64,

    /// `/proc/pressure/memory`, `some total`.
    pub memory_some_us: u64,
    /// `/proc/pressure/memory`, `full total`.
    pub memory_full_us: u64,
    /// `/proc/pressure/io`, `some total`.
    pub io_some_us: u64,
    /// Wall time that the agent spent in reclaim on request, which the kernel counts as a stall of the agent.
    pub own_stall_us: u64,
    /// User and system time of all CPUs.
    pub cpu_busy_us: u64,

    /// `MemTotal`.
    pub total_bytes: u64,
    /// `MemFree`.
    pub free_bytes: u64,
    /// `MemAvailable`.
    pub available_bytes: u64,
    /// `Active(file)`.
    pub active_file_bytes: u64,
    /// `Inactive(file)`.
    pub inactive_file_bytes: u64,
    /// `Active(anon)`.
    pub active_anon_bytes: u64,
    /// `Inactive(anon)`.
    pub inactive_anon_bytes: u64,
    /// `Unevictable`.
    pub unevictable_bytes: u64,
    /// `Dirty` and `Writeback` in sum.
    pub dirty_bytes: u64,
    /// `Shmem`.
    pub shmem_bytes: u64,
    /// `SReclaimable`.
    pub slab_reclaimable_bytes: u64,
    /// `SwapTotal`.
    pub swap_total_bytes: u64,
    /// `SwapFree`.
    pub swap_free_bytes: u64,

    /// Generations, youngest first; those that are all zero are none.
    pub ages: [Generation; GENERATIONS],
}

impl Sample {
    /// Page cache on the LRU lists, in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.active_file_bytes.saturating_add(self.inactive_file_bytes)
    }

    /// Anonymous memory on the LRU lists, in bytes.
    #[must_use]
    pub fn anon_bytes(&self) -> u64 {
        self.active_anon_bytes.saturating_add(self.inactive_anon_bytes)
    }

    /// What the guest holds, in bytes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.free_bytes)
    }
}

/// What a guest can tell and do, probed by its agent at its start and told before the first sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Capabilities {
    /// `/proc/pressure/memory` is there.
    pub psi: bool,
    /// It takes a trigger.
    pub psi_trigger: bool,
    /// `memory.reclaim` is there.
    pub memory_reclaim: bool,
    /// `memory.reclaim` takes `swappiness=`, so that a kind can be chosen.
    pub reclaim_swappiness: bool,
    /// The multi-generational LRU is on, and its debugfs file tells ages and takes orders.
    pub ages: bool,
    /// There is swap, so that anonymous memory can be trimmed.
    pub swap: bool,
    /// The order of free page reporting can be set.
    pub reporting_order: bool,
    /// Memory can be compacted on request.
    pub compaction: bool,
    /// The kernel counts `pgsteal_proactive`.
    pub proactive_counter: bool,
}

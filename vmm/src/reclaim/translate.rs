//! The agent's words as the law's, and the law's as the agent's. Pure, and one to one.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use balloon::control::link;
use balloon::policy;

/// A sample of a guest's, of this boot.
#[must_use]
pub fn sample(boot_id: [u8; 16], sample: &proto::Sample) -> policy::Sample {
    let proto::Sample { sequence, monotonic_us, cause, counters, sizes, ages } = sample;
    let mut generations = [policy::Generation::default(); policy::GENERATIONS];
    for (to, from) in generations.iter_mut().zip(ages) {
        let proto::Age { age_ms, anon_bytes, file_bytes } = *from;
        *to = policy::Generation { age_ms, anon_bytes, file_bytes };
    }
    policy::Sample {
        boot_id,
        sequence: *sequence,
        monotonic_us: *monotonic_us,
        cause: match cause {
            proto::Cause::Periodic => policy::Cause::Periodic,
            proto::Cause::Pressure => policy::Cause::Pressure,
            proto::Cause::Stall => policy::Cause::Stall,
            proto::Cause::OutOfMemory => policy::Cause::OutOfMemory,
        },
        refault_file: counters.refault_file,
        refault_anon: counters.refault_anon,
        activate_file: counters.activate_file,
        activate_anon: counters.activate_anon,
        restore_file: counters.restore_file,
        restore_anon: counters.restore_anon,
        nodereclaim: counters.nodereclaim,
        steal_kswapd: counters.steal_kswapd,
        steal_direct: counters.steal_direct,
        steal_proactive: counters.steal_proactive,
        scan_kswapd: counters.scan_kswapd,
        scan_direct: counters.scan_direct,
        swap_in: counters.swap_in,
        swap_out: counters.swap_out,
        major_faults: counters.major_faults,
        alloc_stall: counters.alloc_stall,
        oom_kill: counters.oom_kill,
        memory_some_us: counters.memory_some_us,
        memory_full_us: counters.memory_full_us,
        io_some_us: counters.io_some_us,
        own_stall_us: counters.own_stall_us,
        cpu_busy_us: counters.cpu_busy_us,
        total_bytes: sizes.total,
        free_bytes: sizes.free,
        available_bytes: sizes.available,
        active_file_bytes: sizes.active_file,
        inactive_file_bytes: sizes.inactive_file,
        active_anon_bytes: sizes.active_anon,
        inactive_anon_bytes: sizes.inactive_anon,
        unevictable_bytes: sizes.unevictable,
        dirty_bytes: sizes.dirty,
        shmem_bytes: sizes.shmem,
        slab_reclaimable_bytes: sizes.slab_reclaimable,
        swap_total_bytes: sizes.swap_total,
        swap_free_bytes: sizes.swap_free,
        ages: generations,
    }
}

/// What a guest can do.
#[must_use]
pub fn capabilities(of: proto::Capabilities) -> policy::Capabilities {
    policy::Capabilities {
        psi: of.psi,
        psi_trigger: of.psi_trigger,
        memory_reclaim: of.memory_reclaim,
        reclaim_swappiness: of.reclaim_swappiness,
        ages: of.ages,
        swap: of.swap,
        reporting_order: of.reporting_order,
        compaction: of.compaction,
        proactive_counter: of.proactive_counter,
    }
}

/// What became of the order to reclaim of this number; `None`: it was refused, or nobody answered.
#[must_use]
pub fn reclaimed(number: u64, done: Option<&proto::Done>) -> policy::Reclaimed {
    let Some(proto::Done::Reclaimed(reclaimed)) = done else {
        return policy::Reclaimed {
            number,
            stopped: policy::Stopped::Failed,
            ..policy::Reclaimed::default()
        };
    };
    let proto::Reclaimed { file_pages, anon_pages, took_us, stopped } = *reclaimed;
    let stopped = match stopped {
        proto::Stopped::Reached => policy::Stopped::Done,
        proto::Stopped::NothingLeft => policy::Stopped::InUse,
        proto::Stopped::NoSwap => policy::Stopped::NoSwap,
        proto::Stopped::Ineffective => policy::Stopped::Unmoved,
        proto::Stopped::OutOfTime => policy::Stopped::TimedOut,
    };
    policy::Reclaimed { number, file_pages, anon_pages, took_us, stopped }
}

/// What the law wants, by who is to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The agent, which answers; the law waits for the answer to the order of this number.
    Order(proto::Order, Option<u64>),
    /// The agent, which does not.
    Pace(u32),
    /// The balloon.
    Ceiling(u64),
    /// Nobody.
    Nothing,
}

/// What `order` means.
#[must_use]
pub fn deed(order: policy::Order) -> Deed {
    match order {
        policy::Order::Reclaim { number, bytes, memory, older_than_ms } => {
            let kind = match memory {
                policy::Memory::File => proto::ReclaimKind::File,
                policy::Memory::Anon => proto::ReclaimKind::Anon,
                policy::Memory::Both => proto::ReclaimKind::Both,
            };
            Deed::Order(proto::Order::Reclaim { bytes, kind, older_than_ms }, Some(number))
        }
        policy::Order::Age => Deed::Order(proto::Order::Age, None),
        policy::Order::Reporting { order, compact } => {
            Deed::Order(proto::Order::Reporting { order, compact }, None)
        }
        policy::Order::Pace { sample_ms } => Deed::Pace(u32::try_from(sample_ms).unwrap_or(u32::MAX)),
        policy::Order::Ceiling { bytes } => Deed::Ceiling(bytes),
        policy::Order::Enter { .. } => Deed::Nothing,
    }
}

/// A lease of the daemon's.
#[must_use]
pub fn envelope(of: &link::Envelope) -> policy::Envelope {
    policy::Envelope {
        sequence: of.sequence,
        lease_ms: of.lease_ms,
        lambda_permille: of.lambda_permille,
        max_bytes: of.max_bytes,
        high_bytes: of.high_bytes,
        floor_bytes: of.floor_bytes,
        grant_bytes: of.grant_bytes,
        take_bytes: of.take_bytes,
    }
}

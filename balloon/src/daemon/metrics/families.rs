//! What is told of what: names, units and help of all metrics. Pure.

#![forbid(unsafe_code)]

use super::metric::{Labelled, Metric, Value, count, flag, metric, millionths, size, thousandths};
use super::snapshot::{Group, SharedZone, Vm, Whole, Zone};
use prometheus_client::metrics::MetricType::{Counter, Gauge};
use prometheus_client::registry::Unit;

const BYTES: Option<Unit> = Some(Unit::Bytes);
const SECONDS: Option<Unit> = Some(Unit::Seconds);

pub(super) static WHOLE: [Metric<Whole>; 25] = [
    metric(Gauge, "host_memory", BYTES, "All memory of the host", |all| count(all.host.total_bytes)),
    metric(Gauge, "host_available", BYTES, "What the host has available, microVMs or not", |all| {
        count(all.host.available_bytes)
    }),
    metric(Gauge, "host_swap_free", BYTES, "Swap of the host that is free", |all| {
        count(all.host.swap_free_bytes)
    }),
    metric(
        Gauge,
        "host_stall_ratio",
        None,
        "Share of time in which some task of the host waited for memory (PSI, 10 s)",
        |all| millionths(all.host.stall_ppm),
    ),
    metric(Gauge, "pool_capacity", BYTES, "What microVMs may use together", |all| {
        count(all.document.capacity_bytes)
    }),
    metric(Gauge, "pool_charge", BYTES, "What they hold together", |all| count(all.charge_bytes)),
    metric(
        Gauge,
        "pool_main",
        BYTES,
        "What no zone holds; less than nothing when zones hold more than the pool has",
        |all| Some(Value::Signed(all.document.main_bytes)),
    ),
    metric(Gauge, "pool_protected", BYTES, "Sum of protected minimums", |all| {
        count(all.document.protected_bytes)
    }),
    metric(Gauge, "pool_committed", BYTES, "Sum of maximums", |all| count(all.document.committed_bytes)),
    metric(Gauge, "pool_overcommit", None, "1 if the sum of maximums may exceed the pool", |all| {
        flag(all.document.overcommit)
    }),
    metric(Gauge, "vms", None, "microVMs that run", |all| size(all.document.vms)),
    metric(Gauge, "orphans", None, "microVMs that have ended and whose memory is not yet back", |all| {
        size(all.document.orphans)
    }),
    metric(Gauge, "orphan_memory", BYTES, "What is still held for them", |all| count(all.orphan_bytes)),
    metric(
        Gauge,
        "orphan_oldest",
        SECONDS,
        "How long the one of them has been gone that ended first",
        |all| count(all.oldest_orphan_s),
    ),
    metric(Counter, "arbitration_ticks", None, "Ticks of arbitration", |all| count(all.ticks)),
    metric(
        Gauge,
        "arbitration_lambda_ratio",
        None,
        "Pressure on the pool, by which working-set ages are divided: 1 is none",
        |all| thousandths(all.document.lambda_permille),
    ),
    metric(Gauge, "arbitration_deficit", BYTES, "What microVMs hold too much together", |all| {
        count(all.document.deficit_bytes)
    }),
    metric(Gauge, "arbitration_unmet", BYTES, "What of it nobody can give, as it is protected", |all| {
        count(all.verdict.unmet_bytes)
    }),
    metric(Counter, "arbitration_directed", BYTES, "What microVMs were told to give back at once", |all| {
        count(all.directed_bytes)
    }),
    metric(Counter, "arbitration_page_out", BYTES, "What the host was told to swap out", |all| {
        count(all.page_out_bytes)
    }),
    metric(Counter, "arbitration_kills", None, "microVMs that were killed for want of memory", |all| {
        count(all.kills)
    }),
    metric(Counter, "arbitration_failed_kills", None, "How often the host refused that", |all| {
        count(all.failed_kills)
    }),
    metric(
        Gauge,
        "arbitration_short",
        None,
        "1 if the host is short, so that nobody's target is raised",
        |all| flag(all.verdict.short),
    ),
    metric(Gauge, "arbitration_refusing", None, "1 if no microVM is started", |all| {
        flag(all.document.refuses)
    }),
    metric(Counter, "admissions", None, "Starts that were admitted", |all| count(all.admissions.admitted)),
];

pub(super) static GROUPS: [Metric<Group>; 8] = [
    metric(Gauge, "group_charge", BYTES, "What the group holds", |group| count(group.charge_bytes)),
    metric(Gauge, "group_min", BYTES, "Never taken", |group| group.limits.min.and_then(count)),
    metric(Gauge, "group_low", BYTES, "Taken last", |group| group.limits.low.and_then(count)),
    metric(Gauge, "group_high", BYTES, "Taken back to", |group| group.limits.high.and_then(count)),
    metric(Gauge, "group_max", BYTES, "Never exceeded", |group| group.limits.max.and_then(count)),
    metric(
        Gauge,
        "group_effective_min",
        BYTES,
        "What of its charge is never taken, as those above it leave it",
        |group| count(group.protected.min),
    ),
    metric(Gauge, "group_effective_low", BYTES, "What of its charge is taken last, likewise", |group| {
        count(group.protected.low)
    }),
    metric(Gauge, "group_weight", None, "Its part under pressure", |group| count(group.limits.weight.into())),
];

pub(super) static INFO: Metric<Named> =
    metric(Gauge, "vm_info", None, "1, for the group that a microVM is in", |_| count(1));

pub(super) static VMS: [Metric<Vm>; 18] = [
    metric(Gauge, "vm_memory_size", BYTES, "Size of guest memory", |vm| vm.size_bytes.and_then(count)),
    metric(Gauge, "vm_memory_max", BYTES, "Lowest maximum of the microVM and all above it", |vm| {
        count(vm.max_bytes)
    }),
    metric(Gauge, "vm_memory_ceiling", BYTES, "What the balloon leaves the guest", |vm| {
        vm.ceiling_bytes.and_then(count)
    }),
    metric(Gauge, "vm_memory_target", BYTES, "The footprint that its law wants", |vm| {
        vm.usage.target_bytes.and_then(count)
    }),
    metric(Gauge, "vm_memory_resident", BYTES, "Guest memory that the host holds", |vm| {
        count(vm.resident_bytes)
    }),
    metric(
        Gauge,
        "vm_memory_charge",
        BYTES,
        "What the microVM is charged: that and what else its VMM holds",
        |vm| count(vm.charge_bytes),
    ),
    metric(
        Gauge,
        "vm_memory_footprint",
        BYTES,
        "Its charge and its share of the image layers that it maps",
        |vm| count(vm.footprint_bytes),
    ),
    metric(Gauge, "vm_memory_protected", BYTES, "What of its charge is never taken", |vm| {
        count(vm.protected_bytes)
    }),
    metric(
        Gauge,
        "vm_memory_swapped",
        BYTES,
        "Memory of its VMM, the guest's above all, that the host has swapped out",
        |vm| count(vm.swapped_bytes),
    ),
    metric(Gauge, "vm_memory_ballooned", BYTES, "In the balloon by the VMM's books", |vm| {
        count(vm.usage.ballooned_bytes)
    }),
    metric(
        Gauge,
        "vm_memory_reported",
        BYTES,
        "Reported free by the guest and given back to the host",
        |vm| count(vm.usage.reported_bytes),
    ),
    metric(Gauge, "vm_memory_grant", BYTES, "By how much it may raise its ceiling under pressure", |vm| {
        count(vm.grant_bytes)
    }),
    metric(
        Gauge,
        "vm_guest_used",
        BYTES,
        "What the guest's kernel does not call available, by its own word",
        |vm| vm.usage.guest_used_bytes.and_then(count),
    ),
    metric(
        Counter,
        "vm_stall",
        SECONDS,
        "Time in which some task of the guest waited for memory, by its own word",
        |vm| millionths(vm.usage.totals.stall_us),
    ),
    metric(
        Gauge,
        "vm_lambda_ratio",
        None,
        "Pressure on it, by which its working-set age is divided: 1 is none",
        |vm| thousandths(vm.lambda_permille),
    ),
    metric(
        Gauge,
        "vm_harm_ratio",
        None,
        "What trimming costs it: 1 is as much as its stall budget allows",
        |vm| thousandths(vm.usage.harm_permille),
    ),
    metric(Gauge, "vm_report_age", SECONDS, "Since its VMM last answered the daemon", |vm| {
        count(vm.report_age_s)
    }),
    metric(Gauge, "vm_stats_age", SECONDS, "Since its guest's agent last spoke, at that report", |vm| {
        thousandths(vm.usage.sample_age_ms?)
    }),
];

pub(super) static REFAULTS: Metric<Refaults> = metric(
    Counter,
    "vm_refault_pages",
    None,
    "Pages that the guest's kernel evicted and needed again, by its own word",
    |refaults| count(refaults.pages),
);

pub(super) static ZONES: [Metric<Zone>; 1] =
    [metric(Gauge, "zone_resident", BYTES, "What a private zone of a microVM holds", |zone| {
        count(zone.resident_bytes)
    })];

pub(super) static SHARED: [Metric<SharedZone>; 3] = [
    metric(Gauge, "shared_zone_size", BYTES, "Size of an image layer", |zone| count(zone.size_bytes)),
    metric(Gauge, "shared_zone_resident", BYTES, "What of it is in the host's page cache", |zone| {
        count(zone.resident_bytes)
    }),
    metric(Gauge, "shared_zone_vms", None, "How many microVMs map it", |zone| count(zone.vms)),
];

pub(super) static REFUSALS: Metric<Refusal> =
    metric(Counter, "admission_refusals", None, "Starts that were refused", |refusal| count(refusal.count));

pub(super) static BUILD: Metric<Build> =
    metric(Gauge, "build_info", None, "1, for the daemon's version", |_| count(1));

/// The daemon itself.
pub(super) struct Build;

/// Refusals for one reason.
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) count: u64,
}

/// A microVM and its group.
pub(super) struct Named {
    pub(super) vm: String,
    pub(super) group: String,
}

/// Refaults of one kind of memory.
pub(super) struct Refaults {
    pub(super) vm: String,
    pub(super) kind: &'static str,
    pub(super) pages: u64,
}

impl Labelled for Whole {
    fn labels(&self) -> Vec<(&'static str, &str)> {
        Vec::new()
    }
}

impl Labelled for Build {
    fn labels(&self) -> Vec<(&'static str, &str)> {
        vec![("version", env!("CARGO_PKG_VERSION"))]
    }
}

impl Labelled for Refusal {
    fn labels(&self) -> Vec<(&'static str, &str)> {
        vec![("reason", self.reason)]
    }
}

impl Labelled for Group {
    fn labels(&self) -> Vec<(&'static str, &str)> {
        vec![("group", &self.path)]
    }
}

impl Labelled for Vm {
    fn labels(&self) -> Vec<(&'static str, &str)> {
        vec![("vm", &self.name)]
    }
}

impl Labelled for Named {
    fn labels(&self) -> Vec<(&'static str, &str)> {
        vec![("vm", &self.vm), ("group", &self.group)]
    }
}

impl Labelled for Refaults {
    fn labels(&self) -> Vec<(&'static str, &str)> {
        vec![("vm", &self.vm), ("type", self.kind)]
    }
}

impl Labelled for Zone {
    fn labels(&self) -> Vec<(&'static str, &str)> {
        vec![("vm", &self.vm), ("zone", &self.name)]
    }
}

impl Labelled for SharedZone {
    fn labels(&self) -> Vec<(&'static str, &str)> {
        vec![("zone", &self.name), ("scope", &self.scope)]
    }
}

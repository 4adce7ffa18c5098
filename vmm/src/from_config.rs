//! What the configuration says to the parts of a microVM: its law, its zones, what it tells of itself.

use crate::config::{ReclaimConfig, VmConfig, ZoneConfig};
use crate::control::ballooned::PrivateZone;
use crate::control::shared::SharedZones;
use crate::machine::layout::Ram;
use crate::machine::memory::{SharedZone, Zone};
use crate::reclaim::owner::Owner;
use crate::reclaim::wanted::Wanted;
use crate::virtio::balloon::monotonic_ms;
use balloon::control::api::VmDocument;
use balloon::control::link::{Hello, OwnPolicy};
use balloon::resident::{FileMapping, PageCache};
use std::fs::File;

/// The owner of the reclaim law that the configuration wants, written down to `recording`.
pub(crate) fn owner(config: &VmConfig, recording: Option<File>) -> Owner {
    let size_bytes = config.memory_bytes();
    let ReclaimConfig { mode, working_set_age_ms, stall_budget_ppm, .. } = config.reclaim;
    let wanted = Wanted::new(mode, OwnPolicy { working_set_age_ms, stall_budget_ppm });
    let output = recording.map(|pipe| Box::new(pipe) as _);
    Owner::new(monotonic_ms(), size_bytes, wanted, &config.limits, output)
}

/// The zones as the control socket tells of them. Regions of guest memory are the ranges of `ram`.
pub(crate) fn private_zones(config: &VmConfig, ram: &Ram) -> Vec<PrivateZone> {
    let regions =
        |zone| (0..).zip(ram.ranges()).filter(move |(_, (of, _))| *of == zone).map(|(number, _)| number);
    let zones = config.zones.iter().enumerate();
    zones
        .map(|(number, zone)| PrivateZone {
            name: zone.name.clone(),
            regions: regions(number).collect(),
            host_node: zone.host_node,
            huge_pages: zone.huge_pages,
        })
        .collect()
}

/// Regions of guest memory in zones that get no huge pages.
pub(crate) fn small_regions(config: &VmConfig, ram: &Ram) -> Vec<usize> {
    let is_small = |zone: usize| config.zones.get(zone).is_some_and(|zone| !zone.huge_pages);
    (0..).zip(ram.ranges()).filter(|(_, (zone, _))| is_small(*zone)).map(|(region, _)| region).collect()
}

/// The layers as the control socket tells of them.
pub(crate) fn shared_zones(config: &VmConfig, layers: &[SharedZone]) -> SharedZones {
    let names = config.layers.iter().map(|layer| layer.name.clone());
    // SAFETY: layers stay mapped until the process ends.
    let file = |layer: &SharedZone| unsafe {
        FileMapping::new(layer.host_address() as usize, layer.bytes() as usize)
    };
    SharedZones::new(names.collect(), PageCache::new(layers.iter().map(file).collect()))
}

/// A zone as guest memory is mapped for it.
pub(crate) fn zone(config: &ZoneConfig) -> Zone {
    Zone { host_node: config.host_node, huge_pages: config.huge_pages }
}

/// What clients of the control socket are told of this VM; its times are the server's.
pub(crate) fn document(config: &VmConfig) -> VmDocument {
    VmDocument {
        name: config.name.clone(),
        image: config.image.clone(),
        kernel_release: config.kernel_release.clone(),
        pid: std::process::id(),
        cpus: config.cpus,
        memory_bytes: config.memory_bytes(),
        started_at_ms: 0,
        uptime_ms: 0,
        arbiter: None,
    }
}

/// How it introduces itself to `ballastd`.
pub(crate) fn hello(config: &VmConfig) -> Hello {
    Hello {
        name: config.name.clone(),
        pid: std::process::id(),
        group: config.group.clone(),
        limits: config.limits,
        memory_bytes: config.memory_bytes(),
        zones: config.zones.iter().map(|zone| zone.name.clone()).collect(),
        inherits: true,
    }
}

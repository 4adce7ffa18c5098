//! What there is to tell at one moment: [`Fleet::snapshot`]. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::control::fleet::HostDocument;
use crate::control::link::{RENEWAL, Usage};
use crate::daemon::admissions::Admissions;
use crate::daemon::arbitration::CALM_PERMILLE;
use crate::daemon::fleet::Fleet;
use crate::daemon::member::Member;
use crate::policy::fleet::{Host, Verdict};
use crate::zone::{Effective, Id, Kind, Limits, Scope};
use std::collections::BTreeMap;

/// All of it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The host and the pool as a whole.
    pub whole: Whole,
    /// Groups, by their paths.
    pub groups: Vec<Group>,
    /// microVMs that live, by their names.
    pub vms: Vec<Vm>,
    /// Their private zones.
    pub zones: Vec<Zone>,
    /// Image layers that they share.
    pub shared: Vec<SharedZone>,
}

/// The host and the pool as a whole.
#[derive(Clone, Debug)]
pub struct Whole {
    /// As the daemon's socket tells it.
    pub document: HostDocument,
    /// What the host has.
    pub host: Host,
    /// What the last tick came to.
    pub verdict: Verdict,
    /// Ticks of arbitration since the daemon's start.
    pub ticks: u64,
    /// What was directed to be given back since then.
    pub directed_bytes: u64,
    /// What the host was told to swap out since then.
    pub page_out_bytes: u64,
    /// microVMs that were killed since then.
    pub kills: u64,
    /// How often one was to be and the host refused.
    pub failed_kills: u64,
    /// Starts admitted and refused.
    pub admissions: Admissions,
    /// What the pool holds.
    pub charge_bytes: u64,
    /// What of it is still held for microVMs that have ended.
    pub orphan_bytes: u64,
    /// How long the one among them has been gone that ended first, in seconds; zero if there is none.
    pub oldest_orphan_s: u64,
}

/// A group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its path.
    pub path: String,
    /// What it may hold.
    pub limits: Limits,
    /// What it holds.
    pub charge_bytes: u64,
    /// What of that is protected.
    pub protected: Effective,
}

/// A microVM.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// The path of its group; empty is none.
    pub group: String,
    /// Size of its guest's memory; nothing before its VMM has said.
    pub size_bytes: Option<u64>,
    /// Lowest `max` of it and all above it.
    pub max_bytes: u64,
    /// What its balloon leaves its guest; nothing before its first report.
    pub ceiling_bytes: Option<u64>,
    /// Guest memory that the host holds: of what its VMM says what the host confirms.
    pub resident_bytes: u64,
    /// What it is charged: that, and what else its VMM holds.
    pub charge_bytes: u64,
    /// Its charge and its share of what it shares.
    pub footprint_bytes: u64,
    /// What of its VMM the host has swapped out.
    pub swapped_bytes: u64,
    /// What of its charge is never taken.
    pub protected_bytes: u64,
    /// The pressure on it, in thousandths.
    pub lambda_permille: u64,
    /// By how much it may raise its ceiling under pressure.
    pub grant_bytes: u64,
    /// Since its last report, in seconds.
    pub report_age_s: u64,
    /// What it says of itself.
    pub usage: Usage,
}

/// A private zone of a microVM's.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The microVM.
    pub vm: String,
    /// Its name.
    pub name: String,
    /// What it holds.
    pub resident_bytes: u64,
}

/// An image layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedZone {
    /// The first digits of its key.
    pub name: String,
    /// Those whose copy it is.
    pub scope: String,
    /// How long it is.
    pub size_bytes: u64,
    /// What of it is in the host's page cache.
    pub resident_bytes: u64,
    /// How many microVMs map it.
    pub vms: u64,
}

impl Fleet {
    /// What there is to tell now.
    #[must_use]
    pub fn snapshot(&mut self) -> Snapshot {
        self.protect();
        self.footprints.compute(&self.tree, None);
        let (mut groups, mut zones) = (Vec::new(), Vec::new());
        let mut next = vec![self.tree.root()];
        while let Some(id) = next.pop() {
            let Some(node) = self.tree.get(id).filter(|node| matches!(node.kind(), Kind::Pool | Kind::Group))
            else {
                continue;
            };
            if node.kind() == Kind::Group {
                let protected = self.protection.get(id).unwrap_or_default();
                groups.push(Group {
                    path: node.name().into(),
                    limits: *node.limits(),
                    charge_bytes: node.charge_bytes(),
                    protected,
                });
            }
            next.extend(self.tree.children(id));
        }
        groups.sort_by(|left, right| left.path.cmp(&right.path));
        let mut vms = Vec::new();
        for (name, member) in &self.vms {
            let before = zones.len();
            zones.extend(self.zones(name, member.id));
            let own = zones.get(before..).unwrap_or_default();
            let resident_bytes = own.iter().fold(0u64, |sum, zone| sum.saturating_add(zone.resident_bytes));
            vms.push(self.vm(name, member, resident_bytes));
        }
        Snapshot { whole: self.whole(), groups, vms, zones, shared: self.shared() }
    }

    fn whole(&self) -> Whole {
        let orphans = self.orphans.iter();
        let nodes = orphans.clone().flat_map(|orphan| orphan.nodes.iter());
        let orphan_bytes = nodes
            .filter_map(|id| self.tree.get(*id))
            .fold(0u64, |sum, node| sum.saturating_add(node.own_bytes()));
        Whole {
            document: self.host(),
            host: self.arbitration.host,
            verdict: self.arbitration.verdict,
            ticks: self.arbitration.ticks,
            directed_bytes: self.arbitration.directed_bytes,
            page_out_bytes: self.arbitration.page_out_bytes,
            kills: self.arbitration.kills,
            failed_kills: self.arbitration.failed_kills,
            admissions: self.admissions,
            charge_bytes: self.tree.get(self.tree.root()).map_or(0, |node| node.charge_bytes()),
            orphan_bytes,
            // One snapshot is taken of each in a tick.
            oldest_orphan_s: seconds(orphans.map(|orphan| orphan.snapshot).max().unwrap_or(0)),
        }
    }

    fn vm(&self, name: &str, member: &Member, resident_bytes: u64) -> Vm {
        let id = member.id;
        let group = self.tree.parent(id).and_then(|id| self.tree.get(id));
        let has_reported = member.ceiling_bytes > 0;
        Vm {
            name: name.into(),
            group: group.map_or_else(String::new, |group| group.name().into()),
            size_bytes: member.size_bytes,
            max_bytes: self.tree.binding_max(id),
            ceiling_bytes: has_reported.then_some(member.ceiling_bytes),
            resident_bytes,
            charge_bytes: self.tree.get(id).map_or(0, |node| node.charge_bytes()),
            footprint_bytes: self.footprints.get(id).unwrap_or(0),
            swapped_bytes: member.swapped_bytes,
            protected_bytes: self.protection.get(id).unwrap_or_default().min,
            lambda_permille: member.allotment.map_or(CALM_PERMILLE, |allotment| allotment.lambda_permille),
            grant_bytes: member.allotment.map_or(0, |allotment| allotment.grant_bytes),
            report_age_s: seconds(member.silent_ticks.into()),
            usage: member.usage,
        }
    }

    fn zones(&self, vm: &str, id: Id) -> impl Iterator<Item = Zone> {
        let nodes = self.tree.children(id).filter_map(|id| self.tree.get(id));
        nodes.filter(|node| node.kind() == Kind::Zone && !node.is_orphan()).map(move |node| Zone {
            vm: vm.into(),
            name: node.name().into(),
            resident_bytes: node.own_bytes(),
        })
    }

    /// Two files may be one layer: what is still mapped of an image that was imported anew.
    fn shared(&self) -> Vec<SharedZone> {
        let mut all: BTreeMap<(String, String), SharedZone> = BTreeMap::new();
        for document in self.layers.documents(&self.tree) {
            let scope = match document.scope {
                Scope::Host => "host".into(),
                Scope::Group(path) => format!("group:{path}"),
                Scope::Vm(name) => format!("vm:{name}"),
            };
            let zone = all.entry((document.name.clone(), scope.clone())).or_insert(SharedZone {
                name: document.name,
                scope,
                size_bytes: 0,
                resident_bytes: 0,
                vms: 0,
            });
            zone.size_bytes = zone.size_bytes.saturating_add(document.size_bytes);
            zone.resident_bytes = zone.resident_bytes.saturating_add(document.resident_bytes);
            zone.vms = zone.vms.saturating_add(u64::try_from(document.vms).unwrap_or(u64::MAX));
        }
        all.into_values().collect()
    }
}

/// Ticks come with the renewal of leases.
fn seconds(ticks: u64) -> u64 {
    ticks.saturating_mul(RENEWAL.as_secs())
}

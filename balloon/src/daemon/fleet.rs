//! Who there is, what each holds and may hold: the zone tree and the microVMs in it. Pure.
//!
//! ```text
//!          admit               greet                    observe                end            settle_orphan
//! nobody --------> reserved --------> linked (process) ---------> ... -------> orphan zones -------------> gone
//!                      \---- forget                greet, of a microVM that an earlier daemon admitted
//! ```
//!
//! A microVM is a fact: one that runs is taken in whatever the pool says ([`Fleet::greet`]); only who wants to start is
//! refused. What a VMM says of itself is bounded by what the host says of its process.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::host::{Held, Process};
use crate::control::fleet::{HostDocument, NodeDocument, StartRequest, TreeDocument};
use crate::control::link::{Envelope, Hello, LEASE, Report};
use crate::zone::{Error, Id, Kind, Limits, Protection, Tree};
use std::collections::BTreeMap;

/// No pressure, in thousandths.
const CALM_PERMILLE: u32 = 1000;

/// All microVMs of a host.
#[derive(Debug)]
pub struct Fleet {
    tree: Tree,
    vms: BTreeMap<String, Member>,
    orphans: Vec<Orphan>,
    protection: Protection,
}

/// A microVM that lives, or is about to.
#[derive(Clone, Debug)]
struct Member {
    id: Id,
    /// Of its VMM; before that, of who starts it.
    process: Process,
    linked: bool,
    /// Number of the last envelope.
    sequence: u64,
    /// Number of the last snapshot.
    snapshot: u64,
}

/// What a microVM that ended has left.
#[derive(Clone, Debug)]
struct Orphan {
    process: Process,
    nodes: Vec<Id>,
    snapshot: u64,
}

impl Fleet {
    /// Nobody, in `tree`.
    #[must_use]
    pub fn new(tree: Tree) -> Self {
        Self { tree, vms: BTreeMap::new(), orphans: Vec::new(), protection: Protection::default() }
    }

    /// The zone tree.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Admits a microVM that `starter` is about to start.
    ///
    /// # Errors
    /// The name is taken, or the pool does not admit its limits. Nothing has changed then.
    pub fn admit(&mut self, request: &StartRequest, starter: Process) -> Result<(), Error> {
        let id = self.tree.create_vm(&request.group, &request.name, request.limits)?;
        let member = Member { id, process: starter, linked: false, sequence: 0, snapshot: 0 };
        self.vms.insert(request.name.clone(), member);
        Ok(())
    }

    /// Takes in a microVM that runs, whether it was admitted, is known, or comes from an earlier daemon's time.
    ///
    /// # Errors
    /// Its name or its group's is none, or its limits contradict each other.
    pub fn greet(&mut self, hello: &Hello, process: Process) -> Result<(), Error> {
        match self.vms.get_mut(&hello.name) {
            Some(member) if !member.linked || member.process == process => {
                (member.linked, member.process) = (true, process);
                return Ok(());
            }
            // Another one had the name and has ended.
            Some(_) => self.end(&hello.name),
            None => {}
        }
        let id = self.tree.adopt_vm(&hello.group, &hello.name, hello.limits)?;
        let member = Member { id, process, linked: true, sequence: 0, snapshot: 0 };
        self.vms.insert(hello.name.clone(), member);
        Ok(())
    }

    /// Takes note of what a microVM holds: of `report` what `held` allows. Returns the bytes that were claimed beyond
    /// that.
    ///
    /// # Errors
    /// The pool would hold more than can be counted.
    pub fn observe(&mut self, name: &str, report: &Report, held: Held) -> Result<u64, Error> {
        let Some(member) = self.vms.get_mut(name) else { return Ok(0) };
        member.snapshot = member.snapshot.saturating_add(1);
        let (id, snapshot) = (member.id, member.snapshot);
        // They hold there already: nobody can refuse them.
        self.tree.adopt_limits(id, report.limits)?;
        let (mut left, mut beyond) = (held.private_bytes, 0u64);
        for zone in &report.zones {
            let Some(claimed) = zone.resident_bytes else { continue };
            let bytes = claimed.min(left);
            beyond = beyond.saturating_add(claimed.saturating_sub(bytes));
            let node = match self.tree.zone(id, &zone.name) {
                Some(node) => node,
                None => self.tree.create_zone(id, &zone.name, Limits::default())?,
            };
            self.tree.settle(node, snapshot, bytes)?;
            left = left.saturating_sub(bytes);
        }
        self.tree.settle(id, snapshot, left)?;
        Ok(beyond)
    }

    /// Ends a microVM whose process is gone, or who never came. What it held is an orphan.
    pub fn end(&mut self, name: &str) {
        let Some(member) = self.vms.remove(name) else { return };
        let nodes = self.tree.children(member.id).chain([member.id]).collect();
        // It lived until now, so this cannot be refused.
        if self.tree.retire(member.id).is_ok_and(|left| left > 0) {
            self.orphans.push(Orphan { process: member.process, nodes, snapshot: 0 });
        }
    }

    /// Those whose processes `is_alive` denies end; of orphans what `held` says is left is settled.
    pub fn sweep(&mut self, is_alive: impl Fn(Process) -> bool, held: impl Fn(Process) -> Held) {
        let dead = self.vms.iter().filter(|(_, member)| !is_alive(member.process));
        let dead: Vec<String> = dead.map(|(name, _)| name.clone()).collect();
        for name in dead {
            self.end(&name);
        }
        for mut orphan in std::mem::take(&mut self.orphans) {
            orphan.snapshot = orphan.snapshot.saturating_add(1);
            let mut left = held(orphan.process).private_bytes;
            for node in &orphan.nodes {
                let was = self.tree.get(*node).map_or(0, |node| node.own_bytes());
                let bytes = was.min(left);
                left = left.saturating_sub(bytes);
                // A node that is gone has been settled.
                let _ = self.tree.settle(*node, orphan.snapshot, bytes);
            }
            if orphan.nodes.iter().any(|node| self.tree.get(*node).is_some()) {
                self.orphans.push(orphan);
            }
        }
    }

    /// Moves a living microVM into another group.
    ///
    /// # Errors
    /// There is no such microVM, the path is none, or the pool does not admit its limits there.
    pub fn move_vm(&mut self, name: &str, group: &str) -> Result<(), Error> {
        let id = self.tree.vm(name).ok_or(Error::Gone)?;
        self.tree.move_vm(id, group)
    }

    /// Changes the limits of a living microVM, all or none.
    ///
    /// # Errors
    /// There is no such microVM, the limits contradict each other, or the pool does not admit them.
    pub fn change(&mut self, name: &str, limits: Limits) -> Result<(), Error> {
        let id = self.tree.vm(name).ok_or(Error::Gone)?;
        self.tree.change(&[(id, limits)])
    }

    /// Computes anew what is protected: once before the envelopes of a tick.
    pub fn protect(&mut self) {
        self.protection.compute(&self.tree, self.tree.root(), true);
    }

    /// The next envelope for a microVM, as of the last [`protect`](Self::protect).
    pub fn envelope(&mut self, name: &str) -> Option<Envelope> {
        let member = self.vms.get_mut(name)?;
        member.sequence = member.sequence.saturating_add(1);
        let (id, sequence) = (member.id, member.sequence);
        let highs = self.tree.path(id).filter_map(|id| self.tree.get(id)?.limits().high);
        Some(Envelope {
            sequence,
            group: self
                .tree
                .parent(id)
                .and_then(|id| self.tree.get(id))
                .map_or_else(String::new, |group| group.name().into()),
            lease_ms: u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX),
            lambda_permille: CALM_PERMILLE,
            max_bytes: self.tree.binding_max(id),
            high_bytes: highs.min(),
            floor_bytes: self.protection.get(id).unwrap_or_default().min,
            grant_bytes: 0,
        })
    }

    /// The host as a whole.
    #[must_use]
    pub fn host(&self) -> HostDocument {
        let (pool, claims) = (self.tree.pool(), self.tree.claims());
        HostDocument {
            pid: std::process::id(),
            capacity_bytes: pool.capacity_bytes,
            overcommit: pool.overcommit,
            main_bytes: self.tree.main_bytes(),
            protected_bytes: claims.protected_bytes,
            committed_bytes: claims.committed_bytes,
            vms: self.vms.values().filter(|member| member.linked).count(),
            orphans: self.orphans.len(),
        }
    }

    /// The zone tree, from the pool downwards, each node before those in it.
    #[must_use]
    pub fn document(&mut self) -> TreeDocument {
        self.protect();
        let mut nodes = Vec::new();
        let mut next = vec![(self.tree.root(), 0)];
        while let Some((id, depth)) = next.pop() {
            let Some(node) = self.tree.get(id) else { continue };
            let effective = self.protection.get(id).unwrap_or_default();
            nodes.push(NodeDocument {
                name: node.name().into(),
                kind: node.kind(),
                depth,
                orphan: node.is_orphan(),
                limits: *node.limits(),
                charge_bytes: node.charge_bytes(),
                effective_min_bytes: effective.min,
                effective_low_bytes: effective.low,
                linked: match node.kind() {
                    Kind::Vm => {
                        self.vms.get(node.name()).filter(|member| member.id == id).map(|vm| vm.linked)
                    }
                    _ => None,
                },
            });
            let mut children: Vec<_> =
                self.tree.children(id).map(|id| (id, depth.saturating_add(1))).collect();
            children.reverse();
            next.extend(children);
        }
        TreeDocument { host: self.host(), nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::link::ZoneUse;
    use crate::zone::Pool;

    const GIB: u64 = 1 << 30;
    const VMM: Process = Process { pid: 7, start_ticks: 1 };

    fn fleet(overcommit: bool) -> Fleet {
        Fleet::new(Tree::new(Pool { capacity_bytes: 4 * GIB, overcommit }).unwrap())
    }

    fn limits(min: u64, max: u64) -> Limits {
        Limits { min: Some(min), max: Some(max), ..Limits::default() }
    }

    fn request(name: &str, group: &str, limits: Limits) -> StartRequest {
        StartRequest { name: name.into(), group: group.into(), limits }
    }

    fn hello(name: &str, group: &str, limits: Limits) -> Hello {
        Hello { name: name.into(), pid: 7, group: group.into(), limits, memory_bytes: GIB }
    }

    fn report(zones: &[(&str, u64)]) -> Report {
        let zones =
            zones.iter().map(|(name, bytes)| ZoneUse { name: (*name).into(), resident_bytes: Some(*bytes) });
        Report {
            sequence: 1,
            ceiling_bytes: GIB,
            floor_bytes: 0,
            limits: limits(0, GIB),
            zones: zones.collect(),
        }
    }

    fn held(private_bytes: u64) -> Held {
        Held { private_bytes }
    }

    fn charge(fleet: &mut Fleet, name: &str) -> u64 {
        fleet.document().nodes.iter().find(|node| node.name == name).map_or(0, |node| node.charge_bytes)
    }

    #[test]
    fn who_would_exceed_the_pool_is_refused_and_leaves_nothing() {
        let mut fleet = fleet(false);
        fleet.admit(&request("a", "ci", limits(0, 3 * GIB)), VMM).unwrap();
        let before = fleet.document();
        let refusal = fleet.admit(&request("b", "web/x", limits(0, 2 * GIB)), VMM).unwrap_err();
        assert!(refusal.to_string().contains("5 GiB in sum, 1 GiB more than the pool's 4 GiB"), "{refusal}");
        assert_eq!(fleet.document(), before);
        fleet.admit(&request("b", "", limits(0, GIB)), VMM).unwrap();
        assert!(fleet.admit(&request("b", "", limits(0, 0)), VMM).is_err(), "the name is taken");
    }

    #[test]
    fn who_runs_is_taken_in_whatever_the_pool_says() {
        let mut fleet = fleet(false);
        fleet.greet(&hello("a", "ci", limits(3 * GIB, 9 * GIB)), VMM).unwrap();
        assert_eq!((fleet.host().committed_bytes, fleet.host().vms), (9 * GIB, 1));
        // The same again, as after a link that broke.
        fleet.greet(&hello("a", "ci", limits(0, 0)), VMM).unwrap();
        assert_eq!(fleet.host().vms, 1);
        assert!(fleet.admit(&request("b", "", limits(0, GIB)), VMM).is_err());
    }

    #[test]
    fn a_vmm_cannot_claim_more_than_its_process_holds() {
        let mut fleet = fleet(true);
        fleet.greet(&hello("a", "ci", limits(0, GIB)), VMM).unwrap();
        let claimed = report(&[("ram", 600), ("cache", 500)]);
        assert_eq!(fleet.observe("a", &claimed, held(1000)), Ok(100));
        assert_eq!((charge(&mut fleet, "ram"), charge(&mut fleet, "cache")), (600, 400));
        assert_eq!((charge(&mut fleet, "ci"), fleet.tree().main_bytes()), (1000, 4 * GIB as i64 - 1000));
        assert_eq!(fleet.observe("a", &report(&[("ram", 300), ("cache", 100)]), held(1000)), Ok(0));
        assert_eq!((charge(&mut fleet, "a"), charge(&mut fleet, "ram")), (1000, 300));
        assert_eq!(fleet.observe("nobody", &claimed, held(1000)), Ok(0));
    }

    #[test]
    fn what_the_dead_held_is_charged_until_it_is_back() {
        let mut fleet = fleet(true);
        fleet.greet(&hello("a", "ci", limits(0, GIB)), VMM).unwrap();
        fleet.observe("a", &report(&[("ram", 600), ("cache", 300)]), held(1000)).unwrap();
        fleet.sweep(|_| true, |_| held(1000));
        assert_eq!((fleet.host().vms, fleet.host().orphans), (1, 0));
        fleet.sweep(|_| false, |_| held(700));
        assert_eq!((fleet.host().vms, fleet.host().orphans), (0, 1));
        assert_eq!(charge(&mut fleet, "ci"), 700);
        // The name is free, and its next owner is another.
        let next = Process { pid: 8, start_ticks: 2 };
        fleet.greet(&hello("a", "ci", limits(0, GIB)), next).unwrap();
        fleet.observe("a", &report(&[("ram", 50)]), held(50)).unwrap();
        assert_eq!(charge(&mut fleet, "ci"), 750);
        fleet.sweep(|process| process == next, |process| if process == VMM { held(0) } else { held(50) });
        assert_eq!((fleet.host().vms, fleet.host().orphans, charge(&mut fleet, "ci")), (1, 0, 50));
        fleet.end("a");
        fleet.sweep(|_| false, |_| held(0));
        assert_eq!((fleet.tree().main_bytes(), fleet.document().nodes.len()), (4 * GIB as i64, 1));
        fleet.tree().check().unwrap();
    }

    #[test]
    fn who_was_admitted_and_never_came_is_forgotten() {
        let mut fleet = fleet(true);
        let starter = Process { pid: 9, start_ticks: 9 };
        fleet.admit(&request("a", "ci", limits(GIB, GIB)), starter).unwrap();
        assert_eq!((fleet.host().vms, fleet.host().protected_bytes), (0, GIB));
        fleet.sweep(|process| process != starter, |_| held(0));
        assert_eq!((fleet.host().protected_bytes, fleet.document().nodes.len()), (0, 1));
    }

    #[test]
    fn an_envelope_says_what_binds() {
        let mut fleet = fleet(true);
        fleet.greet(&hello("a", "ci/x", limits(0, GIB)), VMM).unwrap();
        // Its limits have changed since.
        let changed = Limits { high: Some(GIB), ..limits(GIB / 2, 2 * GIB) };
        let report = Report { limits: changed, ..report(&[("ram", GIB / 4)]) };
        fleet.observe("a", &report, held(GIB / 4)).unwrap();
        fleet.protect();
        let envelope = fleet.envelope("a").unwrap();
        assert_eq!((envelope.sequence, envelope.max_bytes, envelope.high_bytes), (1, 2 * GIB, Some(GIB)));
        assert_eq!(envelope.floor_bytes, GIB / 4, "no more than it holds");
        let next = fleet.envelope("a").unwrap();
        assert_eq!((next.sequence, next.group.as_str()), (2, "ci/x"));
        assert_eq!(fleet.envelope("nobody"), None);
        fleet.move_vm("a", "").unwrap();
        assert_eq!(fleet.envelope("a").unwrap().group, "");
        assert_eq!(fleet.tree().group("ci"), None, "a group goes with its last member");
        assert_eq!(fleet.move_vm("nobody", ""), Err(Error::Gone));
        assert!(matches!(fleet.change("a", limits(2, 1)), Err(Error::Order { .. })));
    }
}

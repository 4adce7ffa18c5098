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

use super::admissions::Admissions;
use super::arbitration::Arbitration;
use super::config::Config;
use super::event::Event;
use super::group_policy::GroupPolicies;
use super::host::{Held, Process};
use super::layers::Layers;
use super::looks::Looks;
use super::member::Member;
use crate::control::fleet::StartRequest;
use crate::control::link::{End, Hello, Report};
use crate::zone::scope::Sharing;
use crate::zone::{Error, Footprints, Id, Kind, Limits, MAX_ZONES, Protection, Scope, Tree};
use std::collections::BTreeMap;

/// Ticks without a report after which a microVM is charged what the host says, whatever it would say itself: a lease.
pub(super) const SILENT_TICKS: u32 = 5;

/// All microVMs of a host.
#[derive(Debug)]
pub struct Fleet {
    pub(super) tree: Tree,
    pub(super) vms: BTreeMap<String, Member>,
    pub(super) orphans: Vec<Orphan>,
    pub(super) layers: Layers,
    pub(super) looks: Looks,
    sharing: Sharing,
    pub(super) policies: GroupPolicies,
    pub(super) protection: Protection,
    pub(super) arbitration: Arbitration,
    pub(super) admissions: Admissions,
    pub(super) footprints: Footprints,
    /// What has happened and was not taken yet.
    pub(super) told: Vec<Event>,
}

/// What a microVM that ended has left.
#[derive(Clone, Debug)]
pub(super) struct Orphan {
    name: String,
    /// That there is one was told.
    is_told: bool,
    process: Process,
    pub(super) nodes: Vec<Id>,
    /// Number of the last snapshot: one is taken a tick.
    pub(super) snapshot: u64,
}

impl Fleet {
    /// Nobody, in `tree`.
    #[must_use]
    pub fn new(tree: Tree) -> Self {
        Self {
            tree,
            vms: BTreeMap::new(),
            orphans: Vec::new(),
            layers: Layers::default(),
            looks: Looks::default(),
            sharing: Sharing::default(),
            policies: GroupPolicies::default(),
            protection: Protection::default(),
            arbitration: Arbitration::default(),
            admissions: Admissions::default(),
            footprints: Footprints::default(),
            told: Vec::new(),
        }
    }

    /// Makes pool and groups what `config` says on a host of so much memory, all or nothing.
    ///
    /// # Errors
    /// They cannot be had, or what has been promised does not fit.
    pub fn configure(&mut self, config: &Config, memory_bytes: u64) -> Result<(), Error> {
        let before: Vec<_> =
            self.tree.groups().map(|(path, id)| (path.to_owned(), self.limits_of(id))).collect();
        config.configure(memory_bytes, &mut self.tree)?;
        self.tell_configured(&before);
        self.sharing = config.sharing();
        self.policies = config.policies();
        self.tune(config.tuning());
        Ok(())
    }

    /// The zone tree.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Admits a microVM that `starter` is about to start, and says within what it shares the layers of its image.
    ///
    /// # Errors
    /// The host is short of memory, the name is taken, it would share more widely than its group allows, or the pool does
    /// not admit its limits. Nothing has changed then.
    pub fn admit(&mut self, request: &StartRequest, starter: Process) -> Result<Scope, Error> {
        let outcome = self.reserve(request, starter);
        self.admissions.count(&outcome);
        outcome.inspect_err(|error| self.tell_refused(request, error))
    }

    fn reserve(&mut self, request: &StartRequest, starter: Process) -> Result<Scope, Error> {
        self.has_room()?;
        let scope = self.sharing.scope(&request.group, &request.name, request.share)?;
        let id = self.tree.create_vm(&request.group, &request.name, request.limits)?;
        let member = Member { admitted: request.limits, ..Member::new(id, starter, false) };
        self.vms.insert(request.name.clone(), member);
        Ok(scope)
    }

    /// Takes in a microVM that runs, whether it was admitted, is known, or comes from an earlier daemon's time.
    ///
    /// # Errors
    /// Its name, its group's or a zone's is none, or its limits contradict each other.
    pub fn greet(&mut self, hello: &Hello, process: Process) -> Result<(), Error> {
        let (id, is_new, admitted) = match self.vms.get_mut(&hello.name) {
            Some(member) if !member.linked || member.process == process => {
                let admitted = !std::mem::replace(&mut member.linked, true);
                (member.process, member.end) = (process, None);
                (member.id, admitted, admitted)
            }
            known => {
                if known.is_some() {
                    // Another one had the name and has ended.
                    self.end(&hello.name);
                }
                // Nobody is promised more than it or the pool has.
                let most = Some(hello.memory_bytes.min(self.tree.pool().capacity_bytes));
                let most =
                    Limits { min: most, low: most, max: None, weight: hello.limits.weight, high: None };
                let admitted = hello.limits.within(&most);
                let id = self.tree.adopt_vm(&hello.group, &hello.name, admitted)?;
                self.vms.insert(hello.name.clone(), Member { admitted, ..Member::new(id, process, true) });
                (id, true, false)
            }
        };
        if let Some(member) = self.vms.get_mut(&hello.name) {
            (member.size_bytes, member.inherits) = (Some(hello.memory_bytes), hello.inherits);
        }
        for name in hello.zones.iter().take(MAX_ZONES) {
            if self.tree.zone(id, name).is_none() {
                self.tree.create_zone(id, name, Limits::default())?;
            }
        }
        if is_new {
            let told = self.tell_greeted(hello, id, admitted);
            if let Some(member) = self.vms.get_mut(&hello.name) {
                member.told_limits = told;
            }
        }
        Ok(())
    }

    /// Whether `process` is a microVM of another name: nobody is counted twice.
    #[must_use]
    pub fn is_another(&self, name: &str, process: Process) -> bool {
        self.vms.iter().any(|(other, vm)| vm.linked && vm.process == process && other != name)
    }

    /// Takes note of what a microVM holds: of `report` what `held` allows. Returns the bytes that were claimed beyond
    /// that. A report that answers no envelope, or one a second time, changes nothing: a VMM that floods would have the
    /// daemon do nothing else.
    ///
    /// # Errors
    /// Its limits contradict each other, or the pool would hold more than can be counted.
    pub fn observe(
        &mut self,
        name: &str,
        report: &Report,
        held: impl FnOnce() -> Option<Held>,
    ) -> Result<u64, Error> {
        let answers = |member: &&mut Member| report.sequence == member.sequence && !member.has_answered;
        let Some(member) = self.vms.get_mut(name).filter(answers) else { return Ok(0) };
        (member.silent_ticks, member.has_answered) = (0, true);
        let own = member.usage.own;
        (member.ceiling_bytes, member.offer, member.usage) =
            (report.ceiling_bytes, report.offer, report.usage);
        if let Some(had) = member.wanted.take_if(|wanted| wanted.limits == report.limits) {
            member.admitted = had.limits;
        }
        // Whoever lives on has not ended, whatever he said.
        member.end = None;
        let (id, limits) = (member.id, report.limits.within(&member.admitted));
        let promised = member.wanted.map_or(limits, |wanted| limits.widest(&wanted.limits));
        if let Some(before) = member.manual.replace(report.manual.then_some(report.ceiling_bytes)) {
            self.tell_ceiling(name, id, before, report);
            self.tell_policy(name, id, &own, &report.usage.own);
        }
        // They hold there already: nobody can refuse them.
        self.tree.adopt_limits(id, promised)?;
        let told = self.vms.get_mut(name).map(|member| std::mem::replace(&mut member.told_limits, limits));
        self.tell_limits(name, id, &told.unwrap_or_default(), &limits);
        let claims = |name: &str| {
            let zone = report.zones.iter().find(|zone| zone.name == name);
            zone.and_then(|zone| zone.resident_bytes).unwrap_or(0)
        };
        self.settle(name, claims, held())
    }

    /// Charges those that have not reported for a while what the host says, all of it to the microVM itself.
    pub fn charge_silent(&mut self, held: impl Fn(Process) -> Option<Held>) {
        self.give_up_wanted();
        let mut silent = Vec::new();
        for (name, member) in self.vms.iter_mut().filter(|(_, member)| member.linked) {
            member.silent_ticks = member.silent_ticks.saturating_add(1);
            if member.silent_ticks > SILENT_TICKS {
                silent.push((name.clone(), member.process));
            }
        }
        for (name, process) in silent {
            // More than can be counted no host has.
            let _ = self.settle(&name, |_| 0, held(process));
        }
    }

    /// Settles zones at what they claim, and the microVM at what is left of `held`; while the host does not say what that
    /// is, nothing.
    fn settle(&mut self, name: &str, claims: impl Fn(&str) -> u64, held: Option<Held>) -> Result<u64, Error> {
        let (Some(member), Some(held)) = (self.vms.get_mut(name), held) else { return Ok(0) };
        member.snapshot = member.snapshot.saturating_add(1);
        (member.swapped_bytes, member.file_bytes) = (held.swapped_bytes, held.file_bytes);
        let (id, snapshot) = (member.id, member.snapshot);
        let (mut left, mut beyond) = (held.private_bytes, 0u64);
        for node in self.tree.children(id).collect::<Vec<_>>() {
            let zone = self.tree.get(node).filter(|node| node.kind() == Kind::Zone && !node.is_orphan());
            let Some(claimed) = zone.map(|zone| claims(zone.name())) else { continue };
            let bytes = claimed.min(left);
            beyond = beyond.saturating_add(claimed.saturating_sub(bytes));
            self.tree.settle(node, snapshot, bytes)?;
            left = left.saturating_sub(bytes);
        }
        self.tree.settle(id, snapshot, left)?;
        Ok(beyond)
    }

    /// Takes note of a microVM's last word. It has ended when its process has.
    pub fn says_end(&mut self, name: &str, end: End) {
        if let Some(member) = self.vms.get_mut(name) {
            member.end = Some(end);
        }
    }

    /// Ends a microVM whose process is gone, or who never came. What it held is an orphan.
    pub fn end(&mut self, name: &str) {
        let Some(member) = self.vms.remove(name) else { return };
        if member.linked {
            self.tell_ended(name, member.id, member.end);
        } else {
            self.tell_forgotten(name, member.id);
        }
        // What it shares is no part of what its process held.
        let is_shared = |id: &Id| self.tree.get(*id).is_some_and(|node| node.kind() == Kind::Shared);
        let own = self.tree.children(member.id).filter(|id| !is_shared(id));
        let nodes = own.chain([member.id]).collect();
        // It lived until now, so this cannot be refused.
        if self.tree.retire(member.id).is_ok_and(|left| left > 0) {
            let (name, process) = (name.into(), member.process);
            self.orphans.push(Orphan { name, is_told: false, process, nodes, snapshot: 0 });
        }
        self.layers.end_unused(&mut self.tree);
        if member.linked {
            self.looks.outdate();
        }
    }

    /// Those whose processes `is_alive` denies end; of orphans what `held` says is left is settled.
    pub fn sweep(&mut self, is_alive: impl Fn(Process) -> bool, held: impl Fn(Process) -> Option<Held>) {
        let dead = self.vms.iter().filter(|(_, member)| !is_alive(member.process));
        let dead: Vec<String> = dead.map(|(name, _)| name.clone()).collect();
        for name in dead {
            self.end(&name);
        }
        for orphan in std::mem::take(&mut self.orphans) {
            self.settle_orphan(orphan, &held);
        }
    }

    /// As [`Self::sweep`] of one microVM, whose link has ended.
    pub fn look_after(
        &mut self,
        name: &str,
        is_alive: impl Fn(Process) -> bool,
        held: impl Fn(Process) -> Option<Held>,
    ) {
        let others = self.orphans.len();
        if self.vms.get(name).is_some_and(|member| !is_alive(member.process)) {
            self.end(name);
        }
        for orphan in self.orphans.split_off(others) {
            self.settle_orphan(orphan, &held);
        }
    }

    /// Settles what is left of one, and keeps it until that is nothing.
    fn settle_orphan(&mut self, mut orphan: Orphan, held: impl Fn(Process) -> Option<Held>) {
        let Some(Held { private_bytes: mut left, .. }) = held(orphan.process) else {
            return self.orphans.push(orphan);
        };
        orphan.snapshot = orphan.snapshot.saturating_add(1);
        for node in &orphan.nodes {
            let was = self.tree.get(*node).map_or(0, |node| node.own_bytes());
            let bytes = was.min(left);
            left = left.saturating_sub(bytes);
            // A node that is gone has been settled.
            let _ = self.tree.settle(*node, orphan.snapshot, bytes);
        }
        let nodes = orphan.nodes.iter().filter_map(|node| self.tree.get(*node));
        let (count, left_bytes) = nodes
            .fold((0u32, 0u64), |(n, sum), node| (n.saturating_add(1), sum.saturating_add(node.own_bytes())));
        match (count, orphan.is_told) {
            (0, false) => {}
            (0, true) => self.tell_merged(&orphan.name),
            _ => {
                if !std::mem::replace(&mut orphan.is_told, true) {
                    self.tell_orphaned(&orphan.name, left_bytes);
                }
                self.orphans.push(orphan);
            }
        }
    }
}

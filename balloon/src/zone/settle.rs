//! What the tree is told of use, and how charges move: snapshots, moves between groups, ends.

use super::node::Role;
use super::tree::wrong_kind;
use super::{Error, Id, Limits, MAX_BYTES, Tree};

/// What a snapshot did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing: a later snapshot was settled before it, or the same one.
    Stale,
    /// The charge of the node and of all above it changed by so many bytes.
    Charged(i64),
    /// As [`Self::Charged`]; nothing of an orphan was left, so it merged into the main zone and is gone.
    Merged(i64),
}

/// A node, what it lay in, and what came after it there.
pub(super) type Undo = (Id, Option<Id>, Option<Id>);

impl Tree {
    /// The main zone: what is left of the pool. Less than nothing if the tree holds more than the pool has.
    ///
    /// Negative it may be at any time and by any amount: a charge is what the host has observed, and neither
    /// limits nor admission change what was observed. Overcommit lets VMs take it there within their limits. Without
    /// overcommit it takes a VM above its own max, an orphan's late pages, or the pages of shared zones, which the
    /// host can drop at once and which nobody is promised. What is missing is what reclaim has to bring back.
    #[must_use]
    pub fn main_bytes(&self) -> i64 {
        let charge = self.nodes.get(self.root).map_or(0, |root| root.charge_bytes);
        signed(charge, self.pool.capacity_bytes)
    }

    /// Takes note that a VM or zone itself holds `bytes`, by snapshot number `sequence` of this node: of a private
    /// zone its resident memory, of a VM what is in none of its zones (kernel memory of its cgroup, its VMM), of a
    /// shared zone the resident pages of its file. Pages of shared zones are no part of a VM, whomever the host
    /// charges for them.
    ///
    /// A snapshot is the whole truth and not a difference, so one that is lost is made up for by the next. One that
    /// comes twice or late is ignored. The bytes are the host's observation, or have been compared with it: a VMM that
    /// could claim any number would leave its neighbours none.
    ///
    /// # Errors
    /// The node is gone, is a group or the pool, or the pool would hold more than can be counted.
    pub fn settle(&mut self, id: Id, sequence: u64, bytes: u64) -> Result<Settled, Error> {
        let root_bytes = self.nodes.get(self.root).map_or(0, |root| root.charge_bytes);
        let node = self.nodes.get_mut(id).ok_or(Error::Gone)?;
        if matches!(node.role, Role::Pool { .. } | Role::Group { .. }) {
            return Err(wrong_kind(node));
        }
        if node.sequence.is_some_and(|last| sequence <= last) {
            return Ok(Settled::Stale);
        }
        let all = root_bytes.saturating_sub(node.own_bytes).saturating_add(bytes);
        if all > MAX_BYTES {
            return Err(Error::TooLarge { bytes });
        }
        let delta = signed(node.own_bytes, bytes);
        node.own_bytes = bytes;
        node.sequence = Some(sequence);
        self.push(id, delta);
        Ok(if self.prune(id) { Settled::Merged(delta) } else { Settled::Charged(delta) })
    }

    /// Moves a living VM, with its zones and their charges, into the group at `path`, which appears if missing. A
    /// shared zone that the VM maps and that would not contain it any longer moves up to the lowest node that does,
    /// for good: see the module.
    ///
    /// # Errors
    /// There is no such VM, the path is none, or the pool does not admit the limits there. Nothing has changed
    /// then.
    pub fn move_vm(&mut self, vm: Id, path: &str) -> Result<(), Error> {
        let maps = self.living_vm(vm)?.maps().to_vec();
        let group = self.find_or_create_group(path)?;
        let Some(left) = self.nodes.parent(vm).filter(|left| *left != group) else { return Ok(()) };
        let before = self.claims();
        let mut undo = vec![self.reparent(vm, group, None)];
        undo.extend(maps.into_iter().filter_map(|zone| self.widen(zone, vm)));
        if let Err(refusal) = self.admit(before) {
            for (id, parent, next) in undo.into_iter().rev() {
                if let Some(parent) = parent {
                    self.reparent(id, parent, next);
                }
            }
            self.prune(group);
            return Err(refusal);
        }
        self.prune(left);
        Ok(())
    }

    /// Ends a VM or one of its private zones. What is not yet back with the host stays charged where it was, as an
    /// orphan without name, limits or protection, until it is settled to nothing. Its snapshots are numbered anew: what
    /// the VM itself said last must not be in the way of who reads what is left, nor be settled any longer. Returns
    /// the bytes that are left; none means that the node is gone already.
    ///
    /// # Errors
    /// The node is gone, has ended before, or is neither VM nor private zone.
    pub fn retire(&mut self, id: Id) -> Result<u64, Error> {
        let node = self.nodes.get(id).ok_or(Error::Gone)?;
        if node.orphan {
            return Err(Error::Orphan { name: node.name.clone() });
        }
        match &node.role {
            Role::Zone => {}
            Role::Vm { maps } => {
                let (maps, name) = (maps.clone(), node.name.clone());
                self.forget_vm_name(&name);
                for zone in maps {
                    self.unmap(id, zone)?;
                }
            }
            _ => return Err(wrong_kind(node)),
        }
        let zones: Vec<_> = self.nodes.children(id).collect();
        for id in zones.iter().copied().chain([id]) {
            self.forget_shared_name(id);
            if let Some(node) = self.nodes.get_mut(id) {
                if !std::mem::replace(&mut node.orphan, true) {
                    node.sequence = None;
                }
                node.limits = Limits::default();
            }
        }
        for id in zones.into_iter().chain([id]) {
            self.prune(id);
        }
        Ok(self.nodes.get(id).map_or(0, |node| node.charge_bytes))
    }

    /// Moves the home of a shared zone up until it contains `vm`; returns what undoes it if it did not yet.
    pub(super) fn widen(&mut self, zone: Id, vm: Id) -> Option<Undo> {
        let home = self.nodes.parent(zone).filter(|home| !self.nodes.is_within(vm, *home))?;
        let wider = self.nodes.common_ancestor(home, vm)?;
        Some(self.reparent(zone, wider, None))
    }

    /// Moves a node and its charge; returns what undoes it.
    fn reparent(&mut self, id: Id, parent: Id, next: Option<Id>) -> Undo {
        let undo = (id, self.nodes.parent(id), self.nodes.next_sibling(id));
        let charge = self.nodes.get(id).map_or(0, |node| node.charge_bytes);
        if let Some(old) = undo.1 {
            self.push(old, signed(charge, 0));
        }
        self.nodes.reparent(id, parent, next);
        self.push(parent, signed(0, charge));
        undo
    }

    /// Adds to the charge of `id` and of all above it. None of them leaves its range: a part is never more than the
    /// whole, and the whole was checked.
    fn push(&mut self, id: Id, delta: i64) {
        let mut next = Some(id).filter(|_| delta != 0);
        while let Some(id) = next {
            if let Some(node) = self.nodes.get_mut(id) {
                node.charge_bytes = node.charge_bytes.saturating_add_signed(delta);
            }
            next = self.nodes.parent(id);
        }
    }
}

/// `new - old`, both of which are at most [`MAX_BYTES`].
fn signed(old: u64, new: u64) -> i64 {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    signed(new).saturating_sub(signed(old))
}

//! Which VM maps which shared zone.

use super::charging::Sharer;
use super::node::{Node, Role};
use super::tree::wrong_kind;
use super::{Error, Id, Kind, Limits, Settled, Touch, Tree};
use std::collections::BTreeMap;

const LONGEST_SHARED_NAME: usize = 255;

impl Tree {
    /// Takes note that `vm` maps the shared zone `name`, which begins with its first VM, shared within `scope`: the
    /// pool, a group or the VM itself. The caller makes the name tell scopes apart that share no pages. A zone that
    /// exists keeps its scope; an orphan that is mapped again is none.
    ///
    /// # Errors
    /// There is no such VM or scope, the VM is not within it, or the name is none. Nothing has changed then.
    pub fn map(&mut self, vm: Id, scope: Id, name: &str) -> Result<Id, Error> {
        let vm_name = self.living_vm(vm)?.name.clone();
        let known = self.shared(name);
        let home = known.and_then(|zone| self.nodes.parent(zone)).unwrap_or(scope);
        let scope = self.nodes.get(home).ok_or(Error::Gone)?;
        if matches!(scope.role, Role::Zone | Role::Shared { .. }) {
            return Err(wrong_kind(scope));
        }
        if !self.nodes.is_within(vm, home) {
            return Err(Error::OutOfScope { vm: vm_name, scope: scope.name.clone(), zone: name.into() });
        }
        if name.is_empty() || name.len() > LONGEST_SHARED_NAME || name.contains(char::is_control) {
            return Err(Error::Name { kind: Kind::Shared, name: name.into() });
        }
        let zone = known.unwrap_or_else(|| {
            let role = Role::Shared { sharers: Vec::new() };
            let zone = self.nodes.insert(Node::new(role, name, Limits::default()), Some(home));
            self.shared.insert(name.into(), zone);
            zone
        });
        if let Some(Role::Vm { maps }) = self.nodes.get_mut(vm).map(|node| &mut node.role) {
            if maps.contains(&zone) {
                return Ok(zone);
            }
            maps.push(zone);
        }
        if let Some(node) = self.nodes.get_mut(zone) {
            node.orphan = false;
            if let Role::Shared { sharers } = &mut node.role {
                sharers.push(Sharer { vm, touch: Touch::default() });
            }
        }
        Ok(zone)
    }

    /// As [`Self::map`] for a VM that maps the zone already, as the host shows: whom the zone's home does not contain, it is
    /// widened for, for good. See the module.
    ///
    /// # Errors
    /// There is no such VM or scope, or the name is none. Nothing has changed then.
    pub fn adopt_map(&mut self, vm: Id, scope: Id, name: &str) -> Result<Id, Error> {
        self.living_vm(vm)?;
        // It contains the VM, and so it stays, whatever goes with the zone's move.
        let scope = self.nodes.common_ancestor(scope, vm).ok_or(Error::Gone)?;
        if let Some(zone) = self.shared(name) {
            let left = self.nodes.parent(zone);
            self.widen(zone, vm);
            if let Some(left) = left {
                self.prune(left);
            }
        }
        self.map(vm, scope, name)
    }

    /// Takes note that `vm` does not map `zone` any longer. A zone that nobody maps is an orphan: what the host still
    /// caches of it stays charged where it was, until it is settled to nothing.
    ///
    /// # Errors
    /// One of them is gone or of another kind.
    pub fn unmap(&mut self, vm: Id, zone: Id) -> Result<(), Error> {
        let node = self.nodes.get(vm).ok_or(Error::Gone)?;
        if !matches!(node.role, Role::Vm { .. }) {
            return Err(wrong_kind(node));
        }
        let node = self.nodes.get_mut(zone).ok_or(Error::Gone)?;
        let Role::Shared { sharers } = &mut node.role else { return Err(wrong_kind(node)) };
        sharers.retain(|sharer| sharer.vm != vm);
        if sharers.is_empty() {
            node.orphan = true;
            node.limits = Limits::default();
        }
        if let Some(Role::Vm { maps }) = self.nodes.get_mut(vm).map(|node| &mut node.role) {
            maps.retain(|mapped| *mapped != zone);
        }
        self.prune(zone);
        Ok(())
    }

    /// Settles a shared zone: `bytes` of its file are resident, and `touches` say how its VMs use them. VMs that
    /// are not named use nothing; who is named and does not map it is passed over.
    ///
    /// # Errors
    /// The zone is gone or not shared, or the pool would hold more than can be counted.
    pub fn settle_shared(
        &mut self,
        zone: Id,
        sequence: u64,
        bytes: u64,
        touches: &[(Id, Touch)],
    ) -> Result<Settled, Error> {
        let node = self.nodes.get(zone).ok_or(Error::Gone)?;
        if !matches!(node.role, Role::Shared { .. }) {
            return Err(wrong_kind(node));
        }
        let settled = self.settle(zone, sequence, bytes)?;
        if settled == Settled::Stale {
            return Ok(settled);
        }
        if let Some(Role::Shared { sharers }) = self.nodes.get_mut(zone).map(|node| &mut node.role) {
            let touches: BTreeMap<_, _> = touches.iter().copied().collect();
            for sharer in sharers {
                sharer.touch = touches.get(&sharer.vm).copied().unwrap_or_default();
            }
        }
        Ok(settled)
    }
}

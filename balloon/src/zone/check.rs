//! The tree recounts itself.

use super::preorder::Preorder;
use super::{Id, Tree};

/// A tree that contradicts itself. None of its operations leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Imbalance {
    /// A charge that is not the sum of its parts.
    #[error("charges do not add up: a node is charged {charge_bytes} bytes, and its parts are {parts_bytes}")]
    Charge {
        /// The node.
        id: Id,
        /// Its charge.
        charge_bytes: u64,
        /// Its own bytes and its children's charges.
        parts_bytes: u64,
    },
    /// A shared zone and a VM that do not agree on whether the VM maps it, or a VM outside the zone's scope.
    #[error("a shared zone lies where one of its VMs is not, or the two do not know of each other")]
    Sharing {
        /// The shared zone.
        zone: Id,
        /// The VM.
        vm: Id,
    },
}

impl Tree {
    /// Recounts every charge, and looks whether every shared zone contains the VMs that map it.
    ///
    /// # Errors
    /// Something does not add up.
    pub fn check(&self) -> Result<(), Imbalance> {
        let mut order = Preorder::default();
        order.walk(self, self.root, |_, _| {});
        for (_, id) in order.upward() {
            let Some(node) = self.get(id) else { continue };
            let charges = self.children(id).filter_map(|child| Some(self.get(child)?.charge_bytes()));
            let parts_bytes = charges.fold(node.own_bytes(), u64::saturating_add);
            let charge_bytes = node.charge_bytes();
            if parts_bytes != charge_bytes {
                return Err(Imbalance::Charge { id, charge_bytes, parts_bytes });
            }
            for vm in node.sharers().iter().map(|sharer| sharer.vm) {
                let known = self.get(vm).is_some_and(|node| node.maps().contains(&id));
                if !known || !self.parent(id).is_some_and(|home| self.nodes.is_within(vm, home)) {
                    return Err(Imbalance::Sharing { zone: id, vm });
                }
            }
            for &zone in node.maps() {
                let known = self.get(zone).is_some_and(|zone| zone.sharers().iter().any(|it| it.vm == id));
                if !known {
                    return Err(Imbalance::Sharing { zone, vm: id });
                }
            }
        }
        Ok(())
    }
}

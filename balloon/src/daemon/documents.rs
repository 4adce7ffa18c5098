//! What the daemon tells of its fleet. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::arbitration::CALM_PERMILLE;
use super::fleet::Fleet;
use crate::control::fleet::{ChargingDocument, HostDocument, NodeDocument, TreeDocument};
use crate::size::Size;
use crate::zone::Kind;

impl Fleet {
    /// The host as a whole.
    #[must_use]
    pub fn host(&self) -> HostDocument {
        let (pool, claims) = (self.tree.pool(), self.tree.claims());
        let (host, verdict) = (&self.arbitration.host, &self.arbitration.verdict);
        HostDocument {
            pid: std::process::id(),
            capacity_bytes: pool.capacity_bytes,
            overcommit: pool.overcommit,
            main_bytes: self.tree.main_bytes(),
            protected_bytes: claims.protected_bytes,
            committed_bytes: claims.committed_bytes,
            vms: self.vms.values().filter(|member| member.linked).count(),
            orphans: self.orphans.len(),
            available_bytes: host.available_bytes,
            lambda_permille: verdict.lambda_permille.max(CALM_PERMILLE),
            deficit_bytes: verdict.deficit_bytes,
            refuses: verdict.refuse,
        }
    }

    /// The zone tree, from the pool downwards, each node before those in it.
    #[must_use]
    pub fn document(&mut self) -> TreeDocument {
        self.protect();
        self.footprints.compute(&self.tree, None);
        let mut nodes = Vec::new();
        let mut next = vec![(self.tree.root(), 0)];
        while let Some((id, depth)) = next.pop() {
            let Some(node) = self.tree.get(id) else { continue };
            let effective = self.protection.get(id).unwrap_or_default();
            nodes.push(NodeDocument {
                name: self.layers.label(id).unwrap_or(node.name()).into(),
                kind: node.kind(),
                depth,
                orphan: node.is_orphan(),
                limits: *node.limits(),
                charge_bytes: node.charge_bytes(),
                footprint_bytes: self.footprints.get(id).unwrap_or(0),
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

    /// What is shared, and who pays for it.
    #[must_use]
    pub fn charging(&self) -> ChargingDocument {
        ChargingDocument { zones: self.layers.documents(&self.tree) }
    }
}

/// The host in a line.
pub(super) fn status(document: &HostDocument) -> String {
    let HostDocument { capacity_bytes, main_bytes, vms, lambda_permille, refuses, .. } = document;
    let held = i64::try_from(*capacity_bytes).unwrap_or(i64::MAX).saturating_sub(*main_bytes);
    format!(
        "{vms} {} {} of {}{}",
        if *vms == 1 { "microVM holds" } else { "microVMs hold" },
        Size::from_bytes(u64::try_from(held).unwrap_or(0)),
        Size::from_bytes(*capacity_bytes),
        match (*refuses, *lambda_permille > CALM_PERMILLE) {
            (true, _) => "; memory is short, and none is started",
            (false, true) => "; memory is short",
            (false, false) => "",
        }
    )
}

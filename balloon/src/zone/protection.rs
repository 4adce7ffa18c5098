//! How much of each node's charge is protected from reclaim in a subtree: Linux' formula, in bytes.
//!
//! `effective_protection()` and `page_counter_calculate_protection()` in `mm/page_counter.c` are followed to the
//! letter; the rules are explained in `Documentation/admin-guide/cgroup-v2.rst`. Of a node with charge *c* and
//! setting *s*, whose parent has charge *C* and effective protection *E*, and whose siblings and itself protect
//! *P* = sum of min(*c*, *s*):
//!
//! ```text
//! directly below the root of reclaim    e = s
//! P > E                                 e = min(c, s) * E / P
//! otherwise                             e = min(c, s)
//!    and recursively, if P < E, P < C   e += (E - P) * (c - min(c, s)) / (C - P)
//! ```
//!
//! Three things differ from the kernel, none of them in the formula:
//!
//! - It counts bytes where the kernel counts pages, so it rounds less: by less than one page for each level. Where
//!   all numbers are of pages, the results are the kernel's. A product that exceeds 64 bits is right here; the kernel's
//!   wraps.
//! - A node that holds nothing is protected by nothing. The kernel leaves there what it had computed before, and
//!   never reads it.
//! - Where `min` or `low` is not set, what is set below counts. The kernel knows no unset limit: a VM's `min` is
//!   worth nothing in a group that has none.
//!
//! Neither weight nor `high` nor `max` enters.

use super::node::Node;
use super::preorder::Preorder;
use super::{Id, Tree};

/// What is protected of one node's charge, in bytes. Directly below the root of reclaim it may exceed the charge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    /// From all reclaim.
    pub min: u64,
    /// From reclaim as long as something unprotected is left.
    pub low: u64,
}

/// One of the two protections of one node.
#[derive(Clone, Copy, Debug)]
struct Level {
    /// Setting of the node, if it has one.
    set: Option<u64>,
    /// Sum of what its children claim.
    claimed: u64,
    /// Sum of what its children claim and use.
    protected: u64,
    effective: u64,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    charge: u64,
    min: Level,
    low: Level,
}

/// The effective protection of all nodes in a subtree, kept to be computed again without allocation.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    order: Preorder,
    rows: Vec<Row>,
}

impl Protection {
    /// Computes what reclaim in `root` (the pool, or a group or VM above its own limit) must leave each node in it.
    /// `root` itself is not protected from its own reclaim. `recursive` is the kernel's `memory_recursiveprot`: what
    /// a node is left and does not itself claim protects all it holds, in proportion.
    ///
    /// Takes two passes, a constant time a node.
    pub fn compute(&mut self, tree: &Tree, root: Id, recursive: bool) {
        self.compute_showing(tree, root, recursive, |_, _| {});
    }

    /// As [`Self::compute`], and shows each node in its turn: the nodes of a large tree lie far apart, so that to walk it is
    /// the dearest part of it.
    pub(crate) fn compute_showing(
        &mut self,
        tree: &Tree,
        root: Id,
        recursive: bool,
        mut show: impl FnMut(Id, &Node),
    ) {
        let Self { order, rows } = self;
        rows.clear();
        order.walk(tree, root, |id, node| {
            show(id, node);
            let charge = node.charge_bytes();
            let level = |set| Level { set, claimed: 0, protected: 0, effective: 0 };
            rows.push(Row { charge, min: level(node.limits().min), low: level(node.limits().low) });
        });
        for (position, _) in order.upward() {
            let Some(row) = rows.get(position).copied() else { continue };
            if let Some(parent) = order.parent(position).and_then(|parent| rows.get_mut(parent)) {
                parent.min.take_in(row.min.setting(), row.charge);
                parent.low.take_in(row.low.setting(), row.charge);
            }
        }
        for position in 1..rows.len() {
            let Some(index) = order.parent(position) else { continue };
            let (Some(parent), Some(row)) = (rows.get(index).copied(), rows.get_mut(position)) else {
                continue;
            };
            if row.charge == 0 {
                continue;
            }
            if index == 0 {
                (row.min.effective, row.low.effective) = (row.min.setting(), row.low.setting());
                continue;
            }
            let of = |level: Level, parent_level: Level| {
                let (charge, parent_charge) = (row.charge, parent.charge);
                effective(charge, level.setting(), parent_charge, parent_level, recursive)
            };
            (row.min.effective, row.low.effective) = (of(row.min, parent.min), of(row.low, parent.low));
        }
    }

    /// The nodes of the last computation in order.
    pub(crate) fn order(&self) -> &Preorder {
        &self.order
    }

    /// What is protected of `id` as of the last computation; nothing if it was not in the subtree, or was its root.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<Effective> {
        let position = self.order.position(id).filter(|position| *position > 0)?;
        let row = self.rows.get(position)?;
        Some(Effective { min: row.min.effective, low: row.low.effective })
    }
}

impl Level {
    fn setting(&self) -> u64 {
        self.set.unwrap_or(self.claimed)
    }

    fn take_in(&mut self, setting: u64, charge: u64) {
        self.claimed = self.claimed.saturating_add(setting);
        self.protected = self.protected.saturating_add(setting.min(charge));
    }
}

/// The formula above.
fn effective(charge: u64, setting: u64, parent_charge: u64, parent: Level, recursive: bool) -> u64 {
    let claimed = charge.min(setting);
    if parent.protected > parent.effective {
        return scale(claimed, parent.effective, parent.protected);
    }
    let unclaimed = parent.effective.saturating_sub(parent.protected);
    let unprotected = parent_charge.saturating_sub(parent.protected);
    if !recursive || unclaimed == 0 || unprotected == 0 {
        return claimed;
    }
    claimed.saturating_add(scale(charge.saturating_sub(claimed), unclaimed, unprotected))
}

/// `bytes * part / whole`, rounded down.
fn scale(bytes: u64, part: u64, whole: u64) -> u64 {
    let scaled = match bytes.checked_mul(part) {
        Some(product) => product.checked_div(whole),
        // Usual with bytes; what fits 64 bits is divided faster.
        None => u128::from(bytes)
            .checked_mul(part.into())
            .and_then(|product| product.checked_div(whole.into()))
            .map(|scaled| u64::try_from(scaled).unwrap_or(u64::MAX)),
    };
    scaled.unwrap_or_default()
}

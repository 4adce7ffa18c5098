//! Who is shown to hold the pages of shared zones: three ways to divide the same bytes.
//!
//! No limit looks at these shares, so a neighbour who changes them pushes nobody over one.

use super::node::{Node, Role};
use super::preorder::Preorder;
use super::tree::wrong_kind;
use super::{Error, Id, Tree};
use serde::{Deserialize, Serialize};

/// How the bytes of a shared zone are divided. In each way the shares are exactly the zone's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Charging {
    /// Every VM that maps the zone holds its share, by [`Touch::proportional_bytes`]; if nothing is known of it, all
    /// hold equal shares. A share is off by less than a byte, and equal states give equal shares.
    #[default]
    Proportional,
    /// Every VM holds what it touched first, the earliest to map the zone first of all. Pages whose first toucher is
    /// gone belong to the nearest common ancestor.
    FirstTouch,
    /// The nearest common ancestor of all VMs that map the zone holds it.
    Common,
}

/// How one VM uses a shared zone, as the host sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    /// Its proportional share by the host's count (Pss of the mapping). Only its relation to the others' counts.
    pub proportional_bytes: u64,
    /// Pages that the host charged it for, because it touched them first.
    pub first_bytes: u64,
}

/// A VM that maps a shared zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharer {
    /// The VM.
    pub vm: Id,
    /// How it uses the zone.
    pub touch: Touch,
}

impl Tree {
    /// How shared zones within `id` are charged: as the lowest group above says.
    #[must_use]
    pub fn charging(&self, id: Id) -> Charging {
        let chosen = self.nodes.path(id).find_map(|id| match self.nodes.get(id)?.role {
            Role::Pool { charging } => Some(charging),
            Role::Group { charging, .. } => charging,
            _ => None,
        });
        chosen.unwrap_or_default()
    }

    /// Chooses how zones that are shared within a group are charged. `None` follows the group above, and on the pool
    /// is the default.
    ///
    /// # Errors
    /// The node is gone, or neither group nor pool.
    pub fn set_charging(&mut self, id: Id, choice: Option<Charging>) -> Result<(), Error> {
        let node = self.nodes.get_mut(id).ok_or(Error::Gone)?;
        match &mut node.role {
            Role::Pool { charging } => *charging = choice.unwrap_or_default(),
            Role::Group { charging, .. } => *charging = choice,
            _ => return Err(wrong_kind(node)),
        }
        Ok(())
    }

    /// Divides the bytes of a shared zone: calls `pay` with each payer and what it holds, in the order in which VMs
    /// mapped the zone, the common ancestor last. Shares of nothing are left out. A zone that nobody maps is held by
    /// what it is shared within.
    pub fn shares(&self, zone: Id, charging: Charging, mut pay: impl FnMut(Id, u64)) {
        let Some(node) = self.nodes.get(zone) else { return };
        let left = match charging {
            Charging::Proportional => pay_proportionally(node, &mut pay),
            Charging::FirstTouch => pay_first_touch(node, &mut pay),
            Charging::Common => node.own_bytes,
        };
        if left == 0 {
            return;
        }
        let vms = node.sharers().iter().map(|sharer| sharer.vm);
        let common = vms.reduce(|one, two| self.nodes.common_ancestor(one, two).unwrap_or(self.root));
        if let Some(payer) = common.or(self.nodes.parent(zone)) {
            pay(payer, left);
        }
    }
}

/// Returns what nobody holds. Each share is the difference of two rounded sums, so that all of them add up.
fn pay_proportionally(zone: &Node, pay: &mut impl FnMut(Id, u64)) -> u64 {
    let known = zone.sharers().iter().any(|sharer| sharer.touch.proportional_bytes > 0);
    let weight = |touch: Touch| {
        // Nobody's share is more than the zone, unless the readings are of different times.
        u128::from(if known { touch.proportional_bytes.min(zone.own_bytes) } else { 1 })
    };
    let whole = zone.sharers().iter().fold(0, |sum: u128, sharer| sum.saturating_add(weight(sharer.touch)));
    let (mut weights, mut paid) = (0u128, 0u64);
    for sharer in zone.sharers() {
        weights = weights.saturating_add(weight(sharer.touch));
        let until = scale(zone.own_bytes, weights, whole);
        if until > paid {
            pay(sharer.vm, until.saturating_sub(paid));
        }
        paid = until;
    }
    zone.own_bytes.saturating_sub(paid)
}

fn pay_first_touch(zone: &Node, pay: &mut impl FnMut(Id, u64)) -> u64 {
    let mut left = zone.own_bytes;
    for sharer in zone.sharers() {
        let share = sharer.touch.first_bytes.min(left);
        if share > 0 {
            pay(sharer.vm, share);
        }
        left = left.saturating_sub(share);
    }
    left
}

/// `bytes * part / whole`, rounded down, for a part of the whole. A product has more than 128 bits only if thousands of
/// VMs map a zone of 2^57 bytes; the first then hold it all, and nothing is lost.
fn scale(bytes: u64, part: u128, whole: u128) -> u64 {
    let scaled = u128::from(bytes).checked_mul(part).and_then(|product| product.checked_div(whole));
    scaled.and_then(|scaled| u64::try_from(scaled).ok()).unwrap_or(bytes).min(bytes)
}

/// The footprints of all nodes, kept to be computed again without allocation.
#[derive(Clone, Debug, Default)]
pub struct Footprints {
    order: Preorder,
    bytes: Vec<u64>,
    /// Where shared zones stand.
    shared: Vec<(usize, Id)>,
}

impl Footprints {
    /// Computes the footprint of every node: what it holds itself and its share of what it shares. All zones are
    /// divided in the one way given, or each as its group says.
    pub fn compute(&mut self, tree: &Tree, charging: Option<Charging>) {
        let Self { order, bytes, shared } = self;
        bytes.clear();
        shared.clear();
        order.walk(tree, tree.root, |id, node| {
            if matches!(node.role, Role::Shared { .. }) {
                shared.push((bytes.len(), id));
            }
            bytes.push(node.own_bytes);
        });
        // Each is taken out of the sum and given to its payers.
        for (position, zone) in shared.iter() {
            bytes.get_mut(*position).into_iter().for_each(|bytes| *bytes = 0);
            let charging = charging.unwrap_or_else(|| tree.charging(*zone));
            tree.shares(*zone, charging, |payer, share| {
                if let Some(bytes) = order.position(payer).and_then(|position| bytes.get_mut(position)) {
                    *bytes = bytes.saturating_add(share);
                }
            });
        }
        for (position, _) in order.upward() {
            let Some(within) = bytes.get(position).copied() else { continue };
            if let Some(sum) = order.parent(position).and_then(|parent| bytes.get_mut(parent)) {
                *sum = sum.saturating_add(within);
            }
        }
    }

    /// The footprint of a node as of the last computation, in bytes; nothing if the node has come since. That of a
    /// shared zone is zero: others hold its bytes.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<u64> {
        self.bytes.get(self.order.position(id)?).copied()
    }
}

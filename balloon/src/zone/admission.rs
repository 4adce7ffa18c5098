//! What the pool admits: limits are checked whole, then taken whole or not at all.

use super::node::Role;
use super::preorder::Preorder;
use super::tree::wrong_kind;
use super::{Charging, Error, Id, Limits, MAX_BYTES, Tree};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The memory that Ballast may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// How much of it there is, in bytes.
    pub capacity_bytes: u64,
    /// Whether the sum of maximums may exceed it.
    pub overcommit: bool,
}

impl Pool {
    pub(super) fn check(self) -> Result<(), Error> {
        let bytes = self.capacity_bytes;
        if bytes > MAX_BYTES { Err(Error::TooLarge { bytes }) } else { Ok(()) }
    }
}

/// What a tree has promised. Sums stop at the largest number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Sum of the protected minimums as they count at the pool: of a node with a `min` its own, of one without
    /// those in it, of neither more than its `max`.
    pub protected_bytes: u64,
    /// What minimums within groups come to beyond the groups' `max`: nobody can keep that promise.
    pub crowded_bytes: u64,
    /// A group of those, and its part.
    pub crowded: Option<(Id, u64)>,
    /// Sum of the maximums as they count at the pool: of a group no more than its own `max`, of an orphan what it
    /// still holds. VMs without any are left out.
    pub committed_bytes: u64,
    /// A VM without `max`, neither of its own nor of a group above it.
    pub unbounded: Option<Id>,
}

impl Tree {
    /// The pool as it was set.
    #[must_use]
    pub fn pool(&self) -> Pool {
        self.pool
    }

    /// Sets capacity and overcommit.
    ///
    /// # Errors
    /// What has been promised does not fit. Nothing has changed then.
    pub fn set_pool(&mut self, pool: Pool) -> Result<(), Error> {
        pool.check()?;
        let old = std::mem::replace(&mut self.pool, pool);
        self.admit(Claims::default()).inspect_err(|_| self.pool = old)
    }

    /// Makes the pool and its groups what a configuration says, all or nothing. Groups that it does not name stay
    /// without limits while something is in them.
    ///
    /// # Errors
    /// A path is none, limits contradict each other, or what would be promised does not fit: anything, if the pool
    /// changes, else more than before. Nothing has changed then.
    pub fn configure(
        &mut self,
        pool: Pool,
        groups: &[(&str, Limits, Option<Charging>)],
    ) -> Result<(), Error> {
        pool.check()?;
        let before = if pool == self.pool { self.claims() } else { Claims::default() };
        let mut next = self.clone();
        next.pool = pool;
        let mut named = BTreeSet::new();
        for (path, limits, chosen) in groups {
            limits.check(path)?;
            let id = next.find_or_create_group(path)?;
            let Some(node) = next.nodes.get_mut(id) else { continue };
            let Role::Group { configured, charging } = &mut node.role else { return Err(wrong_kind(node)) };
            (*configured, *charging, node.limits) = (true, *chosen, *limits);
            named.insert(id);
        }
        for id in next.groups.values().copied().collect::<Vec<_>>() {
            let Some(node) = next.nodes.get_mut(id).filter(|_| !named.contains(&id)) else { continue };
            let Role::Group { configured, charging } = &mut node.role else { continue };
            (*configured, *charging, node.limits) = (false, None, Limits::default());
            next.prune(id);
        }
        next.admit(before)?;
        *self = next;
        Ok(())
    }

    /// What has been promised.
    #[must_use]
    pub fn claims(&self) -> Claims {
        let mut order = Preorder::default();
        order.walk(self, self.root, |_, _| {});
        let mut sums = vec![Claims::default(); order.len()];
        for (position, id) in order.upward() {
            let Some(node) = self.nodes.get(id) else { continue };
            let within = sums.get_mut(position).map(std::mem::take).unwrap_or_default();
            let max = node.limits.max.filter(|_| matches!(node.role, Role::Group { .. })).unwrap_or(u64::MAX);
            let excess = within.protected_bytes.saturating_sub(max);
            let claims = Claims {
                protected_bytes: node.limits.min.unwrap_or(within.protected_bytes).min(max),
                crowded_bytes: within.crowded_bytes.saturating_add(excess),
                crowded: within.crowded.or((excess > 0).then_some((id, excess))),
                ..match (&node.role, node.limits.max) {
                    (Role::Vm { .. }, _) if node.orphan => Claims::of(node.charge_bytes),
                    (Role::Vm { .. }, Some(max)) => Claims::of(max),
                    (Role::Vm { .. }, None) => Claims { unbounded: Some(id), ..Claims::default() },
                    (Role::Group { .. }, Some(max)) if within.unbounded.is_some() => Claims::of(max),
                    (Role::Group { .. }, Some(max)) => Claims::of(within.committed_bytes.min(max)),
                    (Role::Group { .. } | Role::Pool { .. }, _) => within,
                    (Role::Zone | Role::Shared { .. }, _) => Claims::default(),
                }
            };
            let Some(sum) = order.parent(position).and_then(|parent| sums.get_mut(parent)) else {
                return claims;
            };
            sum.protected_bytes = sum.protected_bytes.saturating_add(claims.protected_bytes);
            sum.crowded_bytes = sum.crowded_bytes.saturating_add(claims.crowded_bytes);
            sum.crowded = claims.crowded.or(sum.crowded);
            sum.committed_bytes = sum.committed_bytes.saturating_add(claims.committed_bytes);
            sum.unbounded = claims.unbounded.or(sum.unbounded);
        }
        Claims::default()
    }

    /// Sets the limits of several nodes, all or none. Of a node that is named twice the last holds.
    ///
    /// # Errors
    /// One of the nodes is gone, an orphan or the pool, limits contradict each other, or the pool does not admit them.
    /// Nothing has changed then.
    pub fn change(&mut self, changes: &[(Id, Limits)]) -> Result<(), Error> {
        for (id, limits) in changes {
            let node = self.nodes.get(*id).ok_or(Error::Gone)?;
            if *id == self.root {
                return Err(wrong_kind(node));
            }
            if node.orphan {
                return Err(Error::Orphan { name: node.name.clone() });
            }
            limits.check(&node.name)?;
        }
        let before = self.claims();
        let old: Vec<_> = changes.iter().map(|(id, limits)| (*id, self.replace(*id, *limits))).collect();
        self.admit(before).inspect_err(|_| {
            for (id, limits) in old.into_iter().rev() {
                self.replace(id, limits);
            }
        })
    }

    /// Takes note of limits that hold already, whatever the pool has promised.
    ///
    /// # Errors
    /// The node is gone or an orphan, or the limits contradict each other. Nothing has changed then.
    pub fn adopt_limits(&mut self, id: Id, limits: Limits) -> Result<(), Error> {
        let node = self.nodes.get(id).ok_or(Error::Gone)?;
        if node.orphan {
            return Err(Error::Orphan { name: node.name.clone() });
        }
        limits.check(&node.name)?;
        self.replace(id, limits);
        Ok(())
    }

    /// The lowest `max` of the node and all above it, and the pool's capacity: what it could ever hold.
    #[must_use]
    pub fn binding_max(&self, id: Id) -> u64 {
        let limits = self.nodes.path(id).filter_map(|id| self.nodes.get(id)?.limits.max);
        limits.fold(self.pool.capacity_bytes, u64::min)
    }

    fn replace(&mut self, id: Id, limits: Limits) -> Limits {
        self.nodes.get_mut(id).map(|node| std::mem::replace(&mut node.limits, limits)).unwrap_or_default()
    }

    /// Whether the pool has what the tree promises now. What promises no more than `before` is always admitted:
    /// the memory of orphans comes and goes unasked, and nobody else is to blame.
    pub(super) fn admit(&self, before: Claims) -> Result<(), Error> {
        let after = self.claims();
        let capacity_bytes = self.pool.capacity_bytes;
        if after.protected_bytes > capacity_bytes.max(before.protected_bytes) {
            let (bytes, before_bytes) = (after.protected_bytes, before.protected_bytes);
            let most = self.highest_min();
            return Err(Error::Protected { bytes, before_bytes, capacity_bytes, most });
        }
        let crowded = after.crowded.filter(|_| after.crowded_bytes > before.crowded_bytes);
        if let Some((node, excess)) = crowded.and_then(|(id, excess)| Some((self.nodes.get(id)?, excess))) {
            let (group, max_bytes) = (node.name.clone(), node.limits.max.unwrap_or_default());
            return Err(Error::Crowded { group, bytes: max_bytes.saturating_add(excess), max_bytes });
        }
        let before_bytes = before.committed_bytes;
        if self.pool.overcommit {
            return Ok(());
        }
        if let Some(node) = after.unbounded.and_then(|id| self.nodes.get(id)) {
            return Err(Error::Unbounded { name: node.name.clone(), before_bytes, capacity_bytes });
        }
        if after.committed_bytes > capacity_bytes.max(before_bytes) {
            return Err(Error::Committed { bytes: after.committed_bytes, before_bytes, capacity_bytes });
        }
        Ok(())
    }

    fn highest_min(&self) -> Option<(String, u64)> {
        let mins = self.vms().filter_map(|(name, id)| Some((self.nodes.get(id)?.limits.min?, name)));
        mins.filter(|(bytes, _)| *bytes > 0).max().map(|(bytes, name)| (name.to_owned(), bytes))
    }
}

impl Claims {
    fn of(committed_bytes: u64) -> Self {
        Self { committed_bytes, ..Self::default() }
    }
}

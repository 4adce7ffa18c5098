//! A tree without sums, links or ids: every number is counted anew from the leaves.

use crate::zone::{BOOT_ZONE, Kind, Limits, MAX_BYTES, Pool};
use std::collections::BTreeMap;

/// Nodes by a number that is never used again.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) nodes: BTreeMap<usize, Part>,
    pub(super) pool: Pool,
    next: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    /// The pool is its own.
    pub(super) parent: usize,
    pub(super) name: String,
    pub(super) limits: Limits,
    pub(super) own: u64,
    pub(super) sequence: Option<u64>,
    pub(super) orphan: bool,
    pub(super) configured: bool,
    /// Whether it is found by its name.
    pub(super) named: bool,
    pub(super) sharers: Vec<usize>,
}

/// A request that is refused.
#[derive(Debug)]
pub(super) struct Refused;

fn when(good: bool) -> Result<(), Refused> {
    if good { Ok(()) } else { Err(Refused) }
}

impl Model {
    pub(super) fn new(pool: Pool) -> Self {
        let mut model = Self { nodes: BTreeMap::new(), pool, next: 0 };
        model.add(Kind::Pool, 0, "", Limits::default());
        model.part(0).configured = true;
        model
    }

    fn add(&mut self, kind: Kind, parent: usize, name: &str, limits: Limits) -> usize {
        let (name, own, sharers) = (name.into(), 0, Vec::new());
        let (orphan, configured, sequence, named) = (false, false, None, true);
        let part = Part { kind, parent, name, limits, own, sequence, orphan, configured, named, sharers };
        self.nodes.insert(self.next, part);
        self.next += 1;
        self.next - 1
    }

    fn part(&mut self, key: usize) -> &mut Part {
        self.nodes.get_mut(&key).unwrap()
    }

    fn is(&self, key: usize, kind: Kind) -> Result<(), Refused> {
        when(self.nodes.get(&key).is_some_and(|part| part.kind == kind))
    }

    fn lives(&self, key: usize) -> Result<(), Refused> {
        when(self.nodes.get(&key).is_some_and(|part| !part.orphan))
    }

    pub(super) fn find(&self, kind: Kind, name: &str) -> Option<usize> {
        let mut found =
            self.nodes.iter().filter(|(_, part)| part.named && part.kind == kind && part.name == name);
        found.next().map(|(key, _)| *key)
    }

    pub(super) fn children(&self, of: usize) -> Vec<usize> {
        self.nodes
            .iter()
            .filter(|(key, part)| **key != of && part.parent == of)
            .map(|(key, _)| *key)
            .collect()
    }

    pub(super) fn charge(&self, of: usize) -> u64 {
        self.nodes[&of].own + self.children(of).into_iter().map(|child| self.charge(child)).sum::<u64>()
    }

    pub(super) fn is_within(&self, key: usize, node: usize) -> bool {
        let above = self.nodes.get(&key).map(|part| part.parent).filter(|above| *above != key);
        self.nodes.contains_key(&key)
            && (key == node || above.is_some_and(|above| self.is_within(above, node)))
    }

    fn protected(&self, of: usize) -> u64 {
        let within = || self.children(of).into_iter().map(|child| self.protected(child)).sum();
        let sum = self.nodes[&of].limits.min.unwrap_or_else(within);
        self.group_max(of).map_or(sum, |max| sum.min(max))
    }

    fn group_max(&self, of: usize) -> Option<u64> {
        self.nodes[&of].limits.max.filter(|_| self.nodes[&of].kind == Kind::Group)
    }

    /// What groups promise beyond what they may hold.
    fn crowded(&self) -> u64 {
        let within = |of| self.children(of).into_iter().map(|child| self.protected(child)).sum::<u64>();
        self.nodes.keys().filter_map(|of| Some(within(*of).saturating_sub(self.group_max(*of)?))).sum()
    }

    fn promised(&self) -> (u64, Option<u64>, u64) {
        (self.protected(0), self.committed(0), self.crowded())
    }

    /// Without a bound it is none.
    fn committed(&self, of: usize) -> Option<u64> {
        let part = &self.nodes[&of];
        let within = || self.children(of).into_iter().map(|child| self.committed(child)).sum::<Option<u64>>();
        match part.kind {
            Kind::Zone | Kind::Shared => Some(0),
            Kind::Vm if part.orphan => Some(self.charge(of)),
            Kind::Vm => part.limits.max,
            Kind::Group | Kind::Pool => match (within(), part.limits.max) {
                (Some(within), Some(max)) => Some(within.min(max)),
                (within, max) => within.or(max),
            },
        }
    }

    /// Whether the pool can keep what is promised, or no more is promised than `before`.
    fn admits(&self, before: (u64, Option<u64>, u64)) -> Result<(), Refused> {
        let capacity = self.pool.capacity_bytes;
        when(self.protected(0) <= capacity.max(before.0))?;
        when(self.crowded() <= before.2)?;
        when(
            self.pool.overcommit
                || self.committed(0).is_some_and(|sum| sum <= capacity.max(before.1.unwrap_or(0))),
        )
    }

    /// Changes a copy, and takes it if it may be.
    fn attempt<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T, Refused>) -> Result<T, Refused> {
        let before = self.promised();
        let mut changed = self.clone();
        let value = change(&mut changed)?;
        changed.admits(before)?;
        changed.sweep();
        *self = changed;
        Ok(value)
    }

    /// Removes what nothing keeps.
    fn sweep(&mut self) {
        let done = |model: &Self, key: usize| {
            let part = &model.nodes[&key];
            let passing = part.kind == Kind::Group && !part.configured;
            model.children(key).is_empty() && (passing || (part.orphan && part.own == 0))
        };
        while let Some(key) = self.nodes.keys().copied().find(|key| done(self, *key)) {
            self.nodes.remove(&key);
        }
    }

    fn group(&mut self, path: &str) -> usize {
        let Some((above, _)) = path.rsplit_once('/').or((!path.is_empty()).then_some(("", path))) else {
            return 0;
        };
        let parent = self.group(above);
        let found = self.find(Kind::Group, path);
        found.unwrap_or_else(|| self.add(Kind::Group, parent, path, Limits::default()))
    }

    pub(super) fn create_group(&mut self, path: &str, limits: Limits) -> Result<(), Refused> {
        self.attempt(|model| {
            let group = model.group(path);
            when(!model.nodes[&group].configured && limits.check("").is_ok())?;
            let part = model.part(group);
            (part.configured, part.limits) = (true, limits);
            Ok(())
        })
    }

    pub(super) fn remove_group(&mut self, key: usize) -> Result<(), Refused> {
        self.is(key, Kind::Group)?;
        when(self.children(key).is_empty())?;
        self.part(key).configured = false;
        self.sweep();
        Ok(())
    }

    pub(super) fn create_vm(&mut self, path: &str, name: &str, limits: Limits) -> Result<(), Refused> {
        when(self.find(Kind::Vm, name).is_none() && limits.check("").is_ok())?;
        self.attempt(|model| {
            let group = model.group(path);
            let vm = model.add(Kind::Vm, group, name, limits);
            model.add(Kind::Zone, vm, BOOT_ZONE, Limits::default());
            Ok(())
        })
    }

    pub(super) fn create_zone(&mut self, vm: usize, name: &str, limits: Limits) -> Result<(), Refused> {
        self.is(vm, Kind::Vm)?;
        self.lives(vm)?;
        when(limits.check("").is_ok())?;
        let is_taken = |part: &Part| part.kind == Kind::Zone && !part.orphan && part.name == name;
        when(!self.children(vm).iter().any(|key| is_taken(&self.nodes[key])))?;
        self.attempt(|model| {
            model.add(Kind::Zone, vm, name, limits);
            Ok(())
        })
    }

    /// Whether it is news.
    pub(super) fn settle(&mut self, key: usize, sequence: u64, bytes: u64) -> Result<bool, Refused> {
        when(self.nodes.contains_key(&key))?;
        let part = self.part(key);
        when(!matches!(part.kind, Kind::Pool | Kind::Group))?;
        if part.sequence.is_some_and(|last| last >= sequence) {
            return Ok(false);
        }
        let own = part.own;
        when(u128::from(self.charge(0)) - u128::from(own) + u128::from(bytes) <= u128::from(MAX_BYTES))?;
        let part = self.part(key);
        (part.own, part.sequence) = (bytes, Some(sequence));
        self.sweep();
        Ok(true)
    }

    pub(super) fn move_vm(&mut self, vm: usize, path: &str) -> Result<(), Refused> {
        self.is(vm, Kind::Vm)?;
        self.lives(vm)?;
        self.attempt(|model| {
            let group = model.group(path);
            model.part(vm).parent = group;
            while let Some(zone) = model.nodes.keys().copied().find(|zone| {
                let part = &model.nodes[zone];
                part.sharers.contains(&vm) && !model.is_within(vm, part.parent)
            }) {
                model.part(zone).parent = model.nodes[&model.nodes[&zone].parent].parent;
            }
            Ok(())
        })
    }

    pub(super) fn retire(&mut self, key: usize) -> Result<u64, Refused> {
        self.lives(key)?;
        when(matches!(self.nodes[&key].kind, Kind::Vm | Kind::Zone))?;
        let (charge, zones) = (self.charge(key), self.children(key));
        for part in self.nodes.values_mut().filter(|part| part.sharers.contains(&key)) {
            part.leave(key);
        }
        for key in zones.into_iter().chain([key]) {
            let part = self.part(key);
            part.sequence = part.sequence.filter(|_| part.orphan);
            (part.orphan, part.named, part.limits) = (true, false, Limits::default());
        }
        self.sweep();
        Ok(charge)
    }

    pub(super) fn change(&mut self, changes: &[(usize, Limits)]) -> Result<(), Refused> {
        self.attempt(|model| {
            for (key, limits) in changes {
                model.lives(*key)?;
                when(*key != 0 && limits.check("").is_ok())?;
                model.part(*key).limits = *limits;
            }
            Ok(())
        })
    }

    pub(super) fn map(&mut self, vm: usize, scope: usize, name: &str) -> Result<(), Refused> {
        self.is(vm, Kind::Vm)?;
        self.lives(vm)?;
        let known = self.find(Kind::Shared, name);
        let home = known.map_or(scope, |zone| self.nodes[&zone].parent);
        when(self.nodes.get(&home).is_some_and(|part| !matches!(part.kind, Kind::Zone | Kind::Shared)))?;
        when(self.is_within(vm, home))?;
        let zone = known.unwrap_or_else(|| self.add(Kind::Shared, home, name, Limits::default()));
        let part = self.part(zone);
        part.orphan = false;
        if !part.sharers.contains(&vm) {
            part.sharers.push(vm);
        }
        Ok(())
    }

    pub(super) fn unmap(&mut self, vm: usize, zone: usize) -> Result<(), Refused> {
        self.is(vm, Kind::Vm)?;
        self.is(zone, Kind::Shared)?;
        self.part(zone).leave(vm);
        self.sweep();
        Ok(())
    }

    pub(super) fn set_pool(&mut self, pool: Pool) -> Result<(), Refused> {
        let mut changed = self.clone();
        changed.pool = pool;
        changed.admits((0, Some(0), 0))?;
        self.pool = pool;
        Ok(())
    }
}

impl Part {
    fn leave(&mut self, vm: usize) {
        self.sharers.retain(|sharer| *sharer != vm);
        if self.sharers.is_empty() {
            (self.orphan, self.limits) = (true, Limits::default());
        }
    }
}

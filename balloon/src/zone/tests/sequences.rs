//! The tree against the [model](super::model), over random requests that are repeated, late, refused or aimed at
//! nodes that are gone.

use super::cases;
use super::model::Model;
use crate::zone::*;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Request {
    CreateGroup(&'static str, Limits),
    RemoveGroup(Index),
    CreateVm(&'static str, &'static str, Limits),
    CreateZone(Index, &'static str, Limits),
    Settle(Index, u64, u64),
    SettleShared(Index, u64, u64, Vec<(Index, Touch)>),
    Move(Index, &'static str),
    Retire(Index),
    Change(Vec<(Index, Limits)>),
    Map(Index, Index, &'static str),
    Unmap(Index, Index),
    SetPool(Pool),
    SetCharging(Index, Option<Charging>),
}

fn path() -> impl Strategy<Value = &'static str> {
    select(vec!["", "a", "a/x", "a/x/y", "b", "b/x"])
}

fn limits() -> impl Strategy<Value = Limits> {
    let limit = |most| prop::option::weighted(0.6, 0..most);
    (limit(60u64), limit(100), prop::option::weighted(0.9, 30u64..200), 0..40u32).prop_map(
        |(min, low, max, weight)| {
            // Now and then in the wrong order, or with the weight zero.
            Limits { min, low: low.max(min), high: None, max, weight }
        },
    )
}

fn pool() -> impl Strategy<Value = Pool> {
    (0u64..500, any::<bool>()).prop_map(|(capacity_bytes, overcommit)| Pool { capacity_bytes, overcommit })
}

/// Mostly little, so that it is often nothing; now and then all that can be counted.
fn bytes() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0u64..4, 6 => 0u64..200, 1 => MAX_BYTES - 100..=MAX_BYTES, 1 => Just(u64::MAX)]
}

fn touch() -> impl Strategy<Value = Touch> {
    (0u64..90, 0u64..90)
        .prop_map(|(proportional_bytes, first_bytes)| Touch { proportional_bytes, first_bytes })
}

fn request() -> impl Strategy<Value = Request> {
    let node = any::<Index>;
    // In the order in which they are numbered, most of the time.
    let sequence = || prop_oneof![3 => 4u64..6, 1 => 0u64..12];
    let vm = || select(vec!["one", "two", "three"]);
    let charging = select(vec![None, Some(Charging::Common), Some(Charging::FirstTouch)]);
    prop_oneof![
        2 => (path(), limits()).prop_map(|(path, limits)| Request::CreateGroup(path, limits)),
        1 => node().prop_map(Request::RemoveGroup),
        6 => (path(), vm(), limits()).prop_map(|(path, name, limits)| Request::CreateVm(path, name, limits)),
        1 => (node(), select(vec!["cache", "ram"]), limits())
            .prop_map(|(vm, name, limits)| Request::CreateZone(vm, name, limits)),
        8 => (node(), sequence(), bytes()).prop_map(|(node, number, bytes)| Request::Settle(node, number, bytes)),
        4 => (node(), sequence(), bytes(), prop::collection::vec((node(), touch()), 0..3))
            .prop_map(|(zone, number, bytes, touches)| Request::SettleShared(zone, number, bytes, touches)),
        4 => (node(), path()).prop_map(|(vm, path)| Request::Move(vm, path)),
        4 => node().prop_map(Request::Retire),
        3 => prop::collection::vec((node(), limits()), 0..3).prop_map(Request::Change),
        6 => (node(), node(), select(vec!["lib", "usr"])).prop_map(|(vm, scope, name)| Request::Map(vm, scope, name)),
        2 => (node(), node()).prop_map(|(vm, zone)| Request::Unmap(vm, zone)),
        1 => pool().prop_map(Request::SetPool),
        1 => (node(), charging).prop_map(|(node, charging)| Request::SetCharging(node, charging)),
    ]
}

/// Both trees, and the id of every node that ever was by its number in the model.
struct Both {
    tree: Tree,
    model: Model,
    ids: BTreeMap<usize, Id>,
}

impl Both {
    fn new(pool: Pool) -> Self {
        let tree = Tree::new(pool).unwrap();
        let ids = BTreeMap::from([(0, tree.root())]);
        Self { tree, model: Model::new(pool), ids }
    }

    /// Any node that ever was; of a kind that the request is for, if it can be.
    fn pick(&self, index: Index, kinds: &[Kind]) -> (usize, Id) {
        let is_fit = |key: &usize| self.model.nodes.get(key).is_some_and(|part| kinds.contains(&part.kind));
        let mut keys: Vec<_> = self.ids.keys().copied().filter(is_fit).collect();
        // One in eight is any.
        if keys.is_empty() || index.index(8) == 0 {
            keys = self.ids.keys().copied().collect();
        }
        let key = *index.get(&keys);
        (key, self.ids[&key])
    }

    /// Does it in both, and says who must be in every node whose charge it may change; nothing if it may change any.
    fn apply(&mut self, request: Request) -> Result<Option<Vec<usize>>, TestCaseError> {
        const ANY: &[Kind] = &[Kind::Pool, Kind::Group, Kind::Vm, Kind::Zone, Kind::Shared];
        const SETTLED: &[Kind] = &[Kind::Vm, Kind::Zone, Kind::Shared];
        let mut actors = None;
        match request {
            Request::CreateGroup(path, limits) => {
                let results = (self.tree.create_group(path, limits), self.model.create_group(path, limits));
                prop_assert_eq!(results.0.is_ok(), results.1.is_ok(), "{:?}", results);
            }
            Request::RemoveGroup(group) => {
                let (key, id) = self.pick(group, &[Kind::Group]);
                let results = (self.tree.remove_group(id), self.model.remove_group(key));
                prop_assert_eq!(results.0.is_ok(), results.1.is_ok(), "{:?}", results);
            }
            Request::CreateVm(path, name, limits) => {
                let results =
                    (self.tree.create_vm(path, name, limits), self.model.create_vm(path, name, limits));
                prop_assert_eq!(results.0.is_ok(), results.1.is_ok(), "{:?}", results);
            }
            Request::CreateZone(vm, name, limits) => {
                let (key, id) = self.pick(vm, &[Kind::Vm]);
                let results =
                    (self.tree.create_zone(id, name, limits), self.model.create_zone(key, name, limits));
                prop_assert_eq!(results.0.is_ok(), results.1.is_ok(), "{:?}", results);
            }
            Request::Settle(node, sequence, bytes) => {
                let (key, id) = self.pick(node, SETTLED);
                actors = self.sharers(key);
                let results =
                    (self.tree.settle(id, sequence, bytes), self.model.settle(key, sequence, bytes));
                self.compare_settled(key, results)?;
            }
            Request::SettleShared(zone, sequence, bytes, touches) => {
                let (key, id) = self.pick(zone, &[Kind::Shared]);
                let touches: Vec<_> =
                    touches.into_iter().map(|(vm, touch)| (self.pick(vm, &[Kind::Vm]).1, touch)).collect();
                if self.model.nodes.get(&key).is_some_and(|part| part.kind == Kind::Shared) {
                    actors = self.sharers(key);
                    let settled = self.tree.settle_shared(id, sequence, bytes, &touches);
                    let results = (settled, self.model.settle(key, sequence, bytes));
                    self.compare_settled(key, results)?;
                } else {
                    prop_assert!(self.tree.settle_shared(id, sequence, bytes, &touches).is_err());
                }
            }
            Request::Move(vm, path) => {
                let (key, id) = self.pick(vm, &[Kind::Vm]);
                let results = (self.tree.move_vm(id, path), self.model.move_vm(key, path));
                prop_assert_eq!(results.0.is_ok(), results.1.is_ok(), "{:?}", results);
            }
            Request::Retire(node) => {
                let (key, id) = self.pick(node, &[Kind::Vm, Kind::Zone]);
                actors = Some(vec![key]);
                let results = (self.tree.retire(id), self.model.retire(key));
                prop_assert_eq!(results.0.clone().ok(), results.1.ok(), "{:?}", results.0);
            }
            Request::Change(changes) => {
                let picked: Vec<_> =
                    changes.into_iter().map(|(node, limits)| (self.pick(node, ANY), limits)).collect();
                let by_id: Vec<_> = picked.iter().map(|((_, id), limits)| (*id, *limits)).collect();
                let by_key: Vec<_> = picked.iter().map(|((key, _), limits)| (*key, *limits)).collect();
                let results = (self.tree.change(&by_id), self.model.change(&by_key));
                prop_assert_eq!(results.0.is_ok(), results.1.is_ok(), "{:?}", results);
            }
            Request::Map(vm, scope, name) => {
                let (key, id) = self.pick(vm, &[Kind::Vm]);
                let (scope_key, scope_id) = self.pick(scope, &[Kind::Pool, Kind::Group, Kind::Vm]);
                actors = Some(vec![key]);
                let results = (self.tree.map(id, scope_id, name), self.model.map(key, scope_key, name));
                prop_assert_eq!(results.0.is_ok(), results.1.is_ok(), "{:?}", results);
            }
            Request::Unmap(vm, zone) => {
                let ((key, id), (zone_key, zone_id)) =
                    (self.pick(vm, &[Kind::Vm]), self.pick(zone, &[Kind::Shared]));
                actors = Some(vec![key]);
                let results = (self.tree.unmap(id, zone_id), self.model.unmap(key, zone_key));
                prop_assert_eq!(results.0.is_ok(), results.1.is_ok(), "{:?}", results);
            }
            Request::SetPool(pool) => {
                let results = (self.tree.set_pool(pool), self.model.set_pool(pool));
                prop_assert_eq!(results.0.is_ok(), results.1.is_ok(), "{:?}", results);
            }
            Request::SetCharging(node, charging) => {
                actors = Some(Vec::new());
                let _ = self.tree.set_charging(self.pick(node, &[Kind::Group, Kind::Pool]).1, charging);
            }
        }
        Ok(actors)
    }

    /// Who can have made a reading of `key` change: of a shared zone those that map it, of another the node itself.
    /// Of what nobody maps only the host can.
    fn sharers(&self, key: usize) -> Option<Vec<usize>> {
        match self.model.nodes.get(&key) {
            Some(part) if part.kind == Kind::Shared => {
                Some(part.sharers.clone()).filter(|vms| !vms.is_empty())
            }
            _ => Some(vec![key]),
        }
    }

    fn compare_settled(
        &self,
        key: usize,
        (settled, news): (Result<Settled, Error>, Result<bool, super::model::Refused>),
    ) -> Result<(), TestCaseError> {
        let merged = !self.model.nodes.contains_key(&key);
        match (settled, news) {
            (Ok(Settled::Stale), Ok(false)) | (Err(_), Err(_)) => {}
            (Ok(Settled::Charged(_)), Ok(true)) => prop_assert!(!merged),
            (Ok(Settled::Merged(_)), Ok(true)) => prop_assert!(merged),
            (settled, news) => prop_assert!(false, "{:?}, {:?}", settled, news),
        }
        Ok(())
    }

    /// Learns the ids of new nodes.
    fn learn(&mut self) {
        let new: Vec<_> =
            self.model.nodes.keys().copied().filter(|key| !self.ids.contains_key(key)).collect();
        for key in new {
            let part = &self.model.nodes[&key];
            let id = match part.kind {
                Kind::Pool | Kind::Group => self.tree.group(&part.name),
                Kind::Vm => self.tree.vm(&part.name),
                Kind::Zone => self.tree.zone(self.ids[&part.parent], &part.name),
                Kind::Shared => self.tree.shared(&part.name),
            };
            self.ids.insert(key, id.unwrap());
        }
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        for (key, id) in &self.ids {
            let (node, part) = (self.tree.get(*id), self.model.nodes.get(key));
            prop_assert_eq!(node.is_some(), part.is_some(), "{}", key);
            let (Some(node), Some(part)) = (node, part) else { continue };
            prop_assert_eq!(node.charge_bytes(), self.model.charge(*key));
            prop_assert_eq!((node.own_bytes(), node.sequence()), (part.own, part.sequence));
            prop_assert_eq!((node.limits(), node.is_orphan()), (&part.limits, part.orphan));
            prop_assert_eq!(self.tree.parent(*id).unwrap_or(self.tree.root()), self.ids[&part.parent]);
            let sharers: Vec<_> = node.sharers().iter().map(|sharer| sharer.vm).collect();
            prop_assert_eq!(sharers, part.sharers.iter().map(|key| self.ids[key]).collect::<Vec<_>>());
            let found = match part.kind {
                Kind::Vm => self.tree.vm(&part.name),
                Kind::Shared => self.tree.shared(&part.name),
                Kind::Zone => self.tree.zone(self.ids[&part.parent], &part.name),
                Kind::Pool | Kind::Group => self.tree.group(&part.name),
            };
            prop_assert_eq!(found == Some(*id), part.named, "{:?}", part);
        }
        let charge = i128::from(self.model.charge(0));
        prop_assert_eq!(i128::from(self.tree.main_bytes()) + charge, self.tree.pool().capacity_bytes.into());
        prop_assert_eq!(self.tree.pool(), self.model.pool);
        prop_assert_eq!(self.tree.check(), Ok(()));
        Ok(())
    }

    /// Every way of charging gives the bytes of every shared zone to nodes within its home, and none besides.
    fn compare_shares(&self) -> Result<(), TestCaseError> {
        let mut footprints = Footprints::default();
        for charging in
            [None, Some(Charging::Proportional), Some(Charging::FirstTouch), Some(Charging::Common)]
        {
            let mut expected: BTreeMap<Id, u64> = BTreeMap::new();
            let mut pay = |id: Id, bytes: u64| {
                for node in self.tree.nodes.path(id) {
                    *expected.entry(node).or_default() += bytes;
                }
            };
            for (key, part) in &self.model.nodes {
                let id = self.ids[key];
                if part.kind != Kind::Shared {
                    pay(id, part.own);
                    continue;
                }
                let mut shares = Vec::new();
                let charging = charging.unwrap_or(self.tree.charging(id));
                self.tree.shares(id, charging, |payer, bytes| shares.push((payer, bytes)));
                prop_assert_eq!(shares.iter().map(|(_, bytes)| bytes).sum::<u64>(), part.own);
                for (payer, bytes) in shares {
                    prop_assert!(bytes > 0 && self.tree.nodes.is_within(payer, self.ids[&part.parent]));
                    pay(payer, bytes);
                }
                if charging == Charging::Proportional {
                    self.compare_proportions(id)?;
                }
            }
            footprints.compute(&self.tree, charging);
            for id in self.model.nodes.keys().map(|key| self.ids[key]) {
                prop_assert_eq!(footprints.get(id).unwrap(), expected.get(&id).copied().unwrap_or_default());
            }
        }
        Ok(())
    }

    /// No share is off by a byte, and together they are all there is.
    fn compare_proportions(&self, zone: Id) -> Result<(), TestCaseError> {
        let node = self.tree.get(zone).unwrap();
        let own = u128::from(node.own_bytes());
        let weights = node.sharers().iter().map(|sharer| own.min(sharer.touch.proportional_bytes.into()));
        let mut weights: Vec<u128> = weights.collect();
        if weights.iter().all(|weight| *weight == 0) {
            weights.fill(1);
        }
        let whole: u128 = weights.iter().sum();
        let mut left = own;
        for (sharer, weight) in node.sharers().iter().zip(weights) {
            let mut share = 0;
            self.tree.shares(zone, Charging::Proportional, |vm, bytes| {
                share += if vm == sharer.vm { u128::from(bytes) } else { 0 };
            });
            prop_assert!((share * whole).abs_diff(own * weight) < whole);
            left -= share;
        }
        prop_assert!(left == 0 || node.sharers().is_empty());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(3000)))]
    #[test]
    fn every_byte_is_kept(pool in pool(), requests in prop::collection::vec(request(), 0..24)) {
        let mut both = Both::new(pool);
        for request in requests {
            let (before, old) = (both.model.clone(), both.tree.clone());
            let actors = both.apply(request)?;
            both.learn();
            both.compare()?;
            // Who shares, stops or ends changes no charge of a node that it is not in; the ways of charging none.
            let Some(actors) = actors else { continue };
            for key in before.nodes.keys().filter(|key| both.model.nodes.contains_key(key)) {
                let id = both.ids[key];
                let changed = old.get(id).unwrap().charge_bytes() != both.tree.get(id).unwrap().charge_bytes();
                let is_shared = before.nodes[key].kind == Kind::Shared;
                let contains_all = !actors.is_empty() && actors.iter().all(|actor| before.is_within(*actor, *key));
                prop_assert!(!changed || is_shared || contains_all, "{} in {:?}", key, before);
            }
        }
        both.compare_shares()?;
    }
}

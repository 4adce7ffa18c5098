//! Effective protection against the kernel's functions, transcribed as they stand: by recursion, a node at a time.

#![expect(clippy::arithmetic_side_effects)]

use super::cases;
use crate::zone::node::{Node, Role};
use crate::zone::{Effective, Id, Limits, MAX_BYTES, Pool, Protection, Tree};
use proptest::prelude::*;
use proptest::sample::Index;

/// A tree as the kernel's counters see it. The first is the pool; every parent comes before its children.
#[derive(Clone, Debug)]
struct Counters(Vec<Counter>);

#[derive(Clone, Debug)]
struct Counter {
    parent: usize,
    own: u64,
    min: Option<u64>,
    low: Option<u64>,
}

impl Counters {
    fn children(&self, of: usize) -> impl Iterator<Item = usize> + '_ {
        (1..self.0.len()).filter(move |at| self.0[*at].parent == of)
    }

    fn usage(&self, at: usize) -> u64 {
        self.0[at].own + self.children(at).map(|child| self.usage(child)).sum::<u64>()
    }

    fn setting(&self, at: usize, of: fn(&Counter) -> Option<u64>) -> u64 {
        of(&self.0[at]).unwrap_or_else(|| self.children(at).map(|child| self.setting(child, of)).sum())
    }

    /// `page_counter_calculate_protection()` for one of the two protections.
    fn calculate(&self, root: usize, at: usize, of: fn(&Counter) -> Option<u64>, recursive: bool) -> u64 {
        let parent = self.0[at].parent;
        let usage = self.usage(at);
        if at == root || usage == 0 {
            return 0;
        }
        if parent == root {
            return self.setting(at, of);
        }
        let siblings: u64 =
            self.children(parent).map(|child| self.usage(child).min(self.setting(child, of))).sum();
        effective_protection(
            usage.into(),
            self.usage(parent).into(),
            self.setting(at, of).into(),
            self.calculate(root, parent, of, recursive).into(),
            u128::from(siblings),
            recursive,
        )
    }

    /// The same tree; ids by position.
    fn tree(&self) -> (Tree, Vec<Id>) {
        let mut tree = Tree::new(Pool { capacity_bytes: MAX_BYTES, overcommit: true }).unwrap();
        let mut ids = vec![tree.root()];
        for counter in &self.0[1..] {
            let limits = Limits { min: counter.min, low: counter.low, ..Limits::default() };
            // Not by the tree's own requests: any shape, and limits that it would refuse.
            let id = tree.nodes.insert(Node::new(Role::Zone, "", limits), Some(ids[counter.parent]));
            tree.settle(id, 0, counter.own).unwrap();
            ids.push(id);
        }
        (tree, ids)
    }
}

fn effective_protection(
    usage: u128,
    parent_usage: u128,
    setting: u128,
    parent_effective: u128,
    siblings_protected: u128,
    recursive_protection: bool,
) -> u64 {
    let protected = usage.min(setting);
    if siblings_protected > parent_effective {
        return u64::try_from(protected * parent_effective / siblings_protected).unwrap();
    }
    let mut ep = protected;
    if recursive_protection
        && parent_effective > siblings_protected
        && parent_usage > siblings_protected
        && usage > protected
    {
        ep += (parent_effective - siblings_protected) * (usage - protected)
            / (parent_usage - siblings_protected);
    }
    u64::try_from(ep).unwrap()
}

/// From numbers so small that they are often equal to some so large that products need 128 bits.
fn bytes() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => Just(0),
        4 => 0u64..10,
        4 => (0u64..1 << 24).prop_map(|pages| pages << 12),
        1 => 0u64..1 << 56,
    ]
}

fn counters(setting: fn(Option<u64>) -> Option<u64>) -> impl Strategy<Value = Counters> {
    let setting = move || prop::option::weighted(0.8, bytes()).prop_map(setting);
    let counter = (any::<Index>(), bytes(), setting(), setting());
    prop::collection::vec(counter, 0..24).prop_map(|list| {
        let mut counters = Counters(vec![Counter { parent: 0, own: 0, min: None, low: None }]);
        for (parent, own, min, low) in list {
            counters.0.push(Counter { parent: parent.index(counters.0.len()), own, min, low });
        }
        counters
    })
}

/// What the kernel would say of every node below `root`.
fn expected(counters: &Counters, root: usize, recursive: bool) -> Vec<Option<Effective>> {
    let is_below = |mut at: usize| loop {
        match (at, counters.0[at].parent) {
            (0, _) => break false,
            (_, parent) if parent == root => break true,
            (_, parent) => at = parent,
        }
    };
    let effective = |at| Effective {
        min: counters.calculate(root, at, |counter| counter.min, recursive),
        low: counters.calculate(root, at, |counter| counter.low, recursive),
    };
    (0..counters.0.len()).map(|at| is_below(at).then(|| effective(at))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(3000)))]
    #[test]
    fn protection_is_what_the_kernel_computes(
        counters in counters(|setting| setting),
        root in any::<Index>(),
        recursive: bool,
    ) {
        let (tree, ids) = counters.tree();
        let mut protection = Protection::default();
        // Over the remains of another pass.
        protection.compute(&tree, ids[root.index(ids.len())], !recursive);
        for root in [0, root.index(ids.len())] {
            protection.compute(&tree, ids[root], recursive);
            let computed: Vec<_> = ids.iter().map(|id| protection.get(*id)).collect();
            prop_assert_eq!(computed, expected(&counters, root, recursive));
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    /// The kernel counts pages: it rounds down to one at each level, and nothing amplifies that.
    #[test]
    fn bytes_are_off_by_less_than_a_page_a_level(
        mut counters in counters(|setting| setting.map(|bytes| bytes >> 12 << 12)),
        recursive: bool,
    ) {
        counters.0.iter_mut().for_each(|counter| counter.own = counter.own >> 12 << 12);
        let (tree, ids) = counters.tree();
        let mut protection = Protection::default();
        protection.compute(&tree, tree.root(), recursive);
        let mut pages = counters.clone();
        for counter in &mut pages.0 {
            *counter = Counter {
                own: counter.own >> 12,
                min: counter.min.map(|bytes| bytes >> 12),
                low: counter.low.map(|bytes| bytes >> 12),
                ..*counter
            };
        }
        for (at, pages) in expected(&pages, 0, recursive).into_iter().enumerate().skip(1) {
            let (bytes, pages) = (protection.get(ids[at]).unwrap(), pages.unwrap());
            let levels = tree.nodes.path(ids[at]).count() as u64;
            for (bytes, pages) in [(bytes.min, pages.min << 12), (bytes.low, pages.low << 12)] {
                prop_assert!(pages <= bytes && bytes - pages < levels << 12, "{} for {}", bytes, pages);
            }
        }
    }
}

const MIB: u64 = 1 << 20;

/// The example of `Documentation/admin-guide/cgroup-v2.rst` and of the kernel's comment: what a parent is left goes
/// to children by how much they claim and use, and recursively the rest by how much they use.
#[test]
fn the_kernels_examples() {
    let counter = |parent, own, low| Counter { parent, own: own * MIB, min: None, low: Some(low * MIB) };
    let pool = Counter { parent: 0, own: 0, min: None, low: None };
    let low = |counters: &Counters, recursive| {
        let (tree, ids) = counters.tree();
        let mut protection = Protection::default();
        protection.compute(&tree, tree.root(), recursive);
        ids[1..].iter().map(|id| protection.get(*id).unwrap().low / MIB).collect::<Vec<_>>()
    };
    // A has 2000 of low; B, C, D and E claim 3000, 1000, 0 and 10000 of it and use 2000, 2000, 2000 and nothing.
    let children =
        [(2000, 3000), (2000, 1000), (2000, 0), (0, 10_000)].map(|(own, low)| counter(1, own, low));
    let overcommitted = Counters([pool.clone(), counter(0, 0, 2000)].into_iter().chain(children).collect());
    assert_eq!(low(&overcommitted, false), [2000, 1333, 666, 0, 0]);
    // A has 2000 of low, B claims 1000 of it, C nothing; both use 2000.
    let floating = Counters(vec![pool, counter(0, 0, 2000), counter(1, 2000, 1000), counter(1, 2000, 0)]);
    assert_eq!(low(&floating, false), [2000, 1000, 0]);
    assert_eq!(low(&floating, true), [2000, 1333, 666]);
}

//! Sharing: who maps what, who is shown to pay, and whom it touches.

use super::*;

/// Two groups with a VM each, and one with two.
fn vms(tree: &mut Tree) -> [Id; 4] {
    [("ci", "a"), ("ci", "b"), ("ci/linux", "c"), ("web", "d")]
        .map(|(path, name)| tree.create_vm(path, name, max(GIB)).unwrap())
}

fn shares(tree: &Tree, zone: Id, charging: Charging) -> Vec<(Id, u64)> {
    let mut shares = Vec::new();
    tree.shares(zone, charging, |payer, bytes| shares.push((payer, bytes)));
    shares
}

fn touch(proportional_bytes: u64, first_bytes: u64) -> Touch {
    Touch { proportional_bytes, first_bytes }
}

#[test]
fn three_ways_divide_the_same_bytes() {
    let mut tree = tree(GIB, true);
    let [a, b, c, _] = vms(&mut tree);
    let ci = tree.group("ci").unwrap();
    let zone = tree.map(a, ci, "ci:layer").unwrap();
    assert_eq!([b, c].map(|vm| tree.map(vm, ci, "ci:layer")), [Ok(zone), Ok(zone)]);
    assert_eq!(tree.map(b, ci, "ci:layer"), Ok(zone), "twice is once");
    tree.settle(zone, 1, 100).unwrap();
    assert_eq!(shares(&tree, zone, Charging::Proportional), [(a, 33), (b, 33), (c, 34)]);
    assert_eq!(shares(&tree, zone, Charging::FirstTouch), [(ci, 100)]);
    assert_eq!(shares(&tree, zone, Charging::Common), [(ci, 100)]);

    let touches = [(c, touch(30, 10)), (a, touch(10, 70))];
    assert_eq!(tree.settle_shared(zone, 1, 1000, &touches), Ok(Settled::Stale));
    tree.settle_shared(zone, 2, 100, &touches).unwrap();
    assert_eq!(shares(&tree, zone, Charging::Proportional), [(a, 25), (c, 75)]);
    assert_eq!(shares(&tree, zone, Charging::FirstTouch), [(a, 70), (c, 10), (ci, 20)]);
    let late = [(a, touch(u64::MAX, 70)), (b, touch(u64::MAX, 70))];
    tree.settle_shared(zone, 3, 100, &late).unwrap();
    assert_eq!(shares(&tree, zone, Charging::FirstTouch), [(a, 70), (b, 30)], "readings of different times");
    assert_eq!(shares(&tree, zone, Charging::Proportional), [(a, 50), (b, 50)]);

    tree.unmap(a, zone).unwrap();
    tree.unmap(b, zone).unwrap();
    assert_eq!(shares(&tree, zone, Charging::Common), [(c, 100)], "the only one");
    tree.retire(c).unwrap();
    for charging in [Charging::Proportional, Charging::FirstTouch, Charging::Common] {
        assert_eq!(shares(&tree, zone, charging), [(ci, 100)], "nobody maps it");
    }
    assert!(tree.get(zone).unwrap().is_orphan());
    assert_eq!(tree.map(b, ci, "ci:layer"), Ok(zone), "what is cached still serves");
    assert!(!tree.get(zone).unwrap().is_orphan());
    tree.unmap(b, zone).unwrap();
    assert_eq!(tree.settle(zone, 4, 0), Ok(Settled::Merged(-100)));
    assert_eq!((tree.shared("ci:layer"), tree.check()), (None, Ok(())));
}

#[test]
fn footprints_are_as_each_group_chose() {
    let mut tree = tree(GIB, true);
    let [a, b, c, d] = vms(&mut tree);
    let [ci, linux, web] = ["ci", "ci/linux", "web"].map(|path| tree.group(path).unwrap());
    let layer = tree.map(a, ci, "ci:layer").unwrap();
    for vm in [b, c] {
        tree.map(vm, ci, "ci:layer").unwrap();
    }
    let base = tree.map(d, tree.root(), "base").unwrap();
    tree.map(c, tree.root(), "base").unwrap();
    tree.settle(layer, 1, 90).unwrap();
    tree.settle(base, 1, 1000).unwrap();
    tree.settle(a, 1, 1).unwrap();
    let nodes = [a, b, c, d, linux, ci, web, tree.root()];
    let mut footprints = Footprints::default();
    let mut of = |tree: &Tree, charging| {
        footprints.compute(tree, charging);
        nodes.map(|id| footprints.get(id).unwrap())
    };
    assert_eq!(of(&tree, None), [31, 30, 530, 500, 530, 591, 500, 1091]);
    tree.set_charging(ci, Some(Charging::Common)).unwrap();
    assert_eq!(of(&tree, None), [1, 0, 500, 500, 500, 591, 500, 1091]);
    tree.set_charging(tree.root(), Some(Charging::FirstTouch)).unwrap();
    assert_eq!(of(&tree, None), [1, 0, 0, 0, 0, 91, 0, 1091]);
    tree.set_charging(ci, None).unwrap();
    assert_eq!((tree.charging(layer), tree.charging(base)), (Charging::FirstTouch, Charging::FirstTouch));
    assert_eq!(of(&tree, Some(Charging::Proportional)), [31, 30, 530, 500, 530, 591, 500, 1091]);
    assert!(tree.set_charging(a, None).is_err());
    assert_eq!(
        nodes.map(|id| charge(&tree, id)),
        [1, 0, 0, 0, 0, 91, 0, 1091],
        "limits look at none of this"
    );
}

#[test]
fn nobody_shares_from_outside() {
    let mut tree = tree(GIB, true);
    let [a, _, c, d] = vms(&mut tree);
    let ci = tree.group("ci").unwrap();
    let out = |vm: &str, scope: &str| {
        Err(Error::OutOfScope { vm: vm.into(), scope: scope.into(), zone: "layer".into() })
    };
    assert_eq!(tree.map(d, ci, "layer"), out("d", "ci"));
    assert_eq!(tree.shared("layer"), None);
    tree.map(a, ci, "layer").unwrap();
    assert_eq!(tree.map(d, tree.root(), "layer"), out("d", "ci"), "it keeps its scope");
    let boot = tree.zone(a, BOOT_ZONE).unwrap();
    assert_eq!(tree.map(a, boot, "own"), Err(Error::Kind { name: BOOT_ZONE.into(), kind: Kind::Zone }));
    assert!(matches!(tree.map(a, ci, ""), Err(Error::Name { .. })));
    tree.retire(c).unwrap();
    assert_eq!(tree.map(c, ci, "layer"), Err(Error::Gone));
}

#[test]
fn a_zone_of_one_vm_alone_ends_with_it() {
    let mut tree = tree(GIB, true);
    let [a, ..] = vms(&mut tree);
    let zone = tree.map(a, a, "a:layer").unwrap();
    tree.settle(zone, 1, 50).unwrap();
    assert_eq!((charge(&tree, a), tree.retire(a)), (50, Ok(50)));
    assert_eq!(tree.shared("a:layer"), None, "a new VM of this name begins anew");
    let new = tree.create_vm("web", "a", max(GIB)).unwrap();
    let other = tree.map(new, new, "a:layer").unwrap();
    assert_eq!(tree.settle(zone, 2, 0), Ok(Settled::Merged(-50)));
    assert_eq!((tree.get(a).is_none(), tree.shared("a:layer")), (true, Some(other)));
}

#[test]
fn who_has_moved_away_pushes_nobody_left_behind() {
    let mut tree = tree(GIB, true);
    let [a, b, _, _] = vms(&mut tree);
    let [ci, web] = ["ci", "web"].map(|path| tree.group(path).unwrap());
    let zone = tree.map(a, ci, "ci:layer").unwrap();
    tree.map(b, ci, "ci:layer").unwrap();
    tree.settle(zone, 1, 100).unwrap();
    let mut charges = |change: &mut dyn FnMut(&mut Tree)| {
        change(&mut tree);
        [ci, web, tree.root()].map(|id| charge(&tree, id))
    };
    assert_eq!(charges(&mut |_| ()), [100, 0, 100]);
    assert_eq!(charges(&mut |tree| tree.move_vm(a, "web").unwrap()), [0, 0, 100]);
    assert_eq!(charges(&mut |tree| drop(tree.settle(zone, 2, 200))), [0, 0, 200]);
    assert_eq!(charges(&mut |tree| tree.unmap(a, zone).unwrap()), [0, 0, 200], "it does not fall back on ci");
    assert_eq!(charges(&mut |tree| drop(tree.retire(b))), [0, 0, 200]);
    assert_eq!(charges(&mut |tree| drop(tree.settle(zone, 3, 0))), [0, 0, 0]);
}

#[test]
fn a_move_that_is_refused_leaves_shared_zones_where_they_were() {
    let mut tree = tree(1000, true);
    tree.create_group("ci", limits(100, 2000)).unwrap();
    let [ci, other] = ["a", "b"].map(|name| tree.create_vm("ci", name, limits(600, 1000)).unwrap());
    let home = tree.group("ci").unwrap();
    let [zone, next] = ["layer", "next"].map(|name| tree.map(ci, home, name).unwrap());
    tree.settle(zone, 1, 30).unwrap();
    tree.settle(next, 1, 10).unwrap();
    tree.map(other, home, "layer").unwrap();
    tree.change(&[(zone, Limits { min: Some(400), ..Limits::default() })]).unwrap();
    let before: Vec<_> = tree.children(home).collect();
    let most = Some(("b".into(), 600));
    let refused = Error::Protected { bytes: 1100, before_bytes: 100, capacity_bytes: 1000, most };
    assert_eq!(tree.move_vm(ci, "web/x"), Err(refused));
    assert_eq!(tree.children(home).collect::<Vec<_>>(), before, "in the order they had");
    assert_eq!((tree.group("web"), charge(&tree, home)), (None, 40));
    assert_eq!(tree.check(), Ok(()));
}

#[test]
fn who_shares_already_is_taken_in_and_widens_the_home() {
    let mut tree = tree(GIB, true);
    let [a, b, c, d] = vms(&mut tree);
    let ci = tree.group("ci").unwrap();
    let linux = tree.group("ci/linux").unwrap();
    let zone = tree.adopt_map(c, linux, "layer").unwrap();
    tree.settle(zone, 1, 100).unwrap();
    let charges = |tree: &Tree| [linux, ci, tree.root()].map(|id| charge(tree, id));
    assert_eq!(charges(&tree), [100, 100, 100]);
    assert_eq!(tree.adopt_map(a, linux, "layer"), Ok(zone));
    assert_eq!(charges(&tree), [0, 100, 100]);
    assert_eq!(tree.adopt_map(d, d, "layer"), Ok(zone));
    assert_eq!((charges(&tree), tree.parent(zone)), ([0, 0, 100], Some(tree.root())));
    // Of a scope that it is not in, the lowest node that contains both is its home.
    let other = tree.adopt_map(b, d, "other").unwrap();
    assert_eq!(tree.parent(other), Some(tree.root()));
    let own = tree.adopt_map(b, b, "own").unwrap();
    assert_eq!(tree.parent(own), Some(b));
    tree.retire(d).unwrap();
    assert_eq!(tree.adopt_map(d, ci, "layer"), Err(Error::Gone));
    assert_eq!(tree.check(), Ok(()));
}

#[test]
fn a_scope_that_holds_nothing_but_the_zone_goes_when_it_is_taken_in_elsewhere() {
    let mut tree = tree(GIB, true);
    let a = tree.create_vm("ci", "a", max(GIB)).unwrap();
    let d = tree.create_vm("web", "d", max(GIB)).unwrap();
    let ci = tree.group("ci").unwrap();
    let zone = tree.adopt_map(a, ci, "layer").unwrap();
    tree.settle(zone, 1, 100).unwrap();
    tree.retire(a).unwrap();
    assert_eq!(tree.adopt_map(d, ci, "layer"), Ok(zone));
    assert_eq!((tree.group("ci"), tree.parent(zone)), (None, Some(tree.root())));
    assert_eq!(tree.check(), Ok(()));
}

//! Creation, settling, moves, ends and refusals, one by one.

use super::*;

#[test]
fn a_vm_begins_with_one_zone_and_its_groups_with_it() {
    let mut tree = tree(GIB, true);
    let vm = tree.create_vm("ci/linux", "build-1", max(GIB)).unwrap();
    let zone = tree.zone(vm, BOOT_ZONE).unwrap();
    let (ci, linux) = (tree.group("ci").unwrap(), tree.group("ci/linux").unwrap());
    let path = [zone, vm, linux, ci, tree.root()];
    assert_eq!(tree.nodes.path(zone).collect::<Vec<_>>(), path);
    assert_eq!(tree.vm("build-1"), Some(vm));
    let kinds = path.map(|id| tree.get(id).unwrap().kind());
    assert_eq!(kinds, [Kind::Zone, Kind::Vm, Kind::Group, Kind::Group, Kind::Pool]);

    assert_eq!(tree.settle(zone, 1, 5 * MIB), Ok(Settled::Charged(5 << 20)));
    assert_eq!(tree.settle(vm, 1, MIB), Ok(Settled::Charged(1 << 20)));
    assert_eq!(path.map(|id| charge(&tree, id) / MIB), [5, 6, 6, 6, 6]);
    assert_eq!(tree.main_bytes(), (1 << 30) - (6 << 20));

    assert_eq!(tree.retire(vm), Ok(6 * MIB));
    assert_eq!((tree.vm("build-1"), tree.zone(vm, BOOT_ZONE)), (None, None));
    assert!([vm, zone].iter().all(|id| tree.get(*id).unwrap().is_orphan()));
    let again = tree.create_vm("ci/linux", "build-1", max(GIB)).unwrap();
    assert_eq!(tree.settle(zone, 2, 0), Ok(Settled::Merged(-(5 << 20))));
    assert_eq!((tree.settle(zone, 3, 9), tree.vm("build-1")), (Err(Error::Gone), Some(again)));
    assert_eq!(tree.retire(again), Ok(0), "it never held anything");
    assert_eq!(tree.group("ci/linux"), Some(linux), "an orphan keeps it");
    assert_eq!(tree.settle(vm, 2, 0), Ok(Settled::Merged(-(1 << 20))));
    assert!([zone, vm, linux, ci].iter().all(|id| tree.get(*id).is_none()));
    assert_eq!((tree.group("ci"), tree.main_bytes()), (None, 1 << 30));
}

#[test]
fn snapshots_that_come_late_or_twice_change_nothing() {
    let mut tree = tree(GIB, true);
    let vm = tree.create_vm("", "web", max(GIB)).unwrap();
    let zone = tree.zone(vm, BOOT_ZONE).unwrap();
    assert_eq!(tree.settle(zone, 0, 10), Ok(Settled::Charged(10)));
    assert_eq!(tree.settle(zone, 7, 30), Ok(Settled::Charged(20)), "those between are not missed");
    for late in [0, 6, 7] {
        assert_eq!(tree.settle(zone, late, 99), Ok(Settled::Stale));
    }
    assert_eq!((charge(&tree, tree.root()), tree.get(zone).unwrap().sequence()), (30, Some(7)));
    assert_eq!(tree.settle(zone, u64::MAX, 0), Ok(Settled::Charged(-30)), "a living zone stays");
    tree.settle(vm, u64::MAX, 5).unwrap();
    tree.retire(vm).unwrap();
    assert_eq!(tree.settle(vm, 0, 0), Ok(Settled::Merged(-5)), "the dead have not the last word");
}

#[test]
fn the_main_zone_may_be_owed_memory() {
    let mut tree = tree(GIB, false);
    let vm = tree.create_vm("", "web", max(GIB)).unwrap();
    tree.settle(vm, 1, 3 * GIB).unwrap();
    assert_eq!(tree.main_bytes(), -(2 << 30));
    let zone = tree.zone(vm, BOOT_ZONE).unwrap();
    assert_eq!(tree.settle(zone, 1, MAX_BYTES), Err(Error::TooLarge { bytes: MAX_BYTES }));
    assert_eq!(tree.settle(zone, 1, MAX_BYTES - 3 * GIB), Ok(Settled::Charged(i64::MAX - (3 << 30))));
    assert_eq!(tree.main_bytes(), (1 << 30) - i64::MAX);
    assert_eq!(
        Tree::new(Pool { capacity_bytes: 1 << 63, overcommit: true }).unwrap_err(),
        Error::TooLarge { bytes: 1 << 63 }
    );
}

#[test]
fn groups_stay_while_they_are_configured_or_in_use() {
    let mut tree = tree(GIB, true);
    let vm = tree.create_vm("ci/linux", "web", max(GIB)).unwrap();
    let linux = tree.create_group("ci/linux", max(MIB)).unwrap();
    assert_eq!(Some(linux), tree.group("ci/linux"), "it was there, unconfigured");
    let taken = Error::Taken { kind: Kind::Group, name: "ci/linux".into() };
    assert_eq!(tree.create_group("ci/linux", max(1)), Err(taken));
    assert_eq!(tree.get(linux).unwrap().limits(), &max(MIB));
    assert_eq!(tree.remove_group(linux), Err(Error::NotEmpty { name: "ci/linux".into(), members: 1 }));
    tree.retire(vm).unwrap();
    assert!(tree.get(vm).is_none() && tree.get(linux).is_some());
    tree.remove_group(linux).unwrap();
    assert_eq!((tree.group("ci/linux"), tree.group("ci")), (None, None));
    for path in ["/", "ci/", "/ci", "ci//linux", "..", "ci/../x", "a b", &"x".repeat(65)] {
        let error = Error::Name { kind: Kind::Group, name: path.into() };
        assert_eq!(tree.create_vm(path, "web", max(1)), Err(error));
    }
    assert_eq!(tree.children(tree.root()).count(), 0);
}

#[test]
fn charges_move_with_a_vm() {
    let mut tree = tree(GIB, true);
    let vm = tree.create_vm("a/b", "web", max(GIB)).unwrap();
    tree.settle(vm, 1, 7).unwrap();
    tree.settle(tree.zone(vm, BOOT_ZONE).unwrap(), 1, 30).unwrap();
    let a = tree.group("a").unwrap();
    tree.create_vm("a", "other", max(GIB)).unwrap();
    tree.move_vm(vm, "c").unwrap();
    let c = tree.group("c").unwrap();
    assert_eq!([a, c, tree.root()].map(|id| charge(&tree, id)), [0, 37, 37]);
    assert_eq!((tree.parent(vm), tree.group("a/b")), (Some(c), None), "the empty group is gone");
    tree.move_vm(vm, "c").unwrap();
    tree.move_vm(vm, "").unwrap();
    assert_eq!((tree.parent(vm), tree.group("c")), (Some(tree.root()), None));
    tree.retire(vm).unwrap();
    assert_eq!(tree.move_vm(vm, "a"), Err(Error::Orphan { name: "web".into() }));
    assert_eq!(tree.check(), Ok(()));
}

#[test]
fn a_zone_can_end_before_its_vm() {
    let mut tree = tree(GIB, true);
    let vm = tree.create_vm("", "web", max(GIB)).unwrap();
    let cache = tree.create_zone(vm, "cache", limits(5, 10)).unwrap();
    let taken = Error::Taken { kind: Kind::Zone, name: "cache".into() };
    assert_eq!(tree.create_zone(vm, "cache", max(1)), Err(taken));
    tree.settle(cache, 1, 9).unwrap();
    assert_eq!((tree.claims().protected_bytes, tree.retire(cache)), (5, Ok(9)));
    assert_eq!(tree.retire(cache), Err(Error::Orphan { name: "cache".into() }));
    assert_eq!((tree.claims().protected_bytes, tree.zone(vm, "cache")), (0, None));
    let new = tree.create_zone(vm, "cache", max(10)).unwrap();
    assert_eq!(tree.settle(cache, 2, 0), Ok(Settled::Merged(-9)));
    assert_eq!((tree.zone(vm, "cache"), tree.vm("web")), (Some(new), Some(vm)));
}

#[test]
fn limits_change_together_or_not_at_all() {
    let mut tree = tree(GIB, true);
    let [one, two] = ["one", "two"].map(|name| tree.create_vm("", name, limits(300 * MIB, GIB)).unwrap());
    let both = |min_one, min_two| [(one, limits(min_one, GIB)), (two, limits(min_two, GIB))];
    let refusal = tree.change(&both(300 * MIB, 800 * MIB)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "protected minimums would be 1.0 GiB in sum, 76 MiB more than the pool's 1 GiB (600 MiB before); of VMs \
         'two' would have most, 800 MiB: lower a min, end a VM or enlarge the pool"
    );
    assert_eq!(tree.get(one).unwrap().limits(), &limits(300 * MIB, GIB));
    tree.change(&both(200 * MIB, 800 * MIB)).unwrap();
    assert_eq!(tree.claims().protected_bytes, 1000 * MIB);
    tree.change(&[(one, limits(0, GIB)), (two, max(GIB)), (one, limits(GIB, GIB))]).unwrap();
    assert_eq!(tree.claims().protected_bytes, GIB, "the last counts");
    let refusal = tree.change(&[(two, max(1)), (one, limits(2, 1))]).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "min of 'one' would be 2 B (2 bytes), more than its max of 1 B (1 bytes): limits must ascend from min over low \
         and high to max"
    );
    assert_eq!(tree.get(two).unwrap().limits(), &max(GIB));
    let kind = Error::Kind { name: String::new(), kind: Kind::Pool };
    assert_eq!(tree.change(&[(tree.root(), max(1))]), Err(kind));
    let pool = Pool { capacity_bytes: GIB - 1, overcommit: true };
    assert!(matches!(tree.set_pool(pool), Err(Error::Protected { bytes: GIB, .. })));
    assert_eq!(tree.pool().capacity_bytes, GIB);
}

#[test]
fn a_group_promises_no_more_than_it_may_hold() {
    let mut tree = tree(8 * GIB, true);
    tree.create_group("web", max(400 * MIB)).unwrap();
    let refusal = tree.create_vm("web/shop", "big", limits(450 * MIB, GIB)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "protected minimums in group 'web' would be 450 MiB in sum, 50 MiB more than its max of 400 MiB: lower a min, \
         raise the max or end a VM"
    );
    assert_eq!((tree.vm("big"), tree.group("web/shop")), (None, None), "nothing is left of it");
    let big = tree.create_vm("web/shop", "big", limits(400 * MIB, GIB)).unwrap();
    assert!(matches!(tree.change(&[(big, limits(401 * MIB, GIB))]), Err(Error::Crowded { .. })));
    let web = tree.group("web").unwrap();
    assert!(
        matches!(tree.change(&[(web, max(399 * MIB))]), Err(Error::Crowded { bytes, .. }) if bytes == 400 * MIB)
    );
    // Who is there already is taken in, promises the group no more than it may hold, and may only get better.
    let found = tree.adopt_vm("web", "found", limits(100 * MIB, GIB)).unwrap();
    assert_eq!((tree.claims().protected_bytes, tree.claims().crowded_bytes), (400 * MIB, 100 * MIB));
    tree.change(&[(found, limits(50 * MIB, GIB))]).unwrap();
    assert!(tree.change(&[(found, limits(51 * MIB, GIB))]).is_err());
    let config = |min| [("web", max(400 * MIB), None), ("web/shop", limits(min, GIB), None)];
    assert!(matches!(tree.configure(tree.pool(), &config(401 * MIB)), Err(Error::Crowded { .. })));
    tree.move_vm(found, "").unwrap();
    tree.configure(tree.pool(), &config(400 * MIB)).unwrap();
}

#[test]
fn without_overcommit_the_maximums_fit() {
    let mut tree = tree(8 * GIB, false);
    tree.create_vm("", "one", max(5 * GIB)).unwrap();
    let refusal = tree.create_vm("ci", "two", max(4 * GIB)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "maximums would be 9 GiB in sum, 1 GiB more than the pool's 8 GiB (5 GiB before), and overcommit is off: lower \
         a max, end a VM, enlarge the pool or set overcommit = true"
    );
    assert_eq!((tree.vm("two"), tree.group("ci")), (None, None), "nothing is left of it");
    let refusal = tree.create_vm("ci", "two", Limits::default()).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "VM 'two' would have no max, nor would a group above it, and overcommit is off: give one of them a max, or \
         set overcommit = true (the pool has 8 GiB, of which 5 GiB are promised)"
    );
    tree.create_group("ci", max(3 * GIB)).unwrap();
    let two = tree.create_vm("ci", "two", max(4 * GIB)).unwrap();
    tree.create_vm("ci", "three", Limits::default()).unwrap();
    assert_eq!(tree.claims().committed_bytes, 8 * GIB, "the group bounds both");
    assert_eq!((tree.binding_max(two), tree.binding_max(tree.root())), (3 * GIB, 8 * GIB));
    assert!(matches!(tree.move_vm(two, ""), Err(Error::Committed { bytes, .. }) if bytes == 12 * GIB));
    assert_eq!(tree.parent(two), tree.group("ci"));
    assert!(tree.set_pool(Pool { capacity_bytes: 7 * GIB, overcommit: false }).is_err());
    tree.set_pool(Pool { capacity_bytes: 7 * GIB, overcommit: true }).unwrap();
    tree.move_vm(two, "").unwrap();
    assert!(tree.set_pool(Pool { capacity_bytes: 8 * GIB, overcommit: false }).is_err());
}

#[test]
fn what_orphans_hold_is_not_promised_again() {
    let mut tree = tree(8 * GIB, false);
    let old = tree.create_vm("", "old", limits(GIB, 8 * GIB)).unwrap();
    tree.settle(old, 1, 3 * GIB).unwrap();
    tree.retire(old).unwrap();
    let claims = Claims { committed_bytes: 3 * GIB, ..Claims::default() };
    assert_eq!(tree.claims(), claims, "it is protected no longer");
    assert!(tree.create_vm("", "new", max(6 * GIB)).is_err());
    let new = tree.create_vm("", "new", max(5 * GIB)).unwrap();
    tree.settle(old, 2, 4 * GIB).unwrap();
    assert_eq!(tree.change(&[(new, limits(GIB, 5 * GIB))]), Ok(()), "it promises no more maximum");
    assert!(tree.change(&[(new, max(5 * GIB + 1))]).is_err());
    tree.settle(old, 3, 0).unwrap();
    tree.change(&[(new, max(8 * GIB))]).unwrap();
}

#[test]
fn what_a_vm_is_promised_holds_in_a_group_that_nobody_configured() {
    let mut tree = tree(GIB, true);
    let low = |bytes| Limits { low: Some(bytes), ..Limits::default() };
    let vm = tree.create_vm("ci/linux", "web", low(600)).unwrap();
    tree.create_vm("ci", "other", low(100)).unwrap();
    let zone = tree.zone(vm, BOOT_ZONE).unwrap();
    tree.settle(zone, 1, 1000).unwrap();
    let mut protection = Protection::default();
    let mut lows = |tree: &Tree| {
        protection.compute(tree, tree.root(), true);
        ["ci", "ci/linux"].map(|path| protection.get(tree.group(path).unwrap()).unwrap().low)
    };
    assert_eq!(lows(&tree), [700, 700], "what the other does not use floats");
    let ci = tree.group("ci").unwrap();
    tree.change(&[(ci, low(0))]).unwrap();
    assert_eq!(lows(&tree), [0, 0], "as in the kernel");
}

#[test]
fn a_configuration_holds_whole_or_not_at_all() {
    let mut tree = tree(1000, false);
    tree.create_vm("ci/x", "a", limits(100, 400)).unwrap();
    let pool = Pool { capacity_bytes: 1000, overcommit: false };
    let common = Some(Charging::Common);
    tree.configure(pool, &[("ci", limits(200, 900), common), ("web", limits(0, 50), None)]).unwrap();
    let ci = tree.group("ci").unwrap();
    assert_eq!((tree.get(ci).unwrap().limits(), tree.charging(ci)), (&limits(200, 900), Charging::Common));
    let before = format!("{tree:?}");
    let less = Pool { capacity_bytes: 100, ..pool };
    for (pool, groups) in [
        (pool, &[("ci", limits(200, 900), None), ("web", limits(900, 900), None)][..]),
        (pool, &[("ci", limits(9, 8), None)]),
        (pool, &[("web", limits(1, 8), None), ("a//b", limits(0, 1), None)]),
        (pool, &[("", limits(0, 1), None)]),
        (less, &[]),
    ] {
        assert!(tree.configure(pool, groups).is_err(), "{groups:?}");
        assert_eq!(format!("{tree:?}"), before);
    }
    // What is named no longer goes on without limits, or goes.
    tree.configure(pool, &[("new/one", Limits::default(), None)]).unwrap();
    assert_eq!(
        (tree.get(ci).unwrap().limits(), tree.charging(ci)),
        (&Limits::default(), Charging::Proportional)
    );
    assert_eq!((tree.group("web"), tree.group("new/one").is_some()), (None, true));
    // What has been promised already is no reason to refuse the same again.
    tree.adopt_vm("ci", "b", max(5000)).unwrap();
    tree.configure(pool, &[("new/one", Limits::default(), None)]).unwrap();
    assert_eq!(tree.check(), Ok(()));
}

#[test]
fn a_path_of_groups_is_bounded() {
    let mut tree = tree(GIB, true);
    let long = vec!["a"; 121].join("/");
    assert_eq!(long.len(), 241);
    for path in [long.as_str(), &"a/".repeat(30_000), &"x".repeat(60_000)] {
        let Err(refused @ Error::Name { .. }) = tree.create_vm(path, "a", max(1)) else { panic!() };
        assert!(refused.to_string().len() < 1000);
    }
    tree.create_vm(&long[2..], "a", max(1)).unwrap();
    assert_eq!(tree.check(), Ok(()));
}

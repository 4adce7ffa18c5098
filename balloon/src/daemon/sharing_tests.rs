//! Who is looked at for what microVMs share, and what comes of it in the zone tree.

use super::fleet::Fleet;
use super::fleet_tests::{GIB, VMM, charge, fleet, hello, limits, report};
use super::host::{Held, Process};
use crate::control::link::Report;
use crate::daemon::layers::LayerUse;
use crate::resident::FileId;
use crate::zone::scope::LayerFile;
use crate::zone::{Kind, Scope};
use std::collections::BTreeSet;

#[test]
fn layers_are_looked_at_soon_at_first_and_then_in_turn() {
    let mut fleet = fleet(true);
    let start = |fleet: &mut Fleet, pid| {
        let process = Process { pid, start_ticks: 2 };
        fleet.greet(&hello(&format!("vm{pid:02}"), "ci", limits(0, GIB / 64)), process).unwrap();
    };
    let tick = |fleet: &mut Fleet| {
        fleet.looks.outdate();
        let names: Vec<_> = fleet.to_look_at().into_iter().map(|(name, _)| name).collect();
        // Whether the host says anything of them or not.
        names.iter().for_each(|name| fleet.looked_at(name));
        names
    };
    (0..12).for_each(|pid| start(&mut fleet, pid));
    for _ in 0..5 {
        assert_eq!(tick(&mut fleet).len(), 12);
    }
    let turns: Vec<_> = (0..4).map(|_| tick(&mut fleet)).collect();
    assert!(turns.iter().all(|turn| turn.len() == 3), "{turns:?}");
    let all: BTreeSet<_> = turns.into_iter().flatten().collect();
    assert_eq!(all.len(), 12);
    // Those that come do not keep the others from their turn.
    let mut others = BTreeSet::new();
    for pid in 12..18 {
        start(&mut fleet, pid);
        others.extend(tick(&mut fleet).into_iter().filter(|name| name.as_str() < "vm12"));
    }
    assert_eq!(others.len(), 12);
}

#[test]
fn who_has_nothing_new_is_looked_at_now_and_then() {
    let mut fleet = fleet(true);
    let names = ["a", "b", "c"];
    for (pid, name) in (1..).zip(names) {
        let process = Process { pid, start_ticks: 2 };
        fleet.greet(&hello(name, "ci", limits(0, GIB)), process).unwrap();
    }
    let tick = |fleet: &mut Fleet| {
        let names: Vec<_> = fleet.to_look_at().into_iter().map(|(name, _)| name).collect();
        names.iter().for_each(|name| fleet.looked_at(name));
        names
    };
    let ticks = |fleet: &mut Fleet, count| (0..count).flat_map(|_| tick(fleet)).collect::<Vec<_>>();
    assert_eq!(ticks(&mut fleet, 5).len(), 15, "they are new");
    assert_eq!(ticks(&mut fleet, 29), [""; 0]);
    assert_eq!(ticks(&mut fleet, 3), names, "a minute later each has a turn");
    assert_eq!(ticks(&mut fleet, 5), [""; 0]);
    // One has mapped more of its files.
    let sequence = fleet.envelope("b").unwrap().sequence;
    let held = Held { private_bytes: 900, file_bytes: 4096, ..Held::default() };
    fleet.observe("b", &Report { sequence, ..report(&[]) }, || Some(held)).unwrap();
    assert_eq!(ticks(&mut fleet, 5), ["b"]);
    // That is something new for all who share with it; the same once more is not.
    let id = FileId { major: 0, minor: 1, inode: 7 };
    let file = LayerFile { label: "0123456789ab".into(), scope: Scope::Host };
    let used = LayerUse { id, file, path: None, bytes: 9000, resident_bytes: 4096, proportional_bytes: 4096 };
    for new in [&["a", "c", "b"][..], &[]] {
        fleet.observe_layers("b", std::slice::from_ref(&used), 0).unwrap();
        assert_eq!(ticks(&mut fleet, 5), new);
    }
    fleet.observe_layers("b", &[], 0).unwrap();
    assert_eq!(ticks(&mut fleet, 5).len(), 3, "it maps none any more");
    fleet.end("c");
    assert_eq!(ticks(&mut fleet, 5).len(), 2, "one is gone");
}

#[test]
fn what_is_shared_is_in_the_tree_and_goes_with_its_last_user() {
    let mut fleet = fleet(true);
    fleet.greet(&hello("a", "ci", limits(0, GIB)), VMM).unwrap();
    let other = Process { pid: 8, start_ticks: 2 };
    fleet.greet(&hello("b", "ci", limits(0, GIB)), other).unwrap();
    let id = FileId { major: 1, minor: 2, inode: 3 };
    let file = LayerFile { label: "0123456789ab".into(), scope: Scope::Group("ci".into()) };
    let path = Some("/x".into());
    let used = LayerUse { id, file, path, bytes: 900, resident_bytes: 600, proportional_bytes: 300 };
    assert_eq!(fleet.to_look_at(), [("a".to_owned(), VMM), ("b".to_owned(), other)]);
    fleet.observe_layers("a", std::slice::from_ref(&used), 600).unwrap();
    fleet.looked_at("a");
    assert_eq!(fleet.to_look_at(), [("b".to_owned(), other), ("a".to_owned(), VMM)]);
    fleet.observe_layers("b", std::slice::from_ref(&used), 0).unwrap();
    fleet.settle_layers(|_| Some(800)).unwrap();
    assert_eq!((charge(&mut fleet, "ci"), charge(&mut fleet, "a")), (800, 0));
    let tree = fleet.document();
    let layer = tree.nodes.iter().find(|node| node.kind == Kind::Shared).unwrap();
    assert_eq!((layer.name.as_str(), layer.charge_bytes, layer.footprint_bytes), ("0123456789ab", 800, 0));
    let footprint = |name: &str| tree.nodes.iter().find(|node| node.name == name).unwrap().footprint_bytes;
    assert_eq!((footprint("a"), footprint("b"), footprint("ci")), (400, 400, 800));
    // What is left of the dead is not taken for what they shared.
    fleet.observe_layers("b", &[], 0).unwrap();
    fleet.end("a");
    fleet.settle_layers(|_| Some(800)).unwrap();
    assert_eq!((fleet.charging().zones.len(), charge(&mut fleet, "ci"), fleet.shares(id)), (0, 0, false));
    fleet.tree().check().unwrap();
}

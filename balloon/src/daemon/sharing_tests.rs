//! Who is looked at for what microVMs share, and what comes of it in the zone tree.

use super::fleet::Fleet;
use super::fleet_tests::{GIB, VMM, charge, fleet, hello, limits, report};
use super::host::{Held, Process};
use crate::control::link::Report;
use crate::daemon::layers::LayerUse;
use crate::resident::FileId;
use crate::zone::scope::LayerFile;
use crate::zone::{Kind, Scope};
use std::collections::{BTreeMap, BTreeSet};

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
    for pid in 0..20 {
        let process = Process { pid, start_ticks: 2 };
        fleet.greet(&hello(&format!("vm{pid:02}"), "ci", limits(0, GIB / 64)), process).unwrap();
    }
    // What each maps; nothing of who is not in it.
    let mut maps = BTreeMap::new();
    let tick = |fleet: &mut Fleet, maps: &BTreeMap<String, LayerUse>| {
        let names: Vec<_> = fleet.to_look_at().into_iter().map(|(name, _)| name).collect();
        for name in &names {
            fleet.looked_at(name);
            fleet.observe_layers(name, maps.get(name).map_or(&[], std::slice::from_ref), 0).unwrap();
        }
        names
    };
    let ticks = |fleet: &mut Fleet, maps: &BTreeMap<String, LayerUse>, count| {
        (0..count).flat_map(|_| tick(fleet, maps)).collect::<Vec<_>>()
    };
    assert_eq!(ticks(&mut fleet, &maps, 5).len(), 100, "they are new");
    assert_eq!(ticks(&mut fleet, &maps, 29), [""; 0]);
    let turns = ticks(&mut fleet, &maps, 5);
    assert_eq!(turns.iter().collect::<BTreeSet<_>>().len(), 20, "a minute later each has a turn: {turns:?}");
    assert_eq!(ticks(&mut fleet, &maps, 25), [""; 0]);
    assert_eq!(ticks(&mut fleet, &maps, 5).len(), 20);
    // One has mapped more of its files, of which some are a layer: its shares and those of others are new.
    let sequence = fleet.envelope("vm07").unwrap().sequence;
    let held = Held { private_bytes: 900, file_bytes: 4096, ..Held::default() };
    fleet.observe("vm07", &Report { sequence, ..report(&[]) }, || Some(held)).unwrap();
    let id = FileId { major: 0, minor: 1, inode: 7 };
    let file = LayerFile { label: "0123456789ab".into(), scope: Scope::Host };
    let used = LayerUse { id, file, path: None, bytes: 9000, resident_bytes: 4096, proportional_bytes: 4096 };
    maps.insert("vm07".to_owned(), used);
    assert_eq!(ticks(&mut fleet, &maps, 1), ["vm07"]);
    let others = ticks(&mut fleet, &maps, 5);
    assert!(others.len() == 19 && !others.contains(&"vm07".to_owned()), "{others:?}");
    assert_eq!(ticks(&mut fleet, &maps, 5), [""; 0]);
    fleet.end("vm03");
    assert_eq!(ticks(&mut fleet, &maps, 5).len(), 19, "one is gone");
    // Of whom nothing could be seen, it is tried again.
    let sequence = fleet.envelope("vm08").unwrap().sequence;
    fleet.observe("vm08", &Report { sequence, ..report(&[]) }, || Some(held)).unwrap();
    for _ in 0..3 {
        assert_eq!(fleet.to_look_at().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["vm08"]);
        fleet.looked_at("vm08");
    }
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

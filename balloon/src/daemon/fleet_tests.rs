//! What the fleet books, admits and forgets.

use super::fleet::{Fleet, SILENT_TICKS};
use super::host::{Held, Process};
use crate::control::fleet::{GroupLimitsRequest, StartRequest};
use crate::control::link::{Hello, Offer, Report, Usage, ZoneUse};
use crate::daemon::config::Config;
use crate::zone::{Error, Limits, MAX_ZONES, Pool, Scope, Share, Tree};

pub(super) const GIB: u64 = 1 << 30;
pub(super) const VMM: Process = Process { pid: 7, start_ticks: 1 };

pub(super) fn fleet(overcommit: bool) -> Fleet {
    Fleet::new(Tree::new(Pool { capacity_bytes: 4 * GIB, overcommit }).unwrap())
}

pub(super) fn limits(min: u64, max: u64) -> Limits {
    Limits { min: Some(min), max: Some(max), ..Limits::default() }
}

pub(super) fn request(name: &str, group: &str, limits: Limits) -> StartRequest {
    StartRequest { name: name.into(), group: group.into(), limits, share: None }
}

pub(super) fn hello(name: &str, group: &str, limits: Limits) -> Hello {
    Hello {
        name: name.into(),
        pid: 7,
        group: group.into(),
        limits,
        memory_bytes: GIB,
        zones: vec!["ram".into(), "cache".into()],
        inherits: true,
    }
}

pub(super) fn report(zones: &[(&str, u64)]) -> Report {
    let zones =
        zones.iter().map(|(name, bytes)| ZoneUse { name: (*name).into(), resident_bytes: Some(*bytes) });
    Report {
        sequence: 1,
        ceiling_bytes: GIB,
        manual: false,
        floor_bytes: 0,
        limits: limits(0, GIB),
        zones: zones.collect(),
        offer: Offer { follows: true, ..Offer::default() },
        usage: Usage::default(),
    }
}

pub(super) fn held(private_bytes: u64) -> Option<Held> {
    Some(Held { private_bytes, ..Held::default() })
}

pub(super) fn charge(fleet: &mut Fleet, name: &str) -> u64 {
    fleet.document().nodes.iter().find(|node| node.name == name).map_or(0, |node| node.charge_bytes)
}

/// Has "a" answer its next envelope.
pub(super) fn observe(fleet: &mut Fleet, report: &Report, bytes: u64) -> u64 {
    let sequence = fleet.envelope("a").unwrap().sequence;
    fleet.observe("a", &Report { sequence, ..report.clone() }, || held(bytes)).unwrap()
}

#[test]
fn only_the_first_answer_to_an_envelope_counts() {
    let mut fleet = fleet(true);
    fleet.greet(&hello("a", "ci", limits(0, GIB)), VMM).unwrap();
    let looked = || -> Option<Held> { panic!("nobody needs to look") };
    fleet.observe("a", &report(&[("ram", 7)]), looked).unwrap();
    let sequence = fleet.envelope("a").unwrap().sequence;
    let answer = |sequence, bytes| Report { sequence, ..report(&[("ram", bytes)]) };
    fleet.observe("a", &answer(sequence + 1, 7), looked).unwrap();
    fleet.observe("a", &answer(sequence, 5), || held(5)).unwrap();
    fleet.observe("a", &answer(sequence, 7), looked).unwrap();
    assert_eq!(charge(&mut fleet, "a"), 5);
}

#[test]
fn who_says_nothing_is_charged_all_the_same() {
    let mut fleet = fleet(true);
    fleet.greet(&hello("a", "ci", limits(0, GIB)), VMM).unwrap();
    observe(&mut fleet, &report(&[("ram", 600)]), 1000);
    for _ in 0..SILENT_TICKS {
        fleet.charge_silent(|_| held(5000));
    }
    assert_eq!(charge(&mut fleet, "a"), 1000);
    fleet.charge_silent(|_| held(5000));
    assert_eq!((charge(&mut fleet, "a"), charge(&mut fleet, "ram")), (5000, 0));
    observe(&mut fleet, &report(&[("ram", 600)]), 1000);
    fleet.charge_silent(|_| held(5000));
    assert_eq!(charge(&mut fleet, "a"), 1000);
}

#[test]
fn zones_are_no_more_than_a_machine_has() {
    let mut fleet = fleet(true);
    let zones = (0..1000).map(|number| format!("zone{number}")).collect();
    fleet.greet(&Hello { zones, ..hello("a", "", limits(0, GIB)) }, VMM).unwrap();
    // The pool, the VM and its boot memory.
    assert_eq!(fleet.document().nodes.len(), 3 + MAX_ZONES);
}

#[test]
fn who_would_exceed_the_pool_is_refused_and_leaves_nothing() {
    let mut fleet = fleet(false);
    fleet.admit(&request("a", "ci", limits(0, 3 * GIB)), VMM).unwrap();
    let before = fleet.document();
    let refusal = fleet.admit(&request("b", "web/x", limits(0, 2 * GIB)), VMM).unwrap_err();
    assert!(refusal.to_string().contains("5 GiB in sum, 1 GiB more than the pool's 4 GiB"), "{refusal}");
    assert_eq!(fleet.document(), before);
    fleet.admit(&request("b", "", limits(0, GIB)), VMM).unwrap();
    assert!(fleet.admit(&request("b", "", limits(0, 0)), VMM).is_err(), "the name is taken");
}

#[test]
fn who_runs_is_taken_in_whatever_the_pool_says() {
    let mut fleet = fleet(false);
    fleet.greet(&hello("a", "ci", limits(3 * GIB, 9 * GIB)), VMM).unwrap();
    assert_eq!((fleet.host().committed_bytes, fleet.host().vms), (9 * GIB, 1));
    // The same again, as after a link that broke.
    fleet.greet(&hello("a", "ci", limits(0, 0)), VMM).unwrap();
    assert_eq!(fleet.host().vms, 1);
    assert!(fleet.admit(&request("b", "", limits(0, GIB)), VMM).is_err());
}

#[test]
fn a_vmm_cannot_claim_more_than_its_process_holds() {
    let mut fleet = fleet(true);
    fleet.greet(&hello("a", "ci", limits(0, GIB)), VMM).unwrap();
    let claimed = report(&[("ram", 600), ("cache", 500)]);
    assert_eq!(observe(&mut fleet, &claimed, 1000), 100);
    assert_eq!((charge(&mut fleet, "ram"), charge(&mut fleet, "cache")), (600, 400));
    assert_eq!((charge(&mut fleet, "ci"), fleet.tree().main_bytes()), (1000, 4 * GIB as i64 - 1000));
    assert_eq!(observe(&mut fleet, &report(&[("ram", 300), ("cache", 100), ("more", 9)]), 1000), 0);
    assert_eq!((charge(&mut fleet, "a"), charge(&mut fleet, "ram")), (1000, 300));
    assert_eq!(fleet.observe("nobody", &claimed, || held(1000)), Ok(0));
}

#[test]
fn what_the_dead_held_is_charged_until_it_is_back() {
    let mut fleet = fleet(true);
    fleet.greet(&hello("a", "ci", limits(0, GIB)), VMM).unwrap();
    observe(&mut fleet, &report(&[("ram", 600), ("cache", 300)]), 1000);
    fleet.sweep(|_| true, |_| held(1000));
    assert_eq!((fleet.host().vms, fleet.host().orphans), (1, 0));
    fleet.sweep(|_| false, |_| held(700));
    assert_eq!((fleet.host().vms, fleet.host().orphans), (0, 1));
    assert_eq!(charge(&mut fleet, "ci"), 700);
    // The name is free, and its next owner is another.
    let next = Process { pid: 8, start_ticks: 2 };
    fleet.greet(&hello("a", "ci", limits(0, GIB)), next).unwrap();
    observe(&mut fleet, &report(&[("ram", 50)]), 50);
    assert_eq!(charge(&mut fleet, "ci"), 750);
    fleet.sweep(|process| process == next, |process| if process == VMM { held(0) } else { held(50) });
    assert_eq!((fleet.host().vms, fleet.host().orphans, charge(&mut fleet, "ci")), (1, 0, 50));
    fleet.end("a");
    fleet.sweep(|_| false, |_| held(0));
    assert_eq!((fleet.tree().main_bytes(), fleet.document().nodes.len()), (4 * GIB as i64, 1));
    fleet.tree().check().unwrap();
}

#[test]
fn who_was_admitted_and_never_came_is_forgotten() {
    let mut fleet = fleet(true);
    let starter = Process { pid: 9, start_ticks: 9 };
    fleet.admit(&request("a", "ci", limits(GIB, GIB)), starter).unwrap();
    assert_eq!((fleet.host().vms, fleet.host().protected_bytes), (0, GIB));
    fleet.sweep(|process| process != starter, |_| held(0));
    assert_eq!((fleet.host().protected_bytes, fleet.document().nodes.len()), (0, 1));
}

#[test]
fn an_envelope_says_what_binds() {
    let mut fleet = fleet(true);
    fleet.greet(&hello("a", "ci/x", limits(0, GIB)), VMM).unwrap();
    // Its limits have changed since.
    let changed = Limits { high: Some(GIB), ..limits(GIB / 2, 2 * GIB) };
    fleet.change("a", changed).unwrap();
    let report = Report { limits: changed, ..report(&[("ram", GIB / 4)]) };
    observe(&mut fleet, &report, GIB / 4);
    fleet.protect();
    let envelope = fleet.envelope("a").unwrap();
    assert_eq!((envelope.sequence, envelope.max_bytes, envelope.high_bytes), (2, 2 * GIB, Some(GIB)));
    assert_eq!(envelope.floor_bytes, GIB / 4, "no more than it holds");
    let next = fleet.envelope("a").unwrap();
    assert_eq!((next.sequence, next.group.as_str()), (3, "ci/x"));
    assert_eq!(fleet.envelope("nobody"), None);
    fleet.move_vm("a", "").unwrap();
    assert_eq!(fleet.envelope("a").unwrap().group, "");
    assert_eq!(fleet.tree().group("ci"), None, "a group goes with its last member");
    assert_eq!(fleet.move_vm("nobody", ""), Err(Error::Gone));
    assert!(matches!(fleet.change("a", limits(2, 1)), Err(Error::Order { .. })));
}

#[test]
fn nobody_is_protected_by_its_own_word() {
    let mut fleet = fleet(true);
    let all =
        Limits { low: Some(u64::MAX), high: Some(u64::MAX), weight: 10_000, ..limits(u64::MAX, u64::MAX) };
    // Of one that was admitted, and of one that an earlier daemon admitted, nobody knows with what.
    fleet.admit(&request("a", "ci", limits(GIB / 4, GIB)), VMM).unwrap();
    fleet.greet(&hello("a", "ci", all), VMM).unwrap();
    observe(&mut fleet, &Report { limits: all, ..report(&[]) }, 0);
    let of = |fleet: &Fleet, name| *fleet.tree().get(fleet.tree().vm(name).unwrap()).unwrap().limits();
    assert_eq!(of(&fleet, "a"), Limits { high: Some(GIB), ..limits(GIB / 4, GIB) });
    fleet.greet(&hello("b", "ci", all), Process { pid: 9, start_ticks: 9 }).unwrap();
    let found = hello("b", "ci", all).memory_bytes;
    assert_eq!((of(&fleet, "b").min, of(&fleet, "b").low), (Some(found), Some(found)));
    assert_eq!(fleet.host().protected_bytes, found + GIB / 4);
}

#[test]
fn who_is_greeted_between_two_ticks_has_nothing_to_protect_yet() {
    let floor = |fleet: &mut Fleet| fleet.envelope("a").unwrap().floor_bytes;
    let mut fleet = fleet(true);
    fleet.greet(&hello("a", "ci", limits(GIB, 2 * GIB)), VMM).unwrap();
    let before = floor(&mut fleet);
    fleet.protect();
    assert_eq!(floor(&mut fleet), before);
    let report = Report { limits: limits(GIB, 2 * GIB), ..report(&[("ram", GIB / 4)]) };
    observe(&mut fleet, &report, GIB / 4);
    fleet.protect();
    assert_eq!(floor(&mut fleet), GIB / 4, "once it holds something");
}

#[test]
fn a_group_says_how_far_is_shared_and_only_narrower_can_be_wished() {
    let mut fleet = fleet(true);
    let config = Config::parse("[groups.ci]\nshare = 'group'\n[groups.'ci/own']\nshare = 'vm'\n").unwrap();
    fleet.configure(&config, 4 * GIB).unwrap();
    let wish =
        |name: &str, group: &str, share| StartRequest { share, ..request(name, group, limits(0, GIB)) };
    assert_eq!(fleet.admit(&wish("a", "ci/x", None), VMM), Ok(Scope::Group("ci".into())));
    assert_eq!(fleet.admit(&wish("b", "ci/own", None), VMM), Ok(Scope::Vm("b".into())));
    assert_eq!(fleet.admit(&wish("c", "", None), VMM), Ok(Scope::Host));
    let before = fleet.document();
    let refused = fleet.admit(&wish("d", "ci", Some(Share::Host)), VMM);
    assert!(matches!(refused, Err(Error::Share { bound: Share::Group, .. })), "{refused:?}");
    assert_eq!(fleet.document(), before);
}

#[test]
fn limits_of_a_group_change_while_it_is_in_use() {
    let mut fleet = fleet(false);
    fleet.greet(&hello("a", "ci", limits(0, GIB)), VMM).unwrap();
    let change = |group: &str, max| GroupLimitsRequest {
        group: group.into(),
        max: Some(max),
        high: Some(Some(GIB / 4)),
        ..GroupLimitsRequest::default()
    };
    fleet.change_group(&change("ci", Some(GIB / 2))).unwrap();
    fleet.protect();
    let envelope = fleet.envelope("a").unwrap();
    assert_eq!((envelope.max_bytes, envelope.high_bytes), (GIB / 2, Some(GIB / 4)));
    assert_eq!(fleet.host().committed_bytes, GIB / 2);
    assert_eq!(fleet.change_group(&change("web", None)), Err(Error::NoGroup { path: "web".into() }));
    assert!(matches!(fleet.change_group(&change("ci", Some(1))), Err(Error::Order { .. })));
    assert!(fleet.change_group(&change("", Some(GIB))).is_err(), "the pool has a capacity");
    assert_eq!(fleet.host().committed_bytes, GIB / 2, "what was refused changes nothing");
    // The configuration has the last word.
    fleet.configure(&Config::parse("[pool]\ncapacity = '4g'\novercommit = false\n").unwrap(), GIB).unwrap();
    assert_eq!((fleet.host().committed_bytes, fleet.envelope("a").unwrap().high_bytes), (GIB, None));
}

//! What microVMs are told when memory is short, and when there is enough again.

use super::fleet::{Fleet, SILENT_TICKS};
use super::host::{Held, Process};
use crate::control::events::{EventDocument, EventKind};
use crate::control::fleet::StartRequest;
use crate::control::link::{Envelope, Hello, Offer, Report, Usage};
use crate::policy::Cold;
use crate::policy::fleet::{FleetTuning, Host};
use crate::zone::{Error, Limits, Pool, Tree};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Of 16 GiB.
fn host(available_bytes: u64) -> Host {
    Host { total_bytes: 16 * GIB, available_bytes, ..Host::default() }
}

/// Two microVMs of a GiB each, both of which have reported.
fn fleet(min: u64, follows: [bool; 2]) -> Fleet {
    let mut fleet = Fleet::new(Tree::new(Pool { capacity_bytes: 8 * GIB, overcommit: true }).unwrap());
    for (number, (name, follows)) in ["a", "b"].into_iter().zip(follows).enumerate() {
        let limits = Limits { min: Some(min), max: Some(GIB), ..Limits::default() };
        let process = Process { pid: 7 + number as u32, start_ticks: 1 };
        let zones = vec!["ram".into()];
        let hello = Hello {
            name: name.into(),
            pid: process.pid,
            group: String::new(),
            limits,
            memory_bytes: GIB,
            zones,
            inherits: false,
        };
        fleet.greet(&hello, process).unwrap();
        answer(&mut fleet, name, follows);
    }
    fleet
}

/// Has a microVM answer its next envelope: it holds a GiB, a quarter of which is a minute old.
fn answer(fleet: &mut Fleet, name: &str, follows: bool) -> Envelope {
    let envelope = fleet.envelope(name).unwrap();
    let mut offer = Offer { follows, ..Offer::default() };
    offer.cold[0] = Cold { age_ms: 60_000, bytes: GIB / 4 };
    let limits = Limits { max: Some(GIB), ..Limits::default() };
    let limits =
        Limits { min: fleet.tree().vm(name).and_then(|id| fleet.tree().get(id)?.limits().min), ..limits };
    let report = Report {
        sequence: envelope.sequence,
        ceiling_bytes: GIB,
        manual: false,
        floor_bytes: 0,
        limits,
        zones: vec![],
        offer,
        usage: Usage::default(),
    };
    fleet.observe(name, &report, || Some(Held { private_bytes: GIB, ..Held::default() })).unwrap();
    envelope
}

/// What a tick on such a host tells.
fn told(fleet: &mut Fleet, host: Host) -> Vec<EventDocument> {
    fleet.take_told();
    fleet.arbitrate(host);
    fleet.take_told().into_iter().map(|event| event.document(1, 2)).collect()
}

fn kinds(events: &[EventDocument]) -> Vec<(EventKind, Option<&str>)> {
    events.iter().map(|event| (event.kind, event.vm.as_deref())).collect()
}

#[test]
fn on_a_calm_host_nobody_is_pressed_and_growth_is_granted() {
    let mut fleet = fleet(0, [true; 2]);
    assert_eq!(told(&mut fleet, host(12 * GIB)), []);
    let envelope = answer(&mut fleet, "a", true);
    assert_eq!((envelope.lambda_permille, envelope.take_bytes, envelope.max_bytes), (1000, 0, GIB));
    assert_eq!((envelope.high_bytes, envelope.grant_bytes), (None, 0), "there is nothing above its max");
}

#[test]
fn a_short_host_takes_back_once_a_tick_and_says_so_once() {
    let mut fleet = fleet(0, [true; 2]);
    // Less than 4 %: 6 % is wanted, 480 MiB more.
    let short = host(500 * MIB);
    let events = told(&mut fleet, short);
    assert_eq!(
        kinds(&events),
        [
            (EventKind::MemoryShort, None),
            (EventKind::PressureBegun, None),
            (EventKind::TakeBegun, Some("a")),
            (EventKind::TakeBegun, Some("b"))
        ]
    );
    assert!(events[0].figures["deficit_bytes"] > 480 * MIB, "{events:?}");
    assert!(events[0].reason.contains("500 MiB of the host's 16 GiB are available"), "{events:?}");
    let [a, b] = ["a", "b"].map(|name| answer(&mut fleet, name, true));
    assert!(a.lambda_permille > 1000 && a.lambda_permille == b.lambda_permille, "{a:?} {b:?}");
    assert!(
        a.take_bytes + b.take_bytes > 480 * MIB && a.take_bytes.abs_diff(b.take_bytes) < 16 * MIB,
        "{a:?} {b:?}"
    );
    assert_eq!(fleet.envelope("a").unwrap().take_bytes, 0, "another link is not told again");
    // What has been directed is waited for.
    assert_eq!(told(&mut fleet, short), []);
    assert_eq!(answer(&mut fleet, "a", true).take_bytes, 0);
    let mut ends: Vec<_> = (0..60).flat_map(|_| told(&mut fleet, host(12 * GIB))).collect();
    let told_sum = events[2].figures["take_bytes"];
    let is_sum =
        |event: &EventDocument| event.vm.as_deref() == Some("a") && event.figures["take_bytes"] == told_sum;
    assert!(ends.iter().any(|event| event.kind == EventKind::TakeEnded && is_sum(event)), "{ends:?}");
    ends.retain(|event| event.kind != EventKind::PressureChanged && event.vm.is_none());
    assert_eq!(kinds(&ends), [(EventKind::MemoryEnough, None), (EventKind::PressureEnded, None)]);
    assert_eq!(told(&mut fleet, host(12 * GIB)), [], "what changes nothing makes no event");
}

#[test]
fn who_does_not_follow_gets_a_ceiling() {
    let mut fleet = fleet(0, [true, false]);
    let events = told(&mut fleet, host(500 * MIB));
    let imposed = |events: &[EventDocument], vm: &str| {
        let is_one = |event: &&EventDocument| {
            event.kind == EventKind::CeilingImposed && event.vm.as_deref() == Some(vm)
        };
        events.iter().find(is_one).map(|event| (event.figures["ceiling_bytes"], event.reason.clone()))
    };
    let [a, b] = ["a", "b"].map(|name| answer(&mut fleet, name, name == "a"));
    assert_eq!(a.high_bytes, None, "{a:?}");
    assert!(b.high_bytes.is_some_and(|bytes| bytes <= GIB - b.take_bytes), "{b:?}");
    assert_eq!(imposed(&events, "a"), None);
    let (bytes, reason) = imposed(&events, "b").unwrap();
    assert!(Some(bytes) == b.high_bytes && reason.contains("carries out no orders"), "{reason}");
    // Nor does who has fallen silent.
    for _ in 0..=SILENT_TICKS {
        fleet.charge_silent(|_| Some(Held { private_bytes: GIB, ..Held::default() }));
    }
    for _ in 0..6 {
        fleet.arbitrate(host(500 * MIB));
    }
    assert!(fleet.envelope("a").unwrap().high_bytes.is_some());
}

#[test]
fn nobody_is_started_while_all_that_is_lacking_is_protected() {
    let mut fleet = fleet(GIB, [true; 2]);
    let events = told(&mut fleet, host(500 * MIB));
    let refusing = events.iter().find(|event| event.kind == EventKind::RefusingStarts).unwrap();
    assert!(refusing.figures["unmet_bytes"] > 0, "{refusing:?}");
    let request =
        StartRequest { name: "c".into(), group: String::new(), limits: Limits::default(), share: None };
    let starter = Process { pid: 9, start_ticks: 1 };
    let refusal = fleet.admit(&request, starter).unwrap_err();
    assert!(matches!(refusal, Error::Short { .. }), "{refusal}");
    assert!(refusal.to_string().contains("500 MiB of its 16 GiB are available"), "{refusal}");
    for name in ["a", "b"] {
        let envelope = answer(&mut fleet, name, true);
        assert_eq!((envelope.take_bytes, envelope.floor_bytes), (0, GIB), "{envelope:?}");
    }
    let refused = fleet.take_told().pop().unwrap().document(1, 2);
    assert_eq!((refused.kind, refused.vm.as_deref()), (EventKind::StartRefused, Some("c")));
    fleet.arbitrate(host(12 * GIB));
    fleet.admit(&request, starter).unwrap();
    let later: Vec<_> = (0..10).flat_map(|_| told(&mut fleet, host(12 * GIB))).collect();
    assert_eq!(later.iter().filter(|event| event.kind == EventKind::AdmittingStarts).count(), 1, "{later:?}");
}

#[test]
fn who_cannot_be_killed_is_told_and_passed_over() {
    let mut fleet = fleet(0, [false; 2]);
    fleet.tune(FleetTuning { kills: true, ..FleetTuning::default() });
    let mut tried = Vec::new();
    let mut told = Vec::new();
    for _ in 0..30 {
        fleet.arbitrate(host(MIB));
        fleet.execute(|condemned| {
            tried.push(condemned.name.clone());
            let refuses = tried.len() == 1;
            if refuses { Err(std::io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
        });
        told.extend(fleet.take_told().into_iter().map(|event| event.document(1, 2)));
    }
    assert!(tried.len() == 2 && tried[0] != tried[1], "{tried:?}");
    told.retain(|event| matches!(event.kind, EventKind::VmKilled | EventKind::VmNotKilled));
    let expected = [(EventKind::VmNotKilled, Some(&*tried[0])), (EventKind::VmKilled, Some(&*tried[1]))];
    assert_eq!(kinds(&told), expected);
    assert!(told[0].reason.contains("permission denied"), "{told:?}");
    let whole = fleet.snapshot().whole;
    assert_eq!((whole.kills, whole.failed_kills), (1, 1));
}

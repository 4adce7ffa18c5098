//! What microVMs are told when memory is short, and when there is enough again.

use super::arbitration::Turn;
use super::fleet::{Fleet, SILENT_TICKS};
use super::host::{Held, Process};
use crate::control::fleet::StartRequest;
use crate::control::link::{Envelope, Hello, Offer, Report};
use crate::policy::Cold;
use crate::policy::fleet::Host;
use crate::zone::{Error, Limits, Pool, Tree};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Of 16 GiB.
fn host(available_bytes: u64) -> Host {
    Host { total_bytes: 16 * GIB, available_bytes, stall_ppm: 0 }
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
        floor_bytes: 0,
        limits,
        zones: vec![],
        offer,
    };
    fleet.observe(name, &report, || Held { private_bytes: GIB }).unwrap();
    envelope
}

#[test]
fn on_a_calm_host_nobody_is_pressed_and_growth_is_granted() {
    let mut fleet = fleet(0, [true; 2]);
    assert_eq!(fleet.arbitrate(host(12 * GIB)), None);
    let envelope = answer(&mut fleet, "a", true);
    assert_eq!((envelope.lambda_permille, envelope.take_bytes, envelope.max_bytes), (1000, 0, GIB));
    assert_eq!((envelope.high_bytes, envelope.grant_bytes), (None, 0), "there is nothing above its max");
}

#[test]
fn a_short_host_takes_back_once_a_tick_and_says_so_once() {
    let mut fleet = fleet(0, [true; 2]);
    // Less than 4 %: 6 % is wanted, 480 MiB more.
    let short = host(500 * MIB);
    assert!(
        matches!(fleet.arbitrate(short), Some(Turn::Short { deficit_bytes, .. }) if deficit_bytes > 480 * MIB)
    );
    let [a, b] = ["a", "b"].map(|name| answer(&mut fleet, name, true));
    assert!(a.lambda_permille > 1000 && a.lambda_permille == b.lambda_permille, "{a:?} {b:?}");
    assert!(
        a.take_bytes + b.take_bytes > 480 * MIB && a.take_bytes.abs_diff(b.take_bytes) < 16 * MIB,
        "{a:?} {b:?}"
    );
    assert_eq!(fleet.envelope("a").unwrap().take_bytes, 0, "another link is not told again");
    // What has been directed is waited for.
    assert_eq!(fleet.arbitrate(short), None);
    assert_eq!(answer(&mut fleet, "a", true).take_bytes, 0);
    assert_eq!(fleet.arbitrate(host(12 * GIB)), Some(Turn::Enough));
}

#[test]
fn who_does_not_follow_gets_a_ceiling() {
    let mut fleet = fleet(0, [true, false]);
    fleet.arbitrate(host(500 * MIB));
    let [a, b] = ["a", "b"].map(|name| answer(&mut fleet, name, name == "a"));
    assert_eq!(a.high_bytes, None, "{a:?}");
    assert!(b.high_bytes.is_some_and(|bytes| bytes <= GIB - b.take_bytes), "{b:?}");
    // Nor does who has fallen silent.
    for _ in 0..=SILENT_TICKS {
        fleet.charge_silent(|_| Held { private_bytes: GIB });
    }
    for _ in 0..6 {
        fleet.arbitrate(host(500 * MIB));
    }
    assert!(fleet.envelope("a").unwrap().high_bytes.is_some());
}

#[test]
fn nobody_is_started_while_all_that_is_lacking_is_protected() {
    let mut fleet = fleet(GIB, [true; 2]);
    assert!(
        matches!(fleet.arbitrate(host(500 * MIB)), Some(Turn::Refusing { unmet_bytes }) if unmet_bytes > 0)
    );
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
    fleet.arbitrate(host(12 * GIB));
    fleet.admit(&request, starter).unwrap();
}

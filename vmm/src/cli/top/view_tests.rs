//! Keys and looks against what they do, and samples that the drawing's tests use too.

use super::column::Column;
use super::view::{Decisions, HostLook, Look, Press, View, Vm};
use crate::cli::ps::State as Life;
use crate::cli::usage::Usage;
use balloon::control::api::{ZoneDocument, ZoneKind};
use balloon::control::fleet::HostDocument;
use balloon::control::reclaim::DecisionDocument;
use balloon::policy::State;
use proptest::prelude::*;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

const MIB: u64 = 1 << 20;

/// A microVM of 256 MiB of which so much is resident.
pub(super) fn vm(name: &str, resident_mib: u64) -> Vm {
    let resident = resident_mib * MIB;
    let zone = |name: &str, kind, size_bytes, resident_bytes| ZoneDocument {
        name: name.into(),
        kind,
        node: None,
        host_node: None,
        huge_pages: false,
        size_bytes,
        max_bytes: None,
        resident_bytes: Some(resident_bytes),
        ballooned_bytes: 0,
        reported_bytes: 0,
    };
    let mut usage = Usage::silent(name, &format!("{name}-id"), Life::Running);
    (usage.size_bytes, usage.ceiling_bytes) = (Some(256 * MIB), Some(256 * MIB));
    (usage.target_bytes, usage.guest_used_bytes) = (Some(resident + 6 * MIB), Some(resident - 9 * MIB));
    (usage.resident_bytes, usage.saved_bytes) = (Some(resident), Some(256 * MIB - resident));
    (usage.refaults_per_s, usage.stall_percent) = (Some(1.26), Some(0.05));
    (usage.law, usage.cpu_percent) = (Some(State::Trimming), Some(12.34));
    let private = zone("ram", ZoneKind::Private, 256 * MIB, resident);
    let shared =
        [zone("0a1b2c", ZoneKind::Shared, 100 * MIB, 0), zone("3d4e5f", ZoneKind::Shared, 20 * MIB, 0)];
    Vm { usage, zones: Some([private].into_iter().chain(shared).collect()) }
}

/// One that does not answer.
pub(super) fn silent(name: &str) -> Vm {
    Vm { usage: Usage::silent(name, &format!("{name}-id"), Life::NoAnswer), zones: None }
}

pub(super) fn look(vms: Vec<Vm>) -> Look {
    let daemon = HostDocument {
        pid: 7,
        capacity_bytes: 14 << 30,
        overcommit: true,
        main_bytes: 0,
        protected_bytes: 0,
        committed_bytes: 768 * MIB,
        vms: 3,
        orphans: 0,
        available_bytes: 9 << 30,
        lambda_permille: 1000,
        deficit_bytes: 0,
        refuses: false,
    };
    let host = HostLook {
        total_bytes: 16 << 30,
        available_bytes: 9 << 30,
        stall_ppm: Some(12_500),
        daemon: Some(daemon),
    };
    Look { host, vms }
}

pub(super) fn decisions(id: &str) -> Decisions {
    let decision = |age_ms, order: &str, reason: &str| DecisionDocument {
        age_ms,
        order: order.into(),
        reason: reason.into(),
        decision: serde_json::Value::Null,
    };
    let decisions = vec![
        decision(65_000, "now trimming", "over: started: no trimming until 60 s"),
        decision(
            4000,
            "evict 3 MiB of page cache, unused for 300 s",
            "harm 0.000 of 1, cold 30 MiB, LRU 80 MiB, gain 5",
        ),
    ];
    Decisions { id: id.into(), decisions }
}

pub(super) fn press(view: &mut View, keys: &str) {
    for key in keys.chars() {
        assert_eq!(view.press(KeyEvent::from(KeyCode::Char(key))), Press::GoOn);
    }
}

/// Three microVMs, one of which does not answer; the second row is selected.
pub(super) fn three() -> View {
    let mut view = View::default();
    for resident in [80, 120, 84] {
        view.look(look(vec![vm("web1", resident), silent("web2"), vm("db", 200)]));
    }
    assert_eq!(view.selected(), Some("db-id"), "the first row of the first look");
    press(&mut view, "j");
    view
}

fn order(view: &View) -> Vec<&str> {
    view.vms().iter().map(|vm| vm.usage.name.as_str()).collect()
}

#[test]
fn rows_are_sorted_and_those_that_say_nothing_come_last() {
    let mut view = three();
    assert_eq!(order(&view), ["db", "web1", "web2"]);
    press(&mut view, "r");
    assert_eq!(order(&view), ["web1", "db", "web2"]);
    // The next column is what is saved.
    press(&mut view, "rs");
    assert_eq!((order(&view), view.sort().0), (vec!["web1", "db", "web2"], Column::Saved));
    press(&mut view, "<<<<<<");
    assert_eq!((order(&view), view.sort().0), (vec!["db", "web1", "web2"], Column::Name));
    press(&mut view, "<");
    assert_eq!(view.sort().0, Column::Zones);
    press(&mut view, ">");
    assert_eq!(view.sort().0, Column::Name);
}

#[test]
fn the_selection_stays_with_its_microvm() {
    let mut view = three();
    press(&mut view, "kkk");
    assert_eq!(view.selected(), Some("db-id"));
    press(&mut view, "jjjj");
    assert_eq!(view.selected(), Some("web2-id"));
    press(&mut view, "kr");
    assert_eq!((view.selected(), view.position()), (Some("web1-id"), Some(0)));
    // It is gone: whoever has its place.
    view.look(look(vec![vm("db", 200), vm("new", 250)]));
    assert_eq!((view.selected(), view.position()), (Some("db-id"), Some(0)));
    assert_eq!(view.residents().collect::<Vec<_>>(), [Some(200 * MIB); 4]);
    view.look(look(Vec::new()));
    assert_eq!((view.selected(), view.position()), (None, None));
}

#[test]
fn what_is_shown_stays_while_paused() {
    let mut view = three();
    press(&mut view, " ");
    view.look(look(Vec::new()));
    assert_eq!(view.vms().len(), 3);
    press(&mut view, " ");
    view.look(look(Vec::new()));
    assert_eq!(view.vms().len(), 0);
}

#[test]
fn decisions_are_those_of_the_selected_one() {
    let mut view = three();
    view.decide(decisions("web1-id"));
    assert_eq!(view.decisions().len(), 2);
    press(&mut view, "j");
    assert!(view.decisions().is_empty());
}

#[test]
fn help_is_left_by_any_key_and_the_program_by_q() {
    let mut view = three();
    press(&mut view, "h");
    assert!(view.shows_help());
    press(&mut view, "q");
    assert!(!view.shows_help());
    assert_eq!(view.press(KeyEvent::from(KeyCode::Char('q'))), Press::Quit);
    press(&mut view, "hc");
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.press(interrupt), Press::Quit);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut view = View::default();
    for _ in 0..1000 {
        view.look(look(vec![vm("web", 80)]));
    }
    assert_eq!(view.residents().count(), 450);
}

proptest! {
    #[test]
    fn some_row_is_selected_whatever_happens(steps in prop::collection::vec((0usize..5, "[jkgGsr<>]{0,5}"), 1..20)) {
        let mut view = View::default();
        for (count, keys) in steps {
            view.look(look((0..count).map(|at| vm(&format!("vm{at}"), 80 + at as u64)).collect()));
            press(&mut view, &keys);
            prop_assert_eq!(view.position().is_some(), count > 0);
            prop_assert!(view.position().is_none_or(|at| at < count));
        }
    }
}

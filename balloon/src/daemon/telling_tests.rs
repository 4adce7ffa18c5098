//! What is told of comings, goings and changes.

use super::changes::WANTED_TICKS;
use super::fleet::Fleet;
use super::fleet_tests::{GIB, VMM, fleet, held, hello, limits, observe, report, request};
use super::host::Process;
use crate::control::events::EventKind::{self, *};
use crate::control::fleet::GroupLimitsRequest;
use crate::control::link::{End, OwnPolicy, Report, Usage};
use crate::daemon::config::Config;

/// What has been told since the last look: of whom, and in which group.
fn told(fleet: &mut Fleet) -> Vec<(EventKind, String, String)> {
    let documents = fleet.take_told().into_iter().map(|event| event.document(1, 2));
    documents.map(|one| (one.kind, one.vm.unwrap_or_default(), one.group.unwrap_or_default())).collect()
}

fn of(kind: EventKind, vm: &str, group: &str) -> (EventKind, String, String) {
    (kind, vm.into(), group.into())
}

#[test]
fn comings_and_goings_are_told_once() {
    let mut fleet = fleet(false);
    fleet.admit(&request("a", "ci", limits(0, GIB)), VMM).unwrap();
    assert_eq!(told(&mut fleet), [], "it may yet fail");
    fleet.greet(&hello("a", "ci", limits(0, GIB)), VMM).unwrap();
    // A link that broke and was made anew.
    fleet.greet(&hello("a", "ci", limits(0, GIB)), VMM).unwrap();
    assert_eq!(told(&mut fleet), [of(VmStarted, "a", "ci")]);
    let other = Process { pid: 8, start_ticks: 2 };
    fleet.greet(&hello("b", "", limits(0, GIB)), other).unwrap();
    assert_eq!(told(&mut fleet), [of(VmFound, "b", "")]);
    fleet.admit(&request("c", "", limits(0, 9 * GIB)), VMM).unwrap_err();
    assert_eq!(told(&mut fleet), [of(StartRefused, "c", "")]);
    let starter = Process { pid: 9, start_ticks: 3 };
    fleet.admit(&request("d", "ci", limits(0, GIB)), starter).unwrap();
    fleet.sweep(|process| process != starter, |_| held(0));
    assert_eq!(told(&mut fleet), [of(StartForgotten, "d", "ci")]);
    // Another process has its name.
    fleet.greet(&hello("b", "", limits(0, GIB)), starter).unwrap();
    assert_eq!(told(&mut fleet), [of(VmEnded, "b", ""), of(VmFound, "b", "")]);
    observe(&mut fleet, &report(&[("ram", 600)]), 1000);
    fleet.sweep(|process| process != VMM, |_| held(700));
    assert_eq!(told(&mut fleet), [of(VmEnded, "a", "ci"), of(Orphaned, "a", "")]);
    fleet.sweep(|_| true, |_| held(600));
    assert_eq!(told(&mut fleet), []);
    fleet.sweep(|_| true, |_| held(0));
    assert_eq!(told(&mut fleet), [of(Merged, "a", "")]);
    // Whose memory is back at once was never an orphan.
    fleet.sweep(|_| false, |_| held(0));
    assert_eq!(told(&mut fleet), [of(VmEnded, "b", "")]);
}

#[test]
fn how_a_microvm_ended_is_told_by_its_own_word() {
    let ended = |said: &[End]| {
        let mut fleet = fleet(false);
        fleet.greet(&hello("a", "", limits(0, GIB)), VMM).unwrap();
        said.iter().for_each(|end| fleet.says_end("a", *end));
        fleet.sweep(|_| true, |_| held(0));
        fleet.take_told();
        fleet.sweep(|_| false, |_| held(0));
        let event = fleet.take_told().remove(0).document(1, 2);
        (event.reason, event.figures.get("exit_code").copied())
    };
    let exited = |code, out_of_memory| End::Exited { code, out_of_memory };
    for (said, reason, code) in [
        (exited(3, false), "its workload has ended with exit code 3; it held 0 B", 3),
        (
            exited(137, true),
            "its guest ran out of memory, and its workload has ended with exit code 137; it held 0 B",
            137,
        ),
        (
            End::NotStarted { code: 127 },
            "its workload could not be started, which is exit code 127; it held 0 B",
            127,
        ),
        (End::Failed, "it has failed, which is exit code 125; it held 0 B", 125),
    ] {
        assert_eq!(ended(&[said]), (reason.into(), Some(code)));
    }
    let (reason, code) = ended(&[]);
    assert!(reason.contains("without saying why") && code.is_none(), "{reason}");
    // One that lives on has not ended, and may be killed yet.
    let mut fleet = fleet(false);
    fleet.greet(&hello("a", "", limits(0, GIB)), VMM).unwrap();
    fleet.says_end("a", exited(0, false));
    observe(&mut fleet, &report(&[]), 0);
    fleet.sweep(|_| false, |_| held(0));
    assert!(fleet.take_told().pop().unwrap().to_string().contains("without saying why"));
}

#[test]
fn limits_that_may_be_refused_are_promised_until_they_are_given_up() {
    let mut fleet = fleet(false);
    fleet.greet(&hello("a", "", limits(0, GIB)), VMM).unwrap();
    let says = |fleet: &mut Fleet, max| observe(fleet, &Report { limits: limits(0, max), ..report(&[]) }, 0);
    says(&mut fleet, GIB);
    fleet.change("a", limits(0, 3 * GIB)).unwrap();
    // It has not heard of them yet: nobody else is promised what they take.
    says(&mut fleet, GIB);
    let other = request("b", "", limits(0, 2 * GIB));
    fleet.admit(&other, Process { pid: 8, start_ticks: 2 }).unwrap_err();
    for _ in 0..WANTED_TICKS {
        fleet.charge_silent(|_| held(0));
    }
    fleet.admit(&other, Process { pid: 8, start_ticks: 2 }).unwrap();
    // What was given up nobody has by saying so.
    fleet.take_told();
    says(&mut fleet, 3 * GIB);
    let tree = fleet.tree();
    assert_eq!((tree.binding_max(tree.vm("a").unwrap()), told(&mut fleet)), (GIB, vec![]));
}

#[test]
fn what_operators_change_is_told_if_it_changes() {
    let mut fleet = fleet(true);
    fleet.greet(&hello("a", "ci", limits(0, GIB)), VMM).unwrap();
    let of_user = |bytes| Report { manual: true, ceiling_bytes: bytes, ..report(&[]) };
    // The ceiling of one that is only just known may be old.
    observe(&mut fleet, &of_user(GIB / 2), 0);
    fleet.take_told();
    observe(&mut fleet, &of_user(GIB / 2), 0);
    fleet.change("a", limits(0, GIB)).unwrap();
    fleet.move_vm("a", "ci").unwrap();
    assert_eq!(told(&mut fleet), []);
    observe(&mut fleet, &of_user(GIB / 4), 0);
    observe(&mut fleet, &report(&[]), 0);
    let own = OwnPolicy { working_set_age_ms: Some(30_000), stall_budget_ppm: None };
    let with_own = |own| Report { usage: Usage { own, ..Usage::default() }, ..report(&[]) };
    observe(&mut fleet, &with_own(own), 0);
    observe(&mut fleet, &with_own(own), 0);
    let last = fleet.told.last().unwrap().clone().document(1, 2);
    assert_eq!(last.reason, "a user has set its working-set age from auto to 30 s");
    // Whatever it says that no law takes.
    let own = OwnPolicy { working_set_age_ms: Some(u64::MAX), stall_budget_ppm: Some(3000) };
    observe(&mut fleet, &with_own(own), 0);
    let last = fleet.take_told().pop().unwrap().document(1, 2);
    let reason = "a user has set its working-set age from 30 s to unknown, stall budget from auto to 0.3 %";
    assert_eq!((last.kind, last.reason.as_str(), last.figures.len()), (VmPolicy, reason, 2));
    observe(&mut fleet, &report(&[]), 0);
    assert_eq!(told(&mut fleet), [of(VmPolicy, "a", "ci")]);
    observe(&mut fleet, &of_user(GIB / 4), 0);
    observe(&mut fleet, &report(&[]), 0);
    // The law's own steps are no user's.
    observe(&mut fleet, &Report { ceiling_bytes: GIB / 8, ..report(&[]) }, 0);
    assert_eq!(told(&mut fleet), [of(VmCeiling, "a", "ci"), of(VmCeiling, "a", "ci")]);
    // Not before the VMM has them, too, and says so: it may refuse.
    fleet.change("a", limits(0, 3 * GIB)).unwrap();
    observe(&mut fleet, &Report { limits: limits(0, GIB), ..report(&[]) }, 0);
    assert_eq!(told(&mut fleet), []);
    // Nor does what it refused bind it, or what another one wanted meanwhile.
    let max = |fleet: &Fleet| fleet.tree().binding_max(fleet.tree().vm("a").unwrap());
    fleet.change("a", limits(0, GIB / 4)).unwrap();
    assert_eq!(max(&fleet), GIB, "nobody is squeezed by what he may refuse");
    observe(&mut fleet, &Report { limits: limits(0, GIB), ..report(&[]) }, 0);
    assert_eq!((told(&mut fleet), max(&fleet)), (vec![], GIB));
    // What it took does.
    fleet.change("a", limits(0, GIB / 2)).unwrap();
    observe(&mut fleet, &Report { limits: limits(0, GIB / 2), ..report(&[]) }, 0);
    observe(&mut fleet, &Report { limits: limits(0, GIB), ..report(&[]) }, 0);
    assert_eq!((told(&mut fleet), max(&fleet)), (vec![of(VmLimits, "a", "ci")], GIB / 2));
    fleet.change("a", limits(0, 2 * GIB)).unwrap();
    observe(&mut fleet, &Report { limits: limits(0, 2 * GIB), ..report(&[]) }, 0);
    assert_eq!(told(&mut fleet), [of(VmLimits, "a", "ci")]);
    fleet.move_vm("a", "").unwrap();
    fleet.move_vm("a", "web").unwrap();
    assert_eq!(told(&mut fleet), [of(VmMoved, "a", ""), of(VmMoved, "a", "web")]);
    let group = GroupLimitsRequest { group: "web".into(), weight: Some(7), ..GroupLimitsRequest::default() };
    fleet.change_group(&group).unwrap();
    fleet.change_group(&group).unwrap();
    fleet.change_group(&GroupLimitsRequest { weight: Some(0), ..group }).unwrap_err();
    assert_eq!(told(&mut fleet), [of(GroupLimits, "", "web")]);
    let config = Config::parse("[groups.web]\nmax = '1g'\n[groups.new]\nmax = '1g'\n").unwrap();
    fleet.configure(&config, 16 * GIB).unwrap();
    fleet.configure(&config, 16 * GIB).unwrap();
    assert_eq!(told(&mut fleet), [of(GroupLimits, "", "web")]);
}

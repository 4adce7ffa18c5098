//! What microVMs are told of their groups' policies as those change and they move.

use super::config::Config;
use super::fleet::Fleet;
use super::host::Process;
use crate::control::link::{GroupPolicy, Hello, Inherited};
use crate::zone::Limits;

const MEMORY_BYTES: u64 = 16 << 30;
const NOTHING: GroupPolicy = GroupPolicy { working_set_age_ms: None, stall_budget_ppm: None };

fn fleet(text: &str) -> Fleet {
    let config = Config::parse(text).unwrap();
    let mut fleet = Fleet::new(config.tree(MEMORY_BYTES).unwrap());
    fleet.configure(&config, MEMORY_BYTES).unwrap();
    fleet
}

fn greet(fleet: &mut Fleet, name: &str, group: &str, inherits: bool) {
    let hello = Hello {
        name: name.into(),
        pid: 7,
        group: group.into(),
        limits: Limits::default(),
        memory_bytes: 1 << 30,
        zones: vec!["ram".into()],
        inherits,
    };
    let pid = u32::from(name.as_bytes()[0]);
    fleet.greet(&hello, Process { pid, start_ticks: 1 }).unwrap();
}

fn policy(fleet: &mut Fleet, name: &str) -> Option<GroupPolicy> {
    fleet.envelope(name).unwrap().policy
}

fn age(group: &str, value: u64) -> Option<GroupPolicy> {
    let working_set_age_ms = Some(Inherited { group: group.into(), value });
    Some(GroupPolicy { working_set_age_ms, ..NOTHING })
}

#[test]
fn it_comes_with_the_first_envelope_and_only_to_who_inherits() {
    let mut fleet = fleet("[groups.ci]\nworking-set-age = '60s'\n");
    // A group that nobody configured is in one that somebody did.
    greet(&mut fleet, "a", "ci/linux", true);
    greet(&mut fleet, "b", "ci", false);
    greet(&mut fleet, "c", "", true);
    assert_eq!(policy(&mut fleet, "a"), age("ci", 60_000));
    assert_eq!(policy(&mut fleet, "b"), None);
    assert_eq!(policy(&mut fleet, "c"), Some(NOTHING));
}

#[test]
fn it_follows_who_moves_and_what_is_configured_anew() {
    let mut fleet = fleet("[groups.ci]\nworking-set-age = '60s'\n[groups.web]\nstall-budget = '0.03%'\n");
    greet(&mut fleet, "a", "ci", true);
    fleet.move_vm("a", "web/x").unwrap();
    let budget = Some(Inherited { group: "web".into(), value: 300 });
    assert_eq!(policy(&mut fleet, "a"), Some(GroupPolicy { stall_budget_ppm: budget, ..NOTHING }));
    fleet.move_vm("a", "").unwrap();
    assert_eq!(policy(&mut fleet, "a"), Some(NOTHING));
    fleet.move_vm("a", "ci/linux").unwrap();
    for (text, told) in [
        ("[groups.'ci/linux']\nworking-set-age = '2m'\n", age("ci/linux", 120_000)),
        ("[groups.ci]\nworking-set-age = '1h'\n", age("ci", 3_600_000)),
        ("", Some(NOTHING)),
    ] {
        fleet.configure(&Config::parse(text).unwrap(), MEMORY_BYTES).unwrap();
        assert_eq!(policy(&mut fleet, "a"), told, "{text}");
    }
}

#[test]
fn a_configuration_that_cannot_be_had_changes_nothing() {
    let mut fleet = fleet("[groups.ci]\nworking-set-age = '60s'\n");
    greet(&mut fleet, "a", "ci", true);
    let text = "[pool]\ncapacity = '1g'\n[groups.ci]\nmin = '2g'\nworking-set-age = '1h'\n";
    assert!(fleet.configure(&Config::parse(text).unwrap(), MEMORY_BYTES).is_err());
    assert_eq!(policy(&mut fleet, "a"), age("ci", 60_000));
}

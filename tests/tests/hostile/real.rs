//! Every abuse of every table on the real VMM, one after another in one life of the guest.

use crate::{chains, configuration, numbers, registers, reports, rings, statistics};
use balloon::device::ProtocolErrors;
use balloon::logging::{BURST, WINDOW};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tests::control::ask;
use tests::hostile::clients::{Clients, memory_of};
use tests::hostile::driver::*;
use tests::hostile::program::Program;
use tests::hostile::vmm::{MACHINE, Vmm};
use tests::hostile::{Abuse, Count, Driver};
use tests::run::until;
use vmm::machine::layout;
use vmm::report::Outcome;

/// The most that the VMM holds for itself: 3 MiB, and some slack for the unoptimised code of a test's build.
const OWN_BYTES: u64 = (3 << 20) + SLACK_BYTES;
const SLACK_BYTES: u64 = 512 << 10;
/// By how much all abuses together may make that grow: code and buffers that have been used once.
const GROWTH_BYTES: u64 = 384 << 10;
/// What the host says to the guest by its ceiling: so many pages less than there are.
const WORD: u32 = 12_345;
/// Messages of the VMM that the guest can cause in each window of the log: in 3 places of the transport and in 10 of
/// virtio-queue.
const MESSAGES: u64 = 13 * BURST as u64;

/// Held by who runs a VMM: what one holds for itself is its share of what two have in common.
static ALONE: Mutex<()> = Mutex::new(());

fn all() -> Vec<&'static Abuse> {
    let tables = [
        registers::ABUSES,
        configuration::ABUSES,
        rings::ABUSES,
        chains::ABUSES,
        numbers::ABUSES,
        reports::ABUSES,
        statistics::ABUSES,
    ];
    tables.into_iter().flatten().collect()
}

fn hostile(abuses: &[&Abuse]) -> Program {
    let mut driver = Driver::new(MACHINE);
    driver.program.print("begun");
    // What it says first of its use fixes the floor: later lies change nothing, so the host still finds ceilings.
    let size: u64 = MACHINE.regions.iter().map(|(_, bytes)| bytes).sum();
    driver.reset();
    driver.bring_up();
    statistics::answer(&mut driver, &[(statistics::AVAILABLE, size - (64 << 20))]);
    for abuse in abuses {
        driver.program.print(&format!("<{}>", abuse.name));
        abuse.write(&mut driver);
        driver.behave();
    }
    driver.program.print("through");
    let target = driver.config(0);
    driver.program.await_value(4, target, WORD.into(), u64::MAX);
    driver.program.print("heard");
    driver.program.port(layout::SLEEP_CONTROL_PORT, 0x34);
    driver.program
}

#[test]
fn the_vmm_endures_all_of_it() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let abuses = all();
    let start = Instant::now();
    let vmm = Vmm::start(&hostile(&abuses));
    vmm.wait_for("begun");
    let before = vmm.own_pss();
    let clients = Clients::start(vmm.socket());
    let texts = || vmm.texts().0;
    until(|| texts().contains("through") || !clients.are_content(), || tail(&texts()));
    assert!(clients.answers() > abuses.len() as u64, "{} answers", clients.answers());
    clients.end();

    let failed = texts();
    assert!(!failed.contains("! "), "the guest saw what it should not:\n{}", tail(&failed));
    counts(&abuses, vmm.socket());
    let after = vmm.own_pss();
    assert!(after <= OWN_BYTES && after <= before + GROWTH_BYTES, "{before} bytes grew to {after}");
    let messages = vmm.texts().1;
    let most = MESSAGES * (2 + start.elapsed().as_secs() / WINDOW.as_secs());
    assert!(messages.len() as u64 <= most && messages.iter().all(|line| line.len() < 500), "{messages:?}");

    let size: u64 = MACHINE.regions.iter().map(|(_, bytes)| bytes).sum();
    let ceiling = size - u64::from(WORD) * PAGE;
    let (head, _) =
        ask(vmm.socket(), "PUT", "/v1/memory/ceiling", &format!("{{\"bytes\":{ceiling}}}")).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    vmm.wait_for("heard");
    let (ended, outcome) = vmm.end();
    let _ = ended.exits(0);
    let Some(Outcome::Failed { message, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(message.contains("powered off"), "{message}");
}

#[test]
fn a_guest_that_starts_no_workload_is_given_up() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut driver = Driver::new(MACHINE);
    driver.program.print("begun");
    driver.program.await_value(4, driver.config(0), 1, u64::MAX);
    let vmm = Vmm::start_for(&driver.program, 2);
    vmm.wait_for("begun");
    let (ended, outcome) = vmm.end();
    let _ = ended.exits(0);
    let Some(Outcome::Failed { message, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(message.contains("did not start its workload within 2 s"), "{message}");
}

/// The VMM's books and counters are what all abuses together make, and the last good driver's page: of each kind that
/// some abuse lists, and nothing of all others.
fn counts(abuses: &[&Abuse], socket: &std::path::Path) {
    let memory = memory_of(socket);
    assert_eq!(memory["ballooned_bytes"], PAGE, "{memory}");
    let mut expected = BTreeMap::<&str, (u64, bool)>::new();
    for (kind, count) in abuses.iter().flat_map(|abuse| abuse.counts) {
        let (sum, exact) = expected.entry(kind).or_insert((0, true));
        match count {
            Count::Exactly(more) => *sum += more,
            Count::Any => *exact = false,
        }
    }
    for (kind, _) in ProtocolErrors::default().by_kind() {
        let counted = memory["protocol_errors"][kind].as_u64().unwrap_or(0);
        let (sum, exact) = expected.remove(kind).unwrap_or((0, true));
        assert!(counted == sum || !exact && counted > sum, "{counted} {kind}, not {sum}");
    }
    assert!(expected.is_empty(), "nobody counts {expected:?}");
    // Each kind of misuse of the registers is in some abuse.
    for kind in ["impossible_registers", "untimely_writes", "impossible_statuses", "impossible_queues"] {
        assert!(memory["register_errors"][kind].as_u64() > Some(0), "{kind}: {memory}");
    }
    assert_eq!((&memory["book_imbalances"], &memory["release_failures"]), (&json!(0), &json!(0)), "{memory}");
}

fn tail(text: &str) -> String {
    let failures = text.lines().position(|line| line.starts_with('!')).map_or(0, |at| at.saturating_sub(3));
    let lines: Vec<_> = text.lines().skip(failures).collect();
    lines.get(..40).unwrap_or(&lines).join("\n")
}

#[test]
fn there_are_enough_of_them_and_each_has_a_name() {
    let mut names: Vec<_> = all().iter().map(|abuse| abuse.name).collect();
    assert!(names.len() >= 60, "{}", names.len());
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all().len(), "two have one name");
}

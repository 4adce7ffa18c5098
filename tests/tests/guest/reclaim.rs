//! The reclaim law at work: it hears of the guest, acts on it, and says why; or it is off.

use std::fs;
use tests::memory::{Guest, MIB};
use tests::run::until;
use tests::{Ballast, Kernel, setup};

tests::on_every_kernel!(the_law_hears_of_what_happens_in_the_guest);

fn law(guest: &Guest) -> serde_json::Value {
    guest.answer("GET", "/v1/reclaim", "").0
}

fn wait_for_law(guest: &Guest, what: &str, is_so: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    until(|| is_so(&law(guest)), || format!("{what}: {}", law(guest)));
    law(guest)
}

fn start(ballast: &Ballast, kernel: &Kernel, options: &[&str]) -> Guest {
    Guest::start_with(ballast, |run| run.options(kernel.options()).options(options))
}

fn the_law_hears_of_what_happens_in_the_guest(kernel: &Kernel) {
    let ballast = setup();
    let guest = start(&ballast, kernel, &["-m", "256m", "--working-set-age", "60s"]);
    let told = wait_for_law(&guest, "samples", |law| law["samples_total"].as_u64() >= Some(2));
    println!("{told:#}");
    assert!(told["capabilities"]["psi_trigger"] == true && told["capabilities"]["memory_reclaim"] == true);
    assert_eq!((&told["mode"], &told["working_set_age_ms"]), (&"auto".into(), &60_000.into()));
    // What goes by hand is not the law's, and what users want it goes by.
    ballast.command(&["set", "guest", "--stall-budget", "0.3%", "--working-set-age", "2m"]).end().exits(0);
    let told = law(&guest);
    assert_eq!((&told["stall_budget_ppm"], &told["working_set_age_ms"]), (&3000.into(), &120_000.into()));
    guest.set_ceiling(160 * MIB);
    wait_for_law(&guest, "a law that is suspended", |law| law["status"]["state"] == "manual");
    let policy = "working-set age 120 s (own), stall budget 0.3 % (own)";
    ballast.command(&["inspect", "guest"]).end().exits(0).shows("reclaim ").shows(policy);
    ballast.command(&["set", "guest", "--working-set-age", "auto"]).end().exits(0);
    let told = law(&guest);
    let in_force = (&told["working_set_age_ms"], &told["working_set_age_from"]);
    assert_eq!(in_force, (&300_000.into(), &"default".into()), "{told:#}");
    let policy = "working-set age 300 s (default), stall budget 0.3 % (own)";
    ballast.command(&["why", "guest"]).end().exits(0).shows("uses ").shows(policy).shows("suspended");
    ballast.command(&["set", "guest", "--stall-budget", "0%"]).end().refuses().says("0.001%");
    guest.end();
}

/// A soft limit holds until the guest suffers for it, and then gives way at once.
#[test]
fn pressure_lifts_a_soft_limit() {
    let ballast = setup();
    let kernel = Kernel::named("6.1-cloud");
    let mut guest = start(&ballast, &kernel, &["-m", "384m", "--memory-high", "192m"]);
    let ceiling = |memory: &tests::memory::Memory| memory.0["ceiling"]["bytes"].as_u64().unwrap();
    let limited = guest.wait_until(|memory| ceiling(memory) <= 192 * MIB && memory.is_settled());
    guest.is_told("zero held 200");
    let lifted = guest.wait_until(|memory| ceiling(memory) >= 192 * MIB + 100 * MIB);
    println!("{limited:?}\n{lifted:?}\n{:#}", guest.answer("GET", "/v1/decisions", "").0);
    guest.does("eval ls -l /tmp/taken/held");
    assert!(guest.output().contains("209715200"), "{}", guest.output());
    guest.end();
}

#[test]
fn a_law_that_is_off_does_nothing() {
    let ballast = setup();
    let kernel = Kernel::named("6.12-cloud");
    let mut guest = start(&ballast, &kernel, &["-m", "256m", "--reclaim", "off"]);
    // Longer than it takes a law that is on to have heard of the guest, and the guest to have swap.
    guest.does("sleep 8");
    let told = law(&guest);
    assert_eq!((&told["mode"], &told["samples_total"]), (&"off".into(), &0.into()), "{told:#}");
    guest.does("eval grep SwapTotal: /proc/meminfo");
    assert!(guest.output().contains("SwapTotal:             0 kB"), "{}", guest.output());
    guest.end();
}

/// Half a minute of idling, and then as before: nothing of the guest's own is left changed.
#[test]
fn the_kernels_own_compaction_sleeps_while_the_guest_idles() {
    let ballast = setup();
    let kernel = Kernel::named("6.1-cloud");
    let mut guest = start(&ballast, &kernel, &["-m", "256m"]);
    let proactiveness = || {
        let words = ["exec", "guest", "cat", "/proc/sys/vm/compaction_proactiveness"];
        String::from_utf8(ballast.command(&words).end().exits(0).stdout).unwrap()
    };
    let paces = |guest: &Guest, sample_ms: u32| {
        let decisions = guest.answer("GET", "/v1/decisions", "").0.to_string();
        decisions.matches(&format!("\"sample_ms\":{sample_ms}}}")).count()
    };
    let usual = proactiveness();
    assert_ne!(usual, "0\n");
    until(|| paces(&guest, 10_000) > 0, || guest.answer("GET", "/v1/decisions", "").0.to_string());
    until(|| proactiveness() == "0\n", proactiveness);
    guest.is_told("eval timeout 30 yes > /dev/null; true");
    until(|| paces(&guest, 1000) > 0, || guest.answer("GET", "/v1/decisions", "").0.to_string());
    until(|| proactiveness() == usual, proactiveness);
    guest.end();
}

#[test]
fn a_recording_replays_and_a_changed_one_does_not() {
    let ballast = setup();
    let path = ballast.path("trace");
    let recording = path.to_str().unwrap();
    let kernel = Kernel::named("6.12-cloud");
    let mut guest = start(&ballast, &kernel, &["-m", "256m", "--memory-high", "176m", "--record", recording]);
    guest.does("zero file 48");
    ballast.command(&["set", "guest", "--stall-budget", "0.3%"]).end().exits(0);
    wait_for_law(&guest, "decisions", |law| !law["last"].is_null());
    // The law is told with its next second.
    let text = || fs::read_to_string(&path).unwrap();
    until(|| text().contains(r#""stall_budget_ppm":3000"#), text);
    guest.end();
    let replayed = ballast.command(&["replay", recording]).end().exits(0);
    let said = String::from_utf8_lossy(&replayed.stdout).into_owned();
    println!("{said}");
    assert!(said.ends_with(" decisions: all as recorded\n") && !said.contains(" 0 decisions"), "{said}");
    let text = text();
    // One decision less, and the law has one too many.
    let line = text.lines().position(|line| line.starts_with(r#"{"did""#)).unwrap();
    let others = text.lines().enumerate().filter(|(number, _)| *number != line);
    fs::write(&path, others.map(|(_, text)| format!("{text}\n")).collect::<String>()).unwrap();
    ballast.command(&["replay", recording]).end().refuses().says("and the law decides");
}

//! The daemon knows every microVM and what it holds, and needs nothing but them to know it again.

use std::time::Duration;
use tests::daemon::{Daemon, charge};
use tests::memory::{Guest, MIB, Memory};
use tests::run::until;
use tests::{is_long, setup};

const POOL: &str = "[pool]\ncapacity = '4g'\n[groups.ci]\nmax = '1g'\nworking-set-age = '60s'\n";

#[test]
fn a_daemon_that_starts_anew_knows_what_runs() {
    let ballast = setup();
    let mut early = Guest::start_with(&ballast, |run| run.options(["-m", "256m"]));
    let daemon = Daemon::start(&ballast, POOL);
    // One that was there before.
    let tree = daemon.wait_until(|tree| charge(tree, "guest") > 32 * MIB);
    assert!(charge(&tree, "guest").abs_diff(early.smaps_rss()) < 64 * MIB, "{tree:#?}");
    // Nobody misses it, wherever in its work it is killed.
    early.does("pattern a 16");
    let mut daemon = Some(daemon);
    for round in 0..if is_long() { 1000 } else { 10 } {
        daemon.take().into_iter().for_each(Daemon::kill);
        assert!(early.memory().bytes("resident_bytes") > 0);
        daemon = Some(Daemon::start(&ballast, POOL));
        std::thread::sleep(Duration::from_millis(round * 37 % 400));
    }
    early.does("pattern b 16");
    early.does("cmp /tmp/taken/a /tmp/taken/b");
    let daemon = daemon.unwrap();
    let tree = daemon.wait_until(|tree| charge(tree, "ram") > 32 * MIB);
    assert_eq!((tree.host.vms, tree.host.orphans), (1, 0));
    assert_eq!(tree.host.main_bytes, (4 << 30) - charge(&tree, "") as i64);
    early.end();
    // What it held is back, and so is the pool.
    let tree = daemon.wait_until(|tree| tree.host.vms == 0 && tree.host.main_bytes == 4 << 30);
    assert_eq!((tree.host.vms, tree.host.orphans, tree.nodes.len()), (0, 0, 2), "{tree:#?}");
}

#[test]
fn a_group_holds_what_its_microvms_hold_wherever_they_move() {
    let ballast = setup();
    let daemon = Daemon::start(&ballast, POOL);
    let mut guest = Guest::start_with(&ballast, |run| {
        run.options(["-m", "256m", "--group", "ci", "--memory-min", "64m"])
    });
    guest.does("zero file 64");
    let tree = daemon
        .wait_until(|tree| tree.nodes.iter().any(|node| node.name == "ci" && node.charge_bytes > 96 * MIB));
    let vm = tree.nodes.iter().find(|node| node.name == "guest").unwrap();
    assert_eq!((vm.effective_min_bytes, vm.limits.max, vm.linked), (64 * MIB, Some(256 * MIB), Some(true)));
    let ended = ballast.command(&["zones", "--tree"]).end().exits(0);
    let output = String::from_utf8_lossy(&ended.stdout);
    assert!(output.contains("host") && output.contains("    guest"), "{output}");
    // What it may have, it was told.
    let vm = guest.answer("GET", "/v1/vm", "");
    assert_eq!(vm.0["arbiter"]["envelope"]["max_bytes"], 256 * MIB, "{vm:?}");
    // And what its law works with.
    let law = || guest.answer("GET", "/v1/reclaim", "").0;
    let wait_for_age = |ms: u64, from: serde_json::Value| {
        let is_so = || law()["working_set_age_ms"] == ms && law()["working_set_age_from"] == from;
        until(is_so, || format!("not {ms} by {from}: {:#}", law()));
    };
    wait_for_age(60_000, serde_json::json!({ "group": "ci" }));

    // While it runs it moves, and what it holds is its new group's; what it is promised goes along.
    let move_to = |group: &str| ballast.command(&["set", "guest", "--group", group]).end();
    move_to("web/shop").exits(0).prints("guest\n");
    wait_for_age(300_000, "default".into());
    let tree = daemon.tree();
    assert!(charge(&tree, "ci") == 0 && charge(&tree, "web/shop") > 96 * MIB, "{tree:#?}");
    assert_eq!(charge(&tree, "web"), charge(&tree, "web/shop"));
    let vm = tree.nodes.iter().find(|node| node.name == "guest").unwrap();
    assert_eq!((vm.effective_min_bytes, vm.limits.max), (64 * MIB, Some(256 * MIB)), "{tree:#?}");
    guest.does("test -s /tmp/taken/file");
    // Of what is refused nothing is left.
    let _ = move_to("../x").exits(125).says("cannot name a group");
    move_to("/").exits(0).prints("guest\n");
    let tree = daemon.tree();
    assert!(charge(&tree, "") > 96 * MIB && tree.nodes.iter().all(|node| node.name != "web"), "{tree:#?}");
    // What its law was told itself, and how it ended, it says.
    let events = || {
        let listed = ballast.command(&["events", "--filter", "guest"]).end().exits(0);
        String::from_utf8(listed.stdout).unwrap()
    };
    ballast.command(&["set", "guest", "--working-set-age", "30s"]).end().exits(0).prints("guest\n");
    until(|| events().contains("working-set age from auto to 30 s"), events);
    guest.end();
    daemon.wait_until(|tree| tree.host.vms == 0 && tree.host.main_bytes == 4 << 30);
    assert!(events().contains("its workload has ended with exit code 0"), "{}", events());
}

/// The VMM is shown a host that is full: making one would hurt whatever else runs on it.
#[test]
fn a_daemon_that_stays_away_sheds_no_ceiling_on_a_full_host() {
    let ballast = setup();
    let meminfo = ballast.path("meminfo");
    let available = |percent: u64| {
        let text = format!("MemTotal: {} kB\nMemAvailable: {} kB\n", 16 << 20, (16 << 20) * percent / 100);
        std::fs::write(&meminfo, text).unwrap();
    };
    available(60);
    let daemon = Daemon::start(&ballast, "[pool]\ncapacity = '4g'\n[groups.ci]\nhigh = '160m'\n");
    let mount = format!("mount --bind {} /proc/meminfo && exec \"$@\"", meminfo.display());
    let guest = Guest::start_as("guest", &ballast, |run| {
        run.options(["-m", "256m", "--group", "ci"]).through(&["unshare", "-m", "sh", "-c", &mount, "sh"])
    });
    let ceiling = |memory: &Memory| memory.0["ceiling"]["bytes"].as_u64().unwrap();
    guest.wait_until(|memory| ceiling(memory) <= 160 * MIB);

    available(3);
    std::thread::sleep(Duration::from_secs(3));
    daemon.kill();
    // Three leases.
    std::thread::sleep(Duration::from_secs(30));
    assert!(ceiling(&guest.memory()) <= 160 * MIB, "{:?}", guest.memory());

    available(60);
    let climbing = guest.wait_until(|memory| ceiling(memory) > 160 * MIB);
    assert!(ceiling(&climbing) < 200 * MIB, "by a twentieth of the size at a time: {climbing:?}");
    guest.end();
}

#[test]
fn what_is_lacking_is_taken_back_and_never_from_who_is_protected() {
    let ballast = setup();
    let daemon = Daemon::start(&ballast, POOL);
    let start = |name: &str, options: &[&str]| {
        Guest::start_as(name, &ballast, |run| run.options(["-m", "256m"]).options(options))
    };
    let (mut idle, mut kept) = (start("idle", &[]), start("kept", &["--memory-min", "192m"]));
    // Only now: what idles while the other starts is trimmed by itself.
    // The one has more than what it needs to run and what is to be taken.
    idle.does("zero file 112");
    kept.does("zero file 96");
    let before = daemon.at_rest(&["idle", "kept"], 120 * MIB);
    // Less than they hold: what is lacking can only come from the one.
    let capacity = charge(&before, "") - 64 * MIB;
    daemon.reload(&ballast, &format!("[pool]\ncapacity = '{capacity}'\n"));
    let short = daemon.wait_until(|tree| tree.host.deficit_bytes > 0);
    assert!(short.host.lambda_permille > 1000, "{short:#?}");
    println!("{}", ballast.command(&["zones", "--tree"]).end().exits(0));
    let after = daemon.wait_until(|tree| tree.host.main_bytes >= 0);
    println!("{}", ballast.command(&["zones", "--tree"]).end().exits(0));
    println!("{}", ballast.command(&["why", "idle"]).end().exits(0));
    let orders = ballast.command(&["why", "kept"]).end().exits(0);
    assert!(!String::from_utf8_lossy(&orders.stdout).contains("ballastd takes"), "{orders}");
    assert!(charge(&after, "idle") <= charge(&before, "idle") - 56 * MIB, "{before:#?} {after:#?}");
    assert!(charge(&after, "kept") >= charge(&before, "kept") - 4 * MIB, "{before:#?} {after:#?}");
    for guest in [&mut idle, &mut kept] {
        guest.does("test -s /tmp/taken/file");
    }
    idle.end();
    kept.end();
}

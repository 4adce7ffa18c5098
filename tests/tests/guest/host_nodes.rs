//! A zone moves to another NUMA node of the host while its guest works, and the guest does not notice. ci/promises runs
//! these in a box with two nodes.

use tests::memory::{Guest, MIB};
use tests::{Ballast, setup};

/// Copies a file of a pattern for ever, checks each copy, and counts.
const LOAD: &str = "eval while cp /tmp/taken/a /tmp/taken/b && cmp /tmp/taken/a /tmp/taken/b; do echo round >> /tmp/rounds; done &";

#[test]
fn a_zone_moves_under_load_with_its_contents() {
    let ballast = setup();
    let mut guest = Guest::start_with(&ballast, |run| {
        let run = run.options(["-m", "256m", "--zone", "name=cache,size=256m,node=0", "--in-zone", "cache"]);
        // What moves is what is there: the law would have given some of it back.
        run.options(["--reclaim", "off"])
    });
    guest.does("pattern a 80");
    // The other zone has something of its own, too.
    let fill = ["exec", "--in-zone", "ram", "guest", "sh", "-c", "head -c 16m /dev/zero > /tmp/taken/other"];
    let _ = ballast.command(&fill).end().exits(0);
    guest.does(LOAD);
    let before = guest.bytes_on_nodes(2);
    assert!(before[0] > 140 * MIB && before[1] == 0, "all begins on node 0, where the CPU is: {before:?}");

    // What the load works on, and nothing else.
    let rounds = rounds(&mut guest);
    let said = set_node(&ballast, "cache", "1");
    let after = guest.bytes_on_nodes(2);
    println!("by numa_maps: {before:?}, then {after:?}; {said}");
    // The pattern at least: its copy is made anew all the time.
    assert!(after[1] >= 80 * MIB && after[0] + 80 * MIB <= before[0], "{before:?}, then {after:?}");
    assert!(after[0] > 60 * MIB, "the other zone stays: {after:?}");
    assert!(after[0] + after[1] + 16 * MIB > before[0], "nothing is lost: {before:?}, then {after:?}");
    assert!(said.contains("zone cache has") && said.contains("on node 1"), "{said}");
    let host_nodes = |guest: &Guest| {
        let zones = guest.answer("GET", "/v1/zones", "");
        [0, 1].map(|zone| zones.0["zones"][zone]["host_node"].as_u64())
    };
    assert_eq!(host_nodes(&guest), [None, Some(1)]);

    // The other one too: the guest's kernel, its page tables and all.
    let said = set_node(&ballast, "ram", "1");
    let after = guest.bytes_on_nodes(2);
    println!("by numa_maps: {after:?}; {said}");
    assert!(after[0] < 4 * MIB, "{after:?}");
    assert_eq!(said.contains("could not be moved"), after[0] > 0, "{said} {after:?}");
    assert_eq!(host_nodes(&guest), [Some(1), Some(1)]);

    // A node that is not there changes nothing, and what it may come from can be left to the host again.
    ballast
        .command(&["set", "guest", "--zone", "ram", "--node", "7"])
        .end()
        .refuses()
        .says("no memory of that node");
    assert_eq!(host_nodes(&guest), [Some(1), Some(1)]);
    // Meanwhile nobody takes new pages, which would come from where the CPU is.
    guest.does("eval kill -STOP %1; sleep 3");
    let after = guest.bytes_on_nodes(2);
    assert!(set_node(&ballast, "ram", "any").contains("any node"));
    assert_eq!(host_nodes(&guest), [None, Some(1)]);
    assert_eq!(guest.bytes_on_nodes(2)[0], after[0], "nothing is moved back");
    guest.does("eval kill -CONT %1");

    // The load went on all the while, and would have ended with a copy that differs.
    let enough = rounds + 2;
    while self::rounds(&mut guest) < enough {}
    guest.does("eval kill %1 2> /dev/null; cmp /tmp/taken/a /tmp/taken/a");
    guest.does("eval yes BALLAST-PATTERN | head -c 1048576 | cmp - /tmp/mib && head -c 1048576 /tmp/taken/a | cmp - /tmp/mib");
    guest.end();
}

/// The constants of their kernel are the same pages of the host for both.
#[test]
#[ignore = "with --long: two emulated guests for a promise that one test of the gate makes for one"]
fn what_a_neighbour_maps_too_stays_and_both_go_on() {
    let ballast = setup();
    let start = |name| Guest::start_as(name, &ballast, |run| run.options(["-m", "128m"]));
    let (mut neighbour, mut guest) = (start("neighbour"), start("guest"));
    guest.does("pattern a 20");
    let of_both = guest.smaps_of_files().min(neighbour.smaps_of_files());
    assert!(of_both > MIB, "{of_both} bytes are mapped of the kernel's file");
    let own = neighbour.smaps_anonymous();

    let said = set_node(&ballast, "ram", "1");
    let (after, beside) = (guest.bytes_on_nodes(2), neighbour.bytes_on_nodes(2));
    println!("{of_both} bytes of both; by numa_maps: {after:?}, beside it {beside:?}; {said}");
    assert!(after[1] > 40 * MIB && after[0] <= guest.smaps_of_files(), "{after:?}");
    assert_eq!(said.contains("could not be moved"), after[0] > 0, "{said} {after:?}");
    // What the one that moved mapped alone may have come along, and nothing of the neighbour's own.
    assert!(beside[0] + 4 * MIB > own && beside[1] <= neighbour.smaps_of_files(), "{beside:?}");

    // Symbols are among the constants: both read the same of them.
    let read = "eval head -c 65536 /proc/kallsyms | md5sum";
    let [one, two] = [&mut guest, &mut neighbour].map(|guest| {
        guest.does(read);
        let output = guest.output();
        output.lines().rev().find(|line| line.ends_with("  -")).unwrap().to_owned()
    });
    assert_eq!(one, two);
    guest.does("eval head -c 1048576 /tmp/taken/a | cmp - /tmp/mib");
    guest.end();
    neighbour.end();
}

fn set_node(ballast: &Ballast, zone: &str, node: &str) -> String {
    let ended = ballast.command(&["set", "guest", "--zone", zone, "--node", node]).end().exits(0);
    String::from_utf8(ended.stdout).unwrap()
}

/// Copies that the load has made and found alike.
fn rounds(guest: &mut Guest) -> u64 {
    guest.does(r#"eval echo "rounds $(wc -l < /tmp/rounds || echo 0).""#);
    let output = guest.output();
    let number = output.rsplit_once("rounds ").and_then(|(_, rest)| rest.split_once('.')).unwrap().0;
    number.parse().unwrap()
}

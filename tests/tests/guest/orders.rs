//! What is ordered of a running guest is done, and what is said of it is true.

use tests::memory::{Guest, MIB};
use tests::{Ballast, Kernel, setup};

tests::on_a_kernel_or_every!(
    a_trimmed_zone_gives_back_its_own_memory,
    a_moved_task_has_its_pages_in_its_new_zone,
    a_lower_max_holds_and_who_exceeds_it_is_killed
);

/// Whole pages of 4,000,000 bytes, wherever those begin.
const SERVICE_PAGES: usize = 4_000_000 / 4096 - 1;

/// A guest of two zones whose command runs in the second, with a volume.
/// Each kernel has a volume of its own, as they may run side by side.
fn two_zones(ballast: &Ballast, kernel: &Kernel, volume: &str) -> Guest {
    let volume = format!("{volume}-{}:/files", kernel.release.replace('+', "-"));
    Guest::start_with(ballast, |run| {
        let run = run.options(kernel.options()).options(["-m", "256m", "--zone", "name=cache,size=256m"]);
        // What is trimmed is what is ordered: the law would take some of it first.
        run.options(["--in-zone", "cache", "-v", &volume, "--reclaim", "off"])
    })
}

/// What the guest said last behind `word`, up to a point.
fn number_after(guest: &Guest, word: &str) -> String {
    let output = guest.output();
    output.rsplit_once(word).and_then(|(_, rest)| rest.split_once('.')).unwrap().0.to_owned()
}

fn resident(guest: &Guest) -> [u64; 2] {
    let _ = guest.fresh_memory();
    last_resident(guest)
}

/// The same by the last reading: right after an order, what the order went by.
fn last_resident(guest: &Guest) -> [u64; 2] {
    let zones = guest.answer("GET", "/v1/zones", "");
    [0, 1].map(|zone| zones.0["zones"][zone]["resident_bytes"].as_u64().unwrap())
}

fn a_trimmed_zone_gives_back_its_own_memory(kernel: &Kernel) {
    let ballast = setup();
    let mut guest = two_zones(&ballast, kernel, "to-trim");
    // A small service in the other zone: moved before it takes its memory, which is so charged there.
    let service = r#"until [ -e /tmp/go ]; do sleep 0.1; done; a=$(yes BALLAST-SERVICE- | head -c 4000000); echo on; read x < /tmp/fifo; echo "$a" | md5sum"#;
    guest.does(&format!("eval mkfifo /tmp/fifo; sh -c '{service}' > /tmp/service & echo \"pid $!.\""));
    let pid = number_after(&guest, "pid ");
    ballast.command(&["set", "guest", "--move", &pid, "--zone", "ram"]).end().exits(0);
    guest.does("eval echo > /tmp/go; until [ -s /tmp/service ]; do sleep 0.1; done");
    guest.does("eval dd if=/dev/zero of=/files/cached bs=1M count=150 2> /dev/null");
    guest.does("sync");
    trims_to(&ballast, &guest, resident(&guest)[1] - 30 * MIB);
    let before = resident(&guest);
    let services = guest.resident_pages_of(b"BALLAST-SERVICE-\n");
    assert!(services.len() >= SERVICE_PAGES, "{} pages are the service's", services.len());
    let ended = ballast.command(&["trim", "guest", "--zone", "cache", "--format", "json"]).end().exits(0);
    let trims: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let left_by_order = last_resident(&guest)[1];
    let after = resident(&guest);
    println!("ram and cache: {before:?}, then {after:?}; {trims}");
    let [ram, cache] = [0, 1].map(|zone| before[zone].saturating_sub(after[zone]));
    assert!(cache > 90 * MIB, "{ended}");
    assert!(cache * 100 >= (cache + ram) * 95, "{cache} and {ram} bytes came back");
    let left = guest.resident_pages_of(b"BALLAST-SERVICE-\n");
    let stayed = services.intersection(&left).count();
    println!(
        "of {} pages with the service's text in the other zone {stayed} are where they were",
        services.len()
    );
    // Beside those that it uses there may be freed ones from when it made its text.
    assert!(stayed >= SERVICE_PAGES, "the other zone's pages are not this one's");
    let told = "[ \"$(tail -n 1 /tmp/service)\" = \"$({ yes BALLAST-SERVICE- | head -c 4000000; echo; } | md5sum)\" ]";
    guest.does(&format!(
        "eval echo > /tmp/fifo; until [ $(wc -l < /tmp/service) = 2 ]; do sleep 0.1; done; {told}"
    ));
    // And what was said is that.
    let trim = &trims[0];
    let said = trim["before_bytes"].as_u64().unwrap() - trim["after_bytes"].as_u64().unwrap();
    let came = before[1].saturating_sub(left_by_order);
    assert!(said.abs_diff(came) < 16 * MIB, "{said} bytes, by the host {came}");
    assert!(trim["reclaimed_bytes"].as_u64().unwrap() > 100 * MIB, "{ended}");
    // For people.
    let ended = ballast.command(&["trim", "--all"]).end().exits(0);
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(text.contains("CAME BACK") && text.contains("guest"), "{ended}");
    ballast.command(&["trim", "guest", "--zone", "no"]).end().refuses().says("it has ram, cache");

    // The zone alone is limited: to less than is in use it is not, and beyond its limit its command finds no memory.
    let limit =
        |size: &str| ballast.command(&["set", "guest", "--zone", "cache", "--memory-max", size]).end();
    guest.does("zero held 60");
    limit("50m").refuses().says("the limit stays as it was");
    limit("100m").exits(0).prints("guest\n");
    let zones = guest.answer("GET", "/v1/zones", "");
    assert_eq!([0, 1].map(|zone| zones.0["zones"][zone]["max_bytes"].as_u64()), [None, Some(100 * MIB)]);
    guest.is_told("zero more 100");
    guest.ran_out_of_memory();
}

/// A part of the zone's memory comes back and no more, and what is said of it is that.
fn trims_to(ballast: &Ballast, guest: &Guest, bytes: u64) {
    let trim = ["trim", "guest", "--zone", "cache", "--format", "json", "--to"];
    let ended = ballast.command(&[&trim[..], &[&bytes.to_string()]].concat()).end().exits(0);
    let trims: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let told = last_resident(guest)[1];
    let left = resident(guest)[1];
    println!("to {bytes} bytes: {left}; {trims}");
    assert!(left.abs_diff(bytes) < 12 * MIB, "{left} bytes are left, not {bytes}: {ended}");
    assert_eq!(trims[0]["ended"], "reached", "{ended}");
    assert!(trims[0]["after_bytes"].as_u64().unwrap().abs_diff(told) < 8 * MIB, "{told} bytes: {ended}");
}

fn a_moved_task_has_its_pages_in_its_new_zone(kernel: &Kernel) {
    let ballast = setup();
    let mut guest = two_zones(&ballast, kernel, "to-move");
    guest.does(
        "eval sh -c 'held=$(head -c 20000000 /dev/zero | tr \"\\0\" a); sleep 1000; :' & echo \"pid $!.\"",
    );
    let pid = number_after(&guest, "pid ");
    // Where its private memory lies, by its own page tables.
    let pages = |guest: &mut Guest, node: u8| {
        let count = "awk '{ n += $2 } END { print \"pages \" n + 0 \".\" }'";
        guest.does(&format!(
            "eval grep anon= /proc/{pid}/numa_maps | grep -o N{node}=[0-9]+ -E | tr = ' ' | {count}"
        ));
        let output = guest.output();
        let pages = output.rsplit_once("pages ").and_then(|(_, rest)| rest.split_once('.')).unwrap().0;
        pages.parse::<u64>().unwrap() * 4096
    };
    while pages(&mut guest, 1) < 19 * MIB {}
    let before = resident(&guest);
    let moved = ballast.command(&["set", "guest", "--move", &pid, "--zone", "ram"]).end().exits(0);
    println!("{}", String::from_utf8_lossy(&moved.stdout));
    let (there, elsewhere) = (pages(&mut guest, 0), pages(&mut guest, 1));
    let after = resident(&guest);
    println!("{there} bytes there, {elsewhere} elsewhere; ram and cache: {before:?}, then {after:?}");
    assert!(there > 19 * MIB && elsewhere < there / 20, "{there} there, {elsewhere} elsewhere");
    // What is not the workload's stays where it is.
    for (other, why) in [("1", "not the workload's"), ("2", "not the workload's"), ("4194000", "no process")]
    {
        ballast.command(&["set", "guest", "--move", other, "--zone", "ram"]).end().refuses().says(why);
    }
    guest.does(&format!("kill {pid}"));
    guest.end();
}

fn a_lower_max_holds_and_who_exceeds_it_is_killed(kernel: &Kernel) {
    let ballast = setup();
    let mut guest = Guest::start_with(&ballast, |run| run.options(kernel.options()).options(["-m", "320m"]));
    guest.does("zero held 100");
    let before = guest.answer("GET", "/v1/limits", "");
    // Less than is in use: refused, with the numbers, and nothing changed.
    ballast
        .command(&["set", "guest", "--memory-max", "150m"])
        .end()
        .refuses()
        .says("the limits stay as they were");
    ballast.command(&["set", "guest", "--memory-max", "1g"]).end().refuses().says("320 MiB");
    assert_eq!(guest.answer("GET", "/v1/limits", "").0, before.0);
    assert_eq!(guest.memory().bytes("max_bytes"), 320 * MIB);
    println!("{before:?}");
    let changed = ballast.command(&["set", "guest", "--memory-max", "256m", "--weight", "200"]).end();
    changed.exits(0).prints("guest\n");
    let memory = guest.wait_until(|memory| memory.is_settled());
    assert_eq!(
        (memory.bytes("max_bytes"), memory.0["ceiling"]["bytes"].as_u64()),
        (256 * MIB, Some(256 * MIB))
    );
    guest.is_told("zero more 200");
    guest.ran_out_of_memory_at("256 MiB");
}

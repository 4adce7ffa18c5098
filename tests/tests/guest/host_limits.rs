//! The host holds a microVM to its memory whatever its guest does, and takes nothing from one that keeps within it.

use std::fs;
use std::path::Path;
use std::process::Command;
use tests::host_cgroup::{HostCgroup, mount};
use tests::memory::{Guest, MIB};
use tests::{Ballast, is_long, setup};

/// A guest without a balloon.
fn guest(ballast: &Ballast, options: &[&str]) -> Guest {
    Guest::start_with(ballast, |run| run.options(options).env("BALLAST_BALLOON", ""))
}

/// All of the guest's memory is taken, and the host charges so much beside it.
#[test]
fn the_vmm_is_alone_in_a_cgroup_with_room_for_all_of_its_guest() {
    let ballast = setup();
    let large = is_long().then_some(("1g", 700));
    for (memory, taken) in [("128m", 60)].into_iter().chain(large) {
        let mut guest = guest(&ballast, &["-m", memory]);
        let cgroup = HostCgroup::of(guest.vmm());
        // KVM's own threads are where their VMM is; they have no command line.
        let all = cgroup.read("cgroup.procs");
        let programs = all
            .lines()
            .filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()));
        assert_eq!(programs.collect::<Vec<_>>(), [guest.vmm().to_string()]);
        assert_eq!(cgroup.read("memory.oom.group").trim(), "1");
        assert_eq!(cgroup.read("memory.high").trim(), "max");

        guest.does(&format!("zero all {taken}"));
        let host = &guest.memory().0["host"];
        let (limit, charged) =
            (host["limit_bytes"].as_u64().unwrap(), host["charged_bytes"].as_u64().unwrap());
        assert_eq!(limit, cgroup.number("memory.max"));
        let beside = charged - guest.smaps_anonymous() - host["file_bytes"].as_u64().unwrap();
        let peak = cgroup.number("memory.peak");
        println!(
            "guest of {memory}: {} KiB charged, {} KiB at most, limit {} KiB; {} KiB beside guest memory and files, {} KiB \
             of them the kernel's",
            charged >> 10,
            peak >> 10,
            limit >> 10,
            beside >> 10,
            host["kernel_bytes"].as_u64().unwrap() >> 10,
        );
        let room = limit - guest.memory().bytes("size_bytes") - guest.layer_bytes();
        assert!(beside < room / 2, "{beside} of a room of {room} are in use");
        assert_eq!(host["limit_reached_total"], 0, "{host}");

        let shown = ballast.command(&["inspect", "guest"]).end().exits(0);
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.lines().any(|line| line.starts_with("host ") && line.contains("charged")), "{shown}");
        guest.end();
        assert!(!cgroup.path().exists(), "{cgroup:?} is left");
    }
}

#[test]
fn a_guest_that_heeds_no_balloon_stays_below_its_limit_and_its_end_is_told() {
    const LIMIT: u64 = 256 * MIB;
    let ballast = setup();
    // One that gives nothing back of itself meanwhile.
    let mut neighbour = Guest::start_as("neighbour", &ballast, |run| {
        run.options(["-m", "160m", "--reclaim", "off"]).env("BALLAST_BALLOON", "")
    });
    neighbour.does("pattern a 24");
    neighbour.does("pattern b 24");
    // What it holds, and for how long its processes on the host have ever waited for memory.
    let neighbours = HostCgroup::of(neighbour.vmm());
    let held = || neighbours.value("memory.stat", "anon");
    let stalled_us = || {
        let pressure = neighbours.read("memory.pressure");
        let total = pressure.lines().next().and_then(|line| line.rsplit_once("total="));
        total.unwrap().1.parse::<u64>().unwrap()
    };
    let (held_before, stalled_before) = (held(), stalled_us());

    let mut guest = guest(&ballast, &["-m", "512m"]);
    let cgroup = HostCgroup::of(guest.vmm());
    guest.does("zero some 32");
    cgroup.write("memory.max", &LIMIT.to_string());
    guest.is_told("zero all 400");
    let ended = guest.ended().exits(137);
    println!("{ended}");
    let _ = ended.says("it reached its limit on the host, 256 MiB").says("-m");
    assert!(!cgroup.path().exists(), "{cgroup:?} is left");

    let (held_after, stalled_after) = (held(), stalled_us());
    println!(
        "the neighbour: {held_before} bytes and {stalled_before} us stalled, then {held_after} and {stalled_after}"
    );
    assert!(held_after.abs_diff(held_before) < 4 * MIB, "{held_before} {held_after}");
    assert!(stalled_after - stalled_before < 1000, "its neighbour waited for memory");
    neighbour.does("cmp /tmp/taken/a /tmp/taken/b");
    neighbour.end();
}

/// The host charges a page of an image to whoever touched it first: to a guest here that has touched its own memory before.
#[test]
#[ignore = "with --long: an emulated guest reads 220 MiB for minutes"]
fn who_touches_an_image_first_is_neither_reclaimed_nor_killed_for_it() {
    let ballast = setup();
    // Only files on a disk are charged when they are read, those of a tmpfs when they are written.
    let data = ballast.data().join("volumes/first-touch");
    copy_images(ballast.data(), &data);
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let read = "find /usr /etc /var -xdev -type f -exec cat {} + > /dev/null 2>&1";
    let take = "mkdir /tmp/taken; mount -t tmpfs -o size=100% taken /tmp/taken; head -c 96m /dev/zero > /tmp/taken/all";
    let script = format!("{take}; {read}; echo read; read line; cat /tmp/taken/all | wc -c");
    let running = ballast
        .run("debian", &["sh", "-c", &script])
        .options(["-i", "--name", "first", "-m", "192m"])
        .env("BALLAST_BALLOON", "")
        .env("BALLAST_DATA", &data)
        .start();
    running.wait_for("read");
    let cgroup = HostCgroup::of(running.vmm());
    let file = cgroup.value("memory.stat", "file");
    let events = cgroup.read("memory.events");
    println!(
        "{} KiB charged, {} KiB of them files, {} KiB anonymous; limit {} KiB\n{events}",
        cgroup.number("memory.current") >> 10,
        file >> 10,
        cgroup.value("memory.stat", "anon") >> 10,
        cgroup.number("memory.max") >> 10
    );
    assert!(file > 180 * MIB, "only {file} bytes of the image are charged");
    let anonymous = cgroup.value("memory.stat", "anon");
    assert!(anonymous > 144 * MIB, "only {anonymous} bytes of the guest's own are charged");
    assert_eq!(cgroup.value("memory.events", "max"), 0, "{events}");
    assert_eq!(cgroup.value("memory.events", "oom_kill"), 0, "{events}");
    running.end().exits(0).prints("read\n100663296\n");
    fs::remove_dir_all(&data).unwrap();
}

#[test]
fn without_a_cgroup_it_runs_and_who_asked_for_one_is_told() {
    let ballast = setup();
    let quiet = ballast.run("busybox", &["true"]).env("BALLAST_CGROUP", "off").end().exits(0);
    assert_eq!(quiet.stderr, "");
    let nowhere = ballast.run("busybox", &["true"]).env("BALLAST_CGROUP", "/tmp/x").end().exits(0);
    let _ = nowhere
        .says("no limit on the host: /tmp/x is no absolute path in the cgroup v2 hierarchy")
        .says("set $BALLAST_CGROUP");
    let own = mount().join("ballast-test-named/below");
    let found = ballast.command(&["doctor"]).env("BALLAST_CGROUP", &own).end();
    assert!(String::from_utf8_lossy(&found.stdout).contains(own.to_str().unwrap()), "{found}");
    assert!(!own.exists(), "doctor makes nothing");
    ballast.run("busybox", &["true"]).env("BALLAST_CGROUP", &own).end().exits(0);
    assert_eq!(subgroups(&own), Vec::<String>::new());
    fs::remove_dir(&own).unwrap();
    fs::remove_dir(own.parent().unwrap()).unwrap();
}

fn subgroups(home: &Path) -> Vec<String> {
    let entries = fs::read_dir(home).unwrap().flatten().filter(|entry| entry.file_type().unwrap().is_dir());
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// The images of one data directory in another, with the kernels of the first.
pub(crate) fn copy_images(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for name in ["layers", "images", "names"] {
        let copied = Command::new("cp").arg("-a").arg(from.join(name)).arg(to).status().unwrap();
        assert!(copied.success());
    }
    std::os::unix::fs::symlink(from.join("cache"), to.join("cache")).unwrap();
    // What was written is dropped from the cache only once it is on the disk.
    assert!(Command::new("sync").status().unwrap().success());
}

//! Guests of one image share the host's copy of it, within their scope, and nobody pays for a neighbour's share.

use crate::host_limits::copy_images;
use balloon::control::fleet::{ChargingDocument, TreeDocument};
use balloon::resident::{FileId, Mapping};
use balloon::zone::Kind;
use balloon::zone::scope::{SCOPES as SCOPES_DIRECTORY, state_name};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;
use tests::daemon::{Daemon, charge};
use tests::memory::MIB;
use tests::run::{Running, until};
use tests::{Ballast, is_long, process, setup};

/// What a guest has mapped of image layers.
fn layers(guest: &Running) -> Vec<Mapping> {
    let mappings = process::mappings(guest.vmm()).into_iter();
    mappings.filter(|mapping| mapping.name.contains(".erofs")).collect()
}

fn sum(mappings: &[Mapping], bytes: impl Fn(&Mapping) -> u64) -> u64 {
    mappings.iter().map(bytes).sum()
}

fn held(guest: &Running, bytes: impl Fn(&Mapping) -> u64) -> u64 {
    sum(&layers(guest), bytes)
}

fn files(guest: &Running) -> BTreeSet<FileId> {
    layers(guest).iter().map(|layer| layer.file).collect()
}

/// Reads most of the image's bytes and stays.
const SCRIPT: &str = "cat /usr/lib/x86_64-linux-gnu/*.so* /usr/bin/* > /dev/null 2>&1; echo read; sleep 1000";

#[test]
fn two_guests_hold_one_copy() {
    let ballast = setup();
    let guests = ["one", "two"]
        .map(|name| ballast.run("debian", &["sh", "-c", SCRIPT]).options(["--name", name]).start());
    for guest in &guests {
        guest.wait_for("read");
    }
    for guest in &guests {
        let layers = layers(guest);
        let (rss, pss) = (sum(&layers, |layer| layer.rss), sum(&layers, |layer| layer.pss));
        println!(
            "image mapped by process {}: {} KiB resident, {} KiB its share",
            guest.vmm(),
            rss >> 10,
            pss >> 10
        );
        assert!(rss > 20 << 20, "only {rss} bytes of the image are mapped");
        assert!(pss <= rss * 55 / 100, "{pss} of {rss} bytes are charged to one of two guests");
    }

    // As users see it: the same files, all of what was read in the page cache, and half of it each one's.
    let list = ballast.command(&["zones", "--format", "json"]).end().exits(0);
    println!("{list}");
    let zones: Vec<Value> = serde_json::from_slice(&list.stdout).unwrap();
    let sum = |vm: &str, member: &str| -> u64 {
        let layers = zones.iter().filter(|zone| zone["vm"] == vm && zone["kind"] == "shared");
        layers.map(|zone| zone[member].as_u64().unwrap()).sum()
    };
    for vm in ["one", "two"] {
        let (resident, share) = (sum(vm, "resident_bytes"), sum(vm, "share_bytes"));
        assert!(resident > 20 << 20 && resident <= sum(vm, "size_bytes"), "{list}");
        assert!(share > 10 << 20 && share <= resident * 55 / 100, "{list}");
    }
    let names = |vm: &str| -> Vec<Value> {
        zones.iter().filter(|zone| zone["vm"] == vm).map(|zone| zone["name"].clone()).collect()
    };
    assert_eq!(names("one"), names("two"));
    assert!(names("one").len() > 1, "private and shared");
}

/// Images in a file system of the host's memory that has huge pages: a guest takes a fault for each, not for each of the
/// 56,000 small pages of an image, which take an emulated host minutes.
struct InHugePages(PathBuf);

impl InHugePages {
    fn of(ballast: &Ballast) -> Self {
        let data = ballast.path("huge");
        fs::create_dir(&data).unwrap();
        let options = ["-t", "tmpfs", "-o", "huge=always,size=1g", "huge-pages"];
        let mounted = Command::new("mount").args(options).arg(&data).status();
        assert!(mounted.unwrap().success());
        let mounted = Self(data);
        copy_images(ballast.data(), &mounted.0);
        mounted
    }
}

impl Drop for InHugePages {
    fn drop(&mut self) {
        // What still maps its files keeps them, and nobody finds them any more.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Every file of an image of 220 MiB: two guests, or with full counts eight. One after the other: eight that boot at once on
/// the one CPU of an emulated host may take longer than `ballast run` waits.
#[test]
#[ignore = "with --long: eight emulated guests"]
fn guests_of_an_image_hold_one_copy_of_all_of_it() {
    let ballast = setup();
    let images = InHugePages::of(&ballast);
    let count = if is_long() { 8 } else { 2 };
    let script = "find /usr /etc /var -xdev -type f -exec cat {} + > /dev/null 2>&1; echo read; sleep 1000";
    let mut guests: Vec<Running> = Vec::new();
    for number in 0..count {
        let began = Instant::now();
        let run = ballast.run("debian", &["sh", "-c", script]).env("BALLAST_DATA", &images.0);
        let guest = run.options(["-m", "128m", "--name", &format!("guest{number}")]).start();
        guest.wait_for("read");
        guests.push(guest);
        let all: u64 = guests.iter().map(|guest| held(guest, |layer| layer.pss)).sum();
        println!(
            "{} guests after {:?} for the last: {} KiB by their shares",
            number + 1,
            began.elapsed(),
            all >> 10
        );
    }
    let first = layers(&guests[0]);
    let (file, one) = (sum(&first, |layer| layer.end - layer.start), sum(&first, |layer| layer.rss));
    assert!(file >= 200 * MIB && one >= 200 * MIB, "{one} bytes of an image of {file} are read");
    let shares = || -> u64 { guests.iter().map(|guest| held(guest, |layer| layer.pss)).sum() };
    until(
        || shares().abs_diff(one) <= one / 20,
        || format!("{count} guests hold {} bytes of {one}", shares()),
    );
    println!(
        "{count} guests of an image of {} MiB: {} KiB in one, {} KiB in all by their shares",
        file / MIB,
        one >> 10,
        shares() >> 10
    );
}

/// An image of the first layer only of the one in `tests/fixtures`, as `docker save` writes it.
fn base_of_layers(ballast: &Ballast) -> PathBuf {
    let fixture = std::env::var("BALLAST_TEST_FIXTURES").unwrap() + "/oci/docker.tar";
    let work = ballast.path("base");
    fs::create_dir(&work).unwrap();
    let tar = |arguments: &[&str]| {
        assert!(Command::new("tar").current_dir(&work).args(arguments).status().unwrap().success());
    };
    tar(&["-xf", &fixture]);
    let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(work.join(name)).unwrap()).unwrap() };
    let mut manifest = read("manifest.json");
    let mut config = read(manifest[0]["Config"].as_str().unwrap());
    config["rootfs"]["diff_ids"].as_array_mut().unwrap().truncate(1);
    config.as_object_mut().unwrap().remove("history");
    manifest[0]["Layers"].as_array_mut().unwrap().truncate(1);
    manifest[0]["Config"] = "base.json".into();
    manifest[0]["RepoTags"] = Value::Null;
    fs::write(work.join("base.json"), config.to_string()).unwrap();
    fs::write(work.join("manifest.json"), manifest.to_string()).unwrap();
    // As in archives of docker's the first member says what it is.
    tar(&["-cf", "../base.tar", "manifest.json", "base.json", manifest[0]["Layers"][0].as_str().unwrap()]);
    ballast.path("base.tar")
}

#[test]
fn two_images_hold_a_common_layer_once() {
    let ballast = setup();
    let base = base_of_layers(&ballast);
    // One of them has an entry point of its own.
    let script = ["-c", "cat /bin/busybox > /dev/null; echo read; sleep 1000"];
    let guests = [ballast.run("layers", &script), ballast.run(&base, &script)]
        .map(|run| run.options(["--entrypoint", "sh"]).start());
    guests.iter().for_each(|guest| guest.wait_for("read"));
    let [above, below] = guests.each_ref().map(files);
    assert!(above.len() > below.len() && below.len() == 1, "{above:?} {below:?}");
    assert!(below.is_subset(&above), "{above:?} {below:?}");
    for guest in &guests {
        let common: Vec<Mapping> =
            layers(guest).into_iter().filter(|layer| below.contains(&layer.file)).collect();
        let (rss, pss) = (sum(&common, |layer| layer.rss), sum(&common, |layer| layer.pss));
        assert!(rss > MIB && pss <= rss * 60 / 100, "{pss} of {rss} bytes");
    }
}

const SCOPES: &str = "[pool]\ncapacity = '4g'\n[groups.ci]\ncharging = 'first-touch'\n
    [groups.web]\nmax = '300m'\nshare = 'host'\n[groups.ops]\nshare = 'host'\n";

/// What the microVMs of `group` hold beside what is shared.
fn private(tree: &TreeDocument, group: &str) -> u64 {
    let within = tree.nodes.iter().skip_while(|node| node.name != group).skip(1);
    let within = within.take_while(|node| node.depth > 1);
    within.filter(|node| node.kind == Kind::Vm).map(|node| node.charge_bytes).sum()
}

#[test]
fn scopes_share_no_page_and_nobody_pays_for_a_neighbour() {
    let ballast = setup();
    let daemon = Daemon::start(&ballast, SCOPES);
    let start = |name: &str, options: &[&str]| {
        let run =
            ballast.run("busybox", &["sh", "-c", "cat /bin/busybox > /dev/null; echo read; sleep 1000"]);
        let guest = run.options(["-m", "128m", "--name", name]).options(options).start();
        guest.wait_for("read");
        guest
    };
    let (one, two) = (start("one", &["--group", "ci"]), start("two", &["--group", "web"]));
    // The same layer, of the same content, read by both: no page is common.
    assert!(files(&one).is_disjoint(&files(&two)));
    for guest in [&one, &two] {
        let (rss, pss) = (|| held(guest, |layer| layer.rss), || held(guest, |layer| layer.pss));
        assert!(rss() > MIB, "{} bytes", rss());
        // Guests of other tests may have the host's copy too, for a while.
        until(|| pss() == rss(), || format!("{} of {} bytes", pss(), rss()));
    }
    let charging = || -> ChargingDocument {
        let list = ballast.command(&["zones", "--charging", "--format", "json"]).end().exits(0);
        serde_json::from_slice(&list.stdout).unwrap()
    };
    until(|| charging().zones.len() == 2, || format!("{:#?}", charging()));
    let document = charging();
    for view in ["--charging", "--tree"] {
        println!("{}", ballast.command(&["zones", view]).end().exits(0));
    }
    assert_eq!(document.zones[0].name, document.zones[1].name);
    for zone in &document.zones {
        // The page cache of each file has what its guest has read.
        assert!(zone.resident_bytes > MIB && zone.vms == 1, "{zone:#?}");
        let sums = zone.shares.iter().fold([0; 3], |[a, b, c], share| {
            [a + share.proportional_bytes, b + share.first_touch_bytes, c + share.common_bytes]
        });
        assert_eq!(sums, [zone.resident_bytes; 3], "{zone:#?}");
    }
    let homes: BTreeSet<&str> = document.zones.iter().map(|zone| zone.home.as_str()).collect();
    assert_eq!(homes, BTreeSet::from(["", "ci"]));
    let tree = daemon.tree();
    assert!(charge(&tree, "ci") >= private(&tree, "ci") + MIB, "{tree:#?}");

    // A neighbour begins to share what 'two' has, and ceases to: 'web' has not a byte of it, before, meanwhile or after.
    let nothing_of_it =
        |tree: &TreeDocument| assert_eq!(charge(tree, "web"), private(tree, "web"), "{tree:#?}");
    nothing_of_it(&tree);
    let three = start("three", &["--group", "ops"]);
    assert_eq!(files(&two), files(&three));
    let share = |name: &str| {
        let shares: Vec<_> = charging().zones.into_iter().flat_map(|zone| zone.shares).collect();
        shares.iter().find(|share| share.name == name).map_or(0, |share| share.proportional_bytes)
    };
    let is_halved = || ["two", "three"].map(share).iter().all(|bytes| *bytes > MIB / 2);
    until(is_halved, || format!("{:#?}", charging()));
    let halved = share("two");
    nothing_of_it(&daemon.tree());
    drop(three);
    until(|| share("three") == 0 && share("two") > halved, || format!("{:#?}", charging()));
    nothing_of_it(&daemon.tree());

    // Limits of a group reach its microVMs with the next lease.
    ballast.command(&["set", "--group", "web", "--memory-high", "200m"]).end().exits(0).prints("web\n");
    let socket = tests::control::socket(&ballast, "two");
    let high = || {
        let (_, content) = tests::control::ask(&socket, "GET", "/v1/vm", "").unwrap();
        let vm: Value = serde_json::from_str(&content).unwrap();
        vm["arbiter"]["envelope"]["high_bytes"].as_u64()
    };
    until(|| high() == Some(200 * MIB), || format!("{:?}", high()));

    // With its last user a copy goes, also if that was killed: then with the next start.
    let state = fs::canonicalize(ballast.path("state")).unwrap();
    let scopes = ballast.data().join(SCOPES_DIRECTORY).join(state_name(state.to_str().unwrap()));
    let copies = || fs::read_dir(&scopes).map_or(0, Iterator::count);
    assert_eq!(copies(), 1);
    let vmm = one.vmm();
    drop(one);
    process::wait_until_gone(vmm);
    let own = start("own", &["--share", "vm"]);
    assert!(files(&own).is_disjoint(&files(&two)));
    daemon.wait_until(|tree| charge(tree, "ci") == 0);
    assert!(copies() == 1 && scopes.join("vm:own").is_dir());
    own.signal(rustix::process::Signal::TERM);
    let _ = own.end();
    assert!(!scopes.exists());
}

//! Guests of one image share the host's copy of it.

use balloon::resident::Mapping;
use serde_json::Value;
use tests::{process, setup};

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
        let layers: Vec<Mapping> = process::mappings(guest.vmm())
            .into_iter()
            .filter(|mapping| mapping.name.contains(".erofs"))
            .collect();
        let rss: u64 = layers.iter().map(|layer| layer.rss).sum();
        let pss: u64 = layers.iter().map(|layer| layer.pss).sum();
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

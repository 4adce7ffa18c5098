//! Guests of one image share the host's copy of it.

use balloon::resident::Mapping;
use tests::{process, setup};

/// Reads most of the image's bytes and stays.
const SCRIPT: &str = "cat /usr/lib/x86_64-linux-gnu/*.so* /usr/bin/* > /dev/null 2>&1; echo read; sleep 1000";

#[test]
fn two_guests_hold_one_copy() {
    let ballast = setup();
    let guests = [(); 2].map(|()| ballast.run("debian", &["sh", "-c", SCRIPT]).start());
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
}

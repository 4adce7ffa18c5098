//! Books, driver and host agree after any number of rounds.

use super::{WITHOUT_REPORTING, guest_without_zeroing};
use tests::memory::MIB;
use tests::{Kernel, is_long, setup};

tests::on_a_kernel_or_every!(memory_goes_out_and_in_and_nothing_is_lost);

/// A GiB twenty times, or an eighth of it twice; in every fifth round of them the guest has touched all of it before, which
/// takes an emulated guest as long as moving it.
fn memory_goes_out_and_in_and_nothing_is_lost(kernel: &Kernel) {
    let (rounds, moved) = if is_long() { (20, 1024 * MIB) } else { (2, 128 * MIB) };
    let size = moved + 256 * MIB;
    // No file fills what the guest's kernel, its page structures, its agent and its workload hold.
    let filled = size - size / 20 - 108 * MIB;
    let ballast = setup();
    let mut guest = guest_without_zeroing(&ballast, kernel, &size.to_string(), WITHOUT_REPORTING);
    for round in 0..rounds {
        if round % 5 == 0 {
            guest.does(&format!("zero file {}", filled / MIB));
            guest.does("free file");
        }
        let before = guest.fresh_memory().bytes("resident_bytes");
        let rss_before = guest.smaps_rss();
        guest.set_ceiling(size - moved);
        let low = guest.wait_until(|memory| memory.is_settled());
        assert_eq!(low.bytes("ballooned_bytes"), moved, "round {round}: {low:?}");
        assert_eq!(low.bytes("actual_bytes"), moved, "round {round}: {low:?}");
        let low = guest.fresh_memory();
        // What the guest has not touched since the last round, the host has already.
        let untouched = size - rss_before;
        for returned in [rss_before - guest.smaps_rss(), before - low.bytes("resident_bytes")] {
            let (least, most) = (moved.saturating_sub(untouched) / 50 * 49, moved / 50 * 51);
            assert!((least..=most).contains(&returned), "round {round}: {returned} of {moved}: {low:?}");
        }
        assert!(guest.smaps_rss() <= size - moved, "round {round}: {low:?}");
        assert_eq!(low.bytes("ballooned_resident_bytes"), 0, "round {round}: {low:?}");
        guest.set_ceiling(size);
        let high = guest.wait_until(|memory| memory.is_settled());
        assert_eq!(
            (high.bytes("ballooned_bytes"), high.bytes("actual_bytes")),
            (0, 0),
            "round {round}: {high:?}"
        );
        assert_eq!(high.0["protocol_errors"].as_object().map(serde_json::Map::len), Some(0), "{high:?}");
        assert_eq!(high.bytes("release_failures"), 0, "{high:?}");
    }
    guest.end();
}

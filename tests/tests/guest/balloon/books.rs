//! Books, driver and host agree after any number of rounds.

use tests::memory::{Guest, MIB};
use tests::{Kernel, is_long, setup};

tests::on_every_kernel!(memory_goes_out_and_in_and_nothing_is_lost);

/// A GiB twenty times, or an eighth of it twice.
fn memory_goes_out_and_in_and_nothing_is_lost(kernel: &Kernel) {
    let (rounds, moved) = if is_long() { (20, 1024 * MIB) } else { (2, 128 * MIB) };
    let size = moved + 256 * MIB;
    let ballast = setup();
    let options = kernel.options();
    let guest =
        Guest::start_with(&ballast, |run| run.options(options).options(["-m".into(), size.to_string()]));
    for round in 0..rounds {
        guest.set_ceiling(size - moved);
        let low = guest.wait_until(|memory| memory.is_settled());
        assert_eq!(low.bytes("ballooned_bytes"), moved, "round {round}: {low:?}");
        assert_eq!(low.bytes("actual_bytes"), moved, "round {round}: {low:?}");
        let low = guest.fresh_memory();
        assert!(low.bytes("resident_bytes") <= size - moved, "round {round}: {low:?}");
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

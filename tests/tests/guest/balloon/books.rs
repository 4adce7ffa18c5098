//! Books, driver and host agree after any number of rounds.

use tests::memory::{Guest, MIB};
use tests::{Kernel, is_long, setup};

tests::on_every_kernel!(a_gib_goes_out_and_in_and_nothing_is_lost);

const SIZE: u64 = 1280 * MIB;
const MOVED: u64 = 1024 * MIB;

fn a_gib_goes_out_and_in_and_nothing_is_lost(kernel: &Kernel) {
    let ballast = setup();
    let options = kernel.options();
    let guest = Guest::start_with(&ballast, |run| run.options(options).options(["-m", "1280m"]));
    let rounds = if is_long() { 20 } else { 2 };
    for round in 0..rounds {
        guest.set_ceiling(SIZE - MOVED);
        let low = guest.wait_until(|memory| memory.is_settled());
        assert_eq!(low.bytes("ballooned_bytes"), MOVED, "round {round}: {low:?}");
        assert_eq!(low.bytes("actual_bytes"), MOVED, "round {round}: {low:?}");
        let low = guest.fresh_memory();
        assert!(low.bytes("resident_bytes") <= SIZE - MOVED, "round {round}: {low:?}");
        assert!(guest.smaps_rss() <= SIZE - MOVED, "round {round}: {low:?}");
        assert_eq!(low.bytes("ballooned_resident_bytes"), 0, "round {round}: {low:?}");
        guest.set_ceiling(SIZE);
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

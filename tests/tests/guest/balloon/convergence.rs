//! Whatever was asked for before, the last word holds.

use super::{WITHOUT_REPORTING, guest_without_zeroing};
use tests::memory::MIB;
use tests::{Kernel, setup};

tests::on_a_kernel_or_every!(a_hundred_ceilings_end_at_the_last);

const SIZE: u64 = 320 * MIB;

fn a_hundred_ceilings_end_at_the_last(kernel: &Kernel) {
    let ballast = setup();
    let guest = guest_without_zeroing(&ballast, kernel, "320m", WITHOUT_REPORTING);
    let mut last = SIZE;
    for step in 0..100_u64 {
        // All over the range, to no even number of pages.
        last = 128 * MIB + step * 7_919 * 4099 % (SIZE - 128 * MIB);
        let memory = guest.set_ceiling(last);
        assert_eq!(memory.0["ceiling"]["bytes"].as_u64(), Some(last.next_multiple_of(4096)), "{memory:?}");
    }
    let memory = guest.wait_until(|memory| memory.is_settled());
    assert_eq!(memory.bytes("guest_bytes"), last.next_multiple_of(4096), "{memory:?}");
    assert_eq!(memory.bytes("actual_bytes"), memory.bytes("ballooned_bytes"), "{memory:?}");
    assert_eq!(memory.0["protocol_errors"].as_object().map(serde_json::Map::len), Some(0), "{memory:?}");
    guest.end();
}

//! Queues have the numbers that the guest's kernel gives them, whatever features there are.

use super::{fresh_statistics, guest_without_zeroing};
use balloon::device::FEATURE_NAMES;
use tests::memory::MIB;
use tests::{Kernel, is_long, setup};

tests::on_every_kernel!(every_subset_of_features_works);

const CEILING: u64 = 160 * MIB;

fn every_subset_of_features_works(kernel: &Kernel) {
    // All; or the one that numbers the queues as no other test's does: reporting, but no statistics.
    let subsets: Vec<u32> = if is_long() { (0..32).collect() } else { vec![0b11101] };
    for subset in subsets {
        let names = FEATURE_NAMES.iter().enumerate().filter(|(bit, _)| subset & 1 << bit != 0);
        works(kernel, &names.map(|(_, (name, _))| *name).collect::<Vec<_>>());
    }
}

fn works(kernel: &Kernel, features: &[&str]) {
    println!("{features:?}");
    let ballast = setup();
    let mut guest = guest_without_zeroing(&ballast, kernel, "256m", &features.join(","));
    guest.set_ceiling(CEILING);
    let low = guest.wait_until(|memory| memory.is_settled());
    assert_eq!(low.bytes("guest_bytes"), CEILING, "{features:?}: {low:?}");
    let _ = guest.answer("PUT", "/v1/memory/ceiling", r#"{"auto":true}"#);
    guest.wait_until(|memory| memory.is_settled() && memory.bytes("ballooned_bytes") == 0);

    if features.contains(&"statistics") {
        let _ = fresh_statistics(&guest);
    } else {
        let (head, content) = guest.ask("GET", "/v1/statistics", "");
        assert!(
            head.starts_with("HTTP/1.1 409 ") && content.contains("offers no statistics"),
            "{head}\n{content}"
        );
    }
    if features.contains(&"reporting") {
        let before = guest.memory().bytes("reported_total_bytes");
        guest.does("zero file 64");
        guest.does("free file");
        guest.wait_until(|memory| memory.bytes("reported_total_bytes") > before + 32 * MIB);
    } else {
        assert_eq!(guest.memory().bytes("reported_total_bytes"), 0);
    }
    let memory = guest.memory();
    assert_eq!(
        memory.0["protocol_errors"].as_object().map(serde_json::Map::len),
        Some(0),
        "{features:?}: {memory:?}"
    );
    guest.end();
}

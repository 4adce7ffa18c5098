//! A guest may have no balloon driver, lose the one it has, and get another.

use super::WITHOUT_ZEROING;
use tests::memory::{Guest, MIB};
use tests::{Kernel, setup};

tests::on_a_kernel_or_every!(a_driver_comes_and_goes);

const SIZE: u64 = 256 * MIB;
const CEILING: u64 = 160 * MIB;

#[test]
#[ignore = "a state that the other test is in for a while"]
fn without_a_driver_a_microvm_has_its_memory_and_its_socket_says_so() {
    let ballast = setup();
    let mut guest = Guest::start_with(&ballast, |run| {
        run.options(["-m", "256m", "--kernel-arg", "module_blacklist=virtio_balloon"])
    });
    let memory = guest.memory();
    assert_eq!((memory.driver(), memory.bytes("guest_bytes")), ("absent", SIZE), "{memory:?}");
    is_refused(&mut guest);
    let _ = guest.answer("PUT", "/v1/memory/ceiling", r#"{"auto":true}"#);
    let said = ballast.command(&["exec", "guest", "cat", "/proc/modules"]).end().exits(0);
    let modules = String::from_utf8_lossy(&said.stdout);
    assert!(modules.contains("virtio") && !modules.contains("balloon"), "{modules}");
    guest.end();
}

/// Whatever needs a driver is refused with a sentence.
fn is_refused(guest: &mut Guest) {
    for (method, path, content) in
        [("PUT", "/v1/memory/ceiling", r#"{"bytes":209715200}"#), ("GET", "/v1/statistics", "")]
    {
        let (head, content) = guest.ask(method, path, content);
        assert!(
            head.starts_with("HTTP/1.1 409 ") && content.contains("no balloon driver"),
            "{head}\n{content}"
        );
    }
}

fn a_driver_comes_and_goes(kernel: &Kernel) {
    let ballast = setup();
    // The guest gets the module as a disk.
    let mut module = kernel.module("drivers/virtio/virtio_balloon");
    let bytes = module.len();
    module.resize(bytes.next_multiple_of(4096), 0);
    let disk = ballast.file("module", &module);
    let disk = format!("{}:ro", disk.display());
    let mut guest = Guest::start_with(&ballast, |run| {
        run.options(kernel.options()).options(WITHOUT_ZEROING).options(["-m", "256m", "--disk", &disk])
    });
    guest.set_ceiling(CEILING);
    guest.wait_until(|memory| memory.is_settled());

    // The driver gives everything back before it goes.
    guest.does("rmmod virtio_balloon");
    let without = guest.wait_until(|memory| memory.driver() == "absent");
    assert_eq!((without.bytes("ballooned_bytes"), without.bytes("actual_bytes")), (0, 0), "{without:?}");
    assert_eq!(
        (without.bytes("guest_bytes"), without.0["skew_bytes"].as_i64()),
        (SIZE, Some(0)),
        "{without:?}"
    );
    is_refused(&mut guest);
    let inspected = ballast.command(&["inspect", "guest"]).end().exits(0);
    assert!(String::from_utf8_lossy(&inspected.stdout).contains("none: memory is fixed"), "{inspected}");

    // The next one takes up the ceiling that was set.
    guest.does(&format!("insert {bytes}"));
    let again = guest.wait_until(|memory| memory.is_settled());
    assert_eq!(again.bytes("guest_bytes"), CEILING, "{again:?}");
    let _ = guest.answer("PUT", "/v1/memory/ceiling", r#"{"auto":true}"#);
    guest.wait_until(|memory| memory.is_settled() && memory.bytes("ballooned_bytes") == 0);
    guest.end();
}

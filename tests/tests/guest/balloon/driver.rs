//! A guest may have no balloon driver, lose the one it has, and get another.

use super::WITHOUT_ZEROING;
use tests::memory::{Guest, MIB};
use tests::{Ballast, Kernel, setup};

tests::on_a_kernel_or_every!(a_driver_comes_and_goes);

const SIZE: u64 = 256 * MIB;
const CEILING: u64 = 160 * MIB;
/// Of the driver's module, as long as the one that it has.
const NAME: &str = "virtio_ballast";

fn a_driver_comes_and_goes(kernel: &Kernel) {
    let ballast = setup();
    let mut module = renamed(kernel.module("drivers/virtio/virtio_balloon"));
    let bytes = module.len();
    module.resize(bytes.next_multiple_of(4096), 0);
    let disk = ballast.file("module", &module);
    let disk = format!("{}:ro", disk.display());
    let mut guest = Guest::start_with(&ballast, |run| {
        let run = run.options(kernel.options()).options(WITHOUT_ZEROING);
        run.options(["-m", "256m", "--disk", &disk, "--kernel-arg", "module_blacklist=virtio_balloon"])
    });

    // One that never had a driver has its memory.
    let said = ballast.command(&["exec", "guest", "cat", "/proc/modules"]).end().exits(0);
    let modules = String::from_utf8_lossy(&said.stdout);
    assert!(modules.contains("virtio") && !modules.contains("balloon"), "{modules}");
    is_without_driver(&ballast, &mut guest);

    guest.does(&format!("insert {bytes}"));
    guest.set_ceiling(CEILING);
    guest.wait_until(|memory| memory.is_settled());

    // The driver gives everything back before it goes.
    guest.does(&format!("rmmod {NAME}"));
    guest.wait_until(|memory| memory.driver() == "absent");
    is_without_driver(&ballast, &mut guest);

    // The next one takes up the ceiling that was set.
    guest.does(&format!("insert {bytes}"));
    let again = guest.wait_until(|memory| memory.is_settled());
    assert_eq!(again.bytes("guest_bytes"), CEILING, "{again:?}");
    let _ = guest.answer("PUT", "/v1/memory/ceiling", r#"{"auto":true}"#);
    guest.wait_until(|memory| memory.is_settled() && memory.bytes("ballooned_bytes") == 0);
    guest.end();
}

/// All memory is the guest's, and whatever needs a driver is refused with a sentence.
fn is_without_driver(ballast: &Ballast, guest: &mut Guest) {
    let memory = guest.memory();
    assert_eq!((memory.driver(), memory.bytes("guest_bytes")), ("absent", SIZE), "{memory:?}");
    assert_eq!(
        (memory.bytes("ballooned_bytes"), memory.bytes("actual_bytes"), memory.0["skew_bytes"].as_i64()),
        (0, 0, Some(0)),
        "{memory:?}"
    );
    for (method, path, content) in
        [("PUT", "/v1/memory/ceiling", r#"{"bytes":209715200}"#), ("GET", "/v1/statistics", "")]
    {
        let (head, content) = guest.ask(method, path, content);
        assert!(
            head.starts_with("HTTP/1.1 409 ") && content.contains("no balloon driver"),
            "{head}\n{content}"
        );
    }
    let inspected = ballast.command(&["inspect", "guest"]).end().exits(0);
    assert!(String::from_utf8_lossy(&inspected.stdout).contains("none: memory is fixed"), "{inspected}");
}

/// The driver by a name that the guest's kernel is not told to keep out. It is signed by its other one: with a
/// signature that is wrong no kernel takes a module, without one those do that do not insist.
fn renamed(mut module: Vec<u8>) -> Vec<u8> {
    const SIGNED: &[u8] = b"~Module signature appended~\n";
    if module.ends_with(SIGNED) {
        module.truncate(module.len() - SIGNED.len());
    }
    let (from, to) = (b"virtio_balloon", NAME.as_bytes());
    for at in 0..module.len() - from.len() {
        if module[at..].starts_with(from) {
            module[at..at + to.len()].copy_from_slice(to);
        }
    }
    module
}

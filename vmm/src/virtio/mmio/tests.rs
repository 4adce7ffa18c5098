//! What a driver is told, and when.

use super::Transport;
use crate::virtio::device::{BrokenQueue, Device, Effects, Memory};
use crate::virtio::driver::{Driver, LIVE, bring_up, get, memory, set};
use crate::virtio::queue::{Outcome, drain};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use virtio_bindings::virtio_mmio::*;
use virtio_queue::Queue;

/// A device that gives every buffer back.
struct Idle;

impl Device for Idle {
    fn id(&self) -> u32 {
        4
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[8]
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, _features: u64) {}

    fn reset(&mut self) {}

    fn serve(&mut self, index: usize, queues: &mut [Queue], memory: &Memory) -> Result<Effects, BrokenQueue> {
        drain(index, &mut queues[index], memory, 8, |_| Outcome::Used(0))
    }
}

const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;

fn device() -> (Transport<Idle>, Vec<Driver>) {
    let memory = memory(1 << 20);
    let drivers = vec![Driver::new(&memory, 0x1000, 8)];
    (Transport::new(Idle, memory).unwrap(), drivers)
}

fn told(transport: &Transport<Idle>) -> u32 {
    get(transport, VIRTIO_MMIO_INTERRUPT_STATUS)
}

#[test]
fn a_driver_that_contradicts_itself_is_told_that_a_reset_is_due() {
    let (transport, drivers) = device();
    for status in [1, LIVE | 32, 11] {
        bring_up(&transport, 0, &drivers);
        while transport.interrupt().read().is_ok() {}
        set(&transport, VIRTIO_MMIO_STATUS, status);
        assert_eq!(get(&transport, VIRTIO_MMIO_STATUS), LIVE | NEEDS_RESET);
        assert_eq!(told(&transport), VIRTIO_MMIO_INT_CONFIG);
        assert_eq!(transport.interrupt().read().unwrap(), 1);
        set(&transport, VIRTIO_MMIO_STATUS, status);
        assert!(transport.interrupt().read().is_err(), "it has been told");
        assert!(!transport.hold().live() && transport.hold().needs_reset());
    }
    // One that has not set it live is not: it reads the status itself.
    set(&transport, VIRTIO_MMIO_STATUS, 0);
    set(&transport, VIRTIO_MMIO_STATUS, 4);
    assert_eq!((get(&transport, VIRTIO_MMIO_STATUS), told(&transport)), (NEEDS_RESET, 0));
    assert!(transport.interrupt().read().is_err());
}

#[test]
fn a_driver_that_gives_up_is_served_no_more() {
    let (transport, drivers) = device();
    bring_up(&transport, 0, &drivers);
    let waits = &transport.kicks()[0];
    waits.read().unwrap();
    set(&transport, VIRTIO_MMIO_STATUS, LIVE | FAILED);
    assert_eq!(waits.read().unwrap(), 1, "whoever waits for it hears of it");
    assert!(!transport.hold().live() && transport.hold().needs_reset());
    assert_eq!(get(&transport, VIRTIO_MMIO_STATUS), LIVE | FAILED);
    bring_up(&transport, 0, &drivers);
    assert!(transport.hold().live() && !transport.hold().needs_reset());
}

#[test]
fn a_broken_queue_is_told_once() {
    let (transport, mut drivers) = device();
    bring_up(&transport, 0, &drivers);
    drivers[0].set_avail_index(1000);
    while transport.interrupt().read().is_ok() {}
    transport.serve(0);
    transport.serve(0);
    assert_eq!((told(&transport), transport.interrupt().read().unwrap()), (VIRTIO_MMIO_INT_CONFIG, 1));
    assert!(transport.hold().needs_reset());
    transport.hold().config_changed();
    assert!(transport.interrupt().read().is_err(), "nobody listens");
}

#[test]
fn after_a_reset_nothing_is_told() {
    let (transport, drivers) = device();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                transport.hold().config_changed();
            }
        });
        for _ in 0..5_000 {
            bring_up(&transport, 0, &drivers);
            set(&transport, VIRTIO_MMIO_STATUS, 0);
            if told(&transport) != 0 {
                over.store(true, Ordering::Relaxed);
                panic!("a device that was reset interrupts");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

//! Drives the console as a driver would, and as none should.

use super::control::Event;
use super::device::{BUFFER_BYTES, Console};
use super::ports::{self, KINDS, Port, QUEUES, Role};
use crate::virtio::device::{Device, Effects, Memory};
use crate::virtio::driver::{Driver, memory, readable, writable};
use proptest::prelude::*;
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT};
use virtio_queue::Queue;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

const SIZE: u16 = 16;
const DATA: u64 = 0x40_000;

struct Bench {
    memory: Memory,
    console: Console,
    drivers: Vec<Driver>,
    queues: Vec<Queue>,
}

impl Bench {
    fn new() -> Self {
        let memory = memory(1 << 20);
        let drivers: Vec<_> =
            (0..QUEUES as u64).map(|i| Driver::new(&memory, 0x1000 * (i + 1), SIZE)).collect();
        let queues = drivers.iter().map(|driver| driver.queue(false)).collect();
        Self { memory, console: Console::default(), drivers, queues }
    }

    fn serve(&mut self, queue: usize) -> Effects {
        self.console.serve(queue, &mut self.queues, &self.memory).unwrap()
    }

    fn control(&mut self, port: u32, event: Event, value: u16) {
        let mut message = port.to_le_bytes().to_vec();
        message.extend((event as u16).to_le_bytes());
        message.extend(value.to_le_bytes());
        self.drivers[3].write(DATA, &message);
        self.drivers[3].offer(0, &[readable(DATA, 8)]);
        let _ = self.serve(3);
        self.drivers[3].take_used();
    }

    fn open(&mut self, port: Port) {
        self.control(port as u32, Event::PortOpen, 1);
    }

    fn output(&self, port: Port) -> Vec<u8> {
        let (first, second) = self.console.output(port as usize);
        [first, second].concat()
    }
}

#[test]
fn a_driver_learns_of_all_ports_by_name() {
    let mut bench = Bench::new();
    for head in 0..SIZE {
        bench.drivers[2].offer(head, &[writable(DATA + 0x100 * (1 + u64::from(head)), 0x100)]);
    }
    bench.control(u32::MAX, Event::DeviceReady, 1);
    bench.control(Port::Link as u32, Event::PortReady, 1);
    let used = bench.drivers[2].take_used();
    assert_eq!(used.len(), KINDS.len() + 2, "an addition a port, then name and opening of one");
    let (head, length) = used[KINDS.len()];
    let message = bench.drivers[2].read(DATA + 0x100 * (1 + u64::from(head)), length as usize);
    assert_eq!(&message[8..], b"ballast.agent");
}

/// Linux fills all of them with pages.
#[test]
fn receive_queues_are_as_long_as_what_comes_to_the_guest() {
    let console = Console::default();
    for (index, size) in console.queue_sizes().iter().enumerate() {
        let hears = [Port::Link as usize, Port::Stdin as usize];
        let expected = match ports::role(index).unwrap() {
            Role::Receive(port) if hears.contains(&port) => BUFFER_BYTES / 4096,
            Role::ControlReceive => BUFFER_BYTES / 4096,
            Role::Receive(_) => 2,
            Role::Transmit(_) | Role::ControlTransmit => 64,
        };
        assert_eq!(usize::from(*size), expected, "queue {index}");
    }
}

#[test]
fn input_waits_for_the_guest_to_open_its_port() {
    let mut bench = Bench::new();
    assert_eq!(bench.console.send(Port::Stdin as usize, b"early"), 0);
    bench.open(Port::Stdin);
    assert_eq!(bench.console.send(Port::Stdin as usize, b"hello"), 5);
    let queue = ports::receive_queue(Port::Stdin as usize);
    assert_eq!(bench.serve(queue), Effects::default(), "the guest gave no buffer yet");
    bench.drivers[queue].offer(0, &[writable(DATA, 3)]);
    bench.drivers[queue].offer(1, &[writable(DATA + 64, 64)]);
    assert!(bench.serve(queue).interrupt);
    assert_eq!(bench.drivers[queue].take_used(), [(0, 3), (1, 2)]);
    assert_eq!(bench.drivers[queue].read(DATA, 3), b"hel");
    assert_eq!(bench.drivers[queue].read(DATA + 64, 2), b"lo");
}

#[test]
fn output_that_nobody_takes_holds_the_guest_back() {
    let mut bench = Bench::new();
    let queue = ports::transmit_queue(Port::Stdout as usize);
    let chunk = BUFFER_BYTES as u32 / 2 + 1;
    bench.drivers[queue].write(DATA, &[b'x'; 64]);
    for head in 0..3 {
        bench.drivers[queue].offer(head, &[readable(DATA, chunk)]);
    }
    let _ = bench.serve(queue);
    assert_eq!(bench.output(Port::Stdout).len(), BUFFER_BYTES);
    assert_eq!(bench.drivers[queue].take_used().len(), 1, "the second chain is half taken, the third waits");
    let mut total = 0;
    while !bench.output(Port::Stdout).is_empty() {
        let some = bench.output(Port::Stdout).len().min(40_000);
        bench.console.consume(Port::Stdout as usize, some);
        total += some;
        let _ = bench.serve(queue);
    }
    assert_eq!(total, 3 * chunk as usize, "no byte is lost or doubled");
    assert_eq!(bench.drivers[queue].take_used().len(), 2);
}

#[test]
fn bytes_keep_their_order_through_split_chains() {
    let mut bench = Bench::new();
    let queue = ports::transmit_queue(Port::Link as usize);
    bench.drivers[queue].write(DATA, b"abcdef");
    bench.drivers[queue].offer(0, &[readable(DATA, 2), readable(DATA + 2, 0), readable(DATA + 2, 3)]);
    bench.drivers[queue].offer(5, &[readable(DATA + 5, 1)]);
    let _ = bench.serve(queue);
    assert_eq!(bench.output(Port::Link), b"abcdef");
}

#[test]
fn wrong_chains_come_back_and_are_counted() {
    let mut bench = Bench::new();
    let queue = ports::transmit_queue(Port::Stdout as usize);
    bench.drivers[queue].offer(0, &[readable(0xffff_ffff_0000, 10)]);
    bench.drivers[queue].offer(1, &[readable((1 << 20) - 4, 8)]);
    let _ = bench.serve(queue);
    assert_eq!(bench.drivers[queue].take_used().len(), 2);
    assert_eq!(bench.console.misuse().chain, 2);
    assert!(bench.output(Port::Stdout).is_empty());
    bench.control(99, Event::PortReady, 1);
    assert_eq!(bench.console.misuse().control, 1);
}

#[test]
fn of_a_chain_without_end_nothing_is_taken() {
    let mut bench = Bench::new();
    let queue = ports::transmit_queue(Port::Stdout as usize);
    let driver = &mut bench.drivers[queue];
    driver.write(DATA, b"xx");
    driver.store(0, Descriptor::new(DATA, 1, VRING_DESC_F_NEXT as u16, 0));
    driver.publish(0);
    // A table that is longer than any queue.
    for entry in 0..1000u16 {
        let next = Descriptor::new(DATA, 1, VRING_DESC_F_NEXT as u16, entry + 1);
        let address = GuestAddress(2 * DATA + 16 * u64::from(entry));
        driver.memory().write_obj(next, address).unwrap();
    }
    driver.store(1, Descriptor::new(2 * DATA, 16_000, VRING_DESC_F_INDIRECT as u16, 0));
    driver.publish(1);
    let _ = bench.serve(queue);
    assert_eq!(bench.drivers[queue].take_used(), [(0, 0), (1, 0)]);
    assert_eq!(bench.console.misuse().chain, 2);
    assert!(bench.output(Port::Stdout).is_empty());
}

#[test]
fn a_reset_forgets_everything_but_the_counts() {
    let mut bench = Bench::new();
    bench.open(Port::Stdin);
    bench.control(99, Event::PortReady, 1);
    assert_eq!(bench.console.send(Port::Stdin as usize, b"x"), 1);
    bench.console.reset();
    assert_eq!(bench.console.room(Port::Stdin as usize), 0);
    assert_eq!(bench.console.misuse().control, 1);
}

proptest! {
    /// Whatever lies in the descriptor tables and rings: nothing panics, and no port holds more than its bound.
    #[test]
    fn any_rings_are_survived(
        bytes in proptest::collection::vec(any::<u8>(), 0..2048),
        heads in proptest::collection::vec((0..QUEUES, 0..SIZE), 0..64),
    ) {
        let mut bench = Bench::new();
        for index in 0..QUEUES {
            let table = bench.queues[index].state().desc_table;
            bench.drivers[index].write(table, &bytes[..bytes.len().min(16 * SIZE as usize)]);
        }
        bench.open(Port::Stdin);
        bench.console.send(Port::Stdin as usize, &bytes);
        for (queue, head) in heads {
            bench.drivers[queue].publish(head);
            let _ = bench.console.serve(queue, &mut bench.queues, &bench.memory);
            for port in 0..KINDS.len() {
                let (first, second) = bench.console.output(port);
                prop_assert!(first.len() + second.len() <= BUFFER_BYTES);
            }
        }
    }
}

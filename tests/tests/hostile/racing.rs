//! Two processors at one device: one drives it, the other writes its registers, rings and configuration meanwhile.

use tests::hostile::bench::MACHINE;
use tests::hostile::driver::*;
use tests::hostile::program::Program;
use tests::hostile::{Bench, Driver};
use virtio_bindings::virtio_mmio::*;

/// Lives of the device, one after another, each with work for all queues.
fn lives(count: u32) -> Program {
    let mut life = Driver::new(MACHINE);
    life.set(VIRTIO_MMIO_STATUS, 0);
    life.clear_rings();
    life.negotiate(FEATURES);
    (0..4).for_each(|queue| life.place(queue, Ring::good(queue)));
    life.program.fill(BUFFERS, VICTIM, 1, 256);
    life.chain(INFLATE, 0, &[(BUFFERS, 1024, 0); 4]);
    life.chain(DEFLATE, 0, &[(BUFFERS, 512, 0)]);
    life.chain(STATISTICS, 0, &[(BUFFERS, 160, 0)]);
    life.chain(REPORTING, 0, &[(VICTIMS, 1 << 20, WRITE); 4]);
    life.go_live();
    for queue in [INFLATE, DEFLATE, STATISTICS, REPORTING, INFLATE] {
        life.publish(queue, 0);
        life.kick(queue);
    }
    let mut program = Program::default();
    program.repeat(count, |program| program.append(life.program));
    program.next();
    program
}

/// Writes of all kinds, again and again.
fn disturbance(count: u32) -> Program {
    let mut disturber = Driver::new(MACHINE);
    for (register, value) in [
        (VIRTIO_MMIO_QUEUE_SEL, 1),
        (VIRTIO_MMIO_QUEUE_READY, 0),
        (VIRTIO_MMIO_QUEUE_NUM, 8),
        (VIRTIO_MMIO_QUEUE_DESC_LOW, 0xd000_0000),
        (VIRTIO_MMIO_QUEUE_READY, 1),
        (VIRTIO_MMIO_QUEUE_SEL, 7),
        (VIRTIO_MMIO_STATUS, DRIVER_OK),
        (VIRTIO_MMIO_QUEUE_NOTIFY, 0),
        (VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
        (VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX),
        (VIRTIO_MMIO_INTERRUPT_ACK, u32::MAX),
        (VIRTIO_MMIO_CONFIG + 4, 77),
        (VIRTIO_MMIO_CONFIG + 12, 1),
        (VIRTIO_MMIO_CONFIG + 12, 0),
        (VIRTIO_MMIO_QUEUE_NOTIFY, 3),
        (VIRTIO_MMIO_STATUS, FEATURES_OK),
        (VIRTIO_MMIO_QUEUE_NOTIFY, 1),
        (VIRTIO_MMIO_STATUS, 0),
    ] {
        disturber.set(register, value);
    }
    let ring = Ring::good(INFLATE);
    disturber.program.write(2, ring.available + 2, 3);
    disturber.program.write(8, ring.descriptors + 8, u64::from(u32::MAX) | 7 << 32);
    disturber.program.write(8, Ring::good(REPORTING).descriptors, MACHINE.hole() - PAGE);
    let mut program = Program::default();
    program.repeat(count, |program| program.append(disturber.program));
    program.next();
    program
}

#[test]
fn two_processors_at_one_device() {
    let bench = Bench::start(2);
    let (first, second) = (lives(400), disturbance(2000));
    bench.begin(1, &second);
    bench.begin(0, &first);
    bench.finish(0, &first, "lives");
    bench.finish(1, &second, "a disturbance");
    bench.settle();
    bench.holds("two processors");
    bench.serves_a_good_driver("two processors");
}

/// Both kick, nobody drives.
#[test]
fn two_processors_that_only_kick() {
    let bench = Bench::start(2);
    let mut program = Program::default();
    for queue in 0..6 {
        program.write(4, MACHINE.balloon + u64::from(VIRTIO_MMIO_QUEUE_NOTIFY), queue);
        program.times(3000);
    }
    program.next();
    (0..2).for_each(|cpu| bench.begin(cpu, &program));
    (0..2).for_each(|cpu| bench.finish(cpu, &program, "kicks"));
    bench.holds("kicks");
    bench.serves_a_good_driver("kicks");
}

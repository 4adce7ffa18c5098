use super::*;
use proptest::prelude::*;

const FEATURE: u64 = 1 << 3;

fn registers() -> Registers {
    Registers::new(3, FEATURE, &[64, 128])
}

fn negotiate(r: &mut Registers, features: u64) {
    for status in [ACKNOWLEDGE, ACKNOWLEDGE | DRIVER] {
        assert_eq!(r.write(VIRTIO_MMIO_STATUS, status), Request::Nothing);
    }
    for (select, value) in [(0, low(features)), (1, low(features >> 32))] {
        let _ = r.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
        let _ = r.write(VIRTIO_MMIO_DRIVER_FEATURES, value);
    }
    let _ = r.write(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

fn set_up_queue(r: &mut Registers, index: u32) {
    for (offset, value) in [
        (VIRTIO_MMIO_QUEUE_SEL, index),
        (VIRTIO_MMIO_QUEUE_NUM, 16),
        (VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000),
        (VIRTIO_MMIO_QUEUE_DESC_HIGH, 1),
        (VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x2000),
        (VIRTIO_MMIO_QUEUE_USED_LOW, 0x3000),
        (VIRTIO_MMIO_QUEUE_READY, 1),
    ] {
        assert_eq!(r.write(offset, value), Request::Nothing);
    }
}

const LIVE: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

#[test]
fn a_correct_driver_gets_a_live_device() {
    let mut r = registers();
    assert_eq!(r.read(VIRTIO_MMIO_MAGIC_VALUE, 0), u32::from_le_bytes(*b"virt"));
    assert_eq!(r.read(VIRTIO_MMIO_DEVICE_ID, 0), 3);
    negotiate(&mut r, FEATURE | TRANSPORT_FEATURES);
    set_up_queue(&mut r, 1);
    assert_eq!(r.write(VIRTIO_MMIO_STATUS, LIVE), Request::Activate);
    assert!(r.live() && r.event_idx());
    assert_eq!(
        r.queues()[1],
        QueueRegisters {
            max_size: 128,
            size: 16,
            ready: true,
            descriptors: 0x1_0000_1000,
            available: 0x2000,
            used: 0x3000
        }
    );
    assert!(!r.queues()[0].ready);
    assert_eq!(r.misuse(), Misuse::default());
    assert_eq!(r.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1), Request::Notify(1));
    assert_eq!(r.write(VIRTIO_MMIO_STATUS, 0), Request::Reset);
}

#[test]
fn queues_are_latched_once_live() {
    let mut r = registers();
    negotiate(&mut r, TRANSPORT_FEATURES);
    set_up_queue(&mut r, 0);
    assert_eq!(r.write(VIRTIO_MMIO_STATUS, LIVE), Request::Activate);
    let before = r.queues().to_vec();
    for offset in [VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH] {
        assert_eq!(r.write(offset, 32), Request::Nothing);
    }
    let _ = r.write(VIRTIO_MMIO_QUEUE_SEL, 1);
    let _ = r.write(VIRTIO_MMIO_QUEUE_READY, 1);
    assert_eq!(r.queues(), before);
    assert_eq!(r.misuse().phase, 4);
}

#[test]
fn a_stopped_queue_stays_stopped() {
    let mut r = registers();
    negotiate(&mut r, TRANSPORT_FEATURES);
    set_up_queue(&mut r, 1);
    let _ = r.write(VIRTIO_MMIO_STATUS, LIVE);
    assert_eq!(r.write(VIRTIO_MMIO_QUEUE_READY, 0), Request::StopQueue(1));
    assert_eq!(r.read(VIRTIO_MMIO_QUEUE_READY, 0), 0);
    assert_eq!(r.write(VIRTIO_MMIO_QUEUE_READY, 1), Request::Nothing);
    assert_eq!(r.read(VIRTIO_MMIO_QUEUE_READY, 0), 0);
}

#[test]
fn features_not_offered_are_not_accepted() {
    for features in [TRANSPORT_FEATURES | 1 << 5, FEATURE, 0] {
        let mut r = registers();
        negotiate(&mut r, features);
        assert_eq!(r.read(VIRTIO_MMIO_STATUS, 0), ACKNOWLEDGE | DRIVER, "{features:#x}");
    }
}

#[test]
fn contradictory_statuses_demand_a_reset() {
    for steps in [&[DRIVER][..], &[1, 3, 1], &[1, 3, 7], &[1, 3 | 32], &[4]] {
        let mut r = registers();
        for status in steps {
            let _ = r.write(VIRTIO_MMIO_STATUS, *status);
        }
        assert_ne!(r.read(VIRTIO_MMIO_STATUS, 0) & NEEDS_RESET, 0, "{steps:?}");
        r.reset();
        assert_eq!(r.read(VIRTIO_MMIO_STATUS, 0), 0);
        assert_eq!(r.misuse().status, 1, "a reset does not hide misuse");
    }
}

#[test]
fn impossible_sizes_and_queues_are_ignored() {
    let mut r = registers();
    negotiate(&mut r, TRANSPORT_FEATURES);
    for size in [0, 3, 65, 128, 65536, u32::MAX] {
        let _ = r.write(VIRTIO_MMIO_QUEUE_NUM, size);
    }
    let _ = r.write(VIRTIO_MMIO_QUEUE_SEL, 2);
    let _ = r.write(VIRTIO_MMIO_QUEUE_NUM, 16);
    assert_eq!(r.read(VIRTIO_MMIO_QUEUE_NUM_MAX, 0), 0);
    assert_eq!(r.queues()[0].size, 64);
    assert_eq!(r.misuse().queue, 7);
}

#[test]
fn a_driver_that_gave_up_has_no_live_device() {
    for steps in [&[LIVE | FAILED][..], &[LIVE, LIVE | FAILED], &[LIVE & !DRIVER_OK | FAILED, LIVE | FAILED]]
    {
        let mut r = registers();
        negotiate(&mut r, TRANSPORT_FEATURES);
        for status in steps {
            let _ = r.write(VIRTIO_MMIO_STATUS, *status);
        }
        assert!(!r.live(), "{steps:?}");
        assert_eq!(r.misuse(), Misuse::default());
    }
}

/// A write of any register, or of a status that comes somewhere in a driver's life.
fn register_write() -> impl Strategy<Value = (u32, u32)> {
    let step = prop_oneof![Just(0), Just(1), Just(3), Just(11), Just(LIVE)];
    let status = (step, prop_oneof![4 => Just(0), 1 => Just(FAILED), 1 => Just(NEEDS_RESET)]);
    prop_oneof![
        3 => (0u32..0x110, prop_oneof![0u32..256, any::<u32>()]),
        1 => status.prop_map(|(step, also)| (VIRTIO_MMIO_STATUS, step | also)),
    ]
}

proptest! {
    /// Whatever a driver writes: the device is live only with all four status bits and without FAILED, queue geometry
    /// changes only between FEATURES_OK and DRIVER_OK, and activation happens at most once a reset.
    #[test]
    fn no_sequence_breaks_the_order(
        negotiated in any::<bool>(),
        writes in proptest::collection::vec(register_write(), 0..200),
    ) {
        let mut r = registers();
        if negotiated {
            negotiate(&mut r, TRANSPORT_FEATURES);
        }
        let mut activated = false;
        for (offset, value) in writes {
            let offset = offset & !3;
            let before = (r.read(VIRTIO_MMIO_STATUS, 0), r.queues().to_vec());
            let request = r.write(offset, value);
            if r.queues() != before.1 && request != Request::Reset {
                let ready_cleared = offset == VIRTIO_MMIO_QUEUE_READY && value == 0;
                prop_assert!(ready_cleared || before.0 & (FEATURES_OK | DRIVER_OK) == FEATURES_OK);
            }
            match request {
                Request::Activate => {
                    prop_assert!(!activated && r.live());
                    activated = true;
                }
                Request::Reset => {
                    r.reset();
                    activated = false;
                }
                _ => {}
            }
            if r.live() {
                prop_assert!(activated);
                prop_assert_eq!(r.read(VIRTIO_MMIO_STATUS, 0) & (LIVE | FAILED), LIVE);
                prop_assert_eq!(r.features() & !(FEATURE | TRANSPORT_FEATURES), 0);
            }
        }
    }
}

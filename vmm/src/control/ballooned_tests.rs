//! What the control socket is told by a real balloon behind its registers, with a driver of the test's.

use super::ballooned::{Ballooned, PrivateZone, document, zone_document};
use super::memory::{Ceiling, Memory, Refusal};
use crate::bus::BusDevice;
use crate::virtio::balloon::{Balloon, RegionLook};
use crate::virtio::driver::{Driver, bring_up, get, memory, readable, set, writable};
use crate::virtio::mmio::Transport;
use balloon::backing::{Failures, Host};
use balloon::control::api::{CeilingState, DriverState, MemoryDocument};
use balloon::device::{CeilingError, OFFERED, QUEUE_SIZES, RequestError};
use balloon::resident::Residency;
use std::cell::Cell;
use std::sync::Arc;
use virtio_bindings::virtio_mmio::*;
use vmm_sys_util::eventfd::EventFd;

const BLOCK: u64 = balloon::BLOCK_BYTES;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const INFLATE: usize = 0;
const STATISTICS: usize = 2;
const REPORTING: usize = 3;
const BUFFER: u64 = 0x10_0000;

thread_local! {
    static NOW_MS: Cell<u64> = const { Cell::new(0) };
}

struct Subject {
    memory: Ballooned<Host>,
    transport: Arc<Transport<Balloon<Host>>>,
    drivers: Vec<Driver>,
}

impl Subject {
    /// A guest of `bytes` bytes, none of them touched, at time 0.
    fn new(bytes: u64) -> Self {
        NOW_MS.set(0);
        let memory = memory(bytes as usize);
        let balloon = Balloon::with_kernel(Host::probe(), &memory, BLOCK, || NOW_MS.get()).unwrap();
        let drivers =
            QUEUE_SIZES.iter().zip(1..).map(|(size, at)| Driver::new(&memory, at << 12, *size)).collect();
        let transport = Arc::new(Transport::new(balloon, memory).unwrap());
        let event = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        Self { memory: Ballooned::new(Arc::clone(&transport), Vec::new(), event), transport, drivers }
    }

    /// As [`Self::new`], with a driver that does everything.
    fn live(bytes: u64) -> Self {
        let subject = Self::new(bytes);
        bring_up(&*subject.transport, OFFERED, &subject.drivers);
        subject
    }

    /// The driver breaks its rings.
    fn breaks(&mut self) {
        self.drivers[INFLATE].set_avail_index(1000);
        self.transport.serve(INFLATE);
    }

    /// The driver puts numbers into the queue of statistics: so much is available.
    fn says_available(&mut self, bytes: u64) {
        let record = [&6u16.to_le_bytes()[..], &bytes.to_le_bytes()].concat();
        self.drivers[STATISTICS].write(BUFFER, &record);
        self.drivers[STATISTICS].offer(0, &[readable(BUFFER, 10)]);
        self.transport.serve(STATISTICS);
    }

    fn interrupts(&self) -> u64 {
        self.transport.interrupt().read().unwrap_or(0)
    }
}

#[test]
fn a_ceiling_is_set_and_told_once() {
    let mut subject = Subject::live(64 * MIB);
    subject.interrupts();
    assert_eq!(subject.memory.set_ceiling(Ceiling::Bytes(40 * MIB)), Ok(()));
    assert_eq!(get(&*subject.transport, VIRTIO_MMIO_INTERRUPT_STATUS) & 2, 2);
    assert_eq!(subject.interrupts(), 1);
    let document = subject.memory.snapshot();
    assert_eq!(document.ceiling, CeilingState { bytes: 40 * MIB, auto: false });
    assert_eq!(document.driver, DriverState::Moving);
    assert_eq!(subject.memory.set_ceiling(Ceiling::Bytes(40 * MIB)), Ok(()));
    assert_eq!(subject.interrupts(), 0, "nothing is new");

    for bytes in [0, BLOCK - 1, 64 * MIB + 1, u64::MAX] {
        let error = CeilingError { bytes, floor_bytes: BLOCK, max_bytes: 64 * MIB };
        assert_eq!(subject.memory.set_ceiling(Ceiling::Bytes(bytes)), Err(error.into()));
    }
    assert_eq!(subject.memory.snapshot().ceiling, CeilingState { bytes: 40 * MIB, auto: false });
    assert_eq!(subject.memory.set_ceiling(Ceiling::Auto), Ok(()));
    assert_eq!(subject.memory.snapshot().ceiling, CeilingState { bytes: 64 * MIB, auto: true });
}

#[test]
fn a_refused_ceiling_is_told_the_max_in_force() {
    let mut subject = Subject::live(64 * MIB);
    subject.memory.set_max(32 * MIB).unwrap();
    for bytes in [0, BLOCK - 1, 32 * MIB + 1, 64 * MIB] {
        let error = CeilingError { bytes, floor_bytes: BLOCK, max_bytes: 32 * MIB };
        assert_eq!(subject.memory.set_ceiling(Ceiling::Bytes(bytes)), Err(error.into()));
    }
}

#[test]
fn no_ceiling_goes_below_what_is_promised() {
    let mut subject = Subject::live(64 * MIB);
    subject.memory.set_min(32 * MIB);
    for bytes in [0, 32 * MIB - 1, 64 * MIB + 1] {
        let error = CeilingError { bytes, floor_bytes: 32 * MIB, max_bytes: 64 * MIB };
        assert_eq!(subject.memory.set_ceiling(Ceiling::Bytes(bytes)), Err(error.into()));
    }
    subject.memory.set_ceiling(Ceiling::Bytes(32 * MIB)).unwrap();
    subject.memory.follow_ceiling(16 * MIB).unwrap();
    assert_eq!(
        (subject.memory.snapshot().ceiling.bytes, subject.memory.snapshot().floor_bytes),
        (32 * MIB, 32 * MIB)
    );
    assert_eq!((subject.memory.reading().floor_bytes, subject.memory.guest_floor_bytes()), (32 * MIB, BLOCK));
    // Not by an earlier promise.
    subject.memory.set_min(0);
    assert_eq!(
        (subject.memory.set_ceiling(Ceiling::Bytes(BLOCK)), subject.memory.snapshot().floor_bytes),
        (Ok(()), BLOCK)
    );
}

#[test]
fn a_max_lowers_the_ceiling_and_the_law_raises_it() {
    let mut subject = Subject::live(64 * MIB);
    let told = |subject: &mut Subject| {
        let document = subject.memory.snapshot();
        (document.ceiling.bytes / MIB, document.max_bytes / MIB)
    };
    subject.memory.follow_ceiling(20 * MIB).unwrap();
    subject.interrupts();
    for max in [48, 64] {
        subject.memory.set_max(max * MIB).unwrap();
        assert_eq!(told(&mut subject), (20, max), "what the law took stays");
    }
    assert_eq!(subject.interrupts(), 0);
    subject.memory.set_ceiling(Ceiling::Bytes(40 * MIB)).unwrap();
    for (max, ceiling) in [(64, 40), (32, 32), (2, BLOCK / MIB), (64, BLOCK / MIB)] {
        subject.memory.set_max(max * MIB).unwrap();
        assert_eq!(told(&mut subject), (ceiling, max), "max {max} MiB");
        assert_eq!(subject.memory.ceiling_by_hand(), Some(40 * MIB), "it is not forgotten");
    }
    subject.memory.follow_ceiling(40 * MIB).unwrap();
    assert_eq!(told(&mut subject), (40, 64));
    assert!(subject.memory.set_max(65 * MIB).is_err());
    assert_eq!(told(&mut subject), (40, 64), "nothing changed");
}

#[test]
fn the_law_has_the_last_word_on_a_ceiling_by_hand() {
    let mut subject = Subject::live(64 * MIB);
    subject.memory.set_ceiling(Ceiling::Bytes(40 * MIB)).unwrap();
    for wanted in [32, 48, 40] {
        subject.memory.follow_ceiling(wanted * MIB).unwrap();
        let document = subject.memory.snapshot();
        assert_eq!(document.ceiling, CeilingState { bytes: wanted * MIB, auto: false });
        assert_eq!(subject.memory.ceiling_by_hand(), Some(40 * MIB));
    }
}

#[test]
fn without_a_driver_a_ceiling_can_only_be_undone() {
    let mut subject = Subject::live(64 * MIB);
    subject.memory.set_ceiling(Ceiling::Bytes(40 * MIB)).unwrap();
    set(&*subject.transport, VIRTIO_MMIO_STATUS, 0);
    assert_eq!(subject.memory.snapshot().driver, DriverState::Absent);
    for bytes in [20 * MIB, 0, 64 * MIB + 1, u64::MAX] {
        assert_eq!(subject.memory.set_ceiling(Ceiling::Bytes(bytes)), Err(RequestError::NoDriver.into()));
    }
    assert_eq!(subject.memory.request_statistics(), Err(RequestError::NoDriver.into()));
    let ceiling = subject.memory.snapshot().ceiling;
    assert_eq!(ceiling, CeilingState { bytes: 40 * MIB, auto: false });
    subject.memory.set_ceiling(Ceiling::Auto).unwrap();
    assert_eq!(subject.memory.snapshot().ceiling, CeilingState { bytes: 64 * MIB, auto: true });
}

#[test]
fn a_driver_that_broke_its_device_is_called_so_until_it_resets_it() {
    let mut subject = Subject::live(64 * MIB);
    subject.says_available(60 * MIB);
    assert_eq!(subject.memory.snapshot().driver, DriverState::Settled);
    let is_stale = |subject: &mut Subject| subject.memory.statistics().unwrap().stale;
    assert!(!is_stale(&mut subject));
    subject.breaks();
    assert!(is_stale(&mut subject));
    let MemoryDocument { driver, ceiling, .. } = subject.memory.snapshot();
    assert_eq!((driver, ceiling.auto), (DriverState::Broken, true));
    subject.interrupts();
    for bytes in [40 * MIB, 0, 64 * MIB + 1, u64::MAX] {
        assert_eq!(subject.memory.set_ceiling(Ceiling::Bytes(bytes)), Err(Refusal::Broken));
    }
    assert_eq!(subject.memory.snapshot().ceiling, ceiling, "nothing was set");
    assert!(!subject.memory.reading().balloon, "nor is the law to count on it");
    assert_eq!(subject.memory.request_statistics(), Err(Refusal::Broken));
    assert_eq!(subject.memory.set_ceiling(Ceiling::Auto), Ok(()));
    assert_eq!(subject.interrupts(), 0, "nobody listens");

    bring_up(&*subject.transport, OFFERED, &[]);
    assert_eq!(subject.memory.snapshot().driver, DriverState::Settled);
    assert_eq!(subject.memory.set_ceiling(Ceiling::Bytes(40 * MIB)), Ok(()));
}

#[test]
fn a_small_guest_is_read_at_once_and_again_when_that_is_old() {
    let mut subject = Subject::live(64 * MIB);
    let age_ms = |subject: &mut Subject, at_ms| {
        NOW_MS.set(at_ms);
        let document = subject.memory.snapshot();
        assert!(document.resident_bytes.is_some());
        document.resident_age_ms.unwrap()
    };
    let ages = [0, 999, 1000, 1500, 5000].map(|at_ms| age_ms(&mut subject, at_ms));
    assert_eq!(ages, [0, 999, 0, 500, 0]);
}

#[test]
fn all_clients_together_have_so_much_read_for_them() {
    // A GiB at a time: the fourth of these is the last.
    let mut subject = Subject::live(4 * GIB);
    for at_ms in [0, 20, 40] {
        NOW_MS.set(at_ms);
        for client in 0..100 {
            let document = subject.memory.snapshot();
            let [resident, age_ms] = [document.resident_bytes, document.resident_age_ms];
            assert_eq!((resident, age_ms), (None, None), "client {client} at {at_ms} ms");
        }
    }
    NOW_MS.set(60);
    let resident = subject.memory.snapshot().resident_bytes;
    assert!(resident.is_some_and(|bytes| bytes < MIB), "{resident:?}");
}

#[test]
fn everything_that_is_counted_is_told() {
    let mut subject = Subject::live(64 * MIB);
    // Free pages are filled with a pattern: reports of them are kept.
    subject.transport.write(VIRTIO_MMIO_CONFIG as u64 + 12, &7u32.to_le_bytes());
    subject.drivers[REPORTING].offer(0, &[writable(32 * MIB, 3 * 4096)]);
    subject.transport.serve(REPORTING);
    set(&*subject.transport, VIRTIO_MMIO_VERSION, 7);
    set(&*subject.transport, VIRTIO_MMIO_QUEUE_NUM, 7);
    set(&*subject.transport, VIRTIO_MMIO_QUEUE_NOTIFY, 7);
    set(&*subject.transport, VIRTIO_MMIO_STATUS, 7);
    let document = subject.memory.snapshot();
    assert_eq!(document.reported_poisoned_total_bytes, 3 * 4096);
    let kinds = ["impossible_queues", "impossible_registers", "impossible_statuses", "untimely_writes"];
    assert_eq!(document.register_errors, kinds.map(|kind| (kind.to_owned(), 1)).into());
    let [region] = document.regions[..] else { panic!("{document:?}") };
    assert_eq!((region.address, region.size_bytes), (0, 64 * MIB));
    assert_eq!((region.resident_bytes, document.book_imbalances), (document.resident_bytes, 0));
    assert!(region.resident_bytes.is_some_and(|bytes| bytes > 0));
}

#[test]
fn every_figure_has_its_place() {
    let mut look = Subject::new(8 * MIB).transport.look();
    let region = |address| RegionLook { address, bytes: 4 * MIB, ballooned: 7, reported: address };
    look.regions = vec![region(0), region(16 * MIB)];
    look.report.release_failures = Failures { calls: 2, pages: 3, advice: 4, last_errno: Some(libc::ENOMEM) };
    look.report.residency = Some(Residency { resident: 9, regions: vec![4, 5], ..Residency::default() });
    look.book_imbalances = 6;
    let document = document(&look, false);
    let told = (document.release_failures, document.release_failed_bytes, document.release_last_errno);
    assert_eq!(told, (2, 3 * 4096, Some(libc::ENOMEM)));
    let regions: Vec<_> =
        document.regions.iter().map(|r| (r.address, r.size_bytes, r.resident_bytes)).collect();
    assert_eq!(regions, [(0, 4 * MIB, Some(4)), (16 * MIB, 4 * MIB, Some(5))]);
    let zone = |regions: &[usize]| {
        let zone = PrivateZone {
            name: "cache".into(),
            regions: regions.into(),
            host_node: Some(3),
            huge_pages: false,
        };
        let zone = zone_document(&look, 1, &zone);
        (zone.size_bytes, zone.resident_bytes, zone.ballooned_bytes, zone.reported_bytes)
    };
    assert_eq!(zone(&[1]), (4 * MIB, Some(5), 7, 16 * MIB));
    assert_eq!(zone(&[0, 1]), (8 * MIB, Some(9), 14, 16 * MIB));
    assert_eq!((document.advice_failures, document.book_imbalances), (4, 6));
}

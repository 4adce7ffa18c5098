//! The balloon behind real rings in real memory: an anonymous region and a memfd one, a hole between them.

#![expect(clippy::cast_possible_truncation)]

mod readings;

use super::*;
use crate::virtio::driver::{Driver, LIVE, bring_up, readable, set, writable};
use crate::virtio::mmio::Transport;
use balloon::device::{DriverState, RequestError, features};
use balloon::frames::Imbalance;
use event_manager::{EventManager, SubscriberOps};
use std::cell::Cell;
use std::os::fd::FromRawFd;
use std::sync::Arc;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_STATUS;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};
use vmm_sys_util::eventfd::EventFd;

const BLOCK: u64 = balloon::BLOCK_BYTES;
const HIGH: u64 = 4 * BLOCK;
/// The driver's arrays.
const ARRAY: u64 = 0x10_0000;

thread_local! {
    static NOW_MS: Cell<u64> = const { Cell::new(0) };
}

fn memory() -> Memory {
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    let fd = unsafe { libc::memfd_create(c"balloon".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: a new descriptor that nobody else knows.
    let file = unsafe { std::fs::File::from_raw_fd(fd) };
    file.set_len(BLOCK).unwrap();
    let regions = [
        (GuestAddress(0), BLOCK as usize, None),
        (GuestAddress(HIGH), BLOCK as usize, Some(FileOffset::new(file, 0))),
    ];
    Arc::new(GuestMemoryMmap::from_ranges_with_files(regions).unwrap())
}

struct Subject {
    balloon: Balloon<Host>,
    drivers: Vec<Driver>,
    queues: Vec<Queue>,
}

impl Subject {
    fn new(features: u64) -> Self {
        let memory = memory();
        NOW_MS.set(0);
        let balloon = Balloon::with_kernel(Host::probe(), &memory, BLOCK, || NOW_MS.get());
        let drivers: Vec<_> =
            QUEUE_SIZES.iter().zip(1..).map(|(size, at)| Driver::new(&memory, at << 12, *size)).collect();
        let queues = drivers.iter().map(|driver| driver.queue(true)).collect();
        let mut subject = Self { balloon: balloon.unwrap(), drivers, queues };
        subject.balloon.activate(features);
        subject
    }

    fn serve(&mut self, index: usize) -> Effects {
        let memory = self.drivers[0].memory().clone();
        self.balloon.serve(index, &mut self.queues, &memory).unwrap()
    }

    fn memory(&self) -> &Memory {
        self.drivers[0].memory()
    }

    /// Writes `pages` as an array and returns its descriptor.
    fn array(&self, at: u64, pages: impl IntoIterator<Item = u32>) -> virtio_queue::desc::split::Descriptor {
        let bytes: Vec<u8> = pages.into_iter().flat_map(u32::to_le_bytes).collect();
        self.memory().write_slice(&bytes, GuestAddress(at)).unwrap();
        readable(at, bytes.len() as u32)
    }

    fn fill(&self, page: u64) {
        self.memory().write_slice(&[7; 4096], GuestAddress(page << 12)).unwrap();
    }

    fn byte(&self, page: u64) -> u8 {
        self.memory().read_obj(GuestAddress(page << 12)).unwrap()
    }
}

#[test]
fn features_are_offered_as_listed() {
    for (listed, offered) in [
        (0, 0),
        (features::REPORTING, features::REPORTING),
        (u64::MAX, OFFERED),
        (features::FREE_PAGE_HINT | features::STATS_VQ, features::STATS_VQ),
    ] {
        assert_eq!(Balloon::over(&memory(), listed, None).unwrap().features(), offered);
    }
}

#[test]
fn pages_go_in_and_out_through_rings() {
    let mut subject = Subject::new(OFFERED);
    let high = (HIGH >> 12) as u32;
    for page in [512, 513, 600, u64::from(high)] {
        subject.fill(page);
    }
    let one = subject.array(ARRAY, [512, 513, 1024]);
    let two = subject.array(ARRAY + 0x1000, [high]);
    subject.drivers[0].offer(0, &[one, two]);
    assert_eq!(subject.serve(0), Effects { interrupt: true, again: false, ..Effects::default() });
    assert_eq!(subject.drivers[0].take_used(), [(0, 0)]);
    assert_eq!([512, 513, 600, u64::from(high)].map(|page| subject.byte(page)), [0, 0, 7, 0]);
    let report = subject.balloon.report();
    assert_eq!((report.ballooned, report.protocol_errors.foreign_pages), (3 * 4096, 1));

    let back = subject.array(ARRAY, [513, high]);
    subject.drivers[1].offer(5, &[back]);
    assert!(subject.serve(1).interrupt);
    assert_eq!(subject.drivers[1].take_used(), [(5, 0)]);
    assert_eq!(subject.balloon.report().ballooned, 4096);
}

#[test]
fn a_confined_vmm_takes_back_memory_of_each_kind() {
    let mut subject = Subject::new(OFFERED);
    let both = subject.array(ARRAY, [512, (HIGH >> 12) as u32]);
    subject.drivers[0].offer(0, &[both]);
    let test = "virtio::balloon::tests::a_confined_vmm_takes_back_memory_of_each_kind";
    let status = crate::seccomp::tests::confined(test, || {
        let _ = subject.serve(0);
        assert_eq!(subject.balloon.report().ballooned, 2 * 4096);
    });
    assert!(status.success(), "{status}");
}

#[test]
fn reports_return_memory_to_the_host() {
    let mut subject = Subject::new(OFFERED);
    let high = HIGH >> 12;
    for page in [512, 513, 514, high + 1] {
        subject.fill(page);
    }
    subject.drivers[3].offer(0, &[writable(512 << 12, 0x2000), writable((high + 1) << 12, 0x1000)]);
    assert!(subject.serve(3).interrupt);
    assert_eq!(subject.drivers[3].take_used(), [(0, 0)]);
    assert_eq!([512, 513, 514, high + 1].map(|page| subject.byte(page)), [0, 0, 7, 0]);
    assert_eq!(subject.balloon.report().reported, 3 * 4096);
    // A report that the device may only read is no report.
    subject.drivers[3].offer(0, &[readable(514 << 12, 0x1000)]);
    let _ = subject.serve(3);
    assert_eq!((subject.byte(514), subject.balloon.report().protocol_errors.unusable_buffers), (7, 1));
}

#[test]
fn every_popped_chain_returns_once_whatever_it_holds() {
    let mut subject = Subject::new(OFFERED);
    let good = subject.array(ARRAY, 300..310);
    subject.drivers[0].offer(0, &[good]);
    subject.drivers[0].offer(1, &[readable(1 << 40, 64)]);
    subject.drivers[0].offer(2, &[writable(ARRAY, 64)]);
    subject.drivers[0].offer(3, &[readable(BLOCK - 4, 8)]);
    subject.drivers[0].offer(4, &[readable(ARRAY, 0)]);
    subject.drivers[0].offer(5, &[readable(0, u32::MAX)]);
    // A loop.
    let next = virtio_bindings::virtio_ring::VRING_DESC_F_NEXT as u16;
    subject.drivers[0].store(6, virtio_queue::desc::split::Descriptor::new(ARRAY, 4, next, 6));
    subject.drivers[0].publish(6);
    let last = subject.array(ARRAY + 0x1000, [310]);
    subject.drivers[0].offer(7, &[last]);
    assert!(subject.serve(0).interrupt);
    let used: Vec<_> = (0..8).map(|head| (head, 0)).collect();
    assert_eq!(subject.drivers[0].take_used(), used);
    let report = subject.balloon.report();
    assert!(report.ballooned >= 11 * 4096);
    let errors = report.protocol_errors;
    assert_eq!((errors.malformed_chains, errors.unusable_buffers, errors.oversized_buffers), (1, 3, 1));
}

#[test]
fn a_pass_is_bounded_and_resumed() {
    let mut subject = Subject::new(OFFERED);
    let array = subject.array(ARRAY, 512..768);
    for head in 0..16 {
        subject.drivers[0].offer(head, &[array]);
    }
    assert_eq!(subject.serve(0), Effects { interrupt: true, again: true, ..Effects::default() });
    assert_eq!(subject.drivers[0].take_used().len(), 8);
    assert!(!subject.serve(0).again);
    assert_eq!(subject.drivers[0].take_used().len(), 8);
}

#[test]
fn a_broken_ring_is_an_error() {
    let mut subject = Subject::new(OFFERED);
    subject.drivers[0].set_avail_index(1000);
    let memory = subject.memory().clone();
    assert!(subject.balloon.serve(0, &mut subject.queues, &memory).is_err());
}

#[test]
fn queues_are_numbered_by_what_was_negotiated() {
    let mut subject = Subject::new(features::REPORTING);
    subject.fill(512);
    subject.drivers[2].offer(0, &[writable(512 << 12, 0x1000)]);
    assert!(subject.serve(2).interrupt);
    assert_eq!((subject.byte(512), subject.balloon.report().reported), (0, 4096));
    // Without any feature, queue 2 means nothing and is left alone.
    let mut subject = Subject::new(0);
    subject.drivers[2].offer(0, &[writable(512 << 12, 0x1000)]);
    assert_eq!(subject.serve(2), Effects::default());
}

/// `value` under `tag`.
fn statistic(tag: u16, value: u64) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

#[test]
fn statistics_are_kept_until_asked_for() {
    let mut subject = Subject::new(OFFERED);
    let memory = subject.memory().clone();
    subject.memory().write_slice(&statistic(2, 11), GuestAddress(ARRAY)).unwrap();
    subject.drivers[2].offer(0, &[readable(ARRAY, 10)]);
    assert_eq!(subject.serve(2), Effects::default());
    assert_eq!(subject.serve(2), Effects::default());
    assert_eq!(subject.drivers[2].take_used(), []);
    assert_eq!(subject.balloon.report().statistics.unwrap().values.major_faults, Some(11));

    NOW_MS.set(50);
    subject.balloon.device().request_statistics(50).unwrap();
    let effects = subject.balloon.serve_statistics(2, &mut subject.queues, &memory, true).unwrap();
    assert!(effects.interrupt);
    assert_eq!(subject.drivers[2].take_used(), [(0, 0)]);
    NOW_MS.set(1050);
    assert!(subject.balloon.report().statistics.unwrap().stale);
    subject.memory().write_slice(&statistic(2, 12), GuestAddress(ARRAY)).unwrap();
    subject.drivers[2].offer(0, &[readable(ARRAY, 10)]);
    assert_eq!(subject.serve(2), Effects::default());
    let statistics = subject.balloon.report().statistics.unwrap();
    assert_eq!((statistics.values.major_faults, statistics.stale, statistics.age_ms), (Some(12), false, 0));
}

#[test]
fn a_floor_that_overtakes_the_ceiling_tells_the_driver() {
    let mut subject = Subject::new(OFFERED);
    subject.balloon.device().set_ceiling(BLOCK, 0).unwrap();
    // It has nothing left (VIRTIO_BALLOON_S_AVAIL).
    subject.memory().write_slice(&statistic(6, 0), GuestAddress(ARRAY)).unwrap();
    subject.drivers[2].offer(0, &[readable(ARRAY, 10)]);
    assert_eq!(subject.serve(2), Effects { config: true, ..Effects::default() });
    assert_eq!(subject.balloon.report().target, 0);
}

#[test]
fn memory_that_cannot_go_back_by_pages_is_refused() {
    let refused = |region: MmapRegion| {
        let region = GuestRegionMmap::new(region, GuestAddress(0)).unwrap();
        let memory = Arc::new(GuestMemoryMmap::from_regions(vec![region]).unwrap());
        let balloon = Balloon::with_kernel(Host::probe(), &memory, BLOCK, || 0);
        matches!(balloon, Err(Error::Kind))
    };
    let file = || FileOffset::new(tempfile::tempfile().unwrap(), 0);
    let build = |file: Option<FileOffset>, flags| {
        if let Some(file) = &file {
            file.file().set_len(BLOCK).unwrap();
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        MmapRegion::build(file, BLOCK as usize, protection, flags).unwrap()
    };
    assert!(refused(build(None, libc::MAP_SHARED | libc::MAP_ANONYMOUS)));
    assert!(refused(build(Some(file()), libc::MAP_PRIVATE)));
    let mut pool = build(Some(file()), libc::MAP_SHARED);
    pool.set_hugetlbfs(true);
    assert!(refused(pool));
    assert!(!refused(build(Some(file()), libc::MAP_SHARED)));
    assert!(!refused(build(None, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)));
}

#[test]
fn the_control_sockets_requests_go_through_the_transport() {
    let memory = memory();
    let balloon = Balloon::with_kernel(Host::probe(), &memory, BLOCK, monotonic_ms).unwrap();
    let transport = Transport::new(balloon, memory.clone()).unwrap();
    let nobody = Err(RequestError::NoDriver.into());
    assert_eq!(transport.request_statistics(), nobody);
    assert_eq!(
        (transport.demand_ceiling(BLOCK, 0, BLOCK), transport.demand_ceiling(1, 0, 0)),
        (nobody, nobody)
    );
    assert!(transport.set_ceiling(BLOCK - 1).is_err());
    assert_eq!(transport.set_ceiling(BLOCK), Ok(()));
    let report = transport.memory_report();
    assert_eq!((report.ceiling, report.driver), (BLOCK, DriverState::Absent));
    assert!(transport.interrupt().read().is_err(), "nobody to interrupt");
    while !transport.survey().unwrap() {}
    assert!(transport.memory_report().residency.is_some());
}

/// Who waits for statistics is woken by the driver's answer, and by nothing else.
#[test]
fn an_answer_of_the_driver_is_an_event() {
    const STATISTICS: usize = 2;
    let memory = memory();
    let balloon = Balloon::with_kernel(Host::probe(), &memory, BLOCK, monotonic_ms).unwrap();
    let transport = Arc::new(Transport::new(balloon, memory.clone()).unwrap());
    let mut drivers: Vec<_> =
        QUEUE_SIZES.iter().zip(1..).map(|(size, at)| Driver::new(&memory, at << 12, *size)).collect();
    let answered = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let theirs = answered.try_clone().unwrap();
    let mut events = EventManager::<BalloonEvents>::new().unwrap();
    events.add_subscriber(BalloonEvents::new(Arc::clone(&transport), theirs).unwrap());
    let mut serve = || while events.run_with_timeout(0).unwrap() > 0 {};

    bring_up(&*transport, OFFERED, &drivers);
    drivers[STATISTICS].offer(0, &[readable(ARRAY, 10)]);
    transport.kicks()[STATISTICS].write(1).unwrap();
    serve();
    assert!(answered.read().is_err(), "nobody has asked");
    transport.request_statistics().unwrap();
    assert_eq!(drivers[STATISTICS].take_used(), [(0, 0)]);
    transport.kicks()[STATISTICS].write(1).unwrap();
    serve();
    assert!(answered.read().is_err(), "it has not answered");
    drivers[STATISTICS].offer(0, &[readable(ARRAY, 10)]);
    transport.kicks()[STATISTICS].write(1).unwrap();
    serve();
    assert_eq!(answered.read().unwrap(), 1);

    // Nor is one waited for that is gone or broken: it resets the device, sets a status that cannot be, breaks a ring.
    for leaves in [0, 1, LIVE, 0] {
        transport.request_statistics().unwrap();
        assert!(transport.statistics_pending());
        if leaves == LIVE {
            drivers[0].set_avail_index(1000);
            transport.kicks()[0].write(1).unwrap();
        } else {
            set(&*transport, VIRTIO_MMIO_STATUS, leaves);
        }
        serve();
        assert!(!transport.statistics_pending(), "{leaves}");
        assert_eq!(answered.read().ok(), Some(1), "{leaves}");
        drivers.iter_mut().for_each(|driver| driver.set_avail_index(0));
        bring_up(&*transport, OFFERED, &drivers);
        drivers[STATISTICS].offer(0, &[readable(ARRAY, 10)]);
        serve();
        assert!(answered.read().is_err(), "{leaves}: it is told once");
    }
}

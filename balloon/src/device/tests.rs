//! The device, promise by promise.

#![expect(clippy::arithmetic_side_effects)]

use super::model::balloon;
use super::*;
use crate::backing::HostRange;
use crate::backing::simulated::{Answer, Simulated, backing};
use crate::frames::{Books, Layout};
use crate::resident::{Extent, Scanner, Survey};

const BLOCK: u64 = crate::BLOCK_BYTES;
const PAGE: u64 = crate::PAGE_BYTES;

fn live(features: u64) -> Balloon<Simulated> {
    let mut balloon = balloon(&[]);
    balloon.activate(features, 0);
    balloon
}

pub(super) fn numbers(balloon: &mut Balloon<Simulated>, queue: Queue, pages: impl IntoIterator<Item = u32>) {
    let bytes: Vec<u8> = pages.into_iter().flat_map(u32::to_le_bytes).collect();
    balloon.gather_numbers(&bytes, bytes.len() as u64);
    assert!(balloon.settle(queue, 0));
}

#[test]
fn a_page_is_ballooned_once_however_often_it_is_inflated() {
    let mut balloon = live(OFFERED);
    numbers(&mut balloon, Queue::Inflate, [7, 7, 8]);
    numbers(&mut balloon, Queue::Inflate, [8, 9]);
    assert_eq!(balloon.books().totals().ballooned, 3);
    assert_eq!(balloon.errors().duplicate_pages, 2);
    numbers(&mut balloon, Queue::Deflate, [8, 8, 100]);
    assert_eq!(balloon.books().totals().ballooned, 2);
    assert_eq!(balloon.errors().not_ballooned_pages, 2);
}

#[test]
fn a_driver_that_inflates_in_order_has_nothing_said_of_huge_pages() {
    let mut balloon = live(OFFERED);
    for first in (0..1024).step_by(256) {
        numbers(&mut balloon, Queue::Inflate, first..first + 256);
    }
    assert_eq!(balloon.backing().work().calls, 4, "a release each, and no advice");
    let mut balloon = live(OFFERED);
    numbers(&mut balloon, Queue::Inflate, 0..256);
    assert_eq!(balloon.backing().work().calls, 1);
    assert!(balloon.set_ceiling(5 * BLOCK / 2 + BLOCK / 4, 0).unwrap());
    balloon.write_config(4, &256u32.to_le_bytes(), 0);
    assert_eq!(balloon.backing().work().calls, 2, "it has arrived amid a huge page");
}

#[test]
fn pages_in_the_hole_and_beyond_memory_are_counted_and_never_released() {
    let mut balloon = live(OFFERED);
    numbers(&mut balloon, Queue::Inflate, [1023, 1024, 3071, 5120, u32::MAX]);
    assert_eq!(balloon.errors().foreign_pages, 4);
    assert_eq!(balloon.books().totals().ballooned, 1);
    assert_eq!(balloon.backing_mut().kernel_mut().released_pages(), 1);
}

#[test]
fn a_report_is_clamped_to_whole_pages_of_memory() {
    let mut balloon = live(OFFERED);
    // From one byte into page 1022 to one byte past the end of the first region.
    balloon.gather_range(1022 * PAGE + 1, 2 * PAGE);
    assert!(balloon.settle(Queue::Reporting, 0));
    assert_eq!(balloon.books().totals().reported, 1);
    assert_eq!(balloon.errors().misaligned_buffers, 1);
    // Over the hole into the second region.
    balloon.gather_range(1020 * PAGE, (3074 - 1020) * PAGE);
    assert!(balloon.settle(Queue::Reporting, 0));
    assert_eq!(balloon.books().totals().reported, 4 + 2);
    assert_eq!(balloon.errors().foreign_pages, 2048);
    balloon.gather_range(u64::MAX - PAGE, 2 * PAGE);
    balloon.gather_range(16 << 40, PAGE);
    assert!(balloon.settle(Queue::Reporting, 0));
    assert_eq!(balloon.backing_mut().kernel_mut().released_pages(), 6);
    assert_eq!(balloon.errors().unusable_buffers, 1, "beyond every page number");
}

#[test]
fn a_gigantic_descriptor_is_read_to_the_limit_only() {
    let mut balloon = live(OFFERED);
    let bytes: Vec<u8> = (0..1024u32).flat_map(u32::to_le_bytes).collect();
    balloon.gather_numbers(&bytes, 1 << 30);
    assert!(balloon.settle(Queue::Inflate, 0));
    assert_eq!(balloon.books().totals().ballooned, 256);
    assert_eq!((balloon.errors().oversized_buffers, balloon.errors().misaligned_buffers), (1, 0));
}

#[test]
fn a_pass_ends_when_it_has_enough() {
    let mut balloon = live(OFFERED);
    let mut chains = 0;
    while balloon.begin_chain() {
        chains += 1;
        balloon.gather_numbers(&[0; 1024], 1024);
    }
    assert_eq!(chains, 8);
    assert!(balloon.settle(Queue::Inflate, 0));
    assert!(balloon.begin_chain());
}

#[test]
fn a_chain_reports_no_more_than_its_share() {
    let mut balloon = live(OFFERED);
    let _ = balloon.begin_chain();
    balloon.gather_range(0, PAGES_PER_REPORT * PAGE);
    balloon.gather_range(3072 * PAGE, 5 * PAGE);
    assert!(balloon.settle(Queue::Reporting, 0));
    assert_eq!(balloon.errors().oversized_buffers, 1);
    // Every page within the first range, none of the second's own.
    assert_eq!(balloon.books().totals().reported, 3 * 1024);
    let _ = balloon.begin_chain();
    balloon.gather_range(0, 1 << 40);
    assert!(balloon.settle(Queue::Reporting, 0));
    assert_eq!(balloon.errors().oversized_buffers, 2);
}

#[test]
fn free_pages_with_a_pattern_keep_it() {
    let mut balloon = live(OFFERED);
    balloon.write_config(12, &[0xaa; 4], 0);
    balloon.gather_range(0, 10 * PAGE);
    assert!(balloon.settle(Queue::Reporting, 0));
    assert_eq!(balloon.backing_mut().kernel_mut().released_pages(), 0);
    let report = balloon.report(None, 0);
    assert_eq!((report.reported, report.reported_poisoned_total), (0, 10 * PAGE));
    // A page in the balloon is allocated and holds no pattern.
    numbers(&mut balloon, Queue::Inflate, [3]);
    assert_eq!(balloon.backing_mut().kernel_mut().released_pages(), 1);
    // The driver wrote a value but did not negotiate that it means anything.
    let mut balloon = live(OFFERED & !features::PAGE_POISON);
    balloon.write_config(12, &[0xaa; 4], 0);
    balloon.gather_range(0, 10 * PAGE);
    assert!(balloon.settle(Queue::Reporting, 0));
    assert_eq!(balloon.report(None, 0).reported, 10 * PAGE);
}

#[test]
fn a_page_that_the_host_keeps_is_not_counted_and_the_queue_goes_on() {
    for errno in [libc::ENOMEM, libc::EINVAL, libc::EAGAIN, libc::EINTR, libc::EIO] {
        let mut balloon = balloon(&[Answer::Errno(errno)]);
        balloon.activate(OFFERED, 0);
        numbers(&mut balloon, Queue::Inflate, [5]);
        balloon.write_config(4, &1u32.to_le_bytes(), 0);
        let report = balloon.report(None, 0);
        assert_eq!((report.ballooned, report.actual, report.skew), (0, PAGE, 4096));
        assert_eq!(report.release_failures.last_errno, Some(errno));
        numbers(&mut balloon, Queue::Inflate, [5]);
        assert_eq!((balloon.report(None, 0).skew, balloon.errors().duplicate_pages), (0, 0));
    }
}

#[test]
fn a_driver_is_not_blamed_for_what_the_host_kept() {
    let mut balloon = balloon(&[Answer::Errno(libc::ENOMEM)]);
    balloon.activate(OFFERED, 0);
    numbers(&mut balloon, Queue::Inflate, [5, 6]);
    numbers(&mut balloon, Queue::Deflate, [5]);
    numbers(&mut balloon, Queue::Deflate, [6]);
    assert_eq!((balloon.backing().failures().pages, balloon.errors().not_ballooned_pages), (2, 0));
    numbers(&mut balloon, Queue::Deflate, [5]);
    assert_eq!(balloon.errors().not_ballooned_pages, 1, "once is enough");
    // Another driver knows nothing of it.
    balloon.backing_mut().kernel_mut().script(&[Answer::Errno(libc::ENOMEM)]);
    numbers(&mut balloon, Queue::Inflate, [5]);
    balloon.reset();
    balloon.activate(OFFERED, 0);
    numbers(&mut balloon, Queue::Deflate, [5]);
    assert_eq!(balloon.errors().not_ballooned_pages, 2);
}

#[test]
fn actual_is_clamped_and_its_disagreement_shows() {
    let mut balloon = live(OFFERED);
    balloon.write_config(4, &u32::MAX.to_le_bytes(), 0);
    let report = balloon.report(None, 0);
    assert_eq!((report.actual, report.skew), (3 * BLOCK, 3 * BLOCK as i64));
    assert_eq!(report.protocol_errors.impossible_actual, 1);
    balloon.write_config(4, &0u32.to_le_bytes(), 0);
    numbers(&mut balloon, Queue::Inflate, 0..100);
    assert_eq!(balloon.report(None, 0).skew, -100 * 4096);
}

#[test]
fn ceilings_stay_between_floor_and_size() {
    let mut balloon = live(OFFERED);
    let outside = |bytes| CeilingError { bytes, floor_bytes: BLOCK, max_bytes: 3 * BLOCK };
    for bytes in [0, BLOCK - 1, 3 * BLOCK + 1, u64::MAX] {
        assert_eq!(balloon.set_ceiling(bytes, 0), Err(outside(bytes)));
    }
    assert_eq!(
        outside(BLOCK / 2).to_string(),
        "2 MiB is no ceiling of this microVM: it takes 4 MiB to 12 MiB"
    );
    let (below, above) = (outside(BLOCK - 1).to_string(), outside(3 * BLOCK + 4096).to_string());
    assert!(below.starts_with("4194303 B is no ceiling") && above.starts_with("12292 KiB is no"), "{above}");
    assert_eq!(balloon.set_ceiling(BLOCK + 1, 0), Ok(true));
    assert_eq!(balloon.set_ceiling(BLOCK + 4096, 0), Ok(false), "the same in pages");
    assert_eq!(balloon.config()[..4], (2 * 1024u32 - 1).to_le_bytes());
    // The guest says that it has nothing left.
    assert!(balloon.receive_statistics(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0], 10, 0));
    assert_eq!(balloon.floor_bytes(), 3 * BLOCK, "a floor is never above the size");
    assert_eq!(balloon.config()[..4], [0; 4], "the ceiling goes with the floor");
    assert_eq!(balloon.set_ceiling(3 * BLOCK, 0), Ok(false));
    assert!(!balloon.receive_statistics(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0], 10, 0));
}

#[test]
fn without_a_driver_everything_is_answered_at_once() {
    let mut balloon = balloon(&[]);
    assert_eq!(balloon.set_ceiling(BLOCK, 7), Ok(true));
    assert_eq!(balloon.driver(1 << 40), DriverState::Absent);
    assert_eq!(balloon.request_statistics(7), Err(RequestError::NoDriver));
    assert_eq!(balloon.queue(0), None);
    balloon.activate(0, 10);
    assert_eq!(balloon.driver(10), DriverState::Moving, "the target waited for it");
    assert_eq!(balloon.request_statistics(11), Err(RequestError::NotOffered));
    assert_eq!((balloon.queue(1), balloon.queue(2)), (Some(Queue::Deflate), None));
}

#[test]
fn a_driver_that_stands_still_is_stuck_and_one_that_moves_is_not() {
    let mut balloon = live(OFFERED);
    assert_eq!(balloon.driver(1 << 40), DriverState::Settled);
    let _ = balloon.set_ceiling(BLOCK, 100);
    assert_eq!(balloon.driver(5_099), DriverState::Moving);
    assert_eq!(balloon.driver(5_100), DriverState::Stuck);
    balloon.gather_numbers(&1u32.to_le_bytes(), 4);
    assert!(balloon.settle(Queue::Inflate, 6_000));
    assert_eq!(balloon.driver(10_999), DriverState::Moving);
    balloon.gather_numbers(&1u32.to_le_bytes(), 4);
    assert!(balloon.settle(Queue::Inflate, 9_000));
    assert_eq!(balloon.driver(11_000), DriverState::Stuck, "the same page again is no progress");
    balloon.write_config(4, &2048u32.to_le_bytes(), 12_000);
    assert_eq!(balloon.driver(1 << 40), DriverState::Settled);
}

/// Statistics by which `pages` are available.
fn available(pages: u64) -> Vec<u8> {
    [&6u16.to_le_bytes()[..], &(pages * PAGE).to_le_bytes()].concat()
}

#[test]
fn a_driver_that_deflated_on_its_own_is_reminded_when_the_guest_can_spare_it() {
    const ROOM: u64 = 4096;
    const SIZE: u64 = 8 * BLOCK / PAGE;
    let layout = Layout::new(&[(0, 8 * BLOCK)]).unwrap();
    let kernel = backing(&layout, &[], Simulated::with_answers(&[]));
    let mut balloon = Balloon::new(Books::new(layout), kernel, BLOCK);
    balloon.activate(OFFERED, 0);
    let hears = |balloon: &mut Balloon<Simulated>, pages, now_ms| {
        let bytes = available(pages);
        balloon.receive_statistics(&bytes, bytes.len() as u64, now_ms)
    };
    assert!(!hears(&mut balloon, SIZE, 0), "this fixes the floor");
    let _ = balloon.set_ceiling((SIZE - 1000) * PAGE, 0);
    numbers(&mut balloon, Queue::Inflate, 0..1000);
    balloon.write_config(4, &1000u32.to_le_bytes(), 1000);
    assert!(!balloon.wants_statistics(1 << 40), "it has done what it should");
    numbers(&mut balloon, Queue::Deflate, 0..400);
    balloon.write_config(4, &600u32.to_le_bytes(), 2000);
    assert!(!balloon.wants_statistics(31_999) && !hears(&mut balloon, SIZE, 31_999));
    assert!(balloon.wants_statistics(32_000));
    assert!(!hears(&mut balloon, 399 + ROOM, 32_000), "the guest needs it still");
    assert!(hears(&mut balloon, 400 + ROOM, 40_000));
    assert_eq!(balloon.driver(44_999), DriverState::Moving, "it was asked");
    assert!(!hears(&mut balloon, SIZE, 99_999), "the next one takes twice as long");
    assert!(hears(&mut balloon, SIZE, 100_000));
    let _ = balloon.set_ceiling((SIZE - 999) * PAGE, 200_000);
    assert!(
        !balloon.wants_statistics(229_999) && balloon.wants_statistics(230_000),
        "a new target begins anew"
    );
    let _ = balloon.set_ceiling(SIZE * PAGE, 300_000);
    assert!(!balloon.wants_statistics(1 << 40), "it holds more than it should");
}

#[test]
fn a_reset_makes_a_fresh_device_but_for_what_the_host_wants() {
    let mut balloon = live(OFFERED);
    let _ = balloon.set_ceiling(2 * BLOCK, 0);
    numbers(&mut balloon, Queue::Inflate, 0..100);
    balloon.write_config(4, &100u32.to_le_bytes(), 0);
    balloon.write_config(12, &[1; 4], 0);
    balloon.write_config(0, &[1; 4], 0);
    let _ = balloon.receive_statistics(&[0; 10], 10, 0);
    balloon.gather_numbers(&[0; 400], 400);
    balloon.reset();
    let report = balloon.report(None, 1);
    assert_eq!((report.ballooned, report.actual, report.skew, report.driver), (0, 0, 0, DriverState::Absent));
    assert_eq!((report.ceiling, report.protocol_errors.config_writes), (2 * BLOCK, 1));
    assert!(report.statistics.unwrap().stale);
    assert_eq!(&balloon.config()[4..], &[0; 12]);
    balloon.activate(OFFERED, 2);
    assert!(balloon.settle(Queue::Inflate, 3));
    assert_eq!(balloon.books().totals().ballooned, 0, "nothing gathered before survives");
    assert!(balloon.waits_for_statistics());
    numbers(&mut balloon, Queue::Inflate, 0..100);
    assert_eq!((balloon.books().totals().ballooned, balloon.errors().duplicate_pages), (100, 0));
}

/// These pages of the first region are in memory, or swapped out.
pub(super) struct Held {
    pub(super) pages: std::ops::Range<u64>,
    pub(super) swapped: bool,
}

impl Survey for Held {
    fn survey(&mut self, range: HostRange, found: &mut Vec<Extent>) -> std::io::Result<u64> {
        if range.address() < 2 << 40 {
            let pages = self.pages.end - self.pages.start;
            found.push(Extent { first: self.pages.start, pages, huge: false, swapped: self.swapped });
        }
        Ok(range.bytes() as u64 / PAGE)
    }

    fn tells_huge_and_swapped(&self) -> bool {
        false
    }
}

#[test]
fn residency_corrects_what_was_reported() {
    let mut balloon = live(OFFERED);
    balloon.gather_range(0, 10 * PAGE);
    assert!(balloon.settle(Queue::Reporting, 0));
    numbers(&mut balloon, Queue::Inflate, [20]);
    // Pages 5 to 20 are in memory.
    let mut scanner = Scanner::new(Held { pages: 5..21, swapped: false });
    let reading = balloon.survey(&mut scanner, 1 << 20).unwrap().unwrap();
    assert_eq!(reading.resident, 16 * PAGE);
    assert_eq!(reading.ballooned_resident, PAGE, "the guest touched what it had given away");
    let report = balloon.report(None, 0);
    assert_eq!((report.reported, report.taken_back_total, report.ballooned), (5 * PAGE, 5 * PAGE, PAGE));
    assert_eq!(report.reported_total, 10 * PAGE);
}

#[test]
fn what_the_host_swapped_out_was_taken_back_too() {
    let mut balloon = live(OFFERED);
    balloon.gather_range(0, 10 * PAGE);
    assert!(balloon.settle(Queue::Reporting, 0));
    numbers(&mut balloon, Queue::Inflate, [20]);
    let mut scanner = Scanner::new(Held { pages: 5..21, swapped: true });
    let reading = balloon.survey(&mut scanner, 1 << 20).unwrap().unwrap();
    assert_eq!((reading.resident, reading.swapped, reading.ballooned_resident), (0, Some(16 * PAGE), 0));
    let report = balloon.report(None, 0);
    assert_eq!((report.reported, report.taken_back_total, report.ballooned), (5 * PAGE, 5 * PAGE, PAGE));
}

#[test]
fn a_report_survives_as_json() {
    let mut balloon = live(OFFERED);
    let _ = balloon.receive_statistics(&[4, 0, 9, 0, 0, 0, 0, 0, 0, 0], 10, 5);
    let report = balloon.report(Some((crate::resident::Residency::default(), 2)), 6);
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.contains(r#""driver":"settled""#) && text.contains(r#""free_bytes":9"#), "{text}");
    assert_eq!(serde_json::from_str::<MemoryReport>(&text).unwrap(), report);
}

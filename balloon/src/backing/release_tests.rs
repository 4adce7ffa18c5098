//! Releases by a simulated host, which stops, refuses and fails wherever it likes.

#![expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]

use super::release::*;
use crate::PAGE_BYTES;
use crate::backing::simulated::{Answer, Simulated, backing, runs, subject};
use crate::frames::{Layout, Run};
use proptest::prelude::*;

const BLOCK: u64 = crate::BLOCK_BYTES;

#[test]
fn all_anonymous_runs_go_in_one_call_and_shared_ones_one_by_one() {
    let mut subject = subject(&[]);
    let asked = runs(&[(0, 1, 2), (0, 9, 1), (1, 0, 1024), (2, 3, 1), (2, 5, 1)]);
    assert_eq!(subject.release(&asked).runs(), asked);
    assert_eq!(subject.work().calls, 3);
    assert_eq!(subject.kernel_mut().released_pages(), 1029);
    assert_eq!(subject.failures(), Failures::default());
}

#[test]
fn a_single_run_needs_no_vector() {
    let mut subject = subject(&[Answer::Errno(libc::EIO)]);
    assert_eq!(subject.release(&runs(&[(0, 1, 2)])).runs(), []);
    assert_eq!(subject.failures(), Failures { calls: 1, pages: 2, advice: 0, last_errno: Some(libc::EIO) });
    assert_eq!(subject.kernel_mut().vectors, 0);
}

#[test]
fn a_host_that_stops_halfway_is_believed_to_the_page() {
    for (stop, released, failed) in [
        (Answer::Bytes(0), &[(0, 9, 3), (1, 4, 4)][..], 2),
        (Answer::Bytes(2 * 4096), &[(0, 1, 2), (0, 9, 3), (1, 4, 4)], 0),
        (Answer::Bytes(4 * 4096 + 7), &[(0, 1, 2), (0, 9, 2), (1, 4, 4)], 1),
        (Answer::Bytes(5 * 4096), &[(0, 1, 2), (0, 9, 3), (1, 4, 4)], 0),
        (Answer::Errno(libc::EAGAIN), &[(0, 9, 3), (1, 4, 4)], 2),
    ] {
        let mut subject = subject(&[stop]);
        let receipt = subject.release(&runs(&[(0, 1, 2), (0, 9, 3), (1, 4, 4)]));
        assert_eq!(receipt.runs(), runs(released), "{stop:?}");
        assert_eq!(subject.failures().pages, failed, "{stop:?}");
    }
}

#[test]
fn every_error_loses_one_run_and_no_more() {
    for errno in [libc::ENOMEM, libc::EINVAL, libc::EAGAIN, libc::EINTR, libc::EIO] {
        let mut subject = subject(&[Answer::Bytes(4096), Answer::Errno(errno)]);
        let asked = runs(&[(0, 1, 1), (0, 3, 1), (0, 5, 1), (2, 0, 7)]);
        let rest = runs(&[(0, 1, 1), (0, 5, 1), (2, 0, 7)]);
        assert_eq!(subject.release(&asked).runs(), rest);
        assert_eq!(subject.failures(), Failures { calls: 1, pages: 1, advice: 0, last_errno: Some(errno) });
    }
}

#[test]
fn a_host_that_refuses_vectors_gets_run_after_run() {
    for errno in [libc::ENOSYS, libc::EPERM, libc::EBADF] {
        let mut subject = subject(&[Answer::Errno(errno)]);
        let asked = runs(&[(0, 1, 1), (0, 3, 1)]);
        assert_eq!(subject.release(&asked).runs(), asked);
        assert_eq!((subject.work().calls, subject.failures().calls), (3, 0));
        assert!(!subject.vectored());
    }
}

#[test]
fn vectors_stay_within_what_the_kernel_takes() {
    let layout = Layout::new(&[(0, 4 << 30)]).unwrap();
    let mut subject = backing(&layout, &[], Simulated::default());
    let pages = (1 << 30) / PAGE_BYTES;
    let asked: Vec<_> = [(0, 1), (2, pages - 2), (pages + 1, 2 * pages)]
        .map(|(first, count)| layout.run(0, first, count).unwrap())
        .into();
    assert_eq!(subject.release(&asked).runs(), asked);
    assert_eq!(subject.kernel_mut().longest_vector, (1 << 30) - 4096);
    let many: Vec<_> = (0..2500).map(|i| layout.run(0, 2 * i, 1).unwrap()).collect();
    let before = subject.work().calls;
    assert_eq!(subject.release(&many).pages(), 2500);
    assert_eq!(subject.work().calls - before, 3);
}

#[test]
fn mappings_must_be_those_of_the_layout() {
    let two = Layout::new(&[(0, BLOCK), (2 * BLOCK, BLOCK)]).unwrap();
    let mapping = |bytes| Simulated::mapping(1 << 30, bytes);
    let new = |mappings| Backing::new(Simulated::default(), &two, mappings).map(|_| ());
    assert_eq!(new(vec![mapping(BLOCK)]), Err(Error::Count { regions: 2, mappings: 1 }));
    assert_eq!(new(vec![mapping(BLOCK), mapping(2 * BLOCK)]), Err(Error::Length { region: 1 }));
}

#[test]
fn a_host_with_larger_pages_is_refused_as_it_would_discard_neighbours() {
    let layout = Layout::new(&[(0, BLOCK)]).unwrap();
    for host_bytes in [16 << 10, 64 << 10] {
        let mut kernel = Simulated::default();
        kernel.page_bytes = Some(host_bytes);
        let backing = Backing::new(kernel, &layout, vec![Simulated::mapping(1 << 30, BLOCK)]);
        assert_eq!(backing.map(|_| ()), Err(Error::PageSize { host_bytes }));
    }
}

#[test]
fn a_run_of_another_layout_touches_nothing() {
    let large = Layout::new(&[(0, 4 * BLOCK), (5 * BLOCK, BLOCK), (7 * BLOCK, BLOCK), (9 * BLOCK, BLOCK)]);
    let large = large.unwrap();
    let mut subject = subject(&[]);
    let asked = [large.run(0, 1023, 2).unwrap(), large.run(3, 0, 1).unwrap(), large.run(0, 0, 1).unwrap()];
    assert_eq!(subject.release(&asked).runs(), &asked[2..]);
    assert_eq!(subject.failures().pages, 3);
    assert_eq!(subject.kernel_mut().released_pages(), 1);
}

proptest! {
    /// Whatever the host answers: the receipt names pages that went back, each asked for and named once, and
    /// receipt and failures together are what was asked.
    #[test]
    fn receipts_are_true(
        pieces in prop::collection::vec((0usize..3, 0u64..60, 1u64..4), 0..60),
        answers in prop::collection::vec(Answer::any(), 0..40),
    ) {
        let mut asked = Vec::new();
        for (region, slot, count) in pieces {
            asked.push((region, slot * 4, count));
        }
        asked.sort_unstable();
        asked.dedup_by_key(|(region, first, _)| (*region, *first));
        let asked = runs(&asked);
        let mut subject = subject(&answers);
        let released = subject.release(&asked).runs().to_vec();
        let sum = |runs: &[Run]| runs.iter().map(|run| run.count()).sum::<u64>();
        prop_assert_eq!(sum(&released) + subject.failures().pages, sum(&asked));
        prop_assert!(released.is_sorted());
        for run in &released {
            let whole = asked.iter().find(|a| (a.region(), a.first()) == (run.region(), run.first()));
            prop_assert!(whole.is_some_and(|whole| whole.count() >= run.count()));
            let range = subject.mappings()[run.region()].range(*run).unwrap();
            prop_assert!(subject.kernel_mut().is_released(range));
        }
        prop_assert!(subject.work().calls <= 1 + 2 * asked.len() as u64);
    }
}

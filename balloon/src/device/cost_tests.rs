//! What a pass, a reset and a step of a reading may ask of the host.

use super::tests::{Held, numbers};
use super::*;
use crate::backing::PAGES_PER_HUGE_PAGE;
use crate::backing::simulated::{Simulated, backing};
use crate::frames::{Books, Layout};
use crate::resident::Scanner;

const BLOCK: u64 = crate::BLOCK_BYTES;
const PAGE: u64 = crate::PAGE_BYTES;

/// A device over so many anonymous ranges of a huge page.
fn live_with_huge_pages(ranges: u64) -> Balloon<Simulated> {
    let layout = Layout::new(&[(0, ranges << 21)]).unwrap();
    let kernel = backing(&layout, &[], Simulated::default());
    let mut balloon = Balloon::new(Books::new(layout), kernel, BLOCK);
    balloon.activate(OFFERED, 0);
    balloon
}

#[test]
fn a_report_that_splits_many_huge_pages_takes_many_passes() {
    let mut balloon = live_with_huge_pages(64);
    let _ = balloon.begin_chain();
    // Each across a border: the end of one huge page and the begin of the next.
    (0..32).for_each(|pair| balloon.gather_range((1024 * pair + 511) * PAGE, 2 * PAGE));
    let mut passes = 0;
    let mut done = false;
    while !done {
        let before = balloon.backing().work();
        done = balloon.settle(Queue::Reporting, 0);
        let after = balloon.backing().work();
        assert!(after.splits - before.splits <= 16, "{before:?} {after:?}");
        assert!(after.calls - before.calls <= 1 + 16 + 8, "{before:?} {after:?}");
        passes += 1;
    }
    assert_eq!((passes, balloon.backing().work().splits), (5, 64), "nothing is lost");
    assert_eq!(balloon.books().totals().reported, 64);
    // What is on small pages is no more to be split.
    let _ = balloon.begin_chain();
    (0..32).for_each(|pair| balloon.gather_range((1024 * pair + 509) * PAGE, 6 * PAGE));
    assert!(balloon.settle(Queue::Reporting, 0));
    assert_eq!((balloon.books().totals().reported, balloon.backing().work().splits), (6 * 32, 64));
}

#[test]
fn what_linux_hands_over_at_once_goes_at_once() {
    let mut balloon = live_with_huge_pages(256);
    let _ = balloon.begin_chain();
    (0..32).for_each(|block| balloon.gather_range(block * BLOCK, BLOCK));
    assert!(balloon.settle(Queue::Reporting, 0));
    assert_eq!((balloon.backing().work().calls, balloon.books().totals().reported), (1, 32 * 1024));
    // Numbers, each of a huge page of its own.
    let number = |range: u32| range * 512 + 7;
    let bytes: Vec<u8> = (0..256).map(number).flat_map(u32::to_le_bytes).collect();
    balloon.gather_numbers(&bytes, 1024);
    assert!(balloon.settle(Queue::Inflate, 0));
    assert_eq!((balloon.backing().work().calls, balloon.books().totals().ballooned), (2, 256));
}

#[test]
fn numbers_that_cut_many_huge_pages_take_many_passes() {
    const RANGES: u32 = 1200;
    let mut balloon = live_with_huge_pages(RANGES.into());
    for queue in [Queue::Inflate, Queue::Deflate] {
        assert!(balloon.begin_chain());
        let numbers: Vec<_> = (0..RANGES).step_by(2).map(|range| range * 512).collect();
        for numbers in numbers.chunks(256) {
            let bytes: Vec<u8> = numbers.iter().copied().flat_map(u32::to_le_bytes).collect();
            balloon.gather_numbers(&bytes, bytes.len() as u64);
        }
        let mut passes = 0;
        let mut done = false;
        while !done {
            let before = balloon.backing().work().calls;
            done = balloon.settle(queue, 0);
            let calls = balloon.backing().work().calls - before;
            assert!(calls <= 1 + 504, "{calls}");
            passes += 1;
        }
        assert_eq!(passes, 2);
        let expected = if queue == Queue::Inflate { 600 } else { 0 };
        assert_eq!(balloon.books().totals().ballooned, expected);
    }
    assert_eq!(balloon.errors(), &ProtocolErrors::default());
}

#[test]
fn what_a_reset_finds_unsettled_is_forgotten() {
    let mut balloon = live_with_huge_pages(64);
    let _ = balloon.begin_chain();
    (0..32).for_each(|pair| balloon.gather_range((1024 * pair + 511) * PAGE, 2 * PAGE));
    assert!(!balloon.settle(Queue::Reporting, 0));
    let reported = balloon.books().totals().reported;
    balloon.reset();
    balloon.activate(OFFERED, 0);
    assert!(balloon.begin_chain() && balloon.settle(Queue::Reporting, 0));
    assert_eq!(balloon.books().totals().reported, reported);
}

#[test]
fn a_reset_asks_nothing_of_the_host_and_a_reading_makes_up_for_it() {
    let mut balloon = live_with_huge_pages(256);
    numbers(&mut balloon, Queue::Inflate, (0..128).map(|range| range * 512));
    let _ = balloon.set_ceiling((256 * PAGES_PER_HUGE_PAGE - 128) * PAGE, 0);
    balloon.write_config(4, &128u32.to_le_bytes(), 0);
    balloon.gather_range(200 * PAGES_PER_HUGE_PAGE * PAGE, PAGE);
    assert!(balloon.settle(Queue::Reporting, 0));
    let before = balloon.backing().work();
    for _ in 0..1000 {
        balloon.reset();
        balloon.activate(OFFERED, 0);
    }
    assert_eq!((balloon.backing().work(), balloon.books().totals().ballooned), (before, 0));
    let mut scanner = Scanner::new(Held { pages: 0..0, swapped: false });
    while balloon.survey(&mut scanner, 1 << 20).unwrap().is_none() {}
    assert_eq!(balloon.backing().work().advice, before.advice + 1, "all but what is reported");
    let whole = balloon.backing().mappings()[0].whole().unwrap();
    let small =
        |range: usize| balloon.backing_mut().kernel_mut().is_small(whole.part(range << 21, 1 << 21).unwrap());
    assert_eq!([0, 1, 127, 200].map(small), [false, false, false, true]);
}

#[test]
fn an_inflation_in_any_order_has_advice_given_side_by_side_when_it_ends() {
    let mut balloon = live_with_huge_pages(256);
    let _ = balloon.set_ceiling((256 * PAGES_PER_HUGE_PAGE - 2560) * PAGE, 0);
    // Ten pages of each huge page, in an order of the driver's.
    for page in 0..10 {
        numbers(&mut balloon, Queue::Inflate, (0..256).map(|range| (range * 89 % 256) * 512 + 3 * page));
    }
    assert_eq!(balloon.backing().work().advice, 0);
    balloon.write_config(4, &2560u32.to_le_bytes(), 0);
    assert_eq!(balloon.backing().work().advice, 1);
}

#[test]
fn more_than_can_be_put_off_is_left_to_a_reading() {
    let mut balloon = live_with_huge_pages(1200);
    let _ = balloon.set_ceiling((1200 * PAGES_PER_HUGE_PAGE - 600) * PAGE, 0);
    for first in [0, 300, 600, 900] {
        numbers(&mut balloon, Queue::Inflate, (first..first + 300).step_by(2).map(|range| range * 512));
    }
    balloon.write_config(4, &600u32.to_le_bytes(), 0);
    assert_eq!(balloon.backing().work().advice, 512);
    let mut scanner = Scanner::new(Held { pages: 0..0, swapped: false });
    while balloon.survey(&mut scanner, 64 << 10).unwrap().is_none() {}
    assert_eq!(balloon.backing().work().advice, 600);
}

#[test]
fn what_is_taken_back_in_part_is_kept_on_small_pages() {
    let mut balloon = live_with_huge_pages(256);
    balloon.gather_range(0, 32 * BLOCK);
    assert!(balloon.settle(Queue::Reporting, 0));
    for (pages, left, advice) in [(700..701, 511, 1), (512..900, 124, 1), (512..1024, 0, 2)] {
        let mut scanner = Scanner::new(Held { pages, swapped: false });
        while balloon.survey(&mut scanner, 256 << 9).unwrap().is_none() {}
        assert_eq!(balloon.books().totals().reported, 63 * 512 + left);
        assert_eq!((balloon.backing().work().advice, balloon.backing().work().splits), (advice, 0));
    }
}

#[test]
fn advice_by_a_reading_is_a_few_calls_a_step() {
    let mut balloon = live_with_huge_pages(256);
    let _ = balloon.begin_chain();
    (0..64).for_each(|pair| balloon.gather_range(2 * pair * (PAGES_PER_HUGE_PAGE * PAGE), PAGE));
    while !balloon.settle(Queue::Reporting, 0) {}
    let mut all = Scanner::new(Held { pages: 0..64 << 9, swapped: false });
    for (calls, ends) in [(32, false), (32, false), (0, false), (0, true), (0, false)] {
        let before = balloon.backing().work().calls;
        assert_eq!(balloon.survey(&mut all, 64 << 9).unwrap().is_some(), ends);
        assert_eq!(balloon.backing().work().calls - before, calls);
    }
    assert_eq!(balloon.books().totals().reported, 0);
}

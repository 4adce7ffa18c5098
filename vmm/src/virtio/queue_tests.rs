use super::*;
use crate::virtio::driver::{Driver, memory, readable};
use proptest::prelude::*;
use std::cell::RefCell;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use virtio_queue::QueueOwnedT;

const SIZE: u16 = 8;

fn drain_all(queue: &mut Queue, driver: &Driver, budget: usize) -> (Vec<u16>, Effects) {
    let mut heads = Vec::new();
    let effects = drain(0, queue, driver.memory(), budget, |chain| {
        heads.push(chain.head_index());
        Outcome::Used(u32::from(chain.head_index()))
    })
    .unwrap();
    (heads, effects)
}

#[test]
fn returns_every_chain_once() {
    let mut driver = Driver::new(&memory(1 << 20), 0x1000, SIZE);
    let mut queue = driver.queue(false);
    for head in [3, 0, 5] {
        driver.offer(head, &[readable(0x8000, 1)]);
    }
    let (heads, effects) = drain_all(&mut queue, &driver, 100);
    assert_eq!(heads, [3, 0, 5]);
    assert_eq!(effects, Effects { interrupt: true, again: false, ..Effects::default() });
    assert_eq!(driver.take_used(), [(3, 3), (0, 0), (5, 5)]);
    assert_eq!(drain_all(&mut queue, &driver, 100), (vec![], Effects::default()));
    assert_eq!(driver.take_used(), []);
}

#[test]
fn a_spent_budget_asks_for_another_pass() {
    let mut driver = Driver::new(&memory(1 << 20), 0x1000, SIZE);
    let mut queue = driver.queue(true);
    for head in 0..3 {
        driver.offer(head, &[readable(0x8000, 1)]);
    }
    let (heads, effects) = drain_all(&mut queue, &driver, 2);
    assert_eq!((heads, effects.again), (vec![0, 1], true));
    let (heads, effects) = drain_all(&mut queue, &driver, 1);
    assert_eq!((heads, effects.again), (vec![2], false), "the ring is empty: nothing is left");
}

#[test]
fn a_kept_chain_stays_first() {
    let mut driver = Driver::new(&memory(1 << 20), 0x1000, SIZE);
    let mut queue = driver.queue(true);
    driver.offer(1, &[readable(0x8000, 1)]);
    driver.offer(2, &[readable(0x8000, 1)]);
    let mut met = Vec::new();
    let effects = drain(0, &mut queue, driver.memory(), 100, |chain| {
        met.push(chain.head_index());
        if chain.head_index() == 1 { Outcome::Used(0) } else { Outcome::Keep }
    })
    .unwrap();
    assert_eq!(met, [1, 2]);
    assert_eq!(effects, Effects { interrupt: true, again: false, ..Effects::default() });
    assert_eq!(driver.take_used(), [(1, 0)]);
    assert_eq!(drain_all(&mut queue, &driver, 100).0, [2]);
}

/// Notes what happened; takes `wanted` chains a pass, and leaves `unsettled` passes before it is done.
#[derive(Default)]
struct Diary {
    wanted: usize,
    unsettled: usize,
    taken: Vec<u16>,
    settled: Vec<usize>,
    abandoned: usize,
}

impl Batch for Diary {
    fn wants_more(&mut self) -> bool {
        self.taken.len() < self.wanted
    }

    fn gather(&mut self, chain: Chain<'_>) {
        self.taken.push(chain.head_index());
    }

    fn settle(&mut self) -> bool {
        self.settled.push(self.taken.len());
        let left = self.unsettled.checked_sub(1);
        self.unsettled = left.unwrap_or(0);
        left.is_none()
    }

    fn abandon(&mut self) {
        self.abandoned += 1;
    }
}

#[test]
fn chains_of_a_batch_are_settled_before_any_returns() {
    let mut driver = Driver::new(&memory(1 << 20), 0x1000, SIZE);
    let mut queue = driver.queue(true);
    for head in [3, 0, 5] {
        driver.offer(head, &[readable(0x8000, 1)]);
    }
    let mut diary = Diary { wanted: 2, ..Diary::default() };
    let mut heads = Vec::new();
    let effects = drain_together(0, &mut queue, driver.memory(), &mut heads, &mut diary).unwrap();
    assert_eq!(effects, Effects { interrupt: true, again: true, ..Effects::default() });
    assert_eq!((&diary.taken[..], &diary.settled[..]), (&[3, 0][..], &[2][..]));
    assert_eq!(driver.take_used(), [(3, 0), (0, 0)]);
    diary.wanted = 9;
    let effects = drain_together(0, &mut queue, driver.memory(), &mut heads, &mut diary).unwrap();
    assert!(!effects.again);
    assert_eq!(driver.take_used(), [(5, 0)]);
    assert_eq!(diary.settled, [2, 3]);
    let idle = drain_together(0, &mut queue, driver.memory(), &mut heads, &mut diary).unwrap();
    assert_eq!(idle, Effects::default());
}

#[test]
fn what_a_pass_leaves_unsettled_is_returned_by_a_later_one() {
    let mut driver = Driver::new(&memory(1 << 20), 0x1000, SIZE);
    let mut queue = driver.queue(true);
    [3, 0, 5].into_iter().for_each(|head| driver.offer(head, &[readable(0x8000, 1)]));
    let mut diary = Diary { wanted: 2, unsettled: 2, ..Diary::default() };
    let mut heads = Vec::new();
    let again = Effects { again: true, ..Effects::default() };
    for _ in 0..2 {
        let effects = drain_together(0, &mut queue, driver.memory(), &mut heads, &mut diary).unwrap();
        assert_eq!((effects, driver.take_used()), (again, vec![]));
        diary.wanted = 9;
    }
    let effects = drain_together(0, &mut queue, driver.memory(), &mut heads, &mut diary).unwrap();
    assert_eq!((effects, &diary.taken[..]), (Effects { interrupt: true, ..again }, &[3, 0][..]));
    assert_eq!(driver.take_used(), [(3, 0), (0, 0)]);
    let effects = drain_together(0, &mut queue, driver.memory(), &mut heads, &mut diary).unwrap();
    assert_eq!((effects.again, driver.take_used()), (false, vec![(5, 0)]));
}

#[test]
fn a_queue_taken_out_of_use_gets_nothing_back() {
    let mut driver = Driver::new(&memory(1 << 20), 0x1000, SIZE);
    let mut queue = driver.queue(true);
    driver.offer(3, &[readable(0x8000, 1)]);
    let mut diary = Diary { wanted: 9, unsettled: 1, ..Diary::default() };
    let mut heads = Vec::new();
    assert!(drain_together(0, &mut queue, driver.memory(), &mut heads, &mut diary).unwrap().again);
    queue.set_ready(false);
    for _ in 0..2 {
        let effects = drain_together(0, &mut queue, driver.memory(), &mut heads, &mut diary).unwrap();
        assert_eq!((effects, diary.abandoned, diary.settled.len()), (Effects::default(), 1, 1));
    }
    assert_eq!(driver.take_used(), []);
}

#[test]
fn a_batch_on_a_ring_that_breaks_is_settled_and_returned() {
    let mut driver = Driver::new(&memory(1 << 20), 0x1000, SIZE);
    let mut queue = driver.queue(true);
    driver.offer(3, &[readable(0x8000, 1)]);
    driver.publish(SIZE);
    let mut diary = Diary { wanted: 9, ..Diary::default() };
    let result = drain_together(0, &mut queue, driver.memory(), &mut Vec::new(), &mut diary);
    assert!(result.is_err());
    assert_eq!((diary.settled, driver.take_used()), (vec![1], vec![(3, 0)]));
}

#[test]
fn interrupts_only_when_the_driver_waits_for_it() {
    let mut driver = Driver::new(&memory(1 << 20), 0x1000, SIZE);
    let mut queue = driver.queue(true);
    driver.set_used_event(1);
    driver.offer(0, &[readable(0x8000, 1)]);
    assert!(!drain_all(&mut queue, &driver, 100).1.interrupt);
    driver.offer(1, &[readable(0x8000, 1)]);
    assert!(drain_all(&mut queue, &driver, 100).1.interrupt);
    assert!(!drain_all(&mut queue, &driver, 100).1.interrupt, "nothing was used");
}

#[test]
fn without_event_indices_the_drivers_flag_decides() {
    for (event_idx, flags, interrupt) in [(false, 0, true), (false, 1, false), (true, 1, true)] {
        let mut driver = Driver::new(&memory(1 << 20), 0x1000, SIZE);
        let mut queue = driver.queue(event_idx);
        driver.set_avail_flags(flags);
        driver.offer(0, &[readable(0x8000, 1)]);
        assert_eq!(drain_all(&mut queue, &driver, 100).1.interrupt, interrupt, "{event_idx} {flags}");
        driver.set_used_event(1);
        driver.offer(1, &[readable(0x8000, 1)]);
        let mut diary = Diary { wanted: 9, ..Diary::default() };
        let effects = drain_together(0, &mut queue, driver.memory(), &mut Vec::new(), &mut diary).unwrap();
        assert_eq!(effects.interrupt, interrupt, "{event_idx} {flags}");
        assert_eq!(driver.take_used().len(), 2, "used all the same");
    }
}

#[test]
fn a_queue_that_was_not_set_up_has_no_chains() {
    let mut driver = Driver::new(&memory(1 << 20), 0x1000, SIZE);
    let mut queue = driver.queue(false);
    queue.set_ready(false);
    driver.offer(0, &[readable(0x8000, 1)]);
    assert_eq!(drain_all(&mut queue, &driver, 100), (vec![], Effects::default()));
}

#[test]
fn an_impossible_ring_is_broken() {
    let broken = |spoil: &dyn Fn(&mut Driver, &mut Queue)| {
        let mut driver = Driver::new(&memory(1 << 20), 0x1000, SIZE);
        let mut queue = driver.queue(true);
        spoil(&mut driver, &mut queue);
        drain(7, &mut queue, driver.memory(), 1000, |_| Outcome::Used(0)).unwrap_err()
    };
    let BrokenQueue::Ring { index, source } = broken(&|driver, _| driver.set_avail_index(SIZE + 1));
    assert_eq!((index, source), (7, Error::InvalidAvailRingIndex));
    let BrokenQueue::Ring { source, .. } = broken(&|driver, _| driver.publish(SIZE));
    assert_eq!(source, Error::InvalidDescriptorIndex);
    let BrokenQueue::Ring { source, .. } = broken(&|driver, queue| {
        // The index is the last thing in memory, the entries lie beyond its end.
        queue.set_avail_ring_address(Some((1 << 20) - 4), Some(0));
        driver.write((1 << 20) - 2, &1u16.to_le_bytes());
    });
    assert_eq!(source, Error::FindMemoryRegion);
}

#[test]
fn index_may_advance_by_the_whole_ring() {
    let mut driver = Driver::new(&memory(1 << 20), 0x1000, SIZE);
    let mut queue = driver.queue(true);
    for round in 0..5 {
        for head in 0..SIZE {
            driver.offer(head, &[readable(0x8000, 1)]);
        }
        assert_eq!(drain_all(&mut queue, &driver, 100).0.len(), usize::from(SIZE), "{round}");
        assert_eq!(driver.take_used().len(), usize::from(SIZE));
    }
}

/// The window between a ring seen empty and notifications enabled opens only to a driver that runs at the
/// same time. A lost kick would leave both sides waiting for each other.
#[test]
fn no_kick_is_lost_to_a_concurrent_driver() {
    const CHAINS: usize = 200_000;
    for event_idx in [false, true] {
        let memory = memory(1 << 20);
        let mut driver = Driver::new(&memory, 0x1000, SIZE);
        let mut queue = driver.queue(event_idx);
        let (kick, kicks) = mpsc::channel();
        let device = thread::spawn(move || {
            let mut served = 0;
            while served < CHAINS {
                kicks.recv_timeout(Duration::from_secs(20)).expect("a kick was lost");
                let serve = |_: Chain<'_>| {
                    served += 1;
                    Outcome::Used(0)
                };
                let _ = drain(0, &mut queue, &memory, usize::MAX, serve).unwrap();
            }
        });
        let mut offered = 0;
        while offered < CHAINS {
            driver.take_used();
            let before = driver.offered();
            if driver.offer_any((CHAINS - offered).min(2) as u16, event_idx) {
                kick.send(()).unwrap();
            }
            offered += usize::from(driver.offered().wrapping_sub(before));
            if device.is_finished() {
                break;
            }
        }
        device.join().unwrap();
    }
}

/// Takes at most `budget` chains and calls `each` with them.
struct Counted<F> {
    budget: usize,
    each: F,
}

impl<F: FnMut(Chain<'_>)> Batch for Counted<F> {
    fn wants_more(&mut self) -> bool {
        self.budget > 0
    }

    fn gather(&mut self, chain: Chain<'_>) {
        self.budget -= 1;
        (self.each)(chain);
    }

    fn settle(&mut self) -> bool {
        true
    }

    fn abandon(&mut self) {}
}

/// One pass, by either function.
fn one_pass(
    together: bool,
    queue: &mut Queue,
    memory: &GuestMemoryMmap<()>,
    budget: usize,
    mut each: impl FnMut(Chain<'_>),
) -> Result<Effects, BrokenQueue> {
    if together {
        drain_together(0, queue, memory, &mut Vec::new(), &mut Counted { budget, each })
    } else {
        drain(0, queue, memory, budget, |chain| {
            each(chain);
            Outcome::Used(0)
        })
    }
}

proptest! {
    /// A driver that kicks only when it must, offers chains at any moment, also while the device runs, and
    /// never waits in vain: once the device rests, every chain has come back.
    #[test]
    fn no_kick_is_lost(
        event_idx: bool,
        together: bool,
        budget in 1usize..5,
        steps in prop::collection::vec((0u16..4, prop::collection::vec(0u16..3, 0..4)), 1..40),
    ) {
        let driver = RefCell::new(Driver::new(&memory(1 << 20), 0x1000, SIZE));
        let memory = driver.borrow().memory().clone();
        let mut queue = driver.borrow().queue(event_idx);
        let mut kicked = false;
        for (before, during) in steps {
            kicked |= driver.borrow_mut().offer_any(before, event_idx);
            let mut during = during.into_iter();
            let mut waits = false;
            while std::mem::take(&mut kicked) || waits {
                let effects = one_pass(together, &mut queue, &memory, budget, |_| {
                    let more = during.next().unwrap_or(0);
                    kicked |= driver.borrow_mut().offer_any(more, event_idx);
                }).unwrap();
                waits = effects.again;
                if effects.interrupt {
                    driver.borrow_mut().reclaim();
                }
            }
            prop_assert_eq!(queue.next_avail(), driver.borrow().offered(), "chains wait without a kick");
            prop_assert_eq!(driver.borrow().outstanding(), 0, "used buffers were not announced");
        }
        prop_assert!(queue.iter(&*memory).unwrap().next().is_none());
    }

    #[test]
    fn any_ring_ends(bytes in prop::collection::vec(any::<u8>(), 0x400), event_idx: bool, together: bool) {
        let driver = Driver::new(&memory(1 << 16), 0x1000, SIZE);
        driver.write(0x1000, &bytes);
        let mut queue = driver.queue(event_idx);
        let mut seen = 0usize;
        let result = one_pass(together, &mut queue, driver.memory(), 20, |chain| {
            seen += 1;
            chain.take(1000).for_each(drop);
        });
        prop_assert!(seen <= 20);
        let returned = usize::from(queue.next_used());
        prop_assert!(returned == seen || result.is_err() && returned < seen, "{returned} of {seen}");
    }
}

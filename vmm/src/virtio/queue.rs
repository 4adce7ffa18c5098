//! Taking descriptor chains from a virtqueue and returning each of them exactly once.
//!
//! Every device serves its queues through [`drain`], so the three things that are easily done wrong are done
//! here: a pass is bounded, no notification of the driver is lost, and no used buffer goes unannounced. What
//! the driver wrote into the ring is not trusted; only a ring that contradicts itself is an error.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::device::{BrokenQueue, Effects};
use std::sync::atomic::Ordering;
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// A descriptor chain as devices receive it.
pub type Chain<'a> = DescriptorChain<&'a GuestMemoryMmap<()>>;

/// What a device did with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It is done with: return it, with this many bytes written from the start of its writable part.
    Used(u32),
    /// The device cannot go on now: leave the chain in the ring, where the next pass meets it first.
    Keep,
}

/// Hands up to `budget` available chains of `queue`, which is queue number `index` of its device, to `serve`,
/// and returns to the driver those that are used.
///
/// Stops at the end of the ring, at a spent budget ([`Effects::again`] is set if chains are left) or at the
/// first chain that is [kept](Outcome::Keep). A ring seen empty is left with notifications enabled and checked
/// once more thereafter (virtio 1.3, 2.7.10), so that the driver's next kick cannot be lost. After a kept
/// chain notifications stay off: a kick could tell nothing new, and the device itself knows when it can go on.
///
/// A queue which the driver has not set up has no chains.
///
/// # Errors
/// The ring contradicts itself or lies outside memory. What `serve` has used by then is returned to the
/// driver, but not announced: a broken queue needs a reset.
pub fn drain<'m>(
    index: usize,
    queue: &mut Queue,
    memory: &'m GuestMemoryMmap<()>,
    budget: usize,
    serve: impl FnMut(Chain<'m>) -> Outcome,
) -> Result<Effects, BrokenQueue> {
    if !queue.ready() {
        return Ok(Effects::default());
    }
    run(queue, memory, budget, serve).map_err(|source| BrokenQueue::Ring { index, source })
}

fn run<'m>(
    queue: &mut Queue,
    memory: &'m GuestMemoryMmap<()>,
    mut budget: usize,
    mut serve: impl FnMut(Chain<'m>) -> Outcome,
) -> Result<Effects, Error> {
    let mut used = false;
    let again = loop {
        queue.disable_notification(memory)?;
        match pass(queue, memory, &mut budget, &mut used, &mut serve)? {
            Stop::Kept => break false,
            Stop::Empty | Stop::Budget => {}
        }
        let more = queue.enable_notification(memory)?;
        if !more || budget == 0 {
            break more;
        }
    };
    Ok(Effects { interrupt: used && wants_interrupt(queue, memory)?, again, ..Effects::default() })
}

/// A device that does the work of many chains at once.
pub trait Batch {
    /// Whether the pass goes on: asked before each chain.
    fn wants_more(&mut self) -> bool;

    /// Takes note of a chain.
    fn gather(&mut self, chain: Chain<'_>);

    /// Does the work of all chains gathered.
    fn settle(&mut self);
}

/// Hands the available chains of `queue` to `batch`, as many as it wants and at most a ring's worth, lets it
/// settle them, and only then returns them to the driver, with nothing written. `heads` is scratch. What else
/// [`drain`] promises holds here too.
///
/// # Errors
/// The ring contradicts itself or lies outside memory. What was gathered by then is settled and returned.
pub fn drain_together(
    index: usize,
    queue: &mut Queue,
    memory: &GuestMemoryMmap<()>,
    heads: &mut Vec<u16>,
    batch: &mut impl Batch,
) -> Result<Effects, BrokenQueue> {
    if !queue.ready() {
        return Ok(Effects::default());
    }
    gather(queue, memory, heads, batch).map_err(|source| BrokenQueue::Ring { index, source })
}

fn gather(
    queue: &mut Queue,
    memory: &GuestMemoryMmap<()>,
    heads: &mut Vec<u16>,
    batch: &mut impl Batch,
) -> Result<Effects, Error> {
    queue.disable_notification(memory)?;
    heads.clear();
    let mut end = Ok(());
    while heads.len() < usize::from(queue.size()) && batch.wants_more() {
        match pop(queue, memory) {
            Ok(Some(chain)) => {
                heads.push(chain.head_index());
                batch.gather(chain);
            }
            Ok(None) => break,
            Err(error) => {
                end = Err(error);
                break;
            }
        }
    }
    batch.settle();
    for head in heads.iter() {
        queue.add_used(memory, *head, 0)?;
    }
    end?;
    let again = queue.enable_notification(memory)?;
    Ok(Effects {
        interrupt: !heads.is_empty() && wants_interrupt(queue, memory)?,
        again,
        ..Effects::default()
    })
}

/// Whether the driver wants to hear of used buffers: without event indices its flag says so (virtio 1.3, 2.7.7), which
/// virtio-queue does not look at.
fn wants_interrupt(queue: &mut Queue, memory: &GuestMemoryMmap<()>) -> Result<bool, Error> {
    // Has a barrier: all that is used is written before what is read now.
    if !queue.needs_notification(memory)? {
        return Ok(false);
    }
    if queue.event_idx_enabled() {
        return Ok(true);
    }
    let flags =
        memory.load(GuestAddress(queue.avail_ring()), Ordering::Relaxed).map_err(Error::GuestMemory)?;
    Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
}

/// Why a pass over the ring ended.
enum Stop {
    Empty,
    Budget,
    Kept,
}

fn pass<'m>(
    queue: &mut Queue,
    memory: &'m GuestMemoryMmap<()>,
    budget: &mut usize,
    used: &mut bool,
    serve: &mut impl FnMut(Chain<'m>) -> Outcome,
) -> Result<Stop, Error> {
    loop {
        let Some(left) = budget.checked_sub(1) else { return Ok(Stop::Budget) };
        let Some(chain) = pop(queue, memory)? else { return Ok(Stop::Empty) };
        let head = chain.head_index();
        match serve(chain) {
            Outcome::Used(bytes) => queue.add_used(memory, head, bytes)?,
            Outcome::Keep => {
                queue.go_to_previous_position();
                return Ok(Stop::Kept);
            }
        }
        *used = true;
        *budget = left;
    }
}

/// Takes the next chain. Every fault of the ring is an error: `Queue::pop_descriptor_chain` would only log an
/// impossible index, and an iterator that ends early would leave a ring that never becomes empty.
fn pop<'m>(queue: &mut Queue, memory: &'m GuestMemoryMmap<()>) -> Result<Option<Chain<'m>>, Error> {
    if queue.avail_idx(memory, Ordering::Acquire)?.0 == queue.next_avail() {
        return Ok(None);
    }
    let chain = queue.iter(memory)?.next().ok_or(Error::FindMemoryRegion)?;
    if chain.head_index() >= queue.size() {
        return Err(Error::InvalidDescriptorIndex);
    }
    Ok(Some(chain))
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
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

    /// Notes what happened; takes `wanted` chains a pass.
    #[derive(Default)]
    struct Diary {
        wanted: usize,
        taken: Vec<u16>,
        settled: Vec<usize>,
    }

    impl Batch for Diary {
        fn wants_more(&mut self) -> bool {
            self.taken.len() < self.wanted
        }

        fn gather(&mut self, chain: Chain<'_>) {
            self.taken.push(chain.head_index());
        }

        fn settle(&mut self) {
            self.settled.push(self.taken.len());
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
            let effects =
                drain_together(0, &mut queue, driver.memory(), &mut Vec::new(), &mut diary).unwrap();
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

        fn settle(&mut self) {}
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
}

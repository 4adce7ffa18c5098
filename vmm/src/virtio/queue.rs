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

    /// Does the work of the chains gathered, or as much of it as a pass should; returns whether all is done.
    fn settle(&mut self) -> bool;

    /// Forgets the chains gathered: the driver has taken their queue out of use.
    fn abandon(&mut self);
}

/// Hands the available chains of `queue` to `batch`, as many as it wants and at most a ring's worth, lets it
/// settle them, and only then returns them to the driver, with nothing written. `heads` are the chains that the last
/// pass has left unsettled: none at first, and as long as there are some, this pass takes no others. What else [`drain`]
/// promises holds here too.
///
/// # Errors
/// The ring contradicts itself or lies outside memory. What was gathered by then is settled and returned, at the latest
/// by a pass before the one that says so.
pub fn drain_together(
    index: usize,
    queue: &mut Queue,
    memory: &GuestMemoryMmap<()>,
    heads: &mut Vec<u16>,
    batch: &mut impl Batch,
) -> Result<Effects, BrokenQueue> {
    if !queue.ready() {
        if !heads.is_empty() {
            heads.clear();
            batch.abandon();
        }
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
    let mut end = Ok(());
    let is_new = heads.is_empty();
    if is_new {
        queue.disable_notification(memory)?;
    }
    while is_new && heads.len() < usize::from(queue.size()) && batch.wants_more() {
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
    if !batch.settle() {
        return Ok(Effects { again: true, ..Effects::default() });
    }
    let used = !heads.is_empty();
    for head in heads.drain(..) {
        queue.add_used(memory, head, 0)?;
    }
    end?;
    let again = queue.enable_notification(memory)?;
    Ok(Effects { interrupt: used && wants_interrupt(queue, memory)?, again, ..Effects::default() })
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
#[path = "queue_tests.rs"]
mod tests;

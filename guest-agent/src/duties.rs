//! What the agent does for the host beside the workload's streams.

use std::os::fd::BorrowedFd;

use proto::{Done, Order, ToHost};

use crate::commands::Commands;
use crate::link::Link;
use crate::orders::Orders;
use crate::sample::Sampler;

/// All of it.
#[derive(Debug)]
pub struct Duties<'a> {
    /// Carries out what the host orders.
    pub orders: Orders<'a>,
    /// Tells of the guest's memory, where the host wants that.
    pub sampler: Option<Sampler<'a>>,
    /// Runs commands beside the workload.
    pub commands: Commands<'a>,
}

impl Duties<'_> {
    /// Begins the next order if there is none under way, and returns where its answer will come from.
    pub fn begin_order(&mut self) -> Option<BorrowedFd<'_>> {
        let Self { orders, sampler, .. } = self;
        orders.begin(|order| {
            if let (Order::Reclaim { older_than_ms: Some(_), .. }, Some(sampler)) = (order, sampler.as_mut())
            {
                sampler.evicts_generations();
            }
        })
    }

    /// Tells the host what has become of its orders.
    pub fn tell_answers(&mut self, link: &mut Link) {
        for answer in self.orders.answers() {
            if let (ToHost::Done { done: Done::Reclaimed(reclaimed), .. }, Some(sampler)) =
                (&answer, &mut self.sampler)
            {
                sampler.evicted(reclaimed);
            }
            link.send(&answer);
        }
        // A worker that was killed, or that failed amid its work, does not say how far it came.
        if let (false, Some(sampler)) = (self.orders.are_under_way(), &mut self.sampler) {
            sampler.evicts_nothing();
        }
    }

    /// Tells the host of the guest's memory if it is time. One that does not listen misses samples.
    pub fn sample(&mut self, link: &mut Link) {
        if let Some(sampler) = &mut self.sampler {
            sampler.take(|message| {
                let hears = !link.is_congested();
                if hears {
                    link.send(message);
                }
                hears
            });
        }
    }

    /// The workload has ended: nothing is left to be done.
    pub fn abandon(&mut self) {
        self.orders.abandon();
        self.sampler = None;
        self.commands.clear();
    }
}

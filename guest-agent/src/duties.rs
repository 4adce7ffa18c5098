//! What the agent does for the host beside the workload's streams.

use proto::{Done, ToHost};

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
    /// Tells the host what has become of its orders.
    pub fn tell_answers(&mut self, link: &mut Link) {
        for answer in self.orders.answers() {
            if let (ToHost::Done { done: Done::Reclaimed(reclaimed), .. }, Some(sampler)) =
                (&answer, &mut self.sampler)
            {
                sampler.reclaimed_for(reclaimed.took_us);
            }
            link.send(&answer);
        }
    }

    /// Tells the host of the guest's memory if it is time. One that does not listen misses samples.
    pub fn sample(&mut self, link: &mut Link) {
        if let Some(sampler) = &mut self.sampler {
            sampler.take(|message| {
                if !link.is_congested() {
                    link.send(message);
                }
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

//! The balloon in the event loop: queues, the slow reading of residency and what follows it, and word of statistics. Wiring only.

use super::{Balloon, pace};
use crate::virtio::attach::QueueEvents;
use crate::virtio::mmio::Transport;
use balloon::backing::Host;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

/// The token of the timer, which is no queue's.
const TIMER: u32 = 1000;

/// Serves a balloon in an event loop.
pub struct BalloonEvents {
    transport: Arc<Transport<Balloon<Host>>>,
    queues: QueueEvents<Balloon<Host>>,
    timer: TimerFd,
    statistics: EventFd,
}

impl BalloonEvents {
    /// Serves `transport`; `statistics` is written when the guest has answered a request for statistics, or cannot any
    /// more.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn new(transport: Arc<Transport<Balloon<Host>>>, statistics: EventFd) -> io::Result<Self> {
        let queues = QueueEvents(Arc::clone(&transport));
        Ok(Self { transport, queues, timer: TimerFd::new()?, statistics })
    }

    fn survey(&mut self) {
        let ended = self.transport.survey().unwrap_or_else(|error| {
            log::warn!("the host does not say how much of the guest's memory it holds: {error}");
            true
        });
        if ended {
            self.transport.follow_up();
        }
        self.set_timer(pace::next(ended));
    }

    /// Setting the timer also forgets that it has expired.
    fn set_timer(&mut self, after: Duration) {
        if let Err(error) = self.timer.reset(after, None) {
            log::error!("cannot set the balloon's timer: {error}");
        }
    }
}

impl MutEventSubscriber for BalloonEvents {
    fn init(&mut self, ops: &mut EventOps) {
        self.queues.init(ops);
        if let Err(error) = ops.add(Events::with_data(&self.timer, TIMER, EventSet::IN)) {
            log::error!("cannot wait for the balloon's timer: {error}");
        }
        self.set_timer(pace::next(false));
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.data() == TIMER {
            return self.survey();
        }
        self.queues.process(events, ops);
        if self.transport.statistics_over() {
            // The counter of an eventfd cannot overflow by ones.
            let _ = self.statistics.write(1);
        }
    }
}

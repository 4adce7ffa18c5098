//! The law's clock: what it waits for may be that time passes. Wiring.

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::io;
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

/// The law wants to be told of the time at least so often.
const BEAT: Duration = Duration::from_secs(1);

/// Makes an event readable with each beat.
pub struct Beat {
    timer: TimerFd,
    event: EventFd,
}

impl Beat {
    /// A clock that makes `event` readable.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn new(event: EventFd) -> io::Result<Self> {
        Ok(Self { timer: TimerFd::new()?, event })
    }

    /// Setting the timer also forgets that it has expired.
    fn set(&mut self) {
        if let Err(error) = self.timer.reset(BEAT, None) {
            log::error!("cannot set the clock of the reclaim law: {error}");
        }
    }
}

impl MutEventSubscriber for Beat {
    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.timer, EventSet::IN)) {
            log::error!("cannot wait for the clock of the reclaim law: {error}");
        }
        self.set();
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        self.set();
        // The counter of an eventfd cannot overflow by ones.
        let _ = self.event.write(1);
    }
}

//! A clock for what is waited for with nobody to tell of it, such as memory on its way back. Wiring.

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

/// Switches the clock on and off.
#[derive(Clone)]
pub struct Ticks(Rc<RefCell<(TimerFd, Option<Duration>)>>);

impl Ticks {
    /// A clock that is off.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Rc::new(RefCell::new((TimerFd::new()?, None)))))
    }

    /// Has it tick so far apart, or not at all.
    pub fn set(&self, apart: Option<Duration>) {
        let (timer, is) = &mut *self.0.borrow_mut();
        if *is == apart {
            return;
        }
        match timer.reset(apart.unwrap_or_default(), None) {
            Ok(()) => *is = apart,
            Err(error) => log::error!("cannot set the clock of the control socket: {error}"),
        }
    }
}

/// The clock in an event loop.
pub struct TickEvents {
    /// Which.
    pub ticks: Ticks,
    /// Becomes readable with each tick.
    pub event: EventFd,
}

impl MutEventSubscriber for TickEvents {
    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.ticks.0.borrow().0, EventSet::IN)) {
            log::error!("cannot wait for the clock of the control socket: {error}");
        }
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        let (timer, is) = &mut *self.ticks.0.borrow_mut();
        // Setting the timer also forgets that it has expired, without waiting for one that was set anew since.
        if let Some(apart) = *is {
            *is = timer.reset(apart, None).is_ok().then_some(apart);
            // The counter of an eventfd cannot overflow by ones.
            let _ = self.event.write(1);
        }
    }
}

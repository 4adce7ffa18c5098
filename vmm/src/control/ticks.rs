//! A clock for what is waited for with nobody to tell of it, such as memory on its way back. Wiring.

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

/// Between two looks.
const TICK: Duration = Duration::from_millis(250);

/// Switches the clock on and off.
#[derive(Clone)]
pub struct Ticks(Rc<RefCell<(TimerFd, bool)>>);

impl Ticks {
    /// A clock that is off.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Rc::new(RefCell::new((TimerFd::new()?, false)))))
    }

    /// Has it tick or not.
    pub fn set(&self, on: bool) {
        let (timer, is_on) = &mut *self.0.borrow_mut();
        if *is_on == on {
            return;
        }
        match timer.reset(if on { TICK } else { Duration::ZERO }, None) {
            Ok(()) => *is_on = on,
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
        let (timer, is_on) = &mut *self.ticks.0.borrow_mut();
        // Setting the timer also forgets that it has expired, without waiting for one that was set anew since.
        if *is_on {
            *is_on = timer.reset(TICK, None).is_ok();
            // The counter of an eventfd cannot overflow by ones.
            let _ = self.event.write(1);
        }
    }
}

//! Stamps what the fleet tells, keeps it, and wakes those who wait for it. Wiring: the [`Ring`] is pure.

#![forbid(unsafe_code)]

use super::event::Event;
use super::fleet::Fleet;
use super::ring::Ring;
use crate::control::events::EventsDocument;
use crate::wall_clock;
use std::cell::RefCell;
use std::io;
use vmm_sys_util::eventfd::EventFd;

/// What has happened since the daemon started.
pub struct Journal {
    ring: RefCell<Ring>,
    news: EventFd,
}

impl Journal {
    /// Nothing has.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn new() -> io::Result<Self> {
        let news = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Self { ring: RefCell::new(Ring::new(wall_clock::ms_since_1970())), news })
    }

    /// Takes what the fleet has to tell. To be called after whatever has changed it.
    pub fn record(&self, fleet: &mut Fleet) {
        self.keep(fleet.take_told());
    }

    /// Takes what happened to the daemon itself.
    pub fn keep(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let (mut ring, now_ms) = (self.ring.borrow_mut(), wall_clock::ms_since_1970());
        for event in events {
            log::info!("{event}");
            ring.push(now_ms, event);
        }
        // It is as full as that when nobody has looked for 2^64 events.
        let _ = self.news.write(1);
    }

    /// The first events after `number`, or all from the oldest.
    #[must_use]
    pub fn after(&self, number: Option<u64>) -> EventsDocument {
        self.ring.borrow().after(number)
    }

    /// Whether there are events after `number`.
    #[must_use]
    pub fn is_news(&self, number: u64) -> bool {
        self.ring.borrow().is_news(number)
    }

    /// Readable when there is something new.
    #[must_use]
    pub fn news(&self) -> &EventFd {
        &self.news
    }
}

//! The last events, and where a reader goes on. Pure; [`super::journal`] stamps them.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::event::Event;
use crate::control::events::{EventsDocument, PAGE};
use std::collections::VecDeque;

/// Events that are kept: those of an hour in which one happens every three seconds. With the longest reasons they have
/// 4 MiB, with usual ones less than a half, as they become documents only when they are read.
pub const KEPT: usize = 1024;

/// The last events of one daemon.
#[derive(Clone, Debug)]
pub struct Ring {
    /// When each happened, in milliseconds since 1970: the newest at the back, without gaps between their numbers.
    events: VecDeque<(u64, Event)>,
    first: u64,
    next: u64,
}

impl Ring {
    /// Nothing has happened yet, and what happens first has the number `first`.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self { events: VecDeque::new(), first, next: first }
    }

    /// Keeps one more. The oldest makes room.
    pub fn push(&mut self, time_ms: u64, event: Event) {
        if self.events.len() >= KEPT {
            self.events.pop_front();
        }
        self.events.push_back((time_ms, event.without_slack()));
        self.next = self.next.saturating_add(1);
    }

    /// Whether there are events after `number`.
    #[must_use]
    pub fn is_news(&self, number: u64) -> bool {
        self.start(Some(number)) < self.next
    }

    /// The first events after `number`, or all from the oldest. A number that has not been yet is of another daemon's time,
    /// whose clock was ahead.
    #[must_use]
    pub fn after(&self, number: Option<u64>) -> EventsDocument {
        let start = self.start(number);
        let oldest = self.next.saturating_sub(u64::try_from(self.events.len()).unwrap_or(u64::MAX));
        let from = start.max(oldest);
        let skipped = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let kept = (from..).zip(self.events.iter().skip(skipped));
        let events: Vec<_> = kept
            .take(PAGE)
            .map(|(number, (time_ms, event))| event.clone().document(number, *time_ms))
            .collect();
        let newest = self.next.saturating_sub(1);
        EventsDocument {
            next: events.last().map_or(newest, |event| event.number),
            newest,
            forgotten: from.saturating_sub(start),
            events,
        }
    }

    /// Number of the first event after `number` that this daemon has had or will have.
    fn start(&self, number: Option<u64>) -> u64 {
        match number {
            Some(number) if number >= self.first && number < self.next => number.saturating_add(1),
            _ => self.first,
        }
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]
mod tests {
    use super::*;
    use crate::control::events::EventKind;
    use proptest::prelude::*;

    const START: u64 = 1_700_000_000_000;

    fn push(ring: &mut Ring, times: usize) {
        for number in 0..times {
            ring.push(START, Event::new(EventKind::VmEnded, format!("{number}")));
        }
    }

    fn numbers(document: &EventsDocument) -> Vec<u64> {
        document.events.iter().map(|event| event.number - START).collect()
    }

    #[test]
    fn who_asks_for_more_gets_what_is_new() {
        let mut ring = Ring::new(START);
        assert_eq!(ring.after(None).events, []);
        push(&mut ring, 3);
        assert_eq!(numbers(&ring.after(None)), [0, 1, 2]);
        assert_eq!(numbers(&ring.after(Some(START))), [1, 2]);
        let last = ring.after(Some(START + 2));
        assert_eq!((numbers(&last), last.next, last.forgotten), (vec![], START + 2, 0));
        assert!(!ring.is_news(START + 2) && ring.is_news(START + 1));
    }

    #[test]
    fn numbers_of_another_daemon_begin_at_the_first() {
        let mut ring = Ring::new(START);
        push(&mut ring, 2);
        for number in [0, START - 1, START + 2, u64::MAX] {
            let document = ring.after(Some(number));
            assert_eq!((numbers(&document), document.forgotten), (vec![0, 1], 0), "{number}");
            assert!(ring.is_news(number));
        }
    }

    #[test]
    fn it_is_bounded_and_says_what_it_forgot() {
        let mut ring = Ring::new(START);
        push(&mut ring, KEPT + 10);
        let document = ring.after(Some(START + 3));
        assert_eq!((document.events.len(), document.forgotten), (PAGE, 6));
        assert_eq!((document.next, document.newest), (START + 73, START + KEPT as u64 + 9));
        assert_eq!(ring.after(None).forgotten, 10);
    }

    proptest! {
        /// Whoever goes on where it stopped sees each event once and in order, or is told that it is gone.
        #[test]
        fn nothing_is_lost_in_silence(bursts in prop::collection::vec((0usize..700, 0usize..4), 1..30)) {
            let mut ring = Ring::new(START);
            let (mut pushed, mut at, mut seen, mut forgotten) = (0, None, Vec::new(), 0);
            for (burst, reads) in bursts {
                push(&mut ring, burst);
                pushed += burst as u64;
                for _ in 0..reads {
                    let document = ring.after(at);
                    // Whoever has seen nothing and is told no number begins at the first again.
                    at = Some(document.next).filter(|_| pushed > 0);
                    forgotten += document.forgotten;
                    seen.extend(numbers(&document));
                }
            }
            while pushed > 0 && at.is_none_or(|number| ring.is_news(number)) {
                let document = ring.after(at);
                at = Some(document.next);
                forgotten += document.forgotten;
                seen.extend(numbers(&document));
            }
            prop_assert!(seen.is_sorted_by(|one, two| one < two));
            prop_assert_eq!(seen.len() as u64 + forgotten, pushed);
        }
    }
}

//! Something that happened, as the fleet tells it: without number and time, which the daemon adds. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::control::events::{EventDocument, EventKind};
use crate::size::Size;
use crate::zone::Limits;
use std::fmt;

/// Longest name and longest reason that are kept. Refusals repeat what somebody asked for; a group's path may be long.
const NAME_CHARS: usize = 128;
const REASON_CHARS: usize = 512;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    kind: EventKind,
    vm: Option<String>,
    group: Option<String>,
    reason: String,
    figures: Vec<(&'static str, u64)>,
}

impl Event {
    /// Something of this kind, for this reason, to nobody in particular.
    #[must_use]
    pub fn new(kind: EventKind, reason: impl Into<String>) -> Self {
        let reason = bounded(reason.into(), REASON_CHARS);
        Self { kind, vm: None, group: None, reason, figures: Vec::new() }
    }

    /// It happened to the microVM `name`.
    #[must_use]
    pub fn vm(mut self, name: &str) -> Self {
        self.vm = Some(bounded(name.into(), NAME_CHARS));
        self
    }

    /// It happened to the group `path`, or in it; an empty one is none.
    #[must_use]
    pub fn group(mut self, path: &str) -> Self {
        self.group = Some(bounded(path.into(), NAME_CHARS)).filter(|path| !path.is_empty());
        self
    }

    /// One of the numbers behind it.
    #[must_use]
    pub fn figure(mut self, name: &'static str, value: u64) -> Self {
        self.figures.push((name, value));
        self
    }

    /// The limits that are set.
    #[must_use]
    pub fn limits(self, limits: &Limits) -> Self {
        let named = [
            ("min_bytes", limits.min),
            ("low_bytes", limits.low),
            ("high_bytes", limits.high),
            ("max_bytes", limits.max),
        ];
        let set = named.into_iter().filter_map(|(name, bytes)| Some((name, bytes?)));
        set.fold(self, |event, (name, bytes)| event.figure(name, bytes))
            .figure("weight", u64::from(limits.weight))
    }

    /// What kind it is of.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// The same in no more memory than it takes.
    #[must_use]
    pub fn without_slack(mut self) -> Self {
        self.reason.shrink_to_fit();
        self.figures.shrink_to_fit();
        self
    }

    /// As it is told, with its number and time.
    #[must_use]
    pub fn document(self, number: u64, time_ms: u64) -> EventDocument {
        let Self { kind, vm, group, reason, figures } = self;
        let figures = figures.into_iter().map(|(name, value)| (name.into(), value)).collect();
        EventDocument { number, time_ms, kind, vm, group, reason, figures }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.vm.as_deref().or(self.group.as_deref()).unwrap_or("the host");
        write!(f, "{}, {who}: {}", self.kind, self.reason)
    }
}

/// What has become other limits, in words; nothing if none has.
#[must_use]
pub fn difference(before: &Limits, after: &Limits) -> Option<String> {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "none".into(), |b| Size::from_bytes(b).to_string());
    let limits = [
        ("min", before.min, after.min),
        ("low", before.low, after.low),
        ("high", before.high, after.high),
        ("max", before.max, after.max),
    ];
    let mut words: Vec<String> = limits
        .into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(name, before, after)| format!("{name} from {} to {}", size(before), size(after)))
        .collect();
    if before.weight != after.weight {
        words.push(format!("weight from {} to {}", before.weight, after.weight));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

fn bounded(text: String, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_said_and_nothing_else() {
        let before = Limits { min: Some(1 << 20), max: Some(1 << 30), ..Limits::default() };
        let after = Limits { max: Some(2 << 30), high: Some(1 << 30), weight: 7, ..before };
        let words = "high from none to 1 GiB, max from 1 GiB to 2 GiB, weight from 100 to 7";
        assert_eq!(difference(&before, &after).as_deref(), Some(words));
        assert_eq!(difference(&after, &after), None);
    }

    #[test]
    fn what_somebody_else_says_is_bounded() {
        let long = "\u{10ffff}".repeat(60_000);
        let event = Event::new(EventKind::StartRefused, long.clone()).vm(&long).group(&long).document(1, 2);
        assert!(serde_json::to_vec(&event).unwrap().len() < 4096);
        assert_eq!(Event::new(EventKind::VmEnded, "").group("").document(1, 2).group, None);
    }
}

//! A trim under way: read what the host holds, have the agent trim, and wait until what it freed has come back. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::agent::Agent;
use balloon::control::http::{Response, Status};
use balloon::control::orders::{TrimDocument, TrimEnd};
use balloon::control::service::error;
use proto::{Done, ORDER_LIMIT_S, Order, Stopped, Trimmed};

/// A reading from before the trim is good enough if none has ended by then.
const READING_MS: u64 = 2500;
/// How long the agent may take: all of its own time, and as much for an order before.
pub const AGENT_MS: u64 = 2 * ORDER_LIMIT_S * 1000 + 5000;
/// Nothing more comes back once nothing has for so long. The guest reports what it frees 2 s later
/// (`PAGE_REPORTING_DELAY` in mm/page_reporting.c), and again 2 s after that while there is more.
const QUIET_MS: u64 = 3500;
/// However much still comes back, the answer is given then.
const SETTLE_MS: u64 = 20_000;
/// Less than this is no fall: a guest that idles moves as much.
const FALL_BYTES: u64 = 1 << 20;
/// All of it.
pub const LIMIT_MS: u64 = READING_MS + AGENT_MS + SETTLE_MS + 1000;

/// How much to trim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All that can be evicted.
    Everything,
    /// So many bytes.
    Bytes(u64),
    /// Until the host holds so many.
    To(u64),
}

/// What the host holds of what is trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// How much.
    pub bytes: u64,
    /// When that was.
    pub at_ms: u64,
}

/// A trim.
#[derive(Debug)]
pub struct Trim {
    zone: Option<(u8, String)>,
    wanted: Wanted,
    begun_ms: u64,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Reading,
    Ordered { id: u32, at_ms: u64, before: Option<u64> },
    Settling { before: Option<u64>, trimmed: Trimmed, done_ms: u64, least: Option<Reading> },
}

impl Trim {
    /// Begins one: of a zone, by number and name, or of everything.
    #[must_use]
    pub fn new(zone: Option<(u8, String)>, wanted: Wanted, now_ms: u64) -> Self {
        Self { zone, wanted, begun_ms: now_ms, phase: Phase::Reading }
    }

    /// Number of its zone.
    #[must_use]
    pub fn zone(&self) -> Option<u8> {
        self.zone.as_ref().map(|(number, _)| *number)
    }

    /// Goes on, with the last reading. The answer, when it is known.
    pub fn step(&mut self, now_ms: u64, reading: Option<Reading>, agent: &mut dyn Agent) -> Option<Response> {
        if let Phase::Reading = self.phase {
            let fresh = reading.is_some_and(|reading| reading.at_ms >= self.begun_ms);
            if !fresh && now_ms.saturating_sub(self.begun_ms) < READING_MS {
                return None;
            }
            if let Some(answer) = self.order(now_ms, reading, agent) {
                return Some(answer);
            }
        }
        if let Phase::Ordered { id, at_ms, before } = self.phase {
            match agent.answer(id) {
                Some(Done::Trimmed(trimmed)) => {
                    self.phase = Phase::Settling { before, trimmed, done_ms: now_ms, least: None };
                }
                Some(Done::Refused(why)) => return Some(error(Status::Conflict, why.to_string())),
                // The link lets no answer of another kind pass.
                Some(_) => return Some(error(Status::Internal, "the agent's answer is none")),
                None if now_ms.saturating_sub(at_ms) < AGENT_MS => return None,
                None => {
                    agent.forget(id);
                    return Some(error(Status::GuestTimeout, "the guest's agent did not answer in time"));
                }
            }
        }
        self.settle(now_ms, reading)
    }

    fn order(&mut self, now_ms: u64, reading: Option<Reading>, agent: &mut dyn Agent) -> Option<Response> {
        let before = reading.map(|reading| reading.bytes);
        let bytes = match (self.wanted, before) {
            (Wanted::Everything, _) => None,
            (Wanted::Bytes(bytes), _) => Some(bytes),
            (Wanted::To(bytes), Some(before)) => Some(before.saturating_sub(bytes)),
            (Wanted::To(_), None) => {
                let message =
                    "the host does not say how much of this microVM's memory it holds: say how much to trim";
                return Some(error(Status::Conflict, message));
            }
        };
        match agent.order(Order::Trim { zone: self.zone(), bytes }) {
            Ok(id) => {
                self.phase = Phase::Ordered { id, at_ms: now_ms, before };
                None
            }
            Err(why) => Some(error(Status::Conflict, why.to_string())),
        }
    }

    fn settle(&mut self, now_ms: u64, reading: Option<Reading>) -> Option<Response> {
        let Phase::Settling { before, trimmed, done_ms, least } = &mut self.phase else { return None };
        if let Some(reading) = reading.filter(|reading| reading.at_ms >= *done_ms) {
            let falls = |least: &Reading| reading.bytes.saturating_add(FALL_BYTES) <= least.bytes;
            if least.as_ref().is_none_or(falls) {
                *least = Some(reading);
            }
        }
        let waited = |since: u64| now_ms.saturating_sub(since);
        // A host that does not say what it holds is not waited for.
        let settled = match least {
            Some(least) => waited(*done_ms) >= QUIET_MS && waited(least.at_ms) >= QUIET_MS,
            None => reading.is_none(),
        };
        if !settled && waited(*done_ms) < SETTLE_MS {
            return None;
        }
        let document = TrimDocument {
            zone: self.zone.take().map(|(_, name)| name),
            before_bytes: *before,
            after_bytes: reading.map(|reading| reading.bytes),
            settled,
            reclaimed_bytes: trimmed.reclaimed_bytes,
            file_bytes: trimmed.file_bytes,
            anonymous_bytes: trimmed.anonymous_bytes,
            ended: match trimmed.stopped {
                Stopped::Reached => TrimEnd::Reached,
                Stopped::NothingLeft => TrimEnd::NothingLeft,
                Stopped::NoSwap => TrimEnd::NoSwap,
                Stopped::Ineffective => TrimEnd::Ineffective,
                Stopped::OutOfTime => TrimEnd::OutOfTime,
            },
        };
        Some(Response::json(Status::Ok, &document))
    }
}

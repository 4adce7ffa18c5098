//! What the control socket wants of the guest's agent and of the host: requests that take their time, each under a
//! ticket. Pure.
//!
//! A client that is gone changes nothing: what was begun is brought to its end, and its answer kept for a while.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::agent::{Agent, Nobody};
use super::host_nodes::TURN;
use super::limits::{Change, Held, HostLimit, Outside};
use super::memory::{Memory, NodeError};
use super::routes::{Answer, STATISTICS};
use super::trim::{AGENT_MS, LIMIT_MS, Reading, Trim, Wanted};
use super::zone_max::{Maxes, ZoneMax};
use crate::link::OrderError;
use balloon::control::http::{Request, Response, Status, parse_document};
use balloon::control::orders::{
    LimitsRequest, MoveDocument, MoveRequest, NodeDocument, NodeRequest, SignalRequest, TrimRequest,
    ZoneMaxRequest,
};
use balloon::control::service::{Stream, error};
use balloon::zone::Limits;
use proto::{Done, MAX_COMMANDS, Order, Piece};
use std::collections::BTreeMap;
use std::time::Duration;

/// Requests under way, and answers that nobody has taken: as many as there are clients.
const MOST: usize = 16;
/// How long an answer waits for its client.
const KEPT_MS: u64 = 5000;
/// Between two looks at what the agent does.
const TICK: Duration = Duration::from_millis(250);

/// How long a client is asked to wait at most.
pub const LIMIT: Duration = Duration::from_millis(LIMIT_MS + 1000);

/// Everything that is asked of the agent, and moves of zones on the host.
pub struct Orders {
    agent: Box<dyn Agent>,
    held: Held,
    zone_maxes: Maxes,
    host_limit: HostLimit,
    jobs: BTreeMap<u64, Job>,
    last_ticket: u64,
}

enum Job {
    Trim(Trim),
    Change(Change),
    ZoneMax(ZoneMax),
    Move { id: u32, until_ms: u64 },
    Node { zone: String, node: u32 },
    Over { answer: Response, since_ms: u64 },
}

impl Orders {
    /// Orders for `agent`, of a microVM with these limits. `host_limit` is called when max has changed.
    #[must_use]
    pub fn new(agent: Box<dyn Agent>, held: Held, host_limit: HostLimit) -> Self {
        // The ticket 0 is that of statistics.
        let (zone_maxes, jobs) = (Maxes::new(), BTreeMap::new());
        Self { agent, held, zone_maxes, host_limit, jobs, last_ticket: STATISTICS }
    }

    /// Those of a microVM of this size that has no agent.
    #[must_use]
    pub fn without_agent(size_bytes: u64) -> Self {
        Self::new(Box::new(Nobody), Held::new(Limits::default(), size_bytes), Box::new(|_| Ok(())))
    }

    /// How far apart [`Self::advance`] is to be called; without it, nothing is under way for which time counts.
    #[must_use]
    pub fn pace(&self) -> Option<Duration> {
        let moves = self.jobs.values().any(|job| matches!(job, Job::Node { .. }));
        if moves { Some(TURN) } else { (!self.jobs.is_empty()).then_some(TICK) }
    }

    /// The answer of a ticket, once and if it is known.
    pub fn take(&mut self, ticket: u64) -> Option<Response> {
        if !matches!(self.jobs.get(&ticket)?, Job::Over { .. }) {
            return None;
        }
        match self.jobs.remove(&ticket)? {
            Job::Over { answer, .. } => Some(answer),
            _ => None,
        }
    }

    /// What a client hears that has waited for [`LIMIT`].
    #[must_use]
    pub fn give_up(&self, ticket: u64) -> Response {
        let message = match self.jobs.get(&ticket) {
            Some(Job::Node { zone, node }) => format!(
                "zone {zone} is still on its way to node {node} and goes on; `ballast zones` shows where its memory comes \
                 from"
            ),
            // Each request to the agent has limits of its own within this one.
            _ => "the guest's agent did not answer in time".into(),
        };
        error(Status::GuestTimeout, message)
    }

    /// Goes on with everything.
    pub fn advance(&mut self, now_ms: u64, memory: &mut dyn Memory) {
        let Self { agent, held, zone_maxes, host_limit, jobs, .. } = self;
        for job in jobs.values_mut() {
            let answer = match job {
                Job::Trim(trim) => trim.step(now_ms, reading(memory, trim.zone(), now_ms), &mut **agent),
                Job::Change(change) => {
                    let mut outside = Outside { agent: &mut **agent, memory, host_limit };
                    change.step(now_ms, held, &mut outside)
                }
                Job::ZoneMax(change) => change.step(now_ms, zone_maxes, &mut **agent),
                Job::Move { id, until_ms } => moved(*id, now_ms, *until_ms, &mut **agent),
                Job::Node { zone, node } => placed(zone, *node, memory),
                Job::Over { .. } => None,
            };
            if let Some(answer) = answer {
                *job = Job::Over { answer, since_ms: now_ms };
            }
        }
        jobs.retain(
            |_, job| !matches!(job, Job::Over { since_ms, .. } if now_ms.saturating_sub(*since_ms) > KEPT_MS),
        );
    }

    fn begin(&mut self, job: Job) -> Answer {
        self.last_ticket = self.last_ticket.saturating_add(1);
        self.jobs.insert(self.last_ticket, job);
        Answer::Later(self.last_ticket)
    }

    fn is_full(&self) -> Option<Answer> {
        let full = self.jobs.len() >= MOST;
        full.then(|| {
            refuse(
                Status::Unavailable,
                format!("{MOST} requests to the guest's agent are under way: try again"),
            )
        })
    }

    /// The limits in force.
    #[must_use]
    pub fn limits_in_force(&self) -> Limits {
        self.held.limits()
    }

    /// Guest memory that may be used.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.held.max_bytes().get()
    }

    /// What the workload may use of the zone of this number; none is all of it.
    #[must_use]
    pub fn zone_max(&self, zone: u8) -> Option<u64> {
        self.zone_maxes.get(&zone).copied()
    }

    /// `POST /v1/zones/max`.
    pub fn set_zone_max(&mut self, request: &Request, memory: &mut dyn Memory, now_ms: u64) -> Answer {
        let ZoneMaxRequest { zone, max_bytes } =
            match parse(&request.body, r#"send {"zone": NAME, "max_bytes": N}"#) {
                Ok(wanted) => wanted,
                Err(answer) => return answer,
            };
        if let Some(answer) = self.is_full() {
            return answer;
        }
        let zone = match find(memory, zone) {
            Ok(zone) => zone,
            Err(answer) => return answer,
        };
        if self.jobs.values().any(|job| matches!(job, Job::ZoneMax(other) if other.zone() == zone.0)) {
            return refuse(Status::Conflict, "the limit is being changed: try again");
        }
        let until_ms = now_ms.saturating_add(AGENT_MS);
        match ZoneMax::begin(zone, max_bytes, &memory.zones().zones, &mut *self.agent, until_ms) {
            Ok(change) => self.begin(Job::ZoneMax(change)),
            Err(answer) => Answer::Now(answer),
        }
    }

    /// `GET /v1/limits`.
    #[must_use]
    pub fn limits(&self) -> Answer {
        Answer::Now(self.held.answer())
    }

    /// `PUT /v1/limits`.
    pub fn set_limits(&mut self, request: &Request, memory: &mut dyn Memory, now_ms: u64) -> Answer {
        const USAGE: &str =
            r#"send {"min_bytes": N, "low_bytes": N, "high_bytes": N, "max_bytes": N, "weight": N}"#;
        let wanted: LimitsRequest = match parse(&request.body, USAGE) {
            Ok(wanted) => wanted,
            Err(answer) => return answer,
        };
        if self.jobs.values().any(|job| matches!(job, Job::Change(_))) {
            return refuse(Status::Conflict, "the limits are being changed: try again");
        }
        if let Some(answer) = self.is_full() {
            return answer;
        }
        let tag = request.options.if_match.as_deref();
        let limits = match self.held.check(wanted, tag, memory.guest_floor_bytes()) {
            Ok(limits) => limits,
            Err(answer) => return Answer::Now(answer),
        };
        let Self { agent, held, host_limit, .. } = self;
        let mut outside = Outside { agent: &mut **agent, memory, host_limit };
        let begun = held.begin(limits, &mut outside, now_ms.saturating_add(AGENT_MS));
        match begun {
            Ok(change) => self.begin(Job::Change(change)),
            Err(answer) => Answer::Now(answer),
        }
    }

    /// `POST /v1/trim`.
    pub fn trim(&mut self, request: &Request, memory: &mut dyn Memory, now_ms: u64) -> Answer {
        const USAGE: &str =
            r#"send {"zone": NAME, "bytes": N} or {"zone": NAME, "to_bytes": N}, or less of it"#;
        let TrimRequest { zone, bytes, to_bytes } = match parse(&request.body, USAGE) {
            Ok(wanted) => wanted,
            Err(answer) => return answer,
        };
        let wanted = match (bytes, to_bytes) {
            (None, None) => Wanted::Everything,
            (Some(bytes), None) => Wanted::Bytes(bytes),
            (None, Some(bytes)) => Wanted::To(bytes),
            (Some(_), Some(_)) => return refuse(Status::BadRequest, USAGE),
        };
        if let Some(answer) = self.is_full() {
            return answer;
        }
        let zone = match zone.map(|name| find(memory, name)).transpose() {
            Ok(zone) => zone,
            Err(answer) => return answer,
        };
        let mut trim = Trim::new(zone, wanted, now_ms);
        // Who can know at once that it is impossible is told so at once.
        match trim.step(now_ms, reading(memory, trim.zone(), now_ms), &mut *self.agent) {
            Some(answer) => Answer::Now(answer),
            None => self.begin(Job::Trim(trim)),
        }
    }

    /// `POST /v1/signal`.
    pub fn signal(&mut self, request: &Request) -> Answer {
        const USAGE: &str = r#"send {"signal": N}, a number from 1 to 64"#;
        let wanted: SignalRequest = match parse(&request.body, USAGE) {
            Ok(wanted) => wanted,
            Err(answer) => return answer,
        };
        if !(1..=64).contains(&wanted.signal) {
            return refuse(Status::BadRequest, USAGE);
        }
        match self.agent.signal(wanted.signal) {
            Ok(()) => Answer::Now(Response::json(Status::Ok, &wanted)),
            Err(why) => refuse(Status::Conflict, why.to_string()),
        }
    }

    /// Begins a command beside the workload; the refusal is an answer.
    ///
    /// # Errors
    /// The agent takes none now.
    pub fn begin_command(&mut self, spec: Piece) -> Result<Box<dyn Stream>, Response> {
        self.agent.begin(spec).map_err(|why| match why {
            OrderError::NotRunning => error(Status::Conflict, why.to_string()),
            OrderError::Busy => error(
                Status::Unavailable,
                format!(
                    "{MAX_COMMANDS} commands run already, or the agent is busy: try again when one has ended"
                ),
            ),
        })
    }

    /// `POST /v1/move`.
    pub fn move_process(&mut self, request: &Request, memory: &mut dyn Memory, now_ms: u64) -> Answer {
        let MoveRequest { pid, zone } = match parse(&request.body, r#"send {"pid": N, "zone": NAME}"#) {
            Ok(wanted) => wanted,
            Err(answer) => return answer,
        };
        if let Some(answer) = self.is_full() {
            return answer;
        }
        let (zone, _) = match find(memory, zone) {
            Ok(zone) => zone,
            Err(answer) => return answer,
        };
        match self.agent.order(Order::Move { pid, zone }) {
            Ok(id) => self.begin(Job::Move { id, until_ms: now_ms.saturating_add(AGENT_MS) }),
            Err(why) => refuse(Status::Conflict, why.to_string()),
        }
    }

    /// `POST /v1/zones/node`.
    pub fn set_node(&mut self, request: &Request, memory: &mut dyn Memory) -> Answer {
        let NodeRequest { zone, node } = match parse(&request.body, r#"send {"zone": NAME, "node": N}"#) {
            Ok(wanted) => wanted,
            Err(answer) => return answer,
        };
        if let Some(answer) = self.is_full() {
            return answer;
        }
        let (number, zone) = match find(memory, zone) {
            Ok(zone) => zone,
            Err(answer) => return answer,
        };
        match (memory.set_node(number.into(), node), node) {
            (Ok(()), Some(node)) => self.begin(Job::Node { zone, node }),
            (Ok(()), None) => {
                Answer::Now(Response::json(Status::Ok, &NodeDocument { zone, ..NodeDocument::default() }))
            }
            (Err(why @ NodeError::Busy), _) => refuse(Status::Conflict, why.to_string()),
            (Err(why @ NodeError::Host(_)), _) => refuse(Status::Unprocessable, why.to_string()),
        }
    }
}

/// How a zone's move to a node ends, once it does.
fn placed(zone: &mut String, node: u32, memory: &mut dyn Memory) -> Option<Response> {
    Some(match memory.move_on()? {
        Ok(placed) => Response::json(
            Status::Ok,
            &NodeDocument {
                zone: std::mem::take(zone),
                node: Some(node),
                moved_bytes: placed.moved,
                there_bytes: placed.there,
                elsewhere_bytes: placed.elsewhere,
            },
        ),
        Err(fault) => {
            let message = format!(
                "the host moved a part only ({fault}); what the zone takes from now on comes from node {node}"
            );
            error(Status::Internal, message)
        }
    })
}

fn moved(id: u32, now_ms: u64, until_ms: u64, agent: &mut dyn Agent) -> Option<Response> {
    match agent.answer(id) {
        Some(Done::Moved { there_bytes, elsewhere_bytes }) => {
            Some(Response::json(Status::Ok, &MoveDocument { there_bytes, elsewhere_bytes }))
        }
        Some(Done::Refused(why)) => Some(error(Status::Conflict, why.to_string())),
        // The link lets no answer of another kind pass.
        Some(_) => Some(error(Status::Internal, "the agent's answer is none")),
        None if now_ms < until_ms => None,
        None => {
            agent.forget(id);
            Some(error(Status::GuestTimeout, "the guest's agent did not answer in time"))
        }
    }
}

/// The last reading of what the host holds of a zone, or of everything.
fn reading(memory: &mut dyn Memory, zone: Option<u8>, now_ms: u64) -> Option<Reading> {
    let all = memory.snapshot();
    let bytes = match zone {
        None => all.resident_bytes,
        Some(number) => memory.zones().zones.get(usize::from(number))?.resident_bytes,
    };
    Some(Reading { bytes: bytes?, at_ms: now_ms.saturating_sub(all.resident_age_ms?) })
}

/// Number and name of a zone.
pub(super) fn find(memory: &mut dyn Memory, name: String) -> Result<(u8, String), Answer> {
    let zones = memory.zones().zones;
    let number = zones.iter().position(|zone| zone.name == name);
    match number.and_then(|number| u8::try_from(number).ok()) {
        Some(number) => Ok((number, name)),
        None => {
            let name: String = name.chars().take(64).collect();
            let names: Vec<&str> = zones.iter().map(|zone| zone.name.as_str()).collect();
            let message = format!("this microVM has no zone '{name}'; it has {}", names.join(", "));
            Err(refuse(Status::Unprocessable, message))
        }
    }
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(body: &[u8], usage: &str) -> Result<T, Answer> {
    parse_document(body).map_err(|fault| {
        // A fault may quote the client; it need not hear all of it.
        let fault: String = fault.to_string().chars().take(200).collect();
        refuse(Status::BadRequest, format!("{usage}: {fault}"))
    })
}

fn refuse(status: Status, message: impl Into<String>) -> Answer {
    Answer::Now(error(status, message))
}

//! The VMM's end of the agent link: a pure state machine over bytes.
//!
//! ```text
//! Silent --Hello--> Preparing --WorkloadPrepared--> Starting --Started--> Running --Exited--> Over
//!                       \------------Failed-------------\-------Failed-------\---> Over
//! ```
//!
//! The agent is the guest and may lie, stall or flood: a message out of order is counted and skipped, and what
//! is buffered is bounded by one frame and the spec. [`crate::streams`] carries bytes and acts on [`Event`]s.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

mod commands;

use crate::commands::Commands;
use proto::{
    Capabilities, Decoder, Done, ExitStatus, FailureKind, MAX_ORDERS, Message, Milestone, Order,
    OutputStream, Sample, ToGuest, ToHost, WindowSize,
};
use std::collections::{BTreeMap, VecDeque};

/// Where the guest's agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It has said nothing yet.
    Silent,
    /// It said hello and prepares the workload.
    Preparing,
    /// It starts the workload, which may run before the agent can say so.
    Starting,
    /// The workload runs.
    Running,
    /// It said its last word.
    Over,
}

/// What the agent said that the VMM acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something for the user.
    Notice(String),
    /// A point on the way to the workload: name and the guest's clock.
    Milestone(&'static str, u64),
    /// The workload runs.
    Started,
    /// The workload could not be started.
    Failed(FailureKind, String),
    /// The agent can no longer look after the workload that it had started.
    Lost(String),
    /// The workload ended, having written these many bytes.
    Exited {
        /// How.
        status: ExitStatus,
        /// Whether the guest ran out of memory.
        oom_killed: bool,
        /// Bytes of standard output.
        stdout_bytes: u64,
        /// Bytes of standard error.
        stderr_bytes: u64,
    },
    /// An order that somebody waits for is answered: [`Link::answer`] has it.
    Answered,
    /// The agent told of the guest's memory: [`Link::take_capabilities`] or [`Link::take_sample`] has it.
    Sampled,
    /// The stream is beyond repair: the agent does not speak this protocol.
    Broken(String),
}

/// Notices a guest may send: more than any set-up has, fewer than a terminal full.
const MAX_NOTICES: u32 = 64;
/// Samples that nobody has taken yet. The event loop takes them in the pass in which they came, so that only a guest that
/// floods has more; of those the newest count.
const MAX_SAMPLES: usize = 8;
/// Messages for the guest that may wait; beyond it resizes and signals are dropped, as nobody reads them.
const MAX_OUTGOING: usize = 1 << 20;

/// Why there will be no answer to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No workload, or none yet.
    #[error(
        "the guest has not started its workload yet, or its workload has ended: its agent takes no orders"
    )]
    NotRunning,
    /// It has not answered so many.
    #[error("the guest's agent has {MAX_ORDERS} orders to carry out: try again later")]
    Busy,
}

/// An order that the agent has not answered, or whose answer nobody has taken.
#[derive(Debug)]
struct Outstanding {
    order: Order,
    answer: Option<Done>,
    /// Nobody waits for it any longer.
    forgotten: bool,
}

/// The link.
#[derive(Debug)]
pub struct Link {
    state: State,
    decoder: Decoder<ToHost>,
    outgoing: VecDeque<u8>,
    spec_bytes: usize,
    notices: u32,
    /// The latest.
    milestone: Option<Milestone>,
    /// By their numbers, at most [`MAX_ORDERS`]: an agent that answers none gets no more.
    orders: BTreeMap<u32, Outstanding>,
    last_order: u32,
    boot_id: [u8; 16],
    capabilities: Option<Capabilities>,
    samples: VecDeque<Box<Sample>>,
    commands: Commands,
    /// A client of a command waits for room.
    crowded: bool,
    misuse: u64,
    broken: bool,
}

impl Link {
    /// A link that will hand `spec`, an encoded [`proto::Spec`], to the agent.
    #[must_use]
    pub fn new(spec: &[u8]) -> Self {
        let mut greeting = Vec::new();
        ToGuest::Hello { version: proto::VERSION }.encode(&mut greeting);
        proto::encode_chunks(spec, &mut greeting);
        Self {
            state: State::Silent,
            decoder: Decoder::new(),
            spec_bytes: greeting.len(),
            outgoing: greeting.into(),
            notices: 0,
            milestone: None,
            orders: BTreeMap::new(),
            last_order: 0,
            boot_id: [0; 16],
            capabilities: None,
            samples: VecDeque::new(),
            commands: Commands::default(),
            crowded: false,
            misuse: 0,
            broken: false,
        }
    }

    /// Where the agent stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Messages out of order or without sense.
    #[must_use]
    pub fn misuse(&self) -> u64 {
        self.misuse.saturating_add(self.decoder.unknown())
    }

    /// Takes bytes of the agent and appends what they mean to `events`.
    pub fn receive(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) {
        while !self.broken {
            match self.decoder.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(message)) => self.take(message, events),
                Err(error) if error.is_fatal() => {
                    self.broken = true;
                    events.push(Event::Broken(error.to_string()));
                }
                Err(_) => self.misuse = self.misuse.saturating_add(1),
            }
        }
    }

    fn take(&mut self, message: ToHost, events: &mut Vec<Event>) {
        let expected = match (&message, self.state) {
            (_, State::Over) => false,
            (ToHost::Hello { .. }, state) => state == State::Silent,
            (_, State::Silent) => false,
            (ToHost::Started { .. }, state) => {
                matches!(state, State::Preparing | State::Starting)
            }
            // Each once and in order, or a guest could make the host keep any number of them.
            (ToHost::Milestone { milestone, .. }, _) => self.milestone < Some(*milestone),
            (ToHost::Exited { .. } | ToHost::Capabilities(_) | ToHost::Sample(_), state) => {
                state == State::Running
            }
            (ToHost::Done { id, done }, _) => self.expects(*id, done),
            (ToHost::Command { id, message }, _) => self.commands.from_guest(*id, message),
            (ToHost::Failed { .. } | ToHost::Notice(_) | ToHost::InputGone, _) => true,
        };
        if !expected {
            self.misuse = self.misuse.saturating_add(1);
            if matches!(message, ToHost::Command { .. }) && self.state == State::Running {
                // Its client is to hear that it has ended.
                tell(events, Event::Answered);
            }
            return;
        }
        match message {
            ToHost::Hello { version, .. } if version != proto::VERSION => {
                self.broken = true;
                let text =
                    format!("it speaks version {version} of the protocol, this VMM {}", proto::VERSION);
                events.push(Event::Broken(text));
            }
            ToHost::Hello { boot_id, .. } => {
                self.boot_id = boot_id;
                self.state = State::Preparing;
            }
            ToHost::Started { .. } => {
                self.state = State::Running;
                events.push(Event::Started);
            }
            ToHost::Failed { kind, message } => {
                let message = message.to_string();
                events.push(match self.state {
                    State::Running => Event::Lost(message),
                    _ => Event::Failed(kind, message),
                });
                self.state = State::Over;
            }
            ToHost::Exited { status, oom_killed, stdout_bytes, stderr_bytes } => {
                self.state = State::Over;
                events.push(Event::Exited { status, oom_killed, stdout_bytes, stderr_bytes });
            }
            ToHost::Notice(text) => {
                self.notices = self.notices.saturating_add(1);
                if self.notices <= MAX_NOTICES {
                    events.push(Event::Notice(text.to_string()));
                }
            }
            ToHost::Milestone { milestone, monotonic_us } => {
                self.milestone = Some(milestone);
                if milestone == Milestone::WorkloadPrepared && self.state == State::Preparing {
                    self.state = State::Starting;
                }
                events.push(Event::Milestone(milestone.name(), monotonic_us));
            }
            ToHost::Capabilities(capabilities) => {
                self.capabilities = Some(capabilities);
                tell(events, Event::Sampled);
            }
            ToHost::Sample(sample) => {
                if self.samples.len() >= MAX_SAMPLES {
                    self.samples.pop_front();
                }
                self.samples.push_back(sample);
                tell(events, Event::Sampled);
            }
            // Input that nobody reads is taken from its writer all the same: a pipeline must not stall.
            ToHost::InputGone => {}
            ToHost::Command { .. } => tell(events, Event::Answered),
            ToHost::Done { id, done } => match self.orders.get_mut(&id) {
                Some(outstanding) if !outstanding.forgotten => {
                    outstanding.answer = Some(done);
                    tell(events, Event::Answered);
                }
                _ => drop(self.orders.remove(&id)),
            },
        }
    }

    /// Whether that is the first answer to an order that was given, and of its kind.
    fn expects(&self, id: u32, done: &Done) -> bool {
        self.orders.get(&id).is_some_and(|outstanding| {
            outstanding.answer.is_none()
                && matches!(
                    (outstanding.order, done),
                    (_, Done::Refused(_))
                        | (Order::Limit { .. }, Done::Limited { .. })
                        | (Order::Trim { .. }, Done::Trimmed(_))
                        | (Order::Move { .. }, Done::Moved { .. })
                        | (Order::Reclaim { .. }, Done::Reclaimed(_))
                        | (Order::Age, Done::Aged { .. })
                        | (Order::Reporting { .. }, Done::Reporting { .. })
                )
        })
    }

    /// Gives the agent an order; its number asks for the answer.
    ///
    /// # Errors
    /// The agent takes none now.
    pub fn order(&mut self, order: Order) -> Result<u32, OrderError> {
        if self.state != State::Running {
            return Err(OrderError::NotRunning);
        }
        if self.orders.len() >= MAX_ORDERS || self.is_full() {
            return Err(OrderError::Busy);
        }
        // Those that are outstanding are fewer than the numbers.
        let id = self.last_order.wrapping_add(1);
        self.last_order = id;
        self.orders.insert(id, Outstanding { order, answer: None, forgotten: false });
        self.say(&ToGuest::Order { id, order });
        Ok(id)
    }

    /// The answer to an order, once and if it has come.
    pub fn answer(&mut self, id: u32) -> Option<Done> {
        let answer = self.orders.get_mut(&id)?.answer.take()?;
        self.orders.remove(&id);
        Some(answer)
    }

    /// Nobody waits for this answer any longer. The order stays the agent's, and may still be carried out.
    pub fn forget(&mut self, id: u32) {
        if let Some(outstanding) = self.orders.get_mut(&id) {
            outstanding.forgotten = true;
            if outstanding.answer.is_some() {
                self.orders.remove(&id);
            }
        }
    }

    /// What the guest's kernel can do, if the agent has told since the last call.
    pub fn take_capabilities(&mut self) -> Option<Capabilities> {
        self.capabilities.take()
    }

    /// The oldest sample that nobody has taken, and the guest's boot that it is of.
    pub fn take_sample(&mut self) -> Option<([u8; 16], Box<Sample>)> {
        self.samples.pop_front().map(|sample| (self.boot_id, sample))
    }

    /// How often the agent is to sample.
    pub fn pace(&mut self, sample_ms: u32) {
        if self.state == State::Running {
            self.say(&ToGuest::Pace { sample_ms });
        }
    }

    /// Bytes for the agent, in up to two pieces.
    #[must_use]
    pub fn outgoing(&self) -> (&[u8], &[u8]) {
        self.outgoing.as_slices()
    }

    /// The first `bytes` of [`Self::outgoing`] are on their way.
    pub fn sent(&mut self, bytes: usize) {
        self.outgoing.drain(..bytes.min(self.outgoing.len()));
    }

    /// The user's terminal has a new size.
    pub fn resize(&mut self, rows: u16, cols: u16) {
        self.say(&ToGuest::Resize(WindowSize { rows, cols }));
    }

    /// A signal for the workload.
    pub fn signal(&mut self, number: u8) {
        self.say(&ToGuest::Signal { number });
    }

    /// Standard input ended after `bytes`.
    pub fn input_end(&mut self, bytes: u64) {
        self.say(&ToGuest::InputEnd { bytes });
    }

    /// Nobody reads this stream any more.
    pub fn output_gone(&mut self, stream: OutputStream) {
        self.say(&ToGuest::OutputGone(stream));
    }

    fn is_full(&self) -> bool {
        self.outgoing.len() >= MAX_OUTGOING.saturating_add(self.spec_bytes)
    }

    fn say(&mut self, message: &ToGuest) {
        if !self.is_full() {
            let mut frame = Vec::new();
            message.encode(&mut frame);
            self.outgoing.extend(frame);
        }
    }
}

/// That something is there to be looked at is told once in a row: else a guest would decide how much is kept here.
fn tell(events: &mut Vec<Event>, event: Event) {
    if events.last() != Some(&event) {
        events.push(event);
    }
}

#[cfg(test)]
mod tests;

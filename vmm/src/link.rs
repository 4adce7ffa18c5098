//! The VMM's end of the agent link: a pure state machine over bytes.
//!
//! ```text
//! Silent --Hello--> Preparing --Started--> Running --Exited--> Over
//!                       \------Failed-------\--Failed----> Over
//! ```
//!
//! The agent is the guest and may lie, stall or flood: a message out of order is counted and skipped, and what
//! is buffered is bounded by one frame and the spec. [`crate::streams`] carries bytes and acts on [`Event`]s.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

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
    #[error("the guest's workload does not run: its agent takes no orders")]
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
            (ToHost::Started { .. }, state) => state == State::Preparing,
            // Each once and in order, or a guest could make the host keep any number of them.
            (ToHost::Milestone { milestone, .. }, _) => self.milestone < Some(*milestone),
            (ToHost::Exited { .. } | ToHost::Capabilities(_) | ToHost::Sample(_), state) => {
                state == State::Running
            }
            (ToHost::Done { id, done }, _) => self.expects(*id, done),
            (ToHost::Failed { .. } | ToHost::Notice(_) | ToHost::InputGone, _) => true,
        };
        if !expected {
            self.misuse = self.misuse.saturating_add(1);
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
                events.push(Event::Milestone(milestone.name(), monotonic_us));
            }
            ToHost::Capabilities(capabilities) => {
                self.capabilities = Some(capabilities);
                events.push(Event::Sampled);
            }
            ToHost::Sample(sample) => {
                if self.samples.len() >= MAX_SAMPLES {
                    self.samples.pop_front();
                }
                self.samples.push_back(sample);
                events.push(Event::Sampled);
            }
            // Input that nobody reads is taken from its writer all the same: a pipeline must not stall.
            ToHost::InputGone => {}
            ToHost::Done { id, done } => match self.orders.get_mut(&id) {
                Some(outstanding) if !outstanding.forgotten => {
                    outstanding.answer = Some(done);
                    events.push(Event::Answered);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::Text;

    fn encode(messages: &[ToHost]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            message.encode(&mut bytes);
        }
        bytes
    }

    fn hello(version: u32) -> ToHost {
        ToHost::Hello {
            version,
            boot_id: [0; 16],
            kernel_release: Text::new("6.1"),
            agent_version: Text::new("0"),
        }
    }

    fn exited() -> ToHost {
        ToHost::Exited { status: ExitStatus::Code(3), oom_killed: false, stdout_bytes: 1, stderr_bytes: 2 }
    }

    fn receive(link: &mut Link, messages: &[ToHost]) -> Vec<Event> {
        let mut events = Vec::new();
        link.receive(&encode(messages), &mut events);
        events
    }

    #[test]
    fn a_run_from_hello_to_exit() {
        let mut link = Link::new(b"spec");
        assert_eq!(receive(&mut link, &[hello(proto::VERSION)]), []);
        assert_eq!(link.state(), State::Preparing);
        assert_eq!(receive(&mut link, &[ToHost::Started { pid: 5 }]), [Event::Started]);
        let events = receive(&mut link, &[exited()]);
        assert_eq!(
            events,
            [Event::Exited {
                status: ExitStatus::Code(3),
                oom_killed: false,
                stdout_bytes: 1,
                stderr_bytes: 2
            }]
        );
        assert_eq!((link.state(), link.misuse()), (State::Over, 0));
    }

    #[test]
    fn words_out_of_order_are_counted_and_skipped() {
        let mut link = Link::new(b"");
        assert_eq!(receive(&mut link, &[exited(), ToHost::Started { pid: 1 }]), []);
        assert_eq!((link.state(), link.misuse()), (State::Silent, 2));
        receive(&mut link, &[hello(proto::VERSION), hello(proto::VERSION), exited()]);
        assert_eq!((link.state(), link.misuse()), (State::Preparing, 4));
        receive(&mut link, &[ToHost::Started { pid: 1 }, exited(), exited()]);
        assert_eq!((link.state(), link.misuse()), (State::Over, 5));
    }

    #[test]
    fn another_version_is_refused() {
        let mut link = Link::new(b"");
        let events = receive(&mut link, &[hello(proto::VERSION + 1), ToHost::Started { pid: 1 }]);
        assert!(matches!(events[..], [Event::Broken(_)]));
        assert_eq!(link.state(), State::Silent);
    }

    #[test]
    fn a_flood_of_notices_is_cut() {
        let mut link = Link::new(b"");
        receive(&mut link, &[hello(proto::VERSION)]);
        let flood: Vec<_> = (0..1000).map(|_| ToHost::Notice(Text::new("x"))).collect();
        assert_eq!(receive(&mut link, &flood).len(), MAX_NOTICES as usize);
    }

    #[test]
    fn milestones_come_once_and_in_order() {
        let mut link = Link::new(b"");
        let at = |milestone| ToHost::Milestone { milestone, monotonic_us: 1 };
        let said = [at(Milestone::SpecReceived), at(Milestone::SpecReceived), at(Milestone::InitStarted)];
        receive(&mut link, &[hello(proto::VERSION)]);
        assert_eq!(receive(&mut link, &said), [Event::Milestone(Milestone::SpecReceived.name(), 1)]);
        assert_eq!(link.misuse(), 2);
    }

    #[test]
    fn an_agent_may_fail_at_any_time_once() {
        let failed = || ToHost::Failed { kind: FailureKind::Setup, message: Text::new("why") };
        let mut link = Link::new(b"");
        receive(&mut link, &[hello(proto::VERSION)]);
        let mut running = Link::new(b"");
        receive(&mut running, &[hello(proto::VERSION), ToHost::Started { pid: 1 }]);
        assert_eq!(
            receive(&mut link, &[failed(), failed()]),
            [Event::Failed(FailureKind::Setup, "why".into())]
        );
        assert_eq!(receive(&mut running, &[failed()]), [Event::Lost("why".into())]);
    }

    #[test]
    fn samples_are_kept_for_whoever_takes_them_and_not_for_ever() {
        let sample = |sequence| ToHost::Sample(Box::new(Sample { sequence, ..Sample::default() }));
        let mut link = Link::new(b"");
        receive(&mut link, &[hello(proto::VERSION), sample(1)]);
        assert_eq!(link.misuse(), 1, "no workload runs");
        receive(&mut link, &[ToHost::Started { pid: 1 }, ToHost::Capabilities(Capabilities::default())]);
        assert_eq!(
            (link.take_capabilities(), link.take_capabilities()),
            (Some(Capabilities::default()), None)
        );
        let flood: Vec<_> = (1..=20).map(sample).collect();
        assert_eq!(receive(&mut link, &flood).len(), 20);
        let kept: Vec<_> =
            std::iter::from_fn(|| link.take_sample()).map(|(_, sample)| sample.sequence).collect();
        assert_eq!(kept, (13..=20).collect::<Vec<_>>());
    }

    const ORDER: Order = Order::Trim { zone: None, bytes: None };

    fn done(id: u32) -> ToHost {
        ToHost::Done { id, done: Done::Refused(Text::new(&id.to_string())) }
    }

    fn running() -> Link {
        let mut link = Link::new(b"");
        receive(&mut link, &[hello(proto::VERSION), ToHost::Started { pid: 1 }]);
        link
    }

    #[test]
    fn answers_are_matched_by_number_once() {
        let mut link = running();
        let (first, second) = (link.order(ORDER).unwrap(), link.order(ORDER).unwrap());
        assert_eq!(receive(&mut link, &[done(second), done(second)]), [Event::Answered]);
        assert_eq!((link.answer(first), link.misuse()), (None, 1));
        assert_eq!(link.answer(second), Some(Done::Refused(Text::new(&second.to_string()))));
        assert_eq!(link.answer(second), None);
        // Nobody's, of another kind, and of one that nobody waits for.
        let moved = Done::Moved { there_bytes: 1, elsewhere_bytes: 1 };
        assert_eq!(receive(&mut link, &[done(999), ToHost::Done { id: first, done: moved }]), []);
        assert_eq!(link.misuse(), 3);
        link.forget(first);
        assert_eq!(receive(&mut link, &[done(first)]), []);
        assert_eq!(link.misuse(), 3);
        assert_eq!(receive(&mut link, &[done(first)]), []);
        assert_eq!(link.misuse(), 4);
    }

    #[test]
    fn an_agent_that_does_not_answer_gets_no_more_orders() {
        let mut link = Link::new(b"");
        assert_eq!(link.order(ORDER), Err(OrderError::NotRunning));
        let mut link = running();
        for _ in 0..MAX_ORDERS {
            let id = link.order(ORDER).unwrap();
            link.forget(id);
        }
        assert_eq!(link.order(ORDER), Err(OrderError::Busy));
        receive(&mut link, &[done(1)]);
        assert!(link.order(ORDER).is_ok());
        receive(&mut link, &[exited()]);
        assert_eq!(link.order(ORDER), Err(OrderError::NotRunning));
    }

    #[test]
    fn what_nobody_reads_stays_bounded() {
        let mut link = Link::new(&[7; 100]);
        for _ in 0..1_000_000 {
            link.resize(1, 1);
        }
        assert!(link.outgoing.len() < MAX_OUTGOING + 1024);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_survived(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let mut link = Link::new(b"");
            let mut events = Vec::new();
            for piece in &pieces {
                link.receive(piece, &mut events);
            }
            prop_assert!(events.len() <= pieces.iter().map(Vec::len).sum());
        }
    }
}

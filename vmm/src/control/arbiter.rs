//! The microVM's end of its link to `ballastd`: what it is told, what it answers, and what holds without. Pure but for
//! the clock, which callers read.
//!
//! One link counts, the newest: a daemon that starts anew must not be kept out by one that hangs.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::memory::Memory;
use balloon::control::api::ArbiterDocument;
use balloon::control::link::{
    self, Decoder, End, Envelope, FromVm, Hello, Offer, Report, ToVm, Usage, ZoneUse,
};
use balloon::control::service::Stream;
use balloon::zone::Limits;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Reports that a daemon leaves unread, in bytes, before its link ends.
const UNREAD_BYTES: usize = 1 << 20;

/// What the arbiter has said, as all links see it.
#[derive(Debug)]
pub struct Arbiter {
    hello: Hello,
    offer: Offer,
    usage: Usage,
    /// Number of the newest link.
    newest: u64,
    lease: Option<Lease>,
    /// How the microVM has ended.
    end: Option<End>,
}

/// An envelope and until when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    envelope: Envelope,
    until: Instant,
}

/// One link.
pub struct Link {
    number: u64,
    arbiter: Rc<RefCell<Arbiter>>,
    memory: Rc<RefCell<Box<dyn Memory>>>,
    decoder: Decoder<ToVm>,
    output: Vec<u8>,
    ended: bool,
}

impl Arbiter {
    /// No link yet. `hello` is how the microVM introduces itself on each.
    #[must_use]
    pub fn new(hello: Hello) -> Self {
        let (offer, usage) = (Offer::default(), Usage::default());
        Self { hello, offer, usage, newest: 0, lease: None, end: None }
    }

    /// The microVM's limits are these now.
    pub fn set_limits(&mut self, limits: Limits) {
        self.hello.limits = limits;
    }

    /// The microVM can give back so much, and does so; what its balloon holds is asked for with each report.
    pub fn set_offer(&mut self, offer: Offer, usage: Usage) {
        (self.offer, self.usage) = (offer, usage);
    }

    /// The microVM has ended: the newest link says so when it is served next, and nothing more.
    pub fn set_end(&mut self, end: End) {
        self.end = Some(end);
    }

    /// What is shown of the lease at `now`; nothing if none holds.
    #[must_use]
    pub fn document(&self, now: Instant) -> Option<ArbiterDocument> {
        let lease = self.lease.as_ref().filter(|lease| now < lease.until)?;
        let left = lease.until.saturating_duration_since(now);
        Some(ArbiterDocument {
            envelope: lease.envelope.clone(),
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Takes an envelope that came at `now`.
    fn take(&mut self, envelope: Envelope, now: Instant) {
        self.hello.group.clone_from(&envelope.group);
        let lease = Duration::from_millis(envelope.lease_ms).min(link::LEASE);
        self.lease = now.checked_add(lease).map(|until| Lease { envelope, until });
    }
}

impl Link {
    /// A new link, which takes the place of those before.
    #[must_use]
    pub fn open(arbiter: &Rc<RefCell<Arbiter>>, memory: &Rc<RefCell<Box<dyn Memory>>>) -> Self {
        let mut output = Vec::new();
        let mut state = arbiter.borrow_mut();
        state.newest = state.newest.saturating_add(1);
        link::encode(&FromVm::Hello(state.hello.clone()), &mut output);
        Self {
            number: state.newest,
            arbiter: Rc::clone(arbiter),
            memory: Rc::clone(memory),
            decoder: Decoder::default(),
            output,
            ended: false,
        }
    }

    fn report(&self, sequence: u64) -> Report {
        let mut memory = self.memory.borrow_mut();
        let snapshot = memory.snapshot();
        let zones = memory.zones().zones.into_iter();
        let arbiter = self.arbiter.borrow();
        Report {
            sequence,
            ceiling_bytes: snapshot.ceiling.bytes,
            manual: !snapshot.ceiling.auto,
            floor_bytes: snapshot.floor_bytes,
            limits: arbiter.hello.limits,
            offer: Offer { pages_out: true, ..arbiter.offer },
            usage: Usage {
                ballooned_bytes: snapshot.ballooned_bytes,
                reported_bytes: snapshot.reported_bytes,
                ..arbiter.usage
            },
            zones: zones
                .map(|zone| ZoneUse { name: zone.name, resident_bytes: zone.resident_bytes })
                .collect(),
        }
    }
}

impl Stream for Link {
    fn room(&self) -> usize {
        if self.ended { 0 } else { self.decoder.room() }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.decoder.receive(bytes);
        loop {
            match self.decoder.take() {
                Ok(None) => break,
                Ok(Some(ToVm::Envelope(envelope))) => {
                    let sequence = envelope.sequence;
                    if envelope.page_out_bytes > 0 {
                        self.memory.borrow_mut().page_out(envelope.page_out_bytes);
                    }
                    self.arbiter.borrow_mut().take(envelope, Instant::now());
                    let report = FromVm::Report(self.report(sequence));
                    link::encode(&report, &mut self.output);
                }
                Err(error) => {
                    log::warn!("the link to ballastd ends: {error}");
                    self.ended = true;
                    break;
                }
            }
        }
        self.ended |= self.output.len() > UNREAD_BYTES;
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn advance(&mut self) {
        let mut arbiter = self.arbiter.borrow_mut();
        if !self.ended
            && self.number == arbiter.newest
            && let Some(end) = arbiter.end.take()
        {
            link::encode(&FromVm::End(end), &mut self.output);
        }
    }

    fn outgoing(&self) -> &[u8] {
        if self.ended { &[] } else { &self.output }
    }

    fn sent(&mut self, bytes: usize) {
        self.output.drain(..bytes.min(self.output.len()));
    }

    fn is_over(&self) -> bool {
        self.ended || self.number != self.arbiter.borrow().newest
    }
}

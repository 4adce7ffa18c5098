//! The microVM's own limits: what they are, what may become of them, and how a change is made whole or not at all.
//! Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::agent::Agent;
use super::memory::Memory;
use balloon::control::api::ErrorDocument;
use balloon::control::http::{Response, Status};
use balloon::control::orders::{LimitsDocument, LimitsRequest};
use balloon::control::service::error;
use balloon::size::Size;
use balloon::zone::Limits;
use proto::{Done, Order};
use std::cell::Cell;
use std::io;
use std::rc::Rc;

/// What sets the host's limit of the whole microVM to that of its guest, and to what else it needs.
pub type HostLimit = Box<dyn FnMut(u64) -> io::Result<()>>;

/// Limits in force.
pub struct Held {
    limits: Limits,
    generation: u64,
    size_bytes: u64,
    /// Guest memory that may be used, for whoever explains that it ran out.
    max_bytes: Rc<Cell<u64>>,
}

impl Held {
    /// `limits` of a microVM of this size, since its start.
    #[must_use]
    pub fn new(limits: Limits, size_bytes: u64) -> Self {
        let max_bytes = limits.max.map_or(size_bytes, |max| max.min(size_bytes));
        Self { limits, generation: 1, size_bytes, max_bytes: Rc::new(Cell::new(max_bytes)) }
    }

    /// The limits themselves.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Guest memory that may be used, also after changes.
    #[must_use]
    pub fn max_bytes(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.max_bytes)
    }

    /// What there is to say of them.
    #[must_use]
    pub fn answer(&self) -> Response {
        let Limits { min, low, high, max: _, weight } = self.limits;
        let document = LimitsDocument {
            generation: self.generation,
            min_bytes: min,
            low_bytes: low,
            high_bytes: high,
            max_bytes: self.max_bytes.get(),
            weight,
        };
        Response::json(Status::Ok, &document).with("ETag", self.tag())
    }

    fn tag(&self) -> String {
        format!("\"{}\"", self.generation)
    }

    /// What they are to become, if they may: of a guest that needs `floor_bytes`. What it is promised until now is no
    /// bound of what is to be.
    ///
    /// # Errors
    /// The client has seen others, or they are no limits of this microVM.
    pub fn check(
        &self,
        request: LimitsRequest,
        if_match: Option<&str>,
        floor_bytes: u64,
    ) -> Result<Limits, Response> {
        if if_match.is_some_and(|tag| tag != "*" && tag != self.tag()) {
            let message = format!(
                "the limits have changed since they were read: they are of generation {} now; read them again",
                self.generation
            );
            return Err(error(Status::PreconditionFailed, message));
        }
        let limits = Limits { max: Some(request.max_bytes.unwrap_or(self.size_bytes)), ..request.into() };
        limits.check("this microVM").map_err(|why| error(Status::Unprocessable, why.to_string()))?;
        // What is in force stays possible, should the floor have risen above it since.
        let in_force = [self.limits.high, Some(self.max_bytes.get())];
        for (name, bytes) in [("high", limits.high), ("max", limits.max)] {
            let range = floor_bytes..=self.size_bytes;
            if !in_force.contains(&bytes) && bytes.is_some_and(|bytes| !range.contains(&bytes)) {
                return Err(out_of_range(name, bytes.unwrap_or_default(), floor_bytes, self.size_bytes));
            }
        }
        Ok(limits)
    }

    fn commit(&mut self, limits: Limits) -> Response {
        self.limits = limits;
        self.generation = self.generation.saturating_add(1);
        self.max_bytes.set(limits.max.unwrap_or(self.size_bytes));
        self.answer()
    }

    /// What the agent is told so that the guest uses at most `max_bytes`.
    fn order(&self, max_bytes: u64) -> Order {
        Order::Limit { zone: None, max_bytes: (max_bytes < self.size_bytes).then_some(max_bytes) }
    }

    /// Begins to make `limits` those in force: at once where max stays, else once the agent has followed.
    ///
    /// # Errors
    /// The answer, where it is known: they are in force already, or nothing is begun and why.
    pub fn begin(
        &mut self,
        limits: Limits,
        outside: &mut Outside<'_>,
        until_ms: u64,
    ) -> Result<Change, Response> {
        let (before, max) = (self.max_bytes.get(), limits.max.unwrap_or(self.size_bytes));
        if max == before {
            return Err(self.commit(limits));
        }
        let raises = max > before;
        if raises {
            outside.move_max(before, max)?;
        }
        match outside.agent.order(self.order(max)) {
            Ok(id) => Ok(Change { limits, max_bytes: max, raises, id, until_ms }),
            Err(why) => {
                if raises {
                    outside.put_back(before);
                }
                Err(error(Status::Conflict, why.to_string()))
            }
        }
    }
}

/// All that a max is made of.
pub struct Outside<'a> {
    /// Sets `memory.max` of the workload's control group.
    pub agent: &'a mut dyn Agent,
    /// Sets the highest ceiling.
    pub memory: &'a mut dyn Memory,
    /// Sets the host's limit.
    pub host_limit: &'a mut HostLimit,
}

impl Outside<'_> {
    /// Moves the limits that are the host's.
    fn move_max(&mut self, from: u64, to: u64) -> Result<(), Response> {
        const KEPT: &str = "the limits stay as they were";
        if let Err(why) = self.memory.set_max(to) {
            return Err(error(Status::Conflict, format!("{KEPT}: {why}")));
        }
        if let Err(why) = (self.host_limit)(to) {
            if let Err(why) = self.memory.set_max(from) {
                log::error!("cannot put the highest ceiling back to {from} bytes: {why}");
            }
            return Err(error(
                Status::Internal,
                format!("{KEPT}: the host refuses to limit the microVM: {why}"),
            ));
        }
        Ok(())
    }

    /// Each by itself: that one cannot be put back is no reason to leave the other.
    fn put_back(&mut self, to: u64) {
        if let Err(why) = self.memory.set_max(to) {
            log::error!("cannot put the highest ceiling back to {to} bytes: {why}");
        }
        if let Err(why) = (self.host_limit)(to) {
            log::error!("cannot put the host's limit back to one for a guest of {to} bytes: {why}");
        }
    }
}

fn out_of_range(name: &str, bytes: u64, floor_bytes: u64, size_bytes: u64) -> Response {
    let size = |bytes| Size::from_bytes(bytes);
    let mut document = ErrorDocument::new(format!(
        "{} cannot be this microVM's {name}: it takes {} to {}",
        size(bytes),
        size(floor_bytes),
        size(size_bytes)
    ));
    document.error.floor_bytes = Some(floor_bytes);
    document.error.max_bytes = Some(size_bytes);
    Response::json(Status::Unprocessable, &document)
}

/// A change of max under way: raised from the outside in, lowered from the inside out. So the agent comes last or
/// first, which alone may find that the workload cannot do with so little, and nobody is limited by what others do not
/// keep yet. What fails is taken back, and that raises whoever it could be refused by.
#[derive(Debug)]
pub struct Change {
    limits: Limits,
    max_bytes: u64,
    raises: bool,
    id: u32,
    until_ms: u64,
}

impl Change {
    /// The answer, when it is known.
    pub fn step(&self, now_ms: u64, held: &mut Held, outside: &mut Outside<'_>) -> Option<Response> {
        let before = held.max_bytes.get();
        let refused = match outside.agent.answer(self.id) {
            Some(Done::Refused(why)) => {
                Some(error(Status::Conflict, format!("the limits stay as they were: {why}")))
            }
            Some(_) if self.raises => None,
            Some(_) => {
                let refused = outside.move_max(before, self.max_bytes).err();
                if refused.is_some() {
                    outside.agent.take_back(held.order(before));
                }
                return Some(refused.unwrap_or_else(|| held.commit(self.limits)));
            }
            None if now_ms < self.until_ms => return None,
            None => {
                outside.agent.forget(self.id);
                outside.agent.take_back(held.order(before));
                let message = "the guest's agent did not answer: the limits stay as they were";
                Some(error(Status::GuestTimeout, message))
            }
        };
        if refused.is_some() && self.raises {
            outside.put_back(before);
        }
        Some(refused.unwrap_or_else(|| held.commit(self.limits)))
    }
}

//! What the workload may use of a single zone: limits that the guest's agent keeps, on the zone's control group. They are
//! no bound of what a hostile guest holds; that are those of the microVM. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::agent::Agent;
use balloon::control::api::ZoneDocument;
use balloon::control::http::{Response, Status};
use balloon::control::orders::ZoneMaxDocument;
use balloon::control::service::error;
use balloon::size::Size;
use proto::{Done, Order};
use std::collections::BTreeMap;

/// The limits in force, by the zones' numbers.
pub type Maxes = BTreeMap<u8, u64>;

/// A change under way. The agent makes room first, and refuses if it cannot: then nothing changed.
#[derive(Debug)]
pub struct ZoneMax {
    zone: u8,
    name: String,
    max_bytes: Option<u64>,
    id: u32,
    until_ms: u64,
}

impl ZoneMax {
    /// Begins to limit the zone of this number and name, one of `zones`, until `until_ms` at the latest.
    ///
    /// # Errors
    /// The answer, where it is known at once: there is no other zone, it is smaller than that, or there is no agent.
    pub fn begin(
        (zone, name): (u8, String),
        max_bytes: Option<u64>,
        zones: &[ZoneDocument],
        agent: &mut dyn Agent,
        until_ms: u64,
    ) -> Result<Self, Response> {
        let [_, _, ..] = zones else {
            let message = format!("{name} is this microVM's only zone: limit the microVM");
            return Err(error(Status::Unprocessable, message));
        };
        let size_bytes = zones.get(usize::from(zone)).map_or(0, |zone| zone.size_bytes);
        if let Some(max) = max_bytes.filter(|max| *max > size_bytes) {
            let [max, size] = [max, size_bytes].map(Size::from_bytes);
            let message = format!("{max} cannot be a limit of zone {name}: it has {size}");
            return Err(error(Status::Unprocessable, message));
        }
        let id = agent
            .order(Order::Limit { zone: Some(zone), max_bytes })
            .map_err(|why| error(Status::Conflict, why.to_string()))?;
        Ok(Self { zone, name, max_bytes, id, until_ms })
    }

    /// The zone's number.
    #[must_use]
    pub fn zone(&self) -> u8 {
        self.zone
    }

    /// The answer, when it is known. `maxes` are those in force.
    pub fn step(&self, now_ms: u64, maxes: &mut Maxes, agent: &mut dyn Agent) -> Option<Response> {
        match agent.answer(self.id) {
            Some(Done::Limited { current_bytes, .. }) => {
                match self.max_bytes {
                    Some(max) => maxes.insert(self.zone, max),
                    None => maxes.remove(&self.zone),
                };
                let (zone, max_bytes) = (self.name.clone(), self.max_bytes);
                Some(Response::json(Status::Ok, &ZoneMaxDocument { zone, max_bytes, current_bytes }))
            }
            Some(Done::Refused(why)) => {
                Some(error(Status::Conflict, format!("the limit stays as it was: {why}")))
            }
            // The link lets no answer of another kind pass.
            Some(_) => Some(error(Status::Internal, "the agent's answer is none")),
            None if now_ms < self.until_ms => None,
            None => {
                agent.forget(self.id);
                let max_bytes = maxes.get(&self.zone).copied();
                agent.take_back(Order::Limit { zone: Some(self.zone), max_bytes });
                let message = "the guest's agent did not answer: the limit stays as it was";
                Some(error(Status::GuestTimeout, message))
            }
        }
    }
}

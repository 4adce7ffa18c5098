//! The reclaim law of this microVM at work: one owner, here. The guest's agent samples and obeys, the daemon leases
//! envelopes, the balloon keeps the ceiling; what is to be done decides [`balloon::policy::Law`].
//!
//! ```text
//! agent's link ── news ──┐                                  ┌── orders ──> agent's link
//! daemon's lease ────────┼──> owner ──> Law ──> decisions ──┼── ceiling ──> balloon
//! host's files, clock ───┘                                  └── ring ──> GET /v1/decisions
//! ```
//!
//! [`owner`], [`translate`], [`wanted`] and [`words`] are pure; [`host`] and [`beat`] are wiring. All of it runs on the thread of the event loop.

pub mod beat;
pub mod host;
pub mod owner;
#[cfg(test)]
mod owner_tests;
pub mod recording;
pub mod translate;
pub mod wanted;
pub mod words;

//! The policy: refaults in, orders out. How much memory each microVM should have, from what its guest's kernel says.
//!
//! ```text
//! agent ── Sample, Reclaimed ──┐                           ┌── Reclaim, Age, Reporting, Pace ──> agent
//! host ─── HostReading ────────┼──> Law::observe ──> Orders┤
//! daemon ─ Envelope ───────────┤       (in the VMM)        └── Ceiling ──> balloon
//! user ─── Settings ───────────┘
//! ```
//!
//! [`Law`] is owned by the VMM, one for each microVM. Whatever happens is an [`Observation`] and goes in by
//! [`Law::observe`], with the time by a monotonic clock of the caller's; at least once a second one does
//! ([`Observation::Tick`], if nothing else). What comes out are [`Decision`]s: an [`Order`] to be carried out, and the
//! [`Reason`] with the numbers that decided it. An order to reclaim is answered by a [`Reclaimed`] of its number.
//!
//! Pure: no clock, no input or output, no randomness, no order of hashing, no memory taken while it runs. The same
//! observations at the same times bring about the same orders, byte for byte, so that whatever was recorded
//! replays. Guests are not trusted: what one says steers only what it gets within its own limits.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

mod arithmetic;
pub mod fleet;
mod law;
pub mod meter;
mod observation;
mod order;
mod reason;
mod sample;
mod state;
pub mod trace;
mod tuning;

pub use fleet::{COLD_POINTS, Cold};
pub use law::Law;
pub use meter::Totals;
pub use observation::{Envelope, HostReading, Mode, Observation, Reclaimed, Settings, Stopped};
pub use order::{Decision, MAX_ORDERS, Memory, Order, Orders};
pub use reason::{Reason, Source};
pub use sample::{Capabilities, Cause, GENERATIONS, Generation, Sample};
pub use state::{Signal, State, Status};
pub use tuning::Tuning;

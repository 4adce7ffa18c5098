//! How many microVMs one host holds: a ramp of mixed guests under one way to manage their memory, until the host has no room.
//!
//! ```text
//! arm -> ramp ( host ; guests: kind, load -> told ) -> steps -> figures -> table, plot
//! ```
//!
//! [`ramp`] runs on the host and starts one microVM after the other, whose [`kind`]s take turns. In each runs [`load`], which
//! tells every some seconds how its requests went. What was seen with so many microVMs is a [`step`]; what the steps of the
//! [`arm`]s come to is in [`figures`]. `bench-density` has them all, and `ci/bench density` calls it in virtual time.

pub mod arm;
pub mod figures;
pub mod host;
pub mod kind;
pub mod load;
pub mod plot;
pub mod ramp;
pub mod step;
pub mod table;
pub mod told;

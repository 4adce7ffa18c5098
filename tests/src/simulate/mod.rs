//! The simulator: fleets of modelled guests under the very policy code that the VMM and the daemon run.
//!
//! ```text
//! mixes -> plan -> world ( guests: workload, kernel, agent ; laws ; arbiter ) -> meters -> verdict -> tables, plots
//! ```
//!
//! All but [`plot`] is pure: the same mix, seed and law give the same bytes on every machine. What the model leaves
//! out is said in `docs/simulation.md`. Called by `ballast-simulate` and by tests.

#![expect(clippy::needless_range_loop, reason = "rows of the same bins are walked side by side")]

pub mod arbiters;
pub mod command;
pub mod compare;
pub mod decay;
pub mod experiment;
pub mod guest;
pub mod laws;
pub mod meter;
pub mod mixes;
pub mod plot;
#[cfg(test)]
mod promises;
pub mod random;
pub mod series;
pub mod table;
pub mod verdict;
pub mod world;

//! Single microVMs on real kernels: what the reclaim law saves on a workload and what that costs it.
//!
//! In the guest runs `bench-load`, one of the [`load`]s: it says in [`beat`]s how far it is, how long its requests took
//! and what its kernel counts. The VMM records what the law was told and decided. `bench-reclaim` makes [`figures`] and
//! a [`plot`] of both. `ci/bench reclaim` calls them in virtual time.

pub mod beat;
mod bursts;
pub mod figures;
pub mod kept;
pub mod latencies;
pub mod lifts;
pub mod load;
pub mod meter;
pub mod plot;
pub mod recorded;
mod rest;
pub mod tmo;
mod tolerance;
pub mod zipf;

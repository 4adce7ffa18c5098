//! `ballastd`: the arbiter of one host's microVMs.
//!
//! ```text
//! ballast run ---- POST /v1/vms ----> service -+                     +--- tick, every 2 s: host readings
//! ballast zones -- GET /v1/tree ----> service -+-> Fleet (zone tree) +--- links: one to each microVM's socket
//! ```
//!
//! [`fleet`], [`layers`] and [`arbitration`] are pure: who there is, what each holds, shares and may hold, and who gives
//! back what when memory is short. What happens they tell as [`event`]s, which [`journal`] stamps and keeps.
//! [`service`] answers on the daemon's own socket; [`links`] finds microVMs, keeps a link to each and looks at the host,
//! [`page_cache`] at what they share. With `--record`, [`recorder`] writes each tick down. `signals` and `notify` make it a
//! service. One daemon serves one state directory and its own user's microVMs. It needs none of what it knows: a daemon that starts anew asks the microVMs.

pub mod admissions;
pub mod arbitration;
#[cfg(test)]
mod arbitration_tests;
mod changes;
pub mod config;
mod descriptors;
mod documents;
mod dry_run;
mod edges;
pub mod event;
pub mod fleet;
#[cfg(test)]
mod fleet_tests;
pub mod group_policy;
#[cfg(test)]
mod group_policy_tests;
pub mod host;
pub mod journal;
mod kill;
pub mod layers;
#[cfg(test)]
mod layers_tests;
pub mod links;
mod looks;
mod member;
pub mod metrics;
mod notify;
#[cfg(test)]
mod openapi_tests;
pub mod page_cache;
pub mod recorder;
pub mod recording;
mod reload;
pub mod ring;
pub mod run;
pub mod service;
#[cfg(test)]
mod sharing_tests;
mod signals;
mod state_lock;
mod telling;
#[cfg(test)]
mod telling_tests;
mod turns;
mod watermarks;

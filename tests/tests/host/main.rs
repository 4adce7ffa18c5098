//! Promises that are kept before a guest runs: one a file. Run by ci/promises.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod arbiter;
mod archives;
mod events;
mod group_policy;
mod hostile_links;
mod interrupted;
mod metrics;
mod nobody_runs;
mod recordings;
mod refusals;
mod service_manager;
mod top;

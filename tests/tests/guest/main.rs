//! Promises that take a guest to keep: one a file. Run by ci/promises, where KVM boots a stock kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod arbiter;
mod background;
mod balloon;
mod chaos;
mod control;
mod crashes;
mod exec;
mod exit_codes;
mod host_limits;
mod host_nodes;
mod images;
mod kernels;
mod leftovers;
mod machine;
mod orders;
mod reclaim;
mod sharing;
mod shortage;
mod signals;
mod soak;
mod streams;
mod terminal;
mod volumes;
mod zones;

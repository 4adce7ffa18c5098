//! A hostile guest gets nowhere: the VMM lives, what is beside guest memory stays as it is, work is bounded and the
//! control socket answers. Run by ci/test; needs a `/dev/kvm` that runs guest code, if not a whole kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod chains;
mod configuration;
mod numbers;
mod racing;
mod real;
mod registers;
mod reports;
mod rings;
mod statistics;

//! The harness of the integration tests: the real `ballast`, with a state directory for each test.
//!
//! A test reads as a promise: set up, run, say what must hold. Everything that can hang has a time limit; a limit
//! that strikes fails the test and shows what the programs had written.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

pub mod archive;
pub mod ballast;
pub mod bench;
pub mod control;
pub mod crowd;
pub mod daemon;
pub mod density;
pub mod experiment;
pub mod fuzz;
pub mod host_cgroup;
pub mod hostile;
pub mod kernel;
pub mod memory;
pub mod probe;
pub mod process;
pub mod run;
pub mod simulate;
pub mod small_disk;
pub mod swap;
pub mod terminal;

/// Keeps promises that one guest is enough for: calls each function with the same arguments, in turn, and names those
/// that fail: `each_of!([has_a_name, has_a_place](&guest))`.
#[macro_export]
macro_rules! each_of {
    ([$($promise:ident),* $(,)?] $arguments:tt) => {{
        let mut failed: Vec<&str> = Vec::new();
        $(
            println!("{}:", stringify!($promise));
            let kept = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| $promise $arguments));
            if kept.is_err() {
                failed.push(stringify!($promise));
            }
        )*
        assert!(failed.is_empty(), "not kept: {failed:?}");
    }};
}

/// Whether full counts are run instead of a few: `ci/test --long`.
#[must_use]
pub fn is_long() -> bool {
    std::env::var_os("BALLAST_TEST_LONG").is_some()
}

/// How many hours a soak lasts: `ci/soak [HOURS]`.
#[must_use]
pub fn soak_hours() -> u64 {
    let hours = std::env::var("BALLAST_TEST_SOAK_HOURS").expect("ci/soak says how long");
    hours.parse().expect("BALLAST_TEST_SOAK_HOURS is a number of hours")
}

pub use ballast::{Ballast, setup};
pub use kernel::Kernel;

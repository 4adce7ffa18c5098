//! Memory moves between guest and host, and every page is accounted for.

mod books;
mod ceiling;
mod convergence;
mod driver;
mod features;
mod oom;
mod reporting;
mod statistics;
mod zero;

use std::cell::RefCell;
use tests::Ballast;
use tests::Kernel;
use tests::memory::{Guest, Memory};
use tests::run::until;

/// Debian's kernels zero each page that they hand out, the balloon's too (`init_on_alloc`). A test whether the host's way
/// leaves zeroes would prove nothing then, and an emulated host spends most of a balloon's time on giving pages that are
/// zeroed only to be taken.
const WITHOUT_ZEROING: [&str; 2] = ["--kernel-arg", "init_on_alloc=0"];

/// A guest of `memory` (as `-m` takes it) that does not zero the pages it hands out.
fn guest_without_zeroing(ballast: &Ballast, kernel: &Kernel, memory: &str, features: &str) -> Guest {
    Guest::start_with(ballast, |run| {
        let run = run.options(kernel.options()).options(WITHOUT_ZEROING).options(["-m", memory]);
        run.env("BALLAST_BALLOON", features)
    })
}

/// What the guest's driver says now: one that takes longer than the VMM waits is asked again.
fn fresh_statistics(guest: &Guest) -> Memory {
    let last = RefCell::new(None);
    let is_fresh = || {
        let statistics = guest.answer("GET", "/v1/statistics", "");
        let is_fresh = statistics.0["stale"] == false;
        *last.borrow_mut() = Some(statistics);
        is_fresh
    };
    until(is_fresh, || format!("they stay {:?}", last.borrow()));
    last.into_inner().unwrap()
}

/// All the balloon's features but reporting.
const WITHOUT_REPORTING: &str = "must-tell-host,statistics,deflate-on-oom,page-poison";

/// A guest of `memory` (as `-m` takes it) with all the balloon's features but reporting, so that memory moves only
/// when it is asked to.
fn guest_without_reporting(ballast: &Ballast, kernel: &Kernel, memory: &str) -> Guest {
    Guest::start_with(ballast, |run| {
        let run = run.options(kernel.options()).options(["-m", memory]);
        run.env("BALLAST_BALLOON", WITHOUT_REPORTING)
    })
}

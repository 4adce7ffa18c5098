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

use tests::Ballast;
use tests::Kernel;
use tests::memory::Guest;

/// A guest of `memory` (as `-m` takes it) with all the balloon's features but reporting, so that memory moves only
/// when it is asked to.
fn guest_without_reporting(ballast: &Ballast, kernel: &Kernel, memory: &str) -> Guest {
    Guest::start_with(ballast, |run| {
        let run = run.options(kernel.options()).options(["-m", memory]);
        run.env("BALLAST_BALLOON", "must-tell-host,statistics,deflate-on-oom,page-poison")
    })
}

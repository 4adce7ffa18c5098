//! Promises that are kept before a guest runs: one a file. Run by ci/promises.

mod archives;
mod interrupted;
mod nobody_runs;
mod refusals;

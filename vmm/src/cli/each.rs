//! Does the same for each of several microVMs, all at once, and reports as docker does: the names of those for which it
//! worked on standard output, what went wrong on standard error.

#![forbid(unsafe_code)]

use super::format::printable;
use super::output::Output;
use super::{FAILED, doctor};
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// How it went for one.
type Done = Result<(), String>;

/// Does `work` for each of `names`, at once, so that waiting for one is waiting for all.
///
/// # Errors
/// Nobody takes the names.
pub fn name(
    names: &[String],
    work: impl Fn(&str) -> Result<(), Box<dyn Error>> + Sync,
) -> Result<ExitCode, Box<dyn Error>> {
    let work = |name: &str| -> Done { work(name).map_err(|error| doctor::chain(&*error)) };
    let done: Vec<Done> = std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(|| work(name))).collect();
        let panicked = || Err("a fault of Ballast's; please report it".into());
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
    });
    let mut code = ExitCode::SUCCESS;
    for (name, done) in names.iter().zip(done) {
        match done {
            Ok(()) => writeln!(Output::lock(), "{}", printable(name))?,
            Err(words) => {
                super::output::eprint(&format!("ballast: {}\n", printable(&words)));
                code = ExitCode::from(FAILED);
            }
        }
    }
    Ok(code)
}

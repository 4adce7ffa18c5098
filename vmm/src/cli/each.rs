//! Does the same for each of several microVMs, all at once, and reports as docker does: the names of those for which it
//! worked on standard output, what went wrong on standard error. As JSON it is one document of all.

#![forbid(unsafe_code)]

use super::format::{Format, printable};
use super::output::Output;
use super::{FAILED, doctor};
use serde::Serialize;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// How it went for one.
type Done = Result<(), String>;

/// How it went for one, as JSON.
#[derive(Serialize)]
struct Outcome<'a> {
    name: &'a str,
    /// What went wrong, if anything did.
    error: Option<&'a str>,
}

/// Does `work` for each of `names`, at once, so that waiting for one is waiting for all.
///
/// # Errors
/// Nobody takes the names.
pub fn name(
    names: &[String],
    format: Format,
    work: impl Fn(&str) -> Result<(), Box<dyn Error>> + Sync,
) -> Result<ExitCode, Box<dyn Error>> {
    let work = |name: &str| -> Done { work(name).map_err(|error| doctor::chain(&*error)) };
    let done: Vec<Done> = std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(|| work(name))).collect();
        let panicked = || Err("a fault of Ballast's; please report it".into());
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
    });
    let outcomes = names.iter().zip(&done);
    if format == Format::Json {
        let outcomes: Vec<Outcome<'_>> = outcomes
            .map(|(name, done)| Outcome { name, error: done.as_ref().err().map(String::as_str) })
            .collect();
        serde_json::to_writer(&mut Output::lock(), &outcomes)?;
        writeln!(Output::lock())?;
    } else {
        for (name, done) in outcomes {
            match done {
                Ok(()) => writeln!(Output::lock(), "{}", printable(name))?,
                Err(words) => super::output::eprint(&format!("ballast: {}\n", printable(words))),
            }
        }
    }
    Ok(if done.iter().all(Result::is_ok) { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

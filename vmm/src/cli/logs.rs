//! `ballast logs NAME`: what a microVM in the background wrote, to the streams that it wrote it to.

use super::client;
use super::dirs::Dirs;
use super::format::Format;
use super::log::entry::{Entry, Stream};
use super::log::reader::{Changes, Reader};
use super::output::{Output, end_if_unread};
use super::since::since;
use clap::Args;
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

/// Show what a microVM in the background wrote
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// Go on until the microVM has ended
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines
    #[arg(short = 'n', long, value_name = "N|all", default_value = "all", value_parser = tail)]
    tail: Tail,
    /// Only what was written since then: 10m, 1h30m, 2026-01-02T03:04:05Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<SystemTime>,
    /// Show when each line was written
    #[arg(short, long, conflicts_with = "format")]
    timestamps: bool,
    /// How to write it: as JSON a document a line, with its stream and time, all on standard output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Name, ID or beginning of an ID
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tail(Option<usize>);

#[derive(Debug, thiserror::Error)]
enum NoLog {
    #[error("microVM '{0}' has no log: it runs in the foreground, where its output went")]
    Foreground(String),
    #[error("the log of microVM '{name}' is gone: somebody has removed {}", log.display())]
    Gone { name: String, log: PathBuf },
}

/// Runs the verb.
///
/// # Errors
/// There is no such microVM, or it has no log.
pub fn run(args: &LogsArgs) -> Result<ExitCode, Box<dyn Error>> {
    let vm = client::find_known(&Dirs::find()?.state, &args.name)?;
    let log = vm.record.as_ref().and_then(|record| record.log.as_deref());
    let log = log.ok_or_else(|| NoLog::Foreground(vm.name.clone()))?;
    if !log.is_dir() {
        return Err(NoLog::Gone { name: vm.name.clone(), log: log.into() }.into());
    }
    // Times of one length in one zone are in order as text.
    let since = args.since.map(|since| humantime::format_rfc3339_nanos(since).to_string());
    let wanted = |entry: &Entry<'_>| since.as_ref().is_none_or(|since| *entry.time >= **since);
    let show = |entry: &Entry<'_>| match args.format {
        Format::Table => show(entry, args.timestamps),
        Format::Json => show_document(entry),
    };
    // Before the log is read: nothing that comes after may be missed.
    let changes = args.follow.then(|| Changes::watch(&[log, &vm.directory])).transpose();
    let mut reader = Reader::open(log, args.tail.0, wanted, show)?;
    // A microVM that has just been removed has nothing more to say.
    let Some(changes) = changes.ok().flatten() else { return Ok(ExitCode::SUCCESS) };
    loop {
        let runs = vm.still_runs();
        reader.go_on(|entry| if wanted(entry) { show(entry) } else { Ok(()) })?;
        if !runs {
            return Ok(ExitCode::SUCCESS);
        }
        changes.wait()?;
        end_if_unread();
    }
}

fn show(entry: &Entry<'_>, with_time: bool) -> io::Result<()> {
    let time = if with_time { format!("{} ", entry.time) } else { String::new() };
    let text = [time.as_bytes(), entry.log.as_bytes()].concat();
    match entry.stream {
        Stream::Stdout => {
            let mut output = Output::lock();
            output.write_all(&text)?;
            output.flush()
        }
        Stream::Stderr | Stream::Ballast => io::stderr().write_all(&text),
    }
}

fn show_document(entry: &Entry<'_>) -> io::Result<()> {
    let mut line = Vec::new();
    entry.write(&mut line);
    let mut output = Output::lock();
    output.write_all(&line)?;
    output.flush()
}

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        number => {
            number.parse().map(|number| Tail(Some(number))).map_err(|_| "write a number, or all".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_numbers_or_all() {
        assert_eq!((tail("all"), tail("7")), (Ok(Tail(None)), Ok(Tail(Some(7)))));
        assert!(tail("-1").is_err());
    }
}

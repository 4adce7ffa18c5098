//! `ballast report RECORDING...`: an HTML page that plots what recordings tell of microVMs and of hosts. Wiring: [`history`]
//! and [`host`] read them, [`page`] writes the page.

mod curve;
mod history;
mod host;
mod host_section;
mod map;
mod page;
mod tree;

use super::output::Output;
use super::recording::each_line;
use crate::plot;
use balloon::control::host_trace;
use balloon::policy::trace;
use balloon::recording_line;
use clap::Args;
use history::History;
use host::HostHistory;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Plot recordings as an HTML page: memory, refaults and stall over time, each decision with its reason, a map of the zones
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ballast run --record web.trace --name web IMAGE
  ballast report web.trace -o web.html

  ballastd --record host.trace
  ballast report host.trace web.trace -o host.html

A recording of a host shows it as a whole, with maps of its zones at the end and when most was held. The page needs no other files and no scripts. Nothing needs to run when it is made.")]
pub struct ReportArgs {
    /// Recordings in any order: of a microVM by `ballast run --record FILE`, of the host by `ballastd --record FILE`
    #[arg(required = true, value_name = "RECORDING")]
    recordings: Vec<PathBuf>,
    /// Where the page goes; without it to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no whole recording: give a file that `ballast run --record` or `ballastd --record` has made", path.display())]
    Recording { path: PathBuf, source: recording_line::Error },
    #[error("{} is no whole recording of a host: give a file that `ballastd --record` has made", path.display())]
    Host { path: PathBuf, source: recording_line::Error },
    #[error("nobody reads a page in a terminal: name a file with -o, or redirect the output")]
    Terminal,
    #[error("{} is a recording that the page is made of: name another file with -o", path.display())]
    Same { path: PathBuf },
    #[error("cannot write the page to {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Draw(#[from] plot::Error),
}

/// Runs the verb.
///
/// # Errors
/// A recording cannot be read or is none, or nobody takes the page.
pub fn run(args: &ReportArgs) -> Result<ExitCode, Box<dyn Error>> {
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::Terminal.into());
    }
    if let Some(path) = args.output.as_ref().filter(|to| args.recordings.iter().any(|of| is_same(of, to))) {
        return Err(Failure::Same { path: path.clone() }.into());
    }
    let (mut hosts, mut histories) = (Vec::new(), Vec::new());
    for path in &args.recordings {
        let name = path.display().to_string();
        match read(path)? {
            Recording::Host(host) => hosts.push((name, *host)),
            Recording::Vm(history) => histories.push((name, *history)),
        }
    }
    let page = page::page(&hosts, &histories).map_err(Failure::from)?;
    match &args.output {
        Some(path) => write(path, &page).map_err(|source| Failure::Write { path: path.clone(), source })?,
        None => Output::lock().write_all(page.as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whole or not at all, and what was there before stays until then; but into a device, or where a link leads, as it comes:
/// `/dev/stdout` is one, and to stay.
fn write(path: &Path, page: &str) -> io::Result<()> {
    let is_file = fs::symlink_metadata(path).map_or(true, |there| there.is_file());
    if !is_file {
        return fs::write(path, page);
    }
    let part = path.with_file_name(format!(".ballast-report.{}", std::process::id()));
    let written = fs::write(&part, page).and_then(|()| fs::rename(&part, path));
    written.inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}

/// Whether two paths lead to one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    id(one).is_some_and(|one| Some(one) == id(other))
}

/// What a recording tells.
enum Recording {
    Host(Box<HostHistory>),
    Vm(Box<History>),
}

fn read(path: &Path) -> Result<Recording, Failure> {
    let unread = |source| Failure::Read { path: path.into(), source };
    recording(BufReader::new(File::open(path).map_err(unread)?)).map_err(unread)?.map_err(|problem| {
        match problem {
            Problem::Host(source) => Failure::Host { path: path.into(), source },
            Problem::Vm(source) => Failure::Recording { path: path.into(), source },
        }
    })
}

/// Why a recording is none.
#[derive(Debug)]
enum Problem {
    Host(recording_line::Error),
    Vm(recording_line::Error),
}

/// Reads what is a host's recording if it begins as one.
fn recording(mut reader: impl BufRead) -> io::Result<Result<Recording, Problem>> {
    let mut beginning = Vec::new();
    (&mut reader).take(host_trace::BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    let is_host = beginning == host_trace::BEGINNING;
    let all = beginning.chain(reader);
    if is_host {
        let mut host = host::Reader::default();
        let read = each_line(all, host_trace::LINE_BYTES, |line| host.line(line))?;
        let host = read.and_then(|_| host.end());
        return Ok(host.map(|host| Recording::Host(Box::new(host))).map_err(Problem::Host));
    }
    let mut vm = history::Reader::default();
    let read = each_line(all, trace::LINE_BYTES, |line| vm.line(line))?;
    let vm = read.and_then(|_| vm.end());
    Ok(vm.map(|vm| Recording::Vm(Box::new(vm))).map_err(Problem::Vm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_what_it_begins_as_and_may_be_cut_off() {
        let host = host::tests::recording();
        let of_vm = history::tests::recording();
        let cut = |recording: &[u8]| recording[..recording.len() - 9].to_vec();
        for whole in [&host, &cut(&host)] {
            assert!(matches!(recording(&whole[..]).unwrap(), Ok(Recording::Host(_))));
        }
        for whole in [&of_vm, &cut(&of_vm)] {
            assert!(matches!(recording(&whole[..]).unwrap(), Ok(Recording::Vm(_))));
        }
        let mixed = [&host[..], &of_vm[..]].concat();
        assert!(matches!(recording(&mixed[..]).unwrap(), Err(Problem::Host(_))));
        for none in [&b""[..], b"{", b"<html>\n"] {
            assert!(matches!(recording(none).unwrap(), Err(Problem::Vm(_))));
        }
    }

    #[test]
    fn a_page_is_written_whole_and_a_link_stays_one() {
        let directory = tempfile::tempdir().unwrap();
        let [page, link] = ["page", "link"].map(|name| directory.path().join(name));
        write(&page, "new").unwrap();
        std::os::unix::fs::symlink(&page, &link).unwrap();
        assert!(is_same(&page, &link) && !is_same(&page, directory.path()));
        write(&link, "newer").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        write(&page, "newest").unwrap();
        assert_eq!(fs::read(&link).unwrap(), b"newest");
        assert!(write(directory.path(), "").is_err());
        assert!(write(&directory.path().join("none/page"), "").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left of a part");
    }

    #[test]
    fn a_page_goes_over_no_recording_that_it_is_made_of() {
        let directory = tempfile::tempdir().unwrap();
        let recording = directory.path().join("trace");
        fs::write(&recording, "x").unwrap();
        let args = ReportArgs { recordings: vec![recording.clone()], output: Some(recording.clone()) };
        assert!(run(&args).unwrap_err().to_string().contains("name another file"));
        assert_eq!(fs::read(&recording).unwrap(), b"x");
    }
}

//! `ballast report RECORDING...`: an HTML page that plots what recordings tell of microVMs. Wiring: [`history`] reads them,
//! [`page`] writes the page.

mod curve;
mod history;
mod page;

use super::output::Output;
use super::recording::each_line;
use crate::plot;
use balloon::policy::trace;
use clap::Args;
use history::{History, Reader};
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufReader, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Plot recordings as an HTML page: memory, refaults and stall over time, and each decision with its reason
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  ballast run --record web.trace --name web IMAGE
  ballast report web.trace -o web.html

The page needs no other files and no scripts. Nothing needs to run when it is made.")]
pub struct ReportArgs {
    /// Recordings, made by `ballast run --record FILE`, a microVM each
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
    #[error("{} is no whole recording: give a file that `ballast run --record` has made", path.display())]
    Recording { path: PathBuf, source: trace::Error },
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
    let read = |path: &PathBuf| Ok((path.display().to_string(), read(path)?));
    let histories = args.recordings.iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
    let page = page::page(&histories).map_err(Failure::from)?;
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

fn read(path: &Path) -> Result<History, Failure> {
    let unread = |source| Failure::Read { path: path.into(), source };
    let mut reader = Reader::default();
    let read = each_line(BufReader::new(File::open(path).map_err(unread)?), |line| reader.line(line));
    let history = read.map_err(unread)?.and_then(|_| reader.end());
    history.map_err(|source| Failure::Recording { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

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

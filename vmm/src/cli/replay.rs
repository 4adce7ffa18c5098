//! `ballast replay FILE`: has the law decide again what was recorded, and says whether it decides the same.

use super::output::Output;
use super::recording::each_line;
use balloon::control::host_trace;
use balloon::policy::trace::{self, LINE_BYTES, Replay};
use balloon::recording_line;
use clap::Args;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Check that the reclaim law decides again what a recording says that it decided
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The recording, made by `ballast run --record FILE`
    file: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is a recording of a host, in which no law decides: `ballast report` plots it", path.display())]
    Host { path: PathBuf },
    #[error("{} is no recording of a microVM: give a file that `ballast run --record` has made", path.display())]
    Recording { path: PathBuf, source: trace::Error },
    #[error("{} does not replay", path.display())]
    Replay { path: PathBuf, source: trace::Error },
}

/// Runs the verb.
///
/// # Errors
/// The recording cannot be read, is none, or the law decides differently.
pub fn run(args: &ReplayArgs) -> Result<ExitCode, Box<dyn Error>> {
    let path = || args.file.clone();
    let read = |source| Failure::Read { path: path(), source };
    let mut file = BufReader::new(File::open(&args.file).map_err(read)?);
    if file.fill_buf().map_err(read)?.starts_with(host_trace::BEGINNING) {
        return Err(Failure::Host { path: path() }.into());
    }
    let (replay, is_cut_off) = replay(file).map_err(read)?.map_err(|source| match source {
        trace::Error::Line(recording_line::Error::Garbled { line: 1, .. }) => {
            Failure::Recording { path: path(), source }
        }
        _ => Failure::Replay { path: path(), source },
    })?;
    let rest = if is_cut_off { "; its last line is cut off and left out" } else { "" };
    let (lines, decisions) = (replay.lines(), replay.decisions());
    writeln!(Output::lock(), "{lines} lines, {decisions} decisions: all as recorded{rest}")?;
    Ok(ExitCode::SUCCESS)
}

/// Replays all whole lines. Says whether the last was cut off.
fn replay(reader: impl BufRead) -> io::Result<Result<(Replay, bool), trace::Error>> {
    let mut replay = Replay::new();
    let read = each_line(reader, LINE_BYTES, |line| replay.line(line))?;
    Ok(read.and_then(|is_cut_off| replay.end().map(|()| (replay, is_cut_off))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use balloon::policy::trace::{Header, write};
    use balloon::policy::{Settings, Tuning};
    use balloon::recording_line::Error;

    #[test]
    fn what_is_no_recording_of_a_microvm_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let said = |name: &str, text: &[u8]| {
            let file = dir.path().join(name);
            std::fs::write(&file, text).unwrap();
            run(&ReplayArgs { file }).unwrap_err().to_string()
        };
        let host = said("host.trace", &[host_trace::BEGINNING, b"1}\n"].concat());
        assert!(host.ends_with("in which no law decides: `ballast report` plots it"), "{host}");
        for none in [&b"text\n"[..], b""] {
            let none = said("none", none);
            assert!(none.ends_with("give a file that `ballast run --record` has made"), "{none}");
        }
    }

    #[test]
    fn whole_lines_replay_and_others_are_named() {
        let mut recording = Vec::new();
        write(&Header::new(0, 1 << 30, Settings::new(1 << 30), Tuning::default()), &mut recording);
        recording.extend_from_slice(b"{\"now_ms\":1000,\"saw\":\"tick\"}\n");
        let lines =
            |text: &[u8]| replay(text).unwrap().map(|(replay, is_cut_off)| (replay.lines(), is_cut_off));
        assert_eq!(lines(&recording), Ok((2, false)));
        assert_eq!(lines(&[&recording[..], b"{\"now_ms\":20"].concat()), Ok((2, true)));
        assert!(matches!(lines(b""), Err(trace::Error::Line(Error::Garbled { line: 1, .. }))));
        assert!(matches!(
            lines(&[&recording[..], b"x\n"].concat()),
            Err(trace::Error::Line(Error::Garbled { line: 3, .. }))
        ));
        assert!(matches!(lines(&[b'x'; 9000]), Err(trace::Error::Line(Error::TooLong { line: 1, .. }))));
    }
}

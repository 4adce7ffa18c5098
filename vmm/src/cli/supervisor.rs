//! `ballast run -d`: the process that stays with a microVM in the background, and the one that waits for its start.
//!
//! ```text
//! ballast run -d ---spawns---> ballast run -d --supervised    session of its own, no terminal
//!   waits on a pipe  <-ID-----   standard output until the workload has started; then nobody's
//!   prints the ID                standard error: the user's until then; always in the log
//! ```
//!
//! The supervisor does all that `ballast run` does, so that what fails fails as there, with the same words and the same
//! exit code. If nobody waits for the start any more, there will be none.

#![forbid(unsafe_code)]

use super::log::entry::Stream;
use super::log::journal::{Journal, sweep};
use super::log::pump::{Log, Witness};
use super::output::Output;
use super::run_args::RunArgs;
use super::state::{Record, Registration};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::JoinHandle;

/// The option by which a supervisor is known.
const OPTION: &str = "--supervised";

/// The microVM cannot be put into the background.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The supervisor does not start.
    #[error("cannot start the process that stays with the microVM")]
    Spawn(#[source] io::Error),
    /// It cannot leave the terminal.
    #[error("cannot go into the background")]
    Leave(#[source] io::Error),
    /// There is no room for a log.
    #[error("cannot make the microVM's log in {}", path.display())]
    Log {
        /// Where.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
}

/// Starts a supervisor with the words that this process was started with, and waits until the workload has started.
/// Prints the microVM's ID then; else gives the exit code of what failed, which has said why.
///
/// # Errors
/// There is no supervisor, or nobody takes the ID.
pub fn start(args: &RunArgs) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let mut words = std::env::args_os();
    let mut command = Command::new(program);
    command.arg0(words.next().unwrap_or_else(|| "ballast".into()));
    command.args(words.next()).arg(OPTION).args(words);
    command.stdin(if args.image() == "-" { Stdio::inherit() } else { Stdio::null() }).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(Error::Spawn)?;
    let mut id = String::new();
    if let Some(mut said) = child.stdout.take() {
        said.read_to_string(&mut id).map_err(Error::Spawn)?;
    }
    if !id.is_empty() {
        Output::lock().write_all(id.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().map_err(Error::Spawn)?;
    let code = status.code().or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(super::FAILED)))
}

/// The supervisor's side.
#[derive(Debug)]
pub struct Supervisor {
    /// Where the ID goes; its reader waits for the start.
    ready: Option<File>,
}

/// A supervisor that writes a log.
#[derive(Debug)]
pub struct Logging {
    ready: Option<File>,
    id: String,
    log: Log,
    /// The user's standard error.
    stderr: OwnedFd,
    witness: Witness,
    notices: Option<JoinHandle<io::Result<()>>>,
}

impl Supervisor {
    /// Leaves the terminal and the shell's session.
    ///
    /// # Errors
    /// The host's.
    pub fn begin() -> Result<Self, Error> {
        let leave = || -> io::Result<File> {
            rustix::process::setsid()?;
            let ready = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            rustix::stdio::dup2_stdout(nowhere()?)?;
            Ok(ready)
        };
        Ok(Self { ready: Some(leave().map_err(Error::Leave)?) })
    }

    /// From here on all that this process and its children say goes to the microVM's log, and until the workload has
    /// started to the user too.
    ///
    /// # Errors
    /// The log cannot be made.
    pub fn log(mut self, args: &RunArgs, record: &Record, owner: &Path) -> Result<Logging, Error> {
        let path = record.log.clone().unwrap_or_default();
        let mut begin = || -> io::Result<Logging> {
            if let Some(logs) = path.parent() {
                sweep(logs);
            }
            let log = Log::new(Journal::create(&path, args.log_size.bytes(), owner)?);
            let stderr = io::stderr().as_fd().try_clone_to_owned()?;
            let witness = Witness::new(File::from(stderr.try_clone()?));
            let (source, sink) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            let notices = log.pump(Stream::Ballast, File::from(source), witness.clone(), ())?;
            rustix::stdio::dup2_stderr(sink)?;
            let (ready, id) = (self.ready.take(), record.id.clone());
            Ok(Logging { ready, id, log, stderr, witness, notices: Some(notices) })
        };
        begin().map_err(|source| Error::Log { path: path.clone(), source })
    }
}

impl Logging {
    /// The log.
    #[must_use]
    pub fn writer(&self) -> &Log {
        &self.log
    }

    /// Hangs up when nobody waits for the start any more; nothing once it has come.
    #[must_use]
    pub fn waiting(&self) -> Option<BorrowedFd<'_>> {
        self.ready.as_ref().map(File::as_fd)
    }

    /// The workload has started: says so, and lets go of everything that is the user's.
    pub fn started(&mut self) {
        if let Some(mut ready) = self.ready.take() {
            // Nobody to hear it is no fault by now: the workload runs.
            let _ = writeln!(ready, "{}", self.id);
            self.witness.dismiss();
            if let Ok(nowhere) = nowhere() {
                self.stderr = nowhere;
            }
            // A file system that the user was in can be unmounted.
            let _ = rustix::process::chdir("/");
        }
    }

    /// Whether the workload has started.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.ready.is_none()
    }
}

impl Drop for Logging {
    /// All that was said is in the log afterwards, if whoever else could say something has ended.
    fn drop(&mut self) {
        if rustix::stdio::dup2_stderr(&self.stderr).is_ok()
            && let Some(notices) = self.notices.take()
        {
            let _ = notices.join();
        }
    }
}

/// The directory of a microVM's log.
#[must_use]
pub fn log_directory(data: &Path, registration: &Registration) -> PathBuf {
    data.join("logs").join(registration.id())
}

fn nowhere() -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).write(true).open("/dev/null")?.into())
}

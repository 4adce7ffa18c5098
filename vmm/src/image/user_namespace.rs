//! Imports by users other than root: a helper process in a user namespace, so that file owners survive.
//!
//! Files of an image belong to many ids, and only root may create such files. So the store starts this program
//! once more as a helper; it enters a new user namespace, the parent maps ids into it ([`super::id_map`]), and the
//! helper does the import there as that namespace's root. Owners are never changed: one without an id in the
//! namespace is refused, with what to do about it.
//!
//! ```text
//! parent                                   helper
//!   spawn, source as standard input  --->    unshare(CLONE_NEWUSER)
//!                                    <---  {"ready": pid}
//!   newuidmap, newgidmap             --->  "\n"
//!                                    <---  {"event": ..}*  {"done": ..} or {"failed": ..}
//! ```
//! Both speak JSON lines over a socket pair, the helper's standard output.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::digest::Digest;
use super::id_map;
use super::import::Import;
use super::progress::{Event, Progress};
use super::reference::Name;
use super::store::Store;
use crate::process::{die_with_parent, die_with_parent_self};

/// The first argument of a helper.
const HELPER: &str = "image-import-helper";

/// The longest line that a helper may send.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Why a helper could not do its work.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// It could not be started.
    #[error("cannot start the import helper")]
    Start(#[source] io::Error),
    /// It is gone.
    #[error("the import helper ended without a result ({0})")]
    Lost(String),
    /// The kernel refuses.
    #[error(
        "this kernel does not let users create user namespaces, which keep file owners: allow it (sysctl \
         user.max_user_namespaces, kernel.unprivileged_userns_clone or kernel.apparmor_restrict_unprivileged_userns), \
         or run as root"
    )]
    Refused(#[source] io::Error),
    /// Ids could not be mapped.
    #[error("cannot map user ids with {tool}: {words}")]
    Map {
        /// The program.
        tool: &'static str,
        /// What it said.
        words: String,
    },
    /// What went wrong inside.
    #[error("{message}")]
    Inside {
        /// The error's own words.
        message: String,
        /// Its cause.
        #[source]
        cause: Option<Box<NamespaceError>>,
    },
}

impl NamespaceError {
    /// Rebuilds a chain of errors from its messages, outermost first.
    fn from_chain(chain: Vec<String>) -> Self {
        let cause = chain
            .into_iter()
            .rev()
            .fold(None, |cause, message| Some(Box::new(Self::Inside { message, cause })));
        cause.map_or_else(|| Self::Lost("no reason given".into()), |error| *error)
    }
}

/// What a helper says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// The namespace exists and waits for its ids.
    Ready(u32),
    /// Progress.
    Event(Event),
    /// The image is in the store.
    Done(Outcome),
    /// It is not, and why: outermost first.
    Failed(Vec<String>),
}

/// What a helper's import came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The image, now in the store.
    pub id: Digest,
    /// What the archive calls it.
    pub names: Vec<Name>,
    /// Whether the wanted name decided which of several images it is.
    pub chosen: bool,
}

/// How to start this program as a helper.
#[derive(Clone, Debug)]
pub struct Helper {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Default for Helper {
    /// This program, whose `main` calls [`helper_main`] first.
    fn default() -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), arguments: Vec::new() }
    }
}

/// Imports `source` in a helper.
///
/// # Errors
/// [`NamespaceError`], with the import's own errors as [`NamespaceError::Inside`].
pub fn import(
    helper: &Helper,
    store: &Store,
    source: File,
    what: &str,
    wanted: Option<&Name>,
    progress: &dyn Progress,
) -> Result<Outcome, NamespaceError> {
    let (ours, theirs) = UnixStream::pair().map_err(NamespaceError::Start)?;
    let mut command = Command::new(&helper.program);
    command
        .args(&helper.arguments)
        .arg(HELPER)
        .arg(store.root())
        .arg(store.max_layers().to_string())
        .arg(wanted.map_or("", Name::as_str))
        .arg(what)
        .stdin(source)
        .stdout(OwnedFd::from(theirs));
    let mut child = die_with_parent(&mut command).spawn().map_err(NamespaceError::Start)?;
    // The command holds the other end: with it open, a helper's end would go unnoticed.
    drop(command);
    let result = converse(ours, child.id(), progress);
    if result.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(NamespaceError::Start)?;
    result?.ok_or_else(|| NamespaceError::Lost(status.to_string()))
}

/// Answers a helper until it has a result; `None` if it ends without one.
fn converse(
    socket: UnixStream,
    pid: u32,
    progress: &dyn Progress,
) -> Result<Option<Outcome>, NamespaceError> {
    let mut answer = socket.try_clone().map_err(NamespaceError::Start)?;
    let mut lines = BufReader::new(socket);
    loop {
        let mut line = Vec::new();
        let read = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).unwrap_or(0);
        if read == 0 {
            return Ok(None);
        }
        let Ok(message) = serde_json::from_slice(&line) else {
            return Err(NamespaceError::Lost(format!("it said {:?}", String::from_utf8_lossy(&line))));
        };
        match message {
            // In its own namespace of process ids a helper may have another number.
            Message::Ready(_) => {
                id_map::write(pid)?;
                answer.write_all(b"\n").map_err(NamespaceError::Start)?;
            }
            Message::Event(event) => progress.report(event),
            Message::Done(outcome) => return Ok(Some(outcome)),
            Message::Failed(chain) => return Err(NamespaceError::from_chain(chain)),
        }
    }
}

/// If this process was started as a helper, does its work and returns its exit code.
///
/// The program must call this before anything else: a process with threads cannot enter a user namespace.
pub fn helper_main() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1).skip_while(|argument| argument != HELPER).skip(1);
    let first = std::env::args_os().nth(1)?;
    if first != HELPER {
        return None;
    }
    let (root, layers) = (arguments.next()?, arguments.next()?);
    let (wanted, what) = (arguments.next()?, arguments.next()?);
    Some(match help(&root, &layers, &wanted, &what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// The helper's side. An error here is one of talking to the parent.
fn help(root: &OsStr, layers: &OsStr, wanted: &OsStr, what: &OsStr) -> io::Result<()> {
    let channel = Channel(UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?));
    let source = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let outcome = enter(&channel).and_then(|()| {
        let layers = layers.to_str().and_then(|text| text.parse().ok()).unwrap_or(1);
        let wanted = wanted.to_str().and_then(|text| Name::parse(text).ok());
        let what = what.to_string_lossy();
        let store = Store::open(Path::new(root), layers).map_err(|error| chain(&error))?;
        let _lease = store.lease().map_err(|error| chain(&error))?;
        Import::new(&store, &what, &channel).run(source, wanted.as_ref()).map_err(|error| chain(&error))
    });
    channel.send(&match outcome {
        Ok(Some(imported)) => {
            Message::Done(Outcome { id: imported.record.id, names: imported.names, chosen: imported.chosen })
        }
        Ok(None) => Message::Failed(vec!["the helper was given a directory".into()]),
        Err(chain) => Message::Failed(chain),
    })
}

fn enter(channel: &Channel) -> Result<(), Vec<String>> {
    let parent = rustix::process::getppid();
    let flags = rustix::thread::UnshareFlags::NEWUSER;
    // SAFETY: `unshare_unsafe` is unsafe for FILES only, which is not asked for.
    unsafe { rustix::thread::unshare_unsafe(flags) }
        .map_err(|error| chain(&NamespaceError::Refused(error.into())))?;
    let lost = |error: io::Error| vec![format!("the import helper lost its parent: {error}")];
    channel.send(&Message::Ready(std::process::id())).map_err(lost)?;
    (&channel.0).read_exact(&mut [0]).map_err(lost)?;
    die_with_parent_self().map_err(lost)?;
    match rustix::process::getppid() == parent {
        true => Ok(()),
        false => Err(lost(io::ErrorKind::BrokenPipe.into())),
    }
}

fn chain(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}

/// The way to the parent.
struct Channel(UnixStream);

impl Channel {
    fn send(&self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        (&self.0).write_all(&line)
    }
}

impl Progress for Channel {
    fn report(&self, event: Event) {
        // A parent that is gone is noticed when the result is sent.
        let _ = self.send(&Message::Event(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_with_its_causes() {
        let inner = NamespaceError::Refused(io::Error::other("deep"));
        let text = chain(&inner);
        let outer = NamespaceError::from_chain(text.clone());
        assert_eq!(chain(&outer), text);
        assert_eq!(text.len(), 2);
    }

    #[test]
    fn a_helper_that_ends_or_talks_nonsense_is_an_error() {
        let say = |bytes: &[u8]| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(bytes).unwrap();
            drop(theirs);
            converse(ours, 0, &super::super::progress::Silent)
        };
        assert!(matches!(say(b""), Ok(None)));
        assert!(matches!(say(b"hello\n"), Err(NamespaceError::Lost(_))));
        assert!(matches!(say(b"{\"failed\":[\"a\",\"b\"]}\n"), Err(NamespaceError::Inside { .. })));
    }
}

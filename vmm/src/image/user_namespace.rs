//! Imports by users other than root: a helper process in a user namespace, so that file owners survive.
//!
//! Files of an image belong to many ids, and only root may create such files. So the store starts this program
//! once more as a helper; it enters a new user namespace, the parent maps ids into it, and the helper does the
//! import there as that namespace's root. The user's own id is mapped to 0, and the subordinate ids that
//! `/etc/subuid` and `/etc/subgid` grant follow from 1 on, by `newuidmap` and `newgidmap`. Without such a grant
//! only id 0 is mapped, which suffices for images whose files all belong to root; any other owner is then refused
//! with what to do about it. Owners are never changed.
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
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::digest::Digest;
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
                map_ids(pid)?;
                answer.write_all(b"\n").map_err(NamespaceError::Start)?;
            }
            Message::Event(event) => progress.report(event),
            Message::Done(outcome) => return Ok(Some(outcome)),
            Message::Failed(chain) => return Err(NamespaceError::from_chain(chain)),
        }
    }
}

/// A run of ids granted to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u32,
    count: u32,
}

fn map_ids(pid: u32) -> Result<(), NamespaceError> {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let name = user_name(uid);
    let granted = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        subordinate_ids(&text, uid, name.as_deref())
    };
    let (uids, gids) = (granted("/etc/subuid"), granted("/etc/subgid"));
    if uids.is_empty() || gids.is_empty() || !has_tool("newuidmap") || !has_tool("newgidmap") {
        return map_own(pid, uid, gid);
    }
    run_tool("newuidmap", pid, uid, &uids)?;
    run_tool("newgidmap", pid, gid, &gids)
}

/// The grants to a user in a file like `/etc/subuid`: `NAME-OR-ID:START:COUNT`.
fn subordinate_ids(text: &str, uid: u32, name: Option<&str>) -> Vec<Range> {
    let uid = uid.to_string();
    let mut ranges = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let (Some(who), Some(start), Some(count)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if (who == uid || Some(who) == name)
            && let (Ok(start), Ok(count @ 1..)) = (start.parse(), count.parse())
        {
            ranges.push(Range { start, count });
        }
    }
    ranges
}

fn user_name(uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let listed = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    // Users of a directory service; a wrong name only makes `newuidmap` refuse.
    listed.or_else(|| std::env::var("USER").ok())
}

fn has_tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

fn run_tool(tool: &'static str, pid: u32, own: u32, ranges: &[Range]) -> Result<(), NamespaceError> {
    let mut command = Command::new(tool);
    command.arg(pid.to_string()).args(["0".to_owned(), own.to_string(), "1".to_owned()]);
    let mut next = 1u32;
    for range in ranges {
        let count = range.count.min(u32::MAX - next);
        command.args([next.to_string(), range.start.to_string(), count.to_string()]);
        next += count;
    }
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| NamespaceError::Map { tool, words: error.to_string() })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(NamespaceError::Map {
            tool,
            words: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}

/// Maps only the user's own ids, which needs no grant.
fn map_own(pid: u32, uid: u32, gid: u32) -> Result<(), NamespaceError> {
    let process = Path::new("/proc").join(pid.to_string());
    let write = |file: &str, text: String| {
        let refused = |error: io::Error| NamespaceError::Map { tool: "/proc", words: error.to_string() };
        fs::write(process.join(file), text).map_err(refused)
    };
    // Without this the kernel refuses a map of groups.
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))
}

/// What a user can do so that files of `id` may be created.
pub fn remedy(id: u32) -> String {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mapped: u64 =
        map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    if mapped <= 1 {
        return "get subordinate ids (`apt install uidmap`, then as root `usermod --add-subuids 100000-165535 \
                --add-subgids 100000-165535 USER`), or run as root"
            .into();
    }
    format!("widen this user's ranges in /etc/subuid and /etc/subgid to more than {id} ids, or run as root")
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
        let import = Import { store: &store, what: &what, progress: &channel };
        import.run(source, wanted.as_ref()).map_err(|error| chain(&error))
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
    fn grants_are_found_by_name_and_by_id() {
        let text = "root:1:9\nann:100000:65536\n# x\n1000:300000:5\nann:bad:1\nann:7:0\nbob:400000:65536\n";
        let ranges = subordinate_ids(text, 1000, Some("ann"));
        assert_eq!(ranges, [Range { start: 100_000, count: 65536 }, Range { start: 300_000, count: 5 }]);
        assert_eq!(subordinate_ids(text, 1001, None), []);
    }

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

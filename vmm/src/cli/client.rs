//! Finds running microVMs, asks them over their control sockets, and says what it means that one does not answer.

use super::format::printable;
use super::state::{self, Known, NotOne};
use crate::control::orders;
use balloon::control::api::VmDocument;
use balloon::control::client;
use balloon::control::orders::SignalRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A VMM gives its guest's agent less.
const ORDER_LIMIT: Duration = orders::LIMIT.saturating_add(client::LIMIT);
/// microVMs asked at once.
const AT_ONCE: usize = 32;

/// A microVM was not asked, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that name.
    #[error("no microVM named '{name}' is running{}", others(running))]
    NoSuchVm {
        /// What was looked for.
        name: String,
        /// The names that there are.
        running: Vec<String>,
    },
    /// There is none of that name, not even an ended one.
    #[error("no microVM has the name or ID '{0}': `ballast ps -a` lists all")]
    Unknown(String),
    /// It has ended.
    #[error("microVM '{name}' does not run: it ended with exit code {code}")]
    Over {
        /// Its name.
        name: String,
        /// How it ended.
        code: u8,
    },
    /// The beginning of several IDs.
    #[error("'{id}' is the beginning of the IDs of '{}': write more of it, or a name", names.join("' and '"))]
    Ambiguous {
        /// What was written.
        id: String,
        /// Whose IDs begin so.
        names: Vec<String>,
    },
    /// The state directory cannot be read.
    #[error("cannot see which microVMs run in {}: only its owner can ask for them", path.display())]
    State {
        /// The state directory.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// Its VMM is not there yet.
    #[error("microVM '{0}' has not started yet: try again in a moment")]
    Starting(String),
    /// Its VMM is gone and its `ballast` not yet.
    #[error("microVM '{0}' is ending")]
    Ending(String),
    /// Its VMM is there and silent.
    #[error("microVM '{0}' does not answer: is its ballast-vmm stopped, or the host short of memory?")]
    NoAnswer(String),
    /// What it said is no answer.
    #[error("microVM '{0}' gives an answer that cannot be understood: is it of another version of Ballast?")]
    Garbled(String),
    /// It says no.
    #[error("{0}")]
    Refused(String),
    /// The host refuses something small.
    #[error("cannot ask microVM '{name}'")]
    Host {
        /// Which.
        name: String,
        /// The host's answer.
        source: io::Error,
    },
}

fn others(running: &[String]) -> String {
    match running {
        [] => "; none is".into(),
        [one] => format!("; '{one}' is"),
        [some @ .., last] => format!("; '{}' and '{last}' are", some.join("', '")),
    }
}

/// All microVMs, those that have ended too.
///
/// # Errors
/// The state directory cannot be read.
pub fn known(state: &Path) -> Result<Vec<Known>, Error> {
    let known = balloon::state::check(state).and_then(|()| state::known(state));
    known.map_err(|source| Error::State { path: state.into(), source })
}

/// All running microVMs.
///
/// # Errors
/// The state directory cannot be read.
pub fn running(state: &Path) -> Result<Vec<Known>, Error> {
    Ok(known(state)?.into_iter().filter(|vm| vm.exit.is_none()).collect())
}

/// The running microVM of that name or ID.
///
/// # Errors
/// There is none.
pub fn find(state: &Path, word: &str) -> Result<Known, Error> {
    let all = known(state)?;
    let running = all.iter().filter(|vm| vm.exit.is_none()).map(|vm| vm.name.clone()).collect();
    match state::pick(all, word) {
        Ok(Known { name, exit: Some(exit), .. }) => Err(Error::Over { name, code: exit.code }),
        Err(NotOne::None) => Err(Error::NoSuchVm { name: printable(word), running }),
        picked => one(picked, word),
    }
}

/// The microVM of that name or ID, whether it runs or has ended and is kept.
///
/// # Errors
/// There is none.
pub fn find_known(state: &Path, word: &str) -> Result<Known, Error> {
    one(state::pick(known(state)?, word), word)
}

fn one(picked: Result<Known, NotOne>, word: &str) -> Result<Known, Error> {
    picked.map_err(|not_one| match not_one {
        NotOne::None => Error::Unknown(printable(word)),
        NotOne::Several(names) => Error::Ambiguous { id: printable(word), names },
    })
}

/// Asks many at once, so that those that do not answer cost their deadline together. Gives what each answered.
pub fn ask_all<T: Send>(running: &[Known], ask: impl Fn(&Known) -> T + Sync) -> Vec<(&Known, T)> {
    let mut answers = Vec::new();
    for some in running.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|vm| (vm, scope.spawn(|| ask(vm)))).collect();
            // A thread that panicked has said so.
            let asked = threads.into_iter().filter_map(|(vm, thread)| Some((vm, thread.join().ok()?)));
            answers.extend(asked);
        });
    }
    answers
}

/// Reads a document.
///
/// # Errors
/// The microVM does not answer, or refuses.
pub fn get<T: DeserializeOwned>(vm: &Known, path: &str) -> Result<T, Error> {
    client::get(&vm.socket, path).map_err(|error| explain(vm, error))
}

/// Sends a document and reads the one that comes back.
///
/// # Errors
/// The microVM does not answer, or refuses.
pub fn put<T: DeserializeOwned>(vm: &Known, path: &str, document: &impl Serialize) -> Result<T, Error> {
    client::send(&vm.socket, "PUT", path, document, client::LIMIT).map_err(|error| explain(vm, error))
}

/// Sends a signal to the workload.
///
/// # Errors
/// The microVM does not answer, or its workload does not run.
pub fn signal(vm: &Known, signal: u8) -> Result<(), Error> {
    let request = SignalRequest { signal };
    client::send::<SignalRequest>(&vm.socket, "POST", "/v1/signal", &request, client::LIMIT)
        .map(drop)
        .map_err(|error| explain(vm, error))
}

/// Has the connection go on with another protocol, which `document` begins.
///
/// # Errors
/// The microVM does not answer, or refuses.
pub fn upgrade(
    vm: &Known,
    path: &str,
    protocol: &str,
    document: &impl Serialize,
) -> Result<UnixStream, Error> {
    client::upgrade(&vm.socket, path, protocol, document).map_err(|error| explain(vm, error))
}

/// Orders something of the agent in the guest, which takes its time.
///
/// # Errors
/// The microVM or its agent does not answer, or refuses.
pub fn order<T: DeserializeOwned>(vm: &Known, path: &str, document: &impl Serialize) -> Result<T, Error> {
    answers(vm)?;
    client::send(&vm.socket, "POST", path, document, ORDER_LIMIT).map_err(|error| explain(vm, error))
}

/// Replaces a document if it is still of this generation.
///
/// # Errors
/// As of [`order`].
pub fn replace<T: DeserializeOwned>(
    vm: &Known,
    path: &str,
    generation: u64,
    document: &impl Serialize,
) -> Result<T, Error> {
    answers(vm)?;
    client::replace(&vm.socket, path, generation, document, ORDER_LIMIT).map_err(|error| explain(vm, error))
}

/// One that does not even say who it is, is not waited for as long as its guest may take.
fn answers(vm: &Known) -> Result<(), Error> {
    get::<VmDocument>(vm, "/v1/vm").map(drop)
}

fn explain(vm: &Known, error: client::Error) -> Error {
    let name = vm.name.clone();
    match error {
        client::Error::Absent => Error::Starting(name),
        client::Error::Ended => Error::Ending(name),
        client::Error::NoAnswer => Error::NoAnswer(name),
        client::Error::Garbled => Error::Garbled(name),
        client::Error::Refused(refusal) => Error::Refused(printable(&refusal.message)),
        client::Error::Host(source) => Error::Host { name, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balloon::control::api::MemoryDocument;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    fn vm(directory: &Path) -> Known {
        Known {
            name: "web".into(),
            record: None,
            exit: None,
            pid: None,
            directory: directory.into(),
            socket: directory.join("control.sock"),
        }
    }

    /// Asks a VMM that says `answer` and nothing else.
    fn asked(answer: &'static [u8]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let vm = vm(directory.path());
        let listener = UnixListener::bind(&vm.socket).unwrap();
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
            let _ = stream.write_all(answer);
        });
        let error = get::<MemoryDocument>(&vm, "/v1/memory").unwrap_err().to_string();
        server.join().unwrap();
        error
    }

    #[test]
    fn refusals_are_passed_on_without_what_could_change_the_terminal() {
        let answer =
            b"HTTP/1.1 422 No\r\nContent-Length: 36\r\n\r\n{\"error\":{\"message\":\"no\\u001b[2J\"}}\n";
        assert_eq!(asked(answer), "no\u{fffd}[2J");
    }

    #[test]
    fn nonsense_is_called_so() {
        for answer in [
            &b"hello\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n{}",
            b"HTTP/1.1 500 OK\r\nContent-Length: 2\r\n\r\n[]",
        ] {
            assert!(asked(answer).contains("cannot be understood"), "{answer:?}");
        }
        assert!(asked(b"").contains("ending"));
    }

    #[test]
    fn a_vm_that_is_not_ready_is_told_from_one_that_hangs() {
        let directory = tempfile::tempdir().unwrap();
        let vm = vm(directory.path());
        let error = || get::<MemoryDocument>(&vm, "/v1/memory").unwrap_err();
        assert!(matches!(error(), Error::Starting(_)));
        let listener = UnixListener::bind(&vm.socket).unwrap();
        assert!(matches!(error(), Error::NoAnswer(_)));
        drop(listener);
        assert!(matches!(error(), Error::Ending(_)));
    }

    #[test]
    fn who_looks_for_nobody_hears_who_there_is() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let error = |running| Error::NoSuchVm { name: "x".into(), running: names(running) }.to_string();
        assert_eq!(error(&[]), "no microVM named 'x' is running; none is");
        assert_eq!(error(&["a"]), "no microVM named 'x' is running; 'a' is");
        assert_eq!(error(&["a", "b", "c"]), "no microVM named 'x' is running; 'a', 'b' and 'c' are");
    }
}

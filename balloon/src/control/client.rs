//! Asks whoever serves a control socket, within a deadline. Wiring; the documents are [`super::api`]'s.
//!
//! The other end may be a VMM that a hostile guest has taken over: what it sends is bounded and only data.

#![forbid(unsafe_code)]

use super::api::{ErrorDetail, ErrorDocument};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Within it everything is answered that nobody else has to be asked for, and the guest's statistics, which have a second.
pub const LIMIT: Duration = Duration::from_secs(3);
/// Longest answer that is read.
const ANSWER_BYTES: usize = 1 << 20;
/// Longest one where all microVMs are in it: some 500 bytes each.
const LIST_BYTES: usize = 64 << 20;

/// Nothing was asked, or what was asked was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no socket.
    #[error("there is no such socket")]
    Absent,
    /// Nobody listens any longer.
    #[error("nobody listens there")]
    Ended,
    /// Somebody listens and is silent.
    #[error("nobody answers")]
    NoAnswer,
    /// What it says is no answer.
    #[error("the answer cannot be understood")]
    Garbled,
    /// The answer is no.
    #[error("{}", .0.message)]
    Refused(ErrorDetail),
    /// The host refuses something small.
    #[error("cannot ask")]
    Host(#[source] io::Error),
}

/// Reads the document at `path` of whoever serves `socket`.
///
/// # Errors
/// Nobody answers within [`LIMIT`], or the answer is no.
pub fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Error> {
    get_within(socket, path, LIMIT)
}

/// As [`get`], of who may take longer to answer.
///
/// # Errors
/// Nobody answers within `limit`, or the answer is no.
pub fn get_within<T: DeserializeOwned>(socket: &Path, path: &str, limit: Duration) -> Result<T, Error> {
    ask(socket, &get_request(path), limit)
}

/// As [`get`], of a daemon, which answers of each microVM.
///
/// # Errors
/// Nobody answers within [`LIMIT`], or the answer is no.
pub fn get_list<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Error> {
    ask_for(socket, &get_request(path), LIMIT, LIST_BYTES)
}

/// Sends a document to `path` and reads the one that comes back within `limit`.
///
/// # Errors
/// Nobody answers, or the answer is no.
pub fn send<T: DeserializeOwned>(
    socket: &Path,
    method: &str,
    path: &str,
    document: &impl Serialize,
    limit: Duration,
) -> Result<T, Error> {
    ask(socket, &request(method, path, "", document)?, limit)
}

/// As [`send`] with `PUT`, if the document at `path` is still of this generation: its entity tag, without quotes.
///
/// # Errors
/// Nobody answers, or the answer is no, also because the document has changed (412).
pub fn replace<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    generation: u64,
    document: &impl Serialize,
    limit: Duration,
) -> Result<T, Error> {
    let condition = format!("If-Match: \"{generation}\"\r\n");
    ask(socket, &request("PUT", path, &condition, document)?, limit)
}

/// Sends a document to `path` and has the connection go on with `protocol`: what it is then, without a time limit.
///
/// # Errors
/// Nobody answers within [`LIMIT`], or the answer is no.
pub fn upgrade(
    socket: &Path,
    path: &str,
    protocol: &str,
    document: &impl Serialize,
) -> Result<UnixStream, Error> {
    let body = serde_json::to_string(document).map_err(|error| Error::Host(error.into()))?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: ballast\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (stream, answer) = begin_upgrade(socket, request.as_bytes()).map_err(classify)?;
    if answer.is_empty() {
        return Err(Error::Ended);
    }
    if answer.starts_with(b"HTTP/1.1 101 ") { Ok(stream) } else { Err(refusal(&answer)) }
}

/// Sends `request` and reads the head of the answer and no more; of a refusal all of it.
fn begin_upgrade(socket: &Path, request: &[u8]) -> io::Result<(UnixStream, Vec<u8>)> {
    const HEAD_BYTES: usize = 4096;
    let start = Instant::now();
    let mut stream = connect(socket, LIMIT)?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    // Byte by byte: what is behind the head is the other protocol's.
    while answer.len() < HEAD_BYTES && !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match read_within(&mut stream, &mut byte, start, LIMIT)? {
            0 => break,
            _ => answer.extend(byte),
        }
    }
    while !answer.starts_with(b"HTTP/1.1 101 ") && answer.len() < ANSWER_BYTES && parse(&answer).is_none() {
        let mut more = [0; 1024];
        match read_within(&mut stream, &mut more, start, LIMIT)? {
            0 => break,
            length => answer.extend_from_slice(more.get(..length).unwrap_or_default()),
        }
    }
    stream.set_read_timeout(None)?;
    set_socket_timeout(&stream, Timeout::Send, None)?;
    Ok((stream, answer))
}

fn request(method: &str, path: &str, fields: &str, document: &impl Serialize) -> Result<String, Error> {
    let body = serde_json::to_string(document).map_err(|error| Error::Host(error.into()))?;
    let length = body.len();
    Ok(format!(
        "{method} {path} HTTP/1.1\r\nHost: ballast\r\nConnection: close\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    ))
}

fn get_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: ballast\r\nConnection: close\r\n\r\n")
}

fn ask<T: DeserializeOwned>(socket: &Path, request: &str, limit: Duration) -> Result<T, Error> {
    ask_for(socket, request, limit, ANSWER_BYTES)
}

fn ask_for<T: DeserializeOwned>(
    socket: &Path,
    request: &str,
    limit: Duration,
    most_bytes: usize,
) -> Result<T, Error> {
    let answer = exchange(socket, request.as_bytes(), limit, most_bytes).map_err(classify)?;
    if answer.is_empty() {
        return Err(Error::Ended);
    }
    match parse(&answer) {
        Some((200, document)) => serde_json::from_slice(document).map_err(|_| Error::Garbled),
        _ => Err(refusal(&answer)),
    }
}

fn classify(source: io::Error) -> Error {
    match source.kind() {
        ErrorKind::NotFound => Error::Absent,
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Error::Ended,
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::NoAnswer,
        _ => Error::Host(source),
    }
}

/// What an answer that is no success says.
fn refusal(answer: &[u8]) -> Error {
    let document = parse(answer).and_then(|(_, document)| serde_json::from_slice(document).ok());
    document.map_or(Error::Garbled, |ErrorDocument { error }| Error::Refused(error))
}

fn connect(socket: &Path, limit: Duration) -> io::Result<UnixStream> {
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Connecting waits too, while other clients wait to be accepted.
    set_socket_timeout(&fd, Timeout::Send, Some(limit))?;
    rustix::net::connect(&fd, &SocketAddrUnix::new(socket)?)?;
    Ok(UnixStream::from(fd))
}

/// Sends `request` and reads to the end, or hardly more than `most_bytes`.
fn exchange(socket: &Path, request: &[u8], limit: Duration, most_bytes: usize) -> io::Result<Vec<u8>> {
    let start = Instant::now();
    let mut stream = connect(socket, limit)?;
    match stream.write_all(request) {
        // Who may not ask is told so at once, and then not listened to.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written?,
    }
    let mut answer = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    while answer.len() < most_bytes {
        match read_within(&mut stream, &mut buffer, start, limit) {
            Ok(0) => break,
            Ok(bytes) => answer.extend_from_slice(buffer.get(..bytes).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset && !answer.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// Reads some, at most until `limit` after `start`: whoever sends a byte now and then gets no more time.
fn read_within(
    stream: &mut UnixStream,
    buffer: &mut [u8],
    start: Instant,
    limit: Duration,
) -> io::Result<usize> {
    loop {
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Status and content of a whole response.
fn parse(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(bytes).ok()? else { return None };
    let status = response.code?;
    let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"))?;
    let length: usize = std::str::from_utf8(field.value).ok()?.trim().parse().ok()?;
    Some((status, bytes.get(head..head.checked_add(length)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn who_sends_a_byte_now_and_then_gets_no_more_time() {
        let (mut stream, mut other) = UnixStream::pair().unwrap();
        let serving = std::thread::spawn(move || {
            while other.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let start = Instant::now();
        let error = loop {
            if let Err(error) = read_within(&mut stream, &mut [0], start, Duration::from_millis(100)) {
                break error;
            }
        };
        assert!(matches!(classify(error), Error::NoAnswer));
        drop(stream);
        serving.join().unwrap();
    }

    #[test]
    fn a_list_may_be_longer_than_what_one_says_of_itself() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let list = format!("[{}7]", "7,".repeat(ANSWER_BYTES));
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{list}", list.len());
        let serving = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]);
                // Who has read enough hangs up.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        assert_eq!(get_list::<Vec<u8>>(&socket, "/").unwrap().len(), ANSWER_BYTES + 1);
        assert!(matches!(get::<Vec<u8>>(&socket, "/"), Err(Error::Garbled)));
        serving.join().unwrap();
    }
}

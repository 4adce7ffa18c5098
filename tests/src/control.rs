//! A client of a microVM's control socket, as small as curl's part in it.

use crate::ballast::Ballast;
use crate::run::limit;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Where the control socket of `name` is.
#[must_use]
pub fn socket(ballast: &Ballast, name: &str) -> PathBuf {
    ballast.path("state/vms").join(name).join("control.sock")
}

/// The head and the content of the answer to `METHOD PATH`.
///
/// # Errors
/// The socket cannot be reached, or nothing comes back.
pub fn ask(socket: &Path, method: &str, path: &str, content: &str) -> io::Result<(String, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit()))?;
    let length = content.len();
    // Who is refused may be so before it has said all.
    let _ = write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{content}"
    );
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // The answer to somebody whose request was not read is followed by this.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !answer.is_empty() => {}
        result => drop(result?),
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, content) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok((head.to_owned(), content.to_owned()))
}

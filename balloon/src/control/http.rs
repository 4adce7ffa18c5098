//! Requests and responses of HTTP/1.1 (RFC 9110, RFC 9112) as bytes. Pure; the grammar itself is `httparse`'s.
//!
//! Understood is what control sockets need: bodies of a known length, no transfer codings, upgrades to another
//! protocol. [`crate::control::connection`] finds where a head ends and calls this.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use serde::Serialize;
use serde::de::{DeserializeOwned, Error};

/// Longest request, head and body together.
pub const REQUEST_BYTES: usize = 64 << 10;
/// Most header fields of a request. curl sends four.
const FIELDS: usize = 64;

/// A whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `PUT` and so on, as the client wrote it.
    pub method: String,
    /// The target's path, without its query.
    pub path: String,
    /// What else its head says.
    pub options: Options,
    /// The content.
    pub body: Vec<u8>,
    /// The process that connected, where that is known.
    pub client: Option<u32>,
}

impl Request {
    /// A request whose head says no more than method and path.
    #[must_use]
    pub fn new(method: &str, path: &str, body: &[u8]) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            options: Options::default(),
            body: body.into(),
            client: None,
        }
    }
}

/// Header fields that routes look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `If-Match`: the entity tag that the client has seen, with its quotes (RFC 9110, 13.1.1).
    pub if_match: Option<String>,
    /// `Upgrade`, where `Connection` says it too: the protocol that the client wants to go on with (RFC 9110, 7.8).
    pub upgrade: Option<String>,
    /// `Accept`: the kinds of content that the client takes (RFC 9110, 12.5.1).
    pub accept: Option<String>,
}

/// The first part of a request, up to its empty line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// As in [`Request`].
    pub method: String,
    /// As in [`Request`].
    pub path: String,
    /// As in [`Request`].
    pub options: Options,
    /// Length of the content that follows.
    pub body_bytes: usize,
    /// The client wants no further request on this connection.
    pub close: bool,
    /// The client waits for a word before it sends the content.
    pub expects_continue: bool,
}

/// The status of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// The connection goes on with another protocol.
    SwitchingProtocols = 101,
    /// It is done.
    Ok = 200,
    /// The request cannot be understood.
    BadRequest = 400,
    /// The client may not ask anything.
    Forbidden = 403,
    /// There is nothing of that name.
    NotFound = 404,
    /// It has no such method.
    MethodNotAllowed = 405,
    /// The microVM is in no state for it.
    Conflict = 409,
    /// A content needs its length.
    LengthRequired = 411,
    /// It has changed since the client saw it.
    PreconditionFailed = 412,
    /// The content is too long.
    ContentTooLarge = 413,
    /// The client expects what nobody offers.
    ExpectationFailed = 417,
    /// The content is understood and refused.
    Unprocessable = 422,
    /// The path is for another protocol only.
    UpgradeRequired = 426,
    /// The head is too long.
    HeadTooLarge = 431,
    /// Ballast failed.
    Internal = 500,
    /// It cannot be had now.
    Unavailable = 503,
    /// The guest did not answer in time.
    GuestTimeout = 504,
    /// Another version of HTTP.
    Version = 505,
}

impl Status {
    /// The number.
    #[must_use]
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The words behind the number, for people.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::SwitchingProtocols => "Switching Protocols",
            Self::Ok => "OK",
            Self::BadRequest => "Bad Request",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::Conflict => "Conflict",
            Self::LengthRequired => "Length Required",
            Self::PreconditionFailed => "Precondition Failed",
            Self::ContentTooLarge => "Content Too Large",
            Self::ExpectationFailed => "Expectation Failed",
            Self::Unprocessable => "Unprocessable Content",
            Self::UpgradeRequired => "Upgrade Required",
            Self::HeadTooLarge => "Request Header Fields Too Large",
            Self::Internal => "Internal Server Error",
            Self::Unavailable => "Service Unavailable",
            Self::GuestTimeout => "Gateway Timeout",
            Self::Version => "HTTP Version Not Supported",
        }
    }
}

/// A response: a document, JSON as a rule, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// How it went.
    pub status: Status,
    /// Header fields of its own, names and values.
    pub fields: Vec<(&'static str, String)>,
    /// What the document is.
    pub content_type: &'static str,
    /// The document, without the end of its last line. With [`Status::SwitchingProtocols`] there is none.
    pub body: Vec<u8>,
}

/// What nearly all documents are.
const JSON: &str = "application/json";

impl Response {
    /// `document` with `status`.
    #[must_use]
    pub fn json(status: Status, document: &impl Serialize) -> Self {
        match serde_json::to_vec(document) {
            Ok(body) => Self::new(status, JSON, body),
            // None of our documents has a map whose keys are no strings, which is all that can fail.
            Err(_) => Self::new(Status::Internal, JSON, b"{}".to_vec()),
        }
    }

    /// A document of another kind, without the end of its last line.
    #[must_use]
    pub fn new(status: Status, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, fields: Vec::new(), content_type, body }
    }

    /// The same with one more header field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// After it the connection speaks `protocol`.
    #[must_use]
    pub fn upgrade(protocol: &str) -> Self {
        let response = Self::new(Status::SwitchingProtocols, JSON, Vec::new());
        response.with("Connection", "Upgrade").with("Upgrade", protocol)
    }

    /// Appends the response to `output`; without its content as the answer to HEAD.
    pub fn write(&self, head_only: bool, close: bool, output: &mut Vec<u8>) {
        let has_body = self.status != Status::SwitchingProtocols;
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status.code(), self.status.reason());
        if has_body {
            let length = self.body.len().saturating_add(1);
            head.push_str(&format!("Content-Type: {}\r\nContent-Length: {length}\r\n", self.content_type));
        }
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        output.extend_from_slice(head.as_bytes());
        if has_body && !head_only {
            output.extend_from_slice(&self.body);
            // For whoever reads it in a terminal.
            output.push(b'\n');
        }
    }
}

/// Reads the document that a client sent: an object, as all are. Taken for itself, serde would read a list as the members
/// of an object in the order in which they happen to be declared.
///
/// # Errors
/// It is no JSON, no object, or not the one that is wanted.
pub fn parse_document<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(serde_json::Error::custom("a list is no object"));
    }
    serde_json::from_slice(body)
}

/// A request that is answered without being routed, and after which the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What to answer.
    pub status: Status,
    /// Why, for people.
    pub message: &'static str,
}

fn refuse<T>(status: Status, message: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status, message })
}

/// Reads a head, from its first byte to its empty line, and says how many bytes that were.
///
/// # Errors
/// It is no head of HTTP/1, or one of a request that nobody can answer.
pub fn parse_head(bytes: &[u8]) -> Result<(Head, usize), Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Err(httparse::Error::TooManyHeaders) => {
            return refuse(Status::HeadTooLarge, "the request has more than 64 header fields");
        }
        Err(httparse::Error::Version) => {
            return refuse(Status::Version, "only HTTP/1.0 and HTTP/1.1 are spoken");
        }
        Ok(httparse::Status::Partial) | Err(_) => {
            return refuse(Status::BadRequest, "this is no request of HTTP/1.1");
        }
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return refuse(Status::BadRequest, "this is no request of HTTP/1.1");
    };
    let mut meaning = Fields::default();
    for field in request.headers.iter() {
        meaning.read(field.name, field.value)?;
    }
    if version == 1 && meaning.hosts != 1 {
        return refuse(Status::BadRequest, "a request of HTTP/1.1 has one Host");
    }
    let body_bytes = meaning.body_bytes(method)?;
    if body_bytes > REQUEST_BYTES.saturating_sub(length) {
        return refuse(Status::ContentTooLarge, "a request has at most 64 KiB");
    }
    let head = Head {
        method: method.into(),
        path: path(target).into(),
        options: Options {
            if_match: meaning.if_match,
            upgrade: meaning.upgrade.filter(|_| version == 1 && meaning.upgrades),
            accept: meaning.accept,
        },
        body_bytes,
        close: version == 0 || meaning.close,
        expects_continue: version == 1 && meaning.expects_continue && body_bytes > 0,
    };
    Ok((head, length))
}

/// What the header fields say, as far as it matters.
#[derive(Default)]
struct Fields {
    hosts: u32,
    length: Option<u64>,
    transfer_coding: bool,
    close: bool,
    expects_continue: bool,
    if_match: Option<String>,
    upgrade: Option<String>,
    accept: Option<String>,
    /// `Connection` says so too.
    upgrades: bool,
}

impl Fields {
    fn read(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("host") {
            self.hosts = self.hosts.saturating_add(1);
        } else if is("content-length") {
            // Two lengths, even equal ones, are how requests are smuggled past whoever reads the other.
            let length = parse_length(value).filter(|_| self.length.is_none());
            let Some(length) = length else {
                return refuse(Status::BadRequest, "Content-Length is no single number");
            };
            self.length = Some(length);
        } else if is("transfer-encoding") {
            self.transfer_coding = true;
        } else if is("connection") {
            for word in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= word.eq_ignore_ascii_case(b"close");
                self.upgrades |= word.eq_ignore_ascii_case(b"upgrade");
            }
        } else if is("if-match") {
            self.if_match = Some(text(value)?);
        } else if is("upgrade") {
            self.upgrade = Some(text(value)?);
        } else if is("accept") {
            // What is no text names nothing that there is.
            self.accept = std::str::from_utf8(value).ok().map(Into::into);
        } else if is("expect") {
            if !value.trim_ascii().eq_ignore_ascii_case(b"100-continue") {
                return refuse(Status::ExpectationFailed, "nothing but 100-continue can be expected");
            }
            self.expects_continue = true;
        }
        Ok(())
    }

    fn body_bytes(&self, method: &str) -> Result<usize, Refusal> {
        match (self.transfer_coding, self.length) {
            (true, Some(_)) => {
                refuse(Status::BadRequest, "a request has a Content-Length or a Transfer-Encoding, not both")
            }
            (true, None) => {
                refuse(Status::LengthRequired, "transfer codings are not spoken: send Content-Length")
            }
            (false, None) if matches!(method, "PUT" | "POST" | "PATCH") => {
                refuse(Status::LengthRequired, "say how long the content is: send Content-Length")
            }
            (false, length) => Ok(usize::try_from(length.unwrap_or(0)).unwrap_or(usize::MAX)),
        }
    }
}

fn text(value: &[u8]) -> Result<String, Refusal> {
    match std::str::from_utf8(value.trim_ascii()) {
        Ok(text) => Ok(text.into()),
        Err(_) => refuse(Status::BadRequest, "If-Match and Upgrade are plain text"),
    }
}

/// Digits only: no sign, no blank, no list (RFC 9110, 8.6). What does not fit 64 bits is as good as their maximum.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = value.iter().map(|digit| u64::from(digit.wrapping_sub(b'0')));
    Some(digits.fold(0, |length, digit| u64::saturating_add(u64::saturating_mul(length, 10), digit)))
}

/// The path of a target in origin form or absolute form (RFC 9112, 3.2).
fn path(target: &str) -> &str {
    let path = match target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://")) {
        Some(_) => {
            let rest = target.get(7..).unwrap_or_default();
            rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or_default()
        }
        None => target,
    };
    match path.split_once('?').map_or(path, |(path, _)| path) {
        "" => "/",
        path => path,
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;

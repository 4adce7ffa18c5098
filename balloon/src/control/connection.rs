//! One client's connection: bytes become requests in order, responses become bytes. Pure.
//!
//! ```text
//!           receive        take_request         answer              outgoing, sent
//!   socket ---------> input ---------> [request] ---------> output ------------------> socket
//! ```
//!
//! The cut of the bytes means nothing: the same bytes give the same requests and the same answers however they
//! arrive. At most one request is out, so that answers keep their order. Bounds: [`REQUEST_BYTES`] of input, and
//! no request is taken while [`UNREAD_BYTES`] of answers wait for a client that does not read. A connection that is
//! upgraded has no further requests; what the client sent behind the last one is the other protocol's
//! ([`Connection::take_rest`]).

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::api::ErrorDocument;
use super::http::{Head, REQUEST_BYTES, Refusal, Request, Response, Status, parse_head};

/// A client that leaves so much unread gets no further answer until it reads. With the longest answer this is
/// far below the 1 MiB at which a slow reader of a stream would be dropped.
pub const UNREAD_BYTES: usize = 16 << 10;

/// A client's bytes, in and out.
#[derive(Debug, Default)]
pub struct Connection {
    input: Vec<u8>,
    /// Of `input`: what belongs to requests that were handed out.
    consumed: usize,
    /// Of the rest: where the search for the head's end goes on.
    scanned: usize,
    /// No request is complete, as far as is known: only more bytes help.
    starved: bool,
    /// A head whose content is not complete, and its length.
    head: Option<(Head, usize)>,
    /// What the answer to the request that is out must know of it.
    out: Option<Out>,
    output: Vec<u8>,
    /// Of `output`: what the client's socket has taken.
    sent: usize,
    /// Nothing more will be received.
    ended: bool,
    /// No further request is taken.
    closing: bool,
    /// Another protocol goes on from here.
    upgraded: bool,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    head_only: bool,
    close: bool,
}

impl Connection {
    /// Bytes that can be received now.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.closing || self.ended { 0 } else { REQUEST_BYTES.saturating_sub(self.rest().len()) }
    }

    /// Takes bytes of the client, at most [`room`](Self::room) of them.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.drain(..self.consumed.min(self.input.len()));
        self.consumed = 0;
        let taken = bytes.get(..self.room()).unwrap_or(bytes);
        if !self.closing {
            self.input.extend_from_slice(taken);
            self.starved = false;
        }
    }

    /// The client sends nothing more; it may still read.
    pub fn end(&mut self) {
        self.ended = true;
        self.starved = false;
    }

    /// The next request, if it is complete and its turn has come. It is out until it is
    /// [answered](Self::answer).
    pub fn take_request(&mut self) -> Option<Request> {
        if !self.is_ready() {
            return None;
        }
        match self.parse() {
            Ok(Some(request)) => return Some(request),
            // What was cut off stays unanswered.
            Ok(None) if self.ended => self.close(),
            Ok(None) => self.starved = true,
            Err(Refusal { status, message }) => {
                Response::json(status, &ErrorDocument::new(message)).write(false, true, &mut self.output);
                self.close();
            }
        }
        None
    }

    /// Whether [`take_request`](Self::take_request) is worth calling: it may give a request, or see that none will come.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let held_back =
            self.out.is_some() || self.closing || self.upgraded || self.outgoing().len() >= UNREAD_BYTES;
        !held_back && !self.starved && (self.ended || !self.rest().is_empty())
    }

    /// Answers the request that is out.
    pub fn answer(&mut self, response: &Response) {
        let Some(Out { head_only, close }) = self.out.take() else { return };
        self.upgraded = response.status == Status::SwitchingProtocols;
        response.write(head_only, close, &mut self.output);
        if close {
            self.close();
        }
    }

    /// Whether a request is out.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.out.is_some()
    }

    /// What the client sent behind the request that was answered by an upgrade.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.rest().to_vec();
        (self.input, self.consumed) = (Vec::new(), 0);
        rest
    }

    /// What the client is to read next.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        self.output.get(self.sent..).unwrap_or_default()
    }

    /// The client's socket has taken `bytes` of [`outgoing`](Self::outgoing).
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes);
        if self.sent >= self.output.len() {
            // A client that is silent holds no memory.
            (self.output, self.sent) = (Vec::new(), 0);
            if self.rest().is_empty() {
                (self.input, self.consumed) = (Vec::new(), 0);
            }
        }
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closing && self.out.is_none() && self.outgoing().is_empty()
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.input.capacity().saturating_add(self.output.capacity())
    }

    fn close(&mut self) {
        self.closing = true;
        (self.input, self.consumed, self.scanned, self.head) = (Vec::new(), 0, 0, None);
    }

    fn rest(&self) -> &[u8] {
        self.input.get(self.consumed..).unwrap_or_default()
    }

    fn consume(&mut self, bytes: usize) {
        self.consumed = self.consumed.saturating_add(bytes);
        self.scanned = 0;
    }

    fn parse(&mut self) -> Result<Option<Request>, Refusal> {
        let (head, head_bytes) = match self.head.take() {
            Some(head) => head,
            None => match self.find_head()? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        let whole = head_bytes.saturating_add(head.body_bytes);
        let Some(body) = self.rest().get(head_bytes..whole) else {
            self.head = Some((head, head_bytes));
            return Ok(None);
        };
        let body = body.to_vec();
        self.consume(whole);
        self.out = Some(Out { head_only: head.method == "HEAD", close: head.close });
        Ok(Some(Request { method: head.method, path: head.path, options: head.options, body, client: None }))
    }

    fn find_head(&mut self) -> Result<Option<(Head, usize)>, Refusal> {
        // Empty lines before a request mean nothing (RFC 9112, 2.2).
        let blank = self.rest().iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if blank > 0 {
            self.consume(blank);
        }
        let Some(end) = self.find_empty_line() else {
            return if self.rest().len() >= REQUEST_BYTES {
                Err(Refusal { status: Status::HeadTooLarge, message: "a request has at most 64 KiB" })
            } else {
                Ok(None)
            };
        };
        let head = parse_head(self.rest().get(..end).unwrap_or_default())?;
        if head.0.expects_continue {
            self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        Ok(Some(head))
    }

    /// The end of the first empty line. Bytes that were looked at once are not looked at again, or a client that
    /// sends one at a time would cost the square of their number.
    fn find_empty_line(&mut self) -> Option<usize> {
        let rest = self.rest();
        let new = rest.get(self.scanned..).unwrap_or_default();
        for (at, byte) in (self.scanned..).zip(new) {
            if *byte != b'\n' {
                continue;
            }
            let line = at.saturating_add(1);
            match rest.get(line..).unwrap_or_default() {
                [b'\n', ..] => return Some(line.saturating_add(1)),
                [b'\r', b'\n', ..] => return Some(line.saturating_add(2)),
                [] | [b'\r'] => {
                    self.scanned = at;
                    return None;
                }
                _ => {}
            }
        }
        self.scanned = rest.len();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET /v1/vm HTTP/1.1\r\nHost: a\r\n\r\n";

    fn answer(connection: &mut Connection) {
        connection.answer(&Response::json(Status::Ok, &serde_json::json!({})));
    }

    fn read(connection: &mut Connection) -> String {
        let text = String::from_utf8(connection.outgoing().to_vec()).unwrap();
        connection.sent(text.len());
        text
    }

    #[test]
    fn pipelined_requests_are_answered_in_order() {
        let mut connection = Connection::default();
        connection.receive(&[GET, b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n", GET].concat());
        assert_eq!(connection.take_request().unwrap().path, "/v1/vm");
        assert_eq!(connection.take_request(), None, "one is out");
        answer(&mut connection);
        assert_eq!(connection.take_request().unwrap().method, "HEAD");
        answer(&mut connection);
        assert!(connection.take_request().is_some());
        answer(&mut connection);
        assert_eq!(connection.take_request(), None);
        assert_eq!(read(&mut connection).matches("{}").count(), 2, "HEAD has no content");
        assert!(!connection.is_over());
        assert_eq!(connection.held_bytes(), 0);
    }

    #[test]
    fn a_client_that_does_not_read_gets_no_more_answers() {
        let mut connection = Connection::default();
        let mut answers = 0;
        for _ in 0..10_000 {
            connection.receive(GET);
            while connection.take_request().is_some() {
                answer(&mut connection);
                answers += 1;
            }
        }
        assert!(connection.outgoing().len() < UNREAD_BYTES + 200);
        assert!(connection.held_bytes() < 4 * REQUEST_BYTES, "{}", connection.held_bytes());
        assert_eq!(connection.room(), 0);
        read(&mut connection);
        assert!(connection.take_request().is_some(), "it reads again after {answers}");
    }

    #[test]
    fn a_half_closed_connection_is_answered_and_closed() {
        let mut connection = Connection::default();
        connection.receive(&[GET, &GET[..10]].concat());
        connection.end();
        assert!(connection.take_request().is_some());
        assert_eq!(connection.take_request(), None);
        assert!(!connection.is_over(), "an answer is due");
        answer(&mut connection);
        assert_eq!(connection.take_request(), None);
        assert!(!connection.is_over(), "an answer is unread");
        assert!(read(&mut connection).starts_with("HTTP/1.1 200"));
        assert!(connection.is_over());
    }

    #[test]
    fn what_cannot_be_understood_ends_the_connection() {
        let mut connection = Connection::default();
        connection.receive(&[GET, b"nonsense\r\n\r\n", GET].concat());
        assert!(connection.take_request().is_some());
        answer(&mut connection);
        assert_eq!(connection.take_request(), None);
        let text = read(&mut connection);
        assert!(text.contains("HTTP/1.1 400 Bad Request") && text.contains("Connection: close"), "{text}");
        assert!(connection.is_over());
        assert_eq!(connection.room(), 0);
    }

    #[test]
    fn a_head_has_an_end() {
        for (head, status) in [(REQUEST_BYTES, "404"), (REQUEST_BYTES + 1, "431")] {
            let mut connection = Connection::default();
            let fill = "a".repeat(head - "GET / HTTP/1.0\r\nX: \r\n\r\n".len());
            let text = format!("GET / HTTP/1.0\r\nX: {fill}\r\n\r\n");
            for byte in text.as_bytes() {
                connection.receive(&[*byte]);
                if connection.take_request().is_some() {
                    connection.answer(&Response::json(Status::NotFound, &serde_json::json!({})));
                }
            }
            assert!(read(&mut connection).starts_with(&format!("HTTP/1.1 {status}")));
        }
    }

    #[test]
    fn what_follows_an_upgrade_is_no_request() {
        let mut connection = Connection::default();
        connection.receive(&[GET, GET].concat());
        assert!(connection.take_request().is_some());
        connection.answer(&Response::upgrade("x"));
        assert_eq!(connection.take_request(), None);
        assert_eq!(connection.take_rest(), GET);
        assert!(read(&mut connection).ends_with("Upgrade: x\r\n\r\n"));
    }

    #[test]
    fn a_content_is_waited_for() {
        let mut connection = Connection::default();
        connection.receive(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(connection.take_request(), None);
        assert_eq!(connection.take_request(), None);
        assert_eq!(read(&mut connection), "HTTP/1.1 100 Continue\r\n\r\n");
        connection.receive(b"12345GET");
        assert_eq!(connection.take_request().unwrap().body, b"12345");
        answer(&mut connection);
        assert_eq!(connection.take_request(), None);
        assert_eq!(connection.room(), REQUEST_BYTES - 3);
    }
}

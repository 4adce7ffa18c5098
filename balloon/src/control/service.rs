//! What a control socket's server asks of the program behind it. Pure; VMM and daemon implement it.

#![forbid(unsafe_code)]

use super::api::ErrorDocument;
use super::http::{Request, Response, Status};
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

/// What a request comes to.
pub enum Answer {
    /// This, at once.
    Now(Response),
    /// Somebody else was asked: [`Service::settle`] gives the answer when it has come, [`Service::give_up`] when it has
    /// not come in time.
    Later {
        /// Which answer. Several clients may wait for the same.
        ticket: u64,
        /// How long it is waited for.
        limit: Duration,
    },
    /// The connection goes on as this stream, once the client has the response, [`Response::upgrade`].
    Upgrade(Response, Box<dyn Stream>),
}

/// What is behind a control socket. All calls are made on the thread of the event loop and return at once.
pub trait Service {
    /// Answers a request, or promises to.
    fn serve(&mut self, request: &Request) -> Answer;

    /// The answer that was promised, if it has come.
    fn settle(&mut self, ticket: u64) -> Option<Response>;

    /// The answer that was promised, now that time is up.
    fn give_up(&mut self, ticket: u64) -> Response;

    /// [`Self::event`] was readable: what can be done about it is done, also for clients that are gone.
    fn advance(&mut self) {}

    /// Readable when promised answers may have come, or streams have something to send; drained by the server.
    fn event(&self) -> Option<&EventFd>;
}

/// A protocol that a connection was upgraded to: bytes in, bytes out. Nobody but the service that made it knows what
/// it says. It holds no more than a bounded number of bytes.
pub trait Stream {
    /// Bytes that can be received now. With none left the client waits.
    fn room(&self) -> usize;

    /// Takes bytes of the client, at most [`room`](Self::room) of them.
    fn receive(&mut self, bytes: &[u8]);

    /// The client sends nothing more.
    fn end(&mut self);

    /// Looks whether there is more for the client.
    fn advance(&mut self) {}

    /// What the client is to read next.
    fn outgoing(&self) -> &[u8];

    /// The client's socket has taken `bytes` of [`outgoing`](Self::outgoing).
    fn sent(&mut self, bytes: usize);

    /// Whether nothing is left to do: the connection closes once [`outgoing`](Self::outgoing) is empty.
    fn is_over(&self) -> bool;
}

/// An answer that is no success.
#[must_use]
pub fn error(status: Status, message: impl Into<String>) -> Response {
    Response::json(status, &ErrorDocument::new(message))
}

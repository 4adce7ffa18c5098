//! `GET /metrics`. Wiring of requests to the fleet.

#![forbid(unsafe_code)]

use super::exposition::{Format, exposition};
use crate::control::http::{Request, Response, Status};
use crate::control::service::{Answer, Service, error};
use crate::daemon::fleet::Fleet;
use std::cell::RefCell;
use std::rc::Rc;
use vmm_sys_util::eventfd::EventFd;

/// Where it is.
pub const PATH: &str = "/metrics";

/// All metrics, in the format that the client asks for.
#[must_use]
pub fn answer(fleet: &mut Fleet, request: &Request) -> Response {
    let format = Format::accepted(request.options.accept.as_deref());
    let mut text = exposition(fleet.snapshot(), format);
    // The response has its own.
    text.truncate(text.trim_end().len());
    Response::new(Status::Ok, format.content_type(), text.into_bytes())
}

/// All that is served on TCP: nothing there can change anything.
///
/// Whoever can reach it may ask as often as they like, so that an answer holds until the next tick.
pub struct Endpoint {
    fleet: Rc<RefCell<Fleet>>,
    answers: [Option<Kept>; 2],
}

/// An answer that has been given.
struct Kept {
    format: Format,
    tick: u64,
    response: Response,
}

impl Endpoint {
    /// Tells of `fleet`.
    #[must_use]
    pub fn new(fleet: Rc<RefCell<Fleet>>) -> Self {
        Self { fleet, answers: [None, None] }
    }

    fn metrics(&mut self, request: &Request) -> Response {
        let mut fleet = self.fleet.borrow_mut();
        let (format, tick) = (Format::accepted(request.options.accept.as_deref()), fleet.ticks());
        let is_current = |kept: &&Kept| kept.format == format && kept.tick == tick;
        if let Some(kept) = self.answers.iter().flatten().find(is_current) {
            return kept.response.clone();
        }
        let response = answer(&mut fleet, request);
        let [open, plain] = &mut self.answers;
        let place = if format == Format::OpenMetrics { open } else { plain };
        *place = Some(Kept { format, tick, response: response.clone() });
        response
    }
}

impl Service for Endpoint {
    fn serve(&mut self, request: &Request) -> Answer {
        Answer::Now(match (request.method.as_str(), request.path.as_str()) {
            ("GET" | "HEAD", PATH) => self.metrics(request),
            (_, PATH) => {
                error(Status::MethodNotAllowed, "this path takes GET, HEAD").with("Allow", "GET, HEAD")
            }
            _ => error(Status::NotFound, "there is no such path; there is /metrics"),
        })
    }

    fn settle(&mut self, _ticket: u64) -> Option<Response> {
        None
    }

    fn give_up(&mut self, _ticket: u64) -> Response {
        error(Status::Internal, "nothing was promised")
    }

    fn event(&self) -> Option<&EventFd> {
        None
    }
}

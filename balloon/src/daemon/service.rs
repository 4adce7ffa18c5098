//! What the daemon's own socket offers: [`crate::control::fleet`] lists it. Wiring of requests to the fleet.

#![forbid(unsafe_code)]

use super::fleet::Fleet;
use super::host;
use super::journal::Journal;
use super::metrics::endpoint;
use crate::control::events::WAIT;
use crate::control::fleet::{GroupLimitsRequest, GroupRequest, HostDocument, StartDocument, StartRequest};
use crate::control::http::{Request, Response, Status, parse_document};
use crate::control::service::{Answer, Service, error};
use crate::zone::{Error, Limits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;
use vmm_sys_util::eventfd::EventFd;

/// Paths and the methods that they have, as the `Allow` field says them.
pub const ROUTES: &[(&str, &str)] = &[
    ("/metrics", "GET, HEAD"),
    ("/v1/host", "GET, HEAD"),
    ("/v1/tree", "GET, HEAD"),
    ("/v1/charging", "GET, HEAD"),
    ("/v1/events", "GET, HEAD"),
    ("/v1/events/{number}", "GET, HEAD"),
    ("/v1/groups", "PUT"),
    ("/v1/vms", "POST"),
    ("/v1/vms/{name}/group", "PUT"),
    ("/v1/vms/{name}/limits", "PUT"),
];

/// Clients that may wait for events at once: half of those that are served, so that others find a place. Who comes on top
/// is answered at once, with nothing.
const WAITING: usize = 8;

/// The fleet behind its socket.
pub struct Host {
    fleet: Rc<RefCell<Fleet>>,
    journal: Rc<Journal>,
    /// Until when those wait that wait for events.
    waiting: Vec<Instant>,
}

impl Host {
    /// Answers for `fleet` and what `journal` has kept of it.
    #[must_use]
    pub fn new(fleet: Rc<RefCell<Fleet>>, journal: Rc<Journal>) -> Self {
        Self { fleet, journal, waiting: Vec::new() }
    }

    fn route(&mut self, request: &Request) -> Answer {
        let mut fleet = self.fleet.borrow_mut();
        let words: Vec<&str> = request.path.split('/').skip(1).collect();
        Answer::Now(match (request.method.as_str(), words.as_slice()) {
            ("GET" | "HEAD", ["v1", "host"]) => Response::json(Status::Ok, &fleet.host()),
            ("GET" | "HEAD", ["v1", "tree"]) => Response::json(Status::Ok, &fleet.document()),
            ("GET" | "HEAD", ["v1", "charging"]) => Response::json(Status::Ok, &fleet.charging()),
            ("GET" | "HEAD", ["metrics"]) => endpoint::answer(&mut fleet, request),
            ("GET" | "HEAD", ["v1", "events"]) => Response::json(Status::Ok, &self.journal.after(None)),
            ("GET" | "HEAD", ["v1", "events", number]) => match number.parse() {
                Ok(number) => {
                    drop(fleet);
                    return self.events(number);
                }
                Err(_) => error(Status::BadRequest, "behind /v1/events/ stands the number of an event"),
            },
            ("POST", ["v1", "vms"]) => start(&mut fleet, request),
            ("PUT", ["v1", "vms", name, "group"]) => {
                change(&mut fleet, request, |fleet, to: GroupRequest| fleet.move_vm(name, &to.group), to_host)
            }
            ("PUT", ["v1", "vms", name, "limits"]) => {
                change(&mut fleet, request, |fleet, limits: Limits| fleet.change(name, limits), to_host)
            }
            ("PUT", ["v1", "groups"]) => {
                let apply = |fleet: &mut Fleet, to: GroupLimitsRequest| fleet.change_group(&to);
                change(&mut fleet, request, apply, to_host)
            }
            _ => refuse(&request.path),
        })
    }

    /// Those after `number`; the client waits for the next one.
    fn events(&mut self, number: u64) -> Answer {
        let now = Instant::now();
        // Those that were answered, and those that are gone.
        self.waiting.retain(|until| *until > now);
        if self.journal.is_news(number) || self.waiting.len() >= WAITING {
            return Answer::Now(Response::json(Status::Ok, &self.journal.after(Some(number))));
        }
        self.waiting.push(now + WAIT);
        Answer::Later { ticket: number, limit: WAIT }
    }
}

impl Service for Host {
    fn serve(&mut self, request: &Request) -> Answer {
        let answer = self.route(request);
        self.journal.record(&mut self.fleet.borrow_mut());
        answer
    }

    fn settle(&mut self, ticket: u64) -> Option<Response> {
        self.journal.is_news(ticket).then(|| self.give_up(ticket))
    }

    fn give_up(&mut self, ticket: u64) -> Response {
        Response::json(Status::Ok, &self.journal.after(Some(ticket)))
    }

    fn advance(&mut self) {
        // There is something new for whoever waits.
        self.waiting.clear();
    }

    fn event(&self) -> Option<&EventFd> {
        Some(self.journal.news())
    }
}

fn start(fleet: &mut Fleet, request: &Request) -> Response {
    let Some(starter) = request.client.and_then(host::status) else {
        return error(Status::Conflict, "who asks to start a microVM must live until it has");
    };
    let admit = |fleet: &mut Fleet, vm: StartRequest| {
        // One of that name that died before it came holds it until the next tick.
        fleet.look_after(&vm.name, host::is_alive, host::held);
        fleet.admit(&vm, starter.process)
    };
    change(fleet, request, admit, |_, scope| StartDocument { scope })
}

fn to_host(fleet: &Fleet, (): ()) -> HostDocument {
    fleet.host()
}

/// Does what the document of `request` asks for by `change`, and answers with what `answer` makes of that.
fn change<T: DeserializeOwned, R, A: Serialize>(
    fleet: &mut Fleet,
    request: &Request,
    change: impl FnOnce(&mut Fleet, T) -> Result<R, Error>,
    answer: impl FnOnce(&Fleet, R) -> A,
) -> Response {
    let document = match parse_document(&request.body) {
        Ok(document) => document,
        Err(fault) => {
            // A fault may quote the client; it need not hear all of it.
            let fault: String = fault.to_string().chars().take(200).collect();
            return error(Status::BadRequest, format!("this is no such document: {fault}"));
        }
    };
    match change(fleet, document) {
        Ok(done) => Response::json(Status::Ok, &answer(fleet, done)),
        Err(Error::Gone) => error(Status::NotFound, "no microVM of that name is known to ballastd"),
        Err(refusal @ Error::NoGroup { .. }) => error(Status::NotFound, refusal.to_string()),
        Err(refusal) => error(Status::Unprocessable, refusal.to_string()),
    }
}

/// What is no route, or not by this method.
fn refuse(path: &str) -> Response {
    match ROUTES.iter().find(|(route, _)| matches(route, path)) {
        Some((_, allow)) => {
            error(Status::MethodNotAllowed, format!("this path takes {allow}")).with("Allow", *allow)
        }
        None => {
            let paths: Vec<&str> = ROUTES.iter().map(|(route, _)| *route).collect();
            error(Status::NotFound, format!("there is no such path; there are {}", paths.join(", ")))
        }
    }
}

fn matches(route: &str, path: &str) -> bool {
    let (mut route, mut path) = (route.split('/'), path.split('/'));
    loop {
        match (route.next(), path.next()) {
            (None, None) => return true,
            (Some(word), Some(given)) if word.starts_with('{') || word == given => {}
            _ => return false,
        }
    }
}

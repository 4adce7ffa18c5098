//! What the daemon's own socket offers: [`crate::control::fleet`] lists it. Wiring of requests to the fleet.

#![forbid(unsafe_code)]

use super::fleet::Fleet;
use super::host;
use crate::control::fleet::{GroupLimitsRequest, GroupRequest, HostDocument, StartDocument, StartRequest};
use crate::control::http::{Request, Response, Status, parse_document};
use crate::control::service::{Answer, Service, error};
use crate::zone::{Error, Limits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::rc::Rc;
use vmm_sys_util::eventfd::EventFd;

/// The fleet behind its socket.
pub struct Host {
    fleet: Rc<RefCell<Fleet>>,
}

impl Host {
    /// Answers for `fleet`.
    #[must_use]
    pub fn new(fleet: Rc<RefCell<Fleet>>) -> Self {
        Self { fleet }
    }

    fn route(&self, request: &Request) -> Response {
        let mut fleet = self.fleet.borrow_mut();
        let words: Vec<&str> = request.path.split('/').skip(1).collect();
        match (request.method.as_str(), words.as_slice()) {
            ("GET" | "HEAD", ["v1", "host"]) => Response::json(Status::Ok, &fleet.host()),
            ("GET" | "HEAD", ["v1", "tree"]) => Response::json(Status::Ok, &fleet.document()),
            ("GET" | "HEAD", ["v1", "charging"]) => Response::json(Status::Ok, &fleet.charging()),
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
            (_, ["v1", "host" | "tree" | "charging"]) => not_allowed("GET, HEAD"),
            (_, ["v1", "vms"]) => not_allowed("POST"),
            (_, ["v1", "groups"] | ["v1", "vms", _, "group" | "limits"]) => not_allowed("PUT"),
            _ => error(
                Status::NotFound,
                "there is no such path; there are /v1/host, /v1/tree, /v1/charging, /v1/groups, /v1/vms, \
                 /v1/vms/NAME/group and /v1/vms/NAME/limits",
            ),
        }
    }
}

impl Service for Host {
    fn serve(&mut self, request: &Request) -> Answer {
        Answer::Now(self.route(request))
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

fn start(fleet: &mut Fleet, request: &Request) -> Response {
    let Some(starter) = request.client.and_then(host::status) else {
        return error(Status::Conflict, "who asks to start a microVM must live until it has");
    };
    let admit = |fleet: &mut Fleet, vm: StartRequest| fleet.admit(&vm, starter.process);
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

fn not_allowed(allow: &'static str) -> Response {
    error(Status::MethodNotAllowed, format!("this path takes {allow}")).with("Allow", allow)
}

//! What there is on the control socket and what it does. Pure: a request, the VM and its memory give an answer.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::api::{CeilingRequest, DriverState, ErrorDocument, MemoryDocument, VmDocument};
use super::http::{Request, Response, Status};
use super::memory::{Ceiling, Memory, Unavailable};
use balloon::size::Size;

/// What a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This, at once.
    Now(Response),
    /// The guest was asked: [`statistics`] when it has answered, or when time is up.
    Statistics,
}

/// A path and the methods that it has, as the `Allow` field says them.
pub struct Route {
    /// The path.
    pub path: &'static str,
    /// Its methods, with commas between.
    pub allow: &'static str,
    serve: fn(&Request, &VmDocument, &mut dyn Memory) -> Answer,
}

/// All of them.
pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/vm",
        allow: "GET, HEAD",
        serve: |_, vm, _| Answer::Now(Response::json(Status::Ok, vm)),
    },
    Route {
        path: "/v1/memory",
        allow: "GET, HEAD",
        serve: |_, _, memory| Answer::Now(Response::json(Status::Ok, &memory.snapshot())),
    },
    Route {
        path: "/v1/memory/ceiling",
        allow: "PUT",
        serve: |request, _, memory| Answer::Now(set_ceiling(&request.body, memory)),
    },
    Route { path: "/v1/statistics", allow: "GET, HEAD", serve: |_, _, memory| request_statistics(memory) },
];

/// Answers `request`.
pub fn route(request: &Request, vm: &VmDocument, memory: &mut dyn Memory) -> Answer {
    let Some(route) = ROUTES.iter().find(|route| route.path == request.path) else {
        let message = format!("there is no such path; there are {}", paths().join(", "));
        return Answer::Now(error(Status::NotFound, message));
    };
    if !route.allow.split(", ").any(|method| method == request.method) {
        let response = error(Status::MethodNotAllowed, format!("{} takes {}", route.path, route.allow));
        return Answer::Now(Response { allow: Some(route.allow), ..response });
    }
    (route.serve)(request, vm, memory)
}

/// The answer to a request for statistics, once the guest has answered or time is up.
pub fn statistics(memory: &mut dyn Memory) -> Response {
    match memory.statistics() {
        Some(statistics) => Response::json(Status::Ok, &statistics),
        None => error(Status::GuestTimeout, "the guest was asked for statistics and has never answered"),
    }
}

/// An answer that is no success.
pub fn error(status: Status, message: impl Into<String>) -> Response {
    Response::json(status, &ErrorDocument::new(message))
}

fn paths() -> Vec<&'static str> {
    ROUTES.iter().map(|route| route.path).collect()
}

fn request_statistics(memory: &mut dyn Memory) -> Answer {
    match memory.request_statistics() {
        Ok(()) if memory.statistics_pending() => Answer::Statistics,
        Ok(()) => Answer::Now(statistics(memory)),
        Err(unavailable) => Answer::Now(error(Status::Conflict, unavailable.to_string())),
    }
}

fn set_ceiling(body: &[u8], memory: &mut dyn Memory) -> Response {
    const USAGE: &str = r#"send {"bytes": N} or {"auto": true}"#;
    let request: CeilingRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        // A fault may quote the client; it need not hear all of it.
        Err(fault) => {
            let fault: String = fault.to_string().chars().take(200).collect();
            return error(Status::BadRequest, format!("{USAGE}: {fault}"));
        }
    };
    let ceiling = match request {
        CeilingRequest { bytes: Some(bytes), auto: None } => Ceiling::Bytes(bytes),
        CeilingRequest { bytes: None, auto: Some(true) } => Ceiling::Auto,
        _ => return error(Status::BadRequest, USAGE),
    };
    if let Ceiling::Bytes(bytes) = ceiling {
        let now = memory.snapshot();
        // The state comes first: without a driver no ceiling is better than another.
        if now.driver == DriverState::Absent {
            return error(Status::Conflict, Unavailable::NoDriver.to_string());
        }
        if !(now.floor_bytes..=now.max_bytes).contains(&bytes) {
            return out_of_range(bytes, &now);
        }
    }
    match memory.set_ceiling(ceiling) {
        Ok(()) => Response::json(Status::Ok, &memory.snapshot()),
        Err(unavailable) => error(Status::Conflict, unavailable.to_string()),
    }
}

fn out_of_range(bytes: u64, now: &MemoryDocument) -> Response {
    let [asked, floor, max] = [bytes, now.floor_bytes, now.max_bytes].map(Size::from_bytes);
    let mut document =
        ErrorDocument::new(format!("{asked} is no ceiling of this microVM: it takes {floor} to {max}"));
    document.error.floor_bytes = Some(now.floor_bytes);
    document.error.max_bytes = Some(now.max_bytes);
    Response::json(Status::Unprocessable, &document)
}

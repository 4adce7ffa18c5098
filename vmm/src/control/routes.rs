//! What there is on the control socket and what it does. Pure: a request, the VM and its memory give an answer.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::exec;
use super::memory::{Ceiling, Memory, Refusal};
use super::orders::Orders;
use crate::reclaim::owner::Owner;
use balloon::control::api::{CeilingRequest, ErrorDocument, GuestStatistics, MemoryDocument, VmDocument};
use balloon::control::http::{Request, Response, Status, parse_document};
use balloon::control::link;
use balloon::control::reclaim::ReclaimRequest;
use balloon::control::service::error;
use balloon::working_set::{AGES_MS, BUDGETS_PPM};
use proto::Piece;

/// The ticket of the guest's next statistics, whoever waits for them.
pub const STATISTICS: u64 = 0;

/// What a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This, at once.
    Now(Response),
    /// The connection becomes a link to `ballastd`.
    Link,
    /// The connection becomes this command's.
    Command(Piece),
    /// The guest was asked: [`statistics`] when it has answered, or when time is up.
    Statistics,
    /// The guest's agent was asked: [`Orders::take`] gives the answer of this ticket.
    Later(u64),
}

/// What requests are about.
pub struct Parts<'a> {
    /// The microVM.
    pub vm: &'a VmDocument,
    /// Its memory.
    pub memory: &'a mut dyn Memory,
    /// What its agent is asked for.
    pub orders: &'a mut Orders,
    /// Its reclaim law.
    pub reclaim: &'a mut Owner,
    /// A clock that never goes back.
    pub now_ms: u64,
}

/// A path and the methods that it has, as the `Allow` field says them.
pub struct Route {
    /// The path.
    pub path: &'static str,
    /// Its methods, with commas between.
    pub allow: &'static str,
    serve: fn(&Request, Parts<'_>) -> Answer,
}

/// All of them.
pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/vm",
        allow: "GET, HEAD",
        serve: |_, parts| Answer::Now(Response::json(Status::Ok, parts.vm)),
    },
    Route { path: "/v1/memory", allow: "GET, HEAD", serve: |_, parts| Answer::Now(memory(parts.memory)) },
    Route {
        path: "/v1/memory/ceiling",
        allow: "PUT",
        serve: |request, parts| Answer::Now(set_ceiling(&request.body, parts.memory)),
    },
    Route { path: "/v1/zones", allow: "GET, HEAD", serve: |_, parts| Answer::Now(zones(parts)) },
    Route {
        path: "/v1/zones/max",
        allow: "POST",
        serve: |request, parts| parts.orders.set_zone_max(request, parts.memory, parts.now_ms),
    },
    Route {
        path: "/v1/zones/node",
        allow: "POST",
        serve: |request, parts| parts.orders.set_node(request, parts.memory),
    },
    Route { path: "/v1/statistics", allow: "GET, HEAD", serve: |_, parts| request_statistics(parts.memory) },
    Route {
        path: "/v1/limits",
        allow: "GET, HEAD, PUT",
        serve: |request, parts| match request.method.as_str() {
            "PUT" => parts.orders.set_limits(request, parts.memory, parts.now_ms),
            _ => parts.orders.limits(),
        },
    },
    Route {
        path: "/v1/trim",
        allow: "POST",
        serve: |request, parts| parts.orders.trim(request, parts.memory, parts.now_ms),
    },
    Route {
        path: "/v1/move",
        allow: "POST",
        serve: |request, parts| parts.orders.move_process(request, parts.memory, parts.now_ms),
    },
    Route { path: "/v1/signal", allow: "POST", serve: |request, parts| parts.orders.signal(request) },
    Route {
        path: "/v1/reclaim",
        allow: "GET, HEAD, PUT",
        serve: |request, parts| match request.method.as_str() {
            "PUT" => set_reclaim(&request.body, parts),
            _ => Answer::Now(Response::json(Status::Ok, &parts.reclaim.document(parts.now_ms))),
        },
    },
    Route {
        path: "/v1/decisions",
        allow: "GET, HEAD",
        serve: |_, parts| Answer::Now(Response::json(Status::Ok, &parts.reclaim.decisions(parts.now_ms))),
    },
    Route { path: "/v1/exec", allow: "POST", serve: |request, parts| exec::begin(request, parts.memory) },
    Route { path: link::PATH, allow: "GET", serve: |request, _| link(request) },
];

/// Answers `request`.
pub fn route(request: &Request, parts: Parts<'_>) -> Answer {
    let Some(route) = ROUTES.iter().find(|route| route.path == request.path) else {
        let message = format!("there is no such path; there are {}", paths().join(", "));
        return Answer::Now(error(Status::NotFound, message));
    };
    if !route.allow.split(", ").any(|method| method == request.method) {
        let response = error(Status::MethodNotAllowed, format!("{} takes {}", route.path, route.allow));
        return Answer::Now(response.with("Allow", route.allow));
    }
    (route.serve)(request, parts)
}

/// The answer to a request for statistics, once the guest has answered or time is up.
pub fn statistics(memory: &mut dyn Memory) -> Response {
    let pending = memory.statistics_pending();
    match memory.statistics() {
        // Time is up by the server's clock, whatever the device's says: what there is answers an older request.
        Some(last) => Response::json(Status::Ok, &GuestStatistics { stale: last.stale || pending, ..last }),
        None => error(Status::GuestTimeout, "the guest was asked for statistics and has never answered"),
    }
}

fn paths() -> Vec<&'static str> {
    ROUTES.iter().map(|route| route.path).collect()
}

fn zones(parts: Parts<'_>) -> Response {
    let mut document = parts.memory.zones();
    for (number, zone) in (0..).zip(&mut document.zones) {
        zone.max_bytes = parts.orders.zone_max(number);
    }
    document.zones.extend(parts.memory.shared_zones());
    Response::json(Status::Ok, &document)
}

fn request_statistics(memory: &mut dyn Memory) -> Answer {
    match memory.request_statistics() {
        Ok(()) if memory.statistics_pending() => Answer::Statistics,
        Ok(()) => Answer::Now(statistics(memory)),
        Err(refusal) => Answer::Now(refused(refusal)),
    }
}

fn link(request: &Request) -> Answer {
    if request.options.upgrade.as_deref() == Some(link::PROTOCOL) {
        return Answer::Link;
    }
    let words = format!("{} is for ballastd: it takes an Upgrade to {}", link::PATH, link::PROTOCOL);
    Answer::Now(error(Status::UpgradeRequired, words).with("Upgrade", link::PROTOCOL))
}

/// What a law can be told to go by: a second and more of age, up to all of the time.
fn set_reclaim(body: &[u8], parts: Parts<'_>) -> Answer {
    const USAGE: &str = r#"send {"working_set_age_ms": N, "stall_budget_ppm": N}, or one of them; null is what its group says, or the default"#;
    let request: ReclaimRequest = match parse_document(body) {
        Ok(request) => request,
        Err(fault) => return Answer::Now(error(Status::BadRequest, usage(USAGE, &fault))),
    };
    if request.working_set_age_ms.flatten().is_some_and(|age| !AGES_MS.contains(&age)) {
        let (least, most) = (AGES_MS.start() / 1000, AGES_MS.end() / 86_400_000);
        let message = format!("a working-set age is from {least} s to {most} days");
        return Answer::Now(error(Status::Unprocessable, message));
    }
    if request.stall_budget_ppm.flatten().is_some_and(|budget| !BUDGETS_PPM.contains(&budget)) {
        return Answer::Now(error(Status::Unprocessable, "a stall budget is from 0.001 % to 100 %"));
    }
    parts.reclaim.set(request);
    Answer::Now(Response::json(Status::Ok, &parts.reclaim.document(parts.now_ms)))
}

/// A fault may quote the client; it need not hear all of it.
fn usage(usage: &str, fault: &serde_json::Error) -> String {
    let fault: String = fault.to_string().chars().take(200).collect();
    format!("{usage}: {fault}")
}

/// Everything there is to say.
fn memory(memory: &mut dyn Memory) -> Response {
    let document = memory.snapshot();
    Response::json(Status::Ok, &MemoryDocument { host: memory.charge(), ..document })
}

fn set_ceiling(body: &[u8], memory: &mut dyn Memory) -> Response {
    const USAGE: &str = r#"send {"bytes": N} or {"auto": true}"#;
    let request: CeilingRequest = match parse_document(body) {
        Ok(request) => request,
        Err(fault) => return error(Status::BadRequest, usage(USAGE, &fault)),
    };
    let ceiling = match request {
        CeilingRequest { bytes: Some(bytes), auto: None } => Ceiling::Bytes(bytes),
        CeilingRequest { bytes: None, auto: Some(true) } => Ceiling::Auto,
        _ => return error(Status::BadRequest, USAGE),
    };
    match memory.set_ceiling(ceiling) {
        Ok(()) => self::memory(memory),
        Err(refusal) => refused(refusal),
    }
}

fn refused(refusal: Refusal) -> Response {
    let mut document = ErrorDocument::new(refusal.to_string());
    match refusal {
        Refusal::Ceiling(range) => {
            document.error.floor_bytes = Some(range.floor_bytes);
            document.error.max_bytes = Some(range.max_bytes);
            Response::json(Status::Unprocessable, &document)
        }
        Refusal::Driver(_) | Refusal::Broken => Response::json(Status::Conflict, &document),
    }
}

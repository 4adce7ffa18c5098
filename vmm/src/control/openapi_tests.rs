//! `vmm/openapi.yaml` says what the socket does: every path, method, status and member, none more and none less.

#[path = "../../../balloon/src/control/openapi_check.rs"]
mod openapi_check;

use self::openapi_check::check;
use super::memory::Memory;
use super::orders_bench::{Bench, TRIMMED, limited, max, refused};
use super::routes::{self, ROUTES};
use super::scripted::{Scripted, ask, envelope};
use balloon::control::api::{ArbiterDocument, CeilingRequest, DriverState, GuestStatistics};
use balloon::control::orders::{
    ExecRequest, LimitsRequest, MoveRequest, NodeRequest, SignalRequest, TerminalSize, TrimEnd, TrimRequest,
};
use balloon::control::reclaim::{Origin, ReclaimRequest};
use balloon::device::Values;
use proto::Done;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn openapi() -> Value {
    serde_yaml_ng::from_str(include_str!("../../openapi.yaml")).unwrap()
}

/// Asks, and checks the answer against what is described for its status.
fn answer(memory: &mut dyn Memory, method: &str, path: &str, body: &str) -> u16 {
    let openapi = openapi();
    let (status, document) = match ask(memory, method, path, body) {
        (0, _) => {
            let response = routes::statistics(memory);
            (response.status.code(), serde_json::from_slice(&response.body).unwrap())
        }
        answer => answer,
    };
    let responses = &openapi["paths"][path][method.to_lowercase()]["responses"];
    let schema = &responses[status.to_string()]["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{method} {path} gives {status}, which is not described");
    check(&openapi, schema, &document, path);
    status
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let openapi = openapi();
    let described: BTreeSet<(String, String)> = openapi["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let served = ROUTES
        .iter()
        .flat_map(|route| route.allow.split(", ").map(|method| (route.path.to_owned(), method.to_owned())));
    assert_eq!(described, served.collect());
}

#[test]
fn every_answer_is_as_described_and_every_described_status_is_given() {
    const CEILING: &str = "/v1/memory/ceiling";
    let mut given = BTreeSet::new();
    let saying = |statistics| Scripted { statistics: Some(statistics), ..Scripted::new() };
    let mut memories: [Box<dyn Memory>; 4] = [
        Box::new(Scripted::with_driver(DriverState::Absent)),
        Box::new(saying(Scripted::full_statistics())),
        Box::new(saying(GuestStatistics { age_ms: 0, stale: false, values: Values::default() })),
        Box::new(Scripted::silent()),
    ];
    const DRIVERLESS: usize = 0;
    const MOVING: usize = 1;
    const SPARSE: usize = 2;
    const SILENT: usize = 3;
    for (memory, method, path, body) in [
        (DRIVERLESS, "GET", "/v1/vm", ""),
        (DRIVERLESS, "GET", "/v1/memory", ""),
        (DRIVERLESS, "GET", "/v1/zones", ""),
        (DRIVERLESS, "GET", "/v1/link", ""),
        (DRIVERLESS, "GET", "/v1/reclaim", ""),
        (DRIVERLESS, "GET", "/v1/decisions", ""),
        (DRIVERLESS, "PUT", "/v1/reclaim", r#"{"working_set_age_ms": 60000, "stall_budget_ppm": 300}"#),
        (DRIVERLESS, "PUT", "/v1/reclaim", r#"{"working_set_age_ms": null}"#),
        (DRIVERLESS, "PUT", "/v1/reclaim", r#"{"stall_budget_ppm": 0}"#),
        (DRIVERLESS, "PUT", "/v1/reclaim", r#"{"age": 1}"#),
        (DRIVERLESS, "GET", "/v1/statistics", ""),
        (DRIVERLESS, "PUT", CEILING, r#"{"bytes": 268435456}"#),
        (MOVING, "GET", "/v1/memory", ""),
        (MOVING, "GET", "/v1/statistics", ""),
        (MOVING, "PUT", CEILING, r#"{"bytes": 268435456}"#),
        (MOVING, "PUT", CEILING, r#"{"bytes": 1}"#),
        (MOVING, "PUT", CEILING, "x"),
        (SPARSE, "GET", "/v1/statistics", ""),
        (SILENT, "GET", "/v1/statistics", ""),
    ] {
        let status = answer(&mut *memories[memory], method, path, body);
        given.insert((path.to_owned(), method.to_lowercase(), status.to_string()));
    }
    given.extend(ordered(&openapi()));
    // To who asks for it by name; it has no document.
    given.insert(("/v1/link".into(), "get".into(), "101".into()));
    given.insert(("/v1/exec".into(), "post".into(), "101".into()));
    let openapi = openapi();
    for (path, methods) in openapi["paths"].as_object().unwrap() {
        // HEAD is GET without content.
        for (method, operation) in methods.as_object().unwrap().iter().filter(|(method, _)| *method != "head")
        {
            for status in operation["responses"].as_object().unwrap().keys() {
                let key = (path.clone(), method.clone(), status.clone());
                assert!(given.contains(&key), "{key:?} is described and never given");
            }
        }
    }
}

/// The answers about what takes its time, checked; which there were.
fn ordered(openapi: &Value) -> BTreeSet<(String, String, String)> {
    const LIMITS: &str = "/v1/limits";
    const TRIM: (&str, &str) = ("/v1/trim", "{}");
    const MOVE: (&str, &str) = ("/v1/move", r#"{"pid": 7, "zone": "cache"}"#);
    const SIGNAL: &str = "/v1/signal";
    const NODE: (&str, &str) = ("/v1/zones/node", r#"{"zone": "cache", "node": 1}"#);
    const ZONE_MAX: (&str, &str) = ("/v1/zones/max", r#"{"zone": "cache", "max_bytes": 1048576}"#);
    let moved = Done::Moved { there_bytes: 1, elsewhere_bytes: 2 };
    let low = max(256);
    let mut bench = Bench::new();
    let mut given = BTreeSet::new();
    let mut check_one = |bench: &mut Bench, method: &str, path: &str, body: &str, does| {
        let (status, document) = bench.ask(method, path, body, does);
        let responses = &openapi["paths"][path][method.to_lowercase()]["responses"];
        let schema = &responses[status.to_string()]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{method} {path} gives {status}, which is not described");
        check(openapi, schema, &document, path);
        given.insert((path.to_owned(), method.to_lowercase(), status.to_string()));
    };
    bench.host_refuses.set(true);
    check_one(&mut bench, "PUT", LIMITS, &low, Some(limited()));
    bench.host_refuses.set(false);
    for (method, path, body, does) in [
        ("GET", LIMITS, "", None),
        ("PUT", LIMITS, "x", None),
        ("PUT", LIMITS, r#"{"weight": 0}"#, None),
        ("PUT", LIMITS, &low, Some(refused())),
        ("PUT", LIMITS, &low, None),
        ("PUT", LIMITS, &low, Some(limited())),
        ("POST", TRIM.0, "x", None),
        ("POST", TRIM.0, r#"{"zone": "no"}"#, None),
        ("POST", TRIM.0, TRIM.1, Some(refused())),
        ("POST", TRIM.0, TRIM.1, None),
        ("POST", TRIM.0, TRIM.1, Some(Done::Trimmed(TRIMMED))),
        ("POST", SIGNAL, "x", None),
        ("POST", SIGNAL, r#"{"signal": 15}"#, None),
        ("POST", MOVE.0, "x", None),
        ("POST", MOVE.0, r#"{"pid": 7, "zone": "no"}"#, None),
        ("POST", MOVE.0, MOVE.1, Some(refused())),
        ("POST", MOVE.0, MOVE.1, None),
        ("POST", MOVE.0, MOVE.1, Some(moved)),
        ("POST", ZONE_MAX.0, "x", None),
        ("POST", ZONE_MAX.0, r#"{"zone": "no", "max_bytes": 1}"#, None),
        ("POST", ZONE_MAX.0, ZONE_MAX.1, Some(refused())),
        ("POST", ZONE_MAX.0, ZONE_MAX.1, None),
        ("POST", ZONE_MAX.0, ZONE_MAX.1, Some(limited())),
        ("POST", NODE.0, "x", None),
        ("POST", NODE.0, r#"{"zone": "no", "node": 1}"#, None),
        ("POST", NODE.0, r#"{"zone": "cache", "node": 7}"#, None),
        ("POST", NODE.0, r#"{"zone": "cache", "node": null}"#, None),
        ("POST", NODE.0, NODE.1, None),
    ] {
        check_one(&mut bench, method, path, body, does);
    }
    bench.memory.move_ends = Err(libc::ENOMEM);
    check_one(&mut bench, "POST", NODE.0, NODE.1, None);
    bench.begin("POST", NODE.0, NODE.1, None).unwrap_err();
    check_one(&mut bench, "POST", NODE.0, NODE.1, None);
    bench.pass(10_000);
    let stale = bench.begin("PUT", LIMITS, &low, Some("\"99\"")).unwrap();
    while bench.begin("POST", MOVE.0, MOVE.1, None).is_err() {}
    for (method, path, body) in [
        ("PUT", LIMITS, &*low),
        ("POST", TRIM.0, TRIM.1),
        ("POST", MOVE.0, MOVE.1),
        ("POST", NODE.0, NODE.1),
        ("POST", ZONE_MAX.0, ZONE_MAX.1),
    ] {
        check_one(&mut bench, method, path, body, None);
    }
    const EXEC: &str = r#"{"args": ["sh"]}"#;
    for body in ["", "x", r#"{"args": []}"#, r#"{"args": ["sh"], "zone": "no"}"#, EXEC] {
        check_one(&mut bench, "POST", "/v1/exec", body, None);
    }
    bench.guest.borrow_mut().absent = true;
    check_one(&mut bench, "POST", "/v1/exec", EXEC, None);
    check_one(&mut bench, "POST", SIGNAL, r#"{"signal": 15}"#, None);
    given.insert((NODE.0.into(), "post".into(), bench.orders.give_up(0).status.code().to_string()));
    given.insert((LIMITS.into(), "put".into(), stale.status.code().to_string()));
    given
}

#[test]
fn every_described_member_exists() {
    let openapi = openapi();
    let members = |document: &Value| document.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let mut memory = Scripted { statistics: Some(Scripted::full_statistics()), ..Scripted::new() };
    for (schema, path) in [
        ("Vm", "/v1/vm"),
        ("Memory", "/v1/memory"),
        ("Zones", "/v1/zones"),
        ("Statistics", "/v1/statistics"),
        ("Reclaim", "/v1/reclaim"),
        ("Decisions", "/v1/decisions"),
    ] {
        let described = members(&openapi["components"]["schemas"][schema]["properties"]);
        assert_eq!(described, members(&ask(&mut memory, "GET", path, "").1), "{schema}");
    }
    let lease = ArbiterDocument { envelope: envelope(), left_ms: 1 };
    let lease = serde_json::to_value(lease).unwrap();
    check(&openapi, &openapi["components"]["schemas"]["Vm"]["properties"]["arbiter"], &lease, "arbiter");
    let described = members(&openapi["components"]["schemas"]["Envelope"]["properties"]);
    assert_eq!(described, members(&lease["envelope"]));
    let policy = &lease["envelope"]["policy"];
    let described = |schema: &str| members(&openapi["components"]["schemas"][schema]["properties"]);
    assert_eq!(described("GroupPolicy"), members(policy));
    assert_eq!(described("Inherited"), members(&policy["working_set_age_ms"]));
    let (_, refused) = ask(&mut memory, "PUT", "/v1/memory/ceiling", r#"{"bytes": 1}"#);
    let error = &openapi["components"]["schemas"]["Error"]["properties"]["error"]["properties"];
    assert_eq!(members(error), members(&refused["error"]));
}

#[test]
fn what_may_be_sent_and_every_state_is_as_described() {
    let openapi = openapi();
    let schemas = &openapi["components"]["schemas"];
    for request in
        [CeilingRequest { bytes: Some(1), auto: None }, CeilingRequest { bytes: None, auto: Some(true) }]
    {
        check(&openapi, &schemas["CeilingRequest"], &serde_json::to_value(request).unwrap(), "request");
    }
    let limits = LimitsRequest { min_bytes: Some(1), weight: Some(1), ..LimitsRequest::default() };
    check(&openapi, &schemas["LimitsRequest"], &serde_json::to_value(limits).unwrap(), "request");
    let law = ReclaimRequest { working_set_age_ms: Some(None), stall_budget_ppm: Some(Some(10)) };
    check(&openapi, &schemas["ReclaimRequest"], &serde_json::to_value(law).unwrap(), "request");
    for origin in [Origin::Own, Origin::Default, Origin::Group("ci".into())] {
        check(&openapi, &schemas["Origin"], &serde_json::to_value(origin).unwrap(), "origin");
    }
    let trim = TrimRequest { zone: Some("a".into()), bytes: None, to_bytes: Some(1) };
    check(&openapi, &schemas["TrimRequest"], &serde_json::to_value(trim).unwrap(), "request");
    check(
        &openapi,
        &schemas["Signal"],
        &serde_json::to_value(SignalRequest { signal: 9 }).unwrap(),
        "request",
    );
    let exec = ExecRequest {
        args: vec!["sh".into()],
        env: vec!["A=b".into()],
        cwd: Some("/".into()),
        user: Some("app".into()),
        tty: Some(TerminalSize { rows: 24, cols: 80 }),
        zone: Some("ram".into()),
    };
    check(&openapi, &schemas["ExecRequest"], &serde_json::to_value(exec).unwrap(), "request");
    let moving = MoveRequest { pid: 1, zone: "a".into() };
    check(&openapi, &schemas["MoveRequest"], &serde_json::to_value(moving).unwrap(), "request");
    for node in [None, Some(1)] {
        let request = NodeRequest { zone: "a".into(), node };
        check(&openapi, &schemas["NodeRequest"], &serde_json::to_value(request).unwrap(), "request");
    }
    use TrimEnd::{Ineffective, NoSwap, NothingLeft, OutOfTime, Reached};
    let ends = [Reached, NothingLeft, NoSwap, Ineffective, OutOfTime].map(|end| json!(end));
    assert_eq!(schemas["Trim"]["properties"]["ended"]["enum"], json!(ends));
    use DriverState::{Absent, Broken, Moving, Settled, Stuck};
    let states = [Absent, Settled, Moving, Stuck, Broken].map(|s| json!(s));
    assert_eq!(schemas["DriverState"]["enum"], json!(states));
}

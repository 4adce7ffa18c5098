//! `balloon/openapi.yaml` says what the daemon's socket does: every path, method, status and member, none more and none
//! less.

use super::fleet::Fleet;
use super::host::Process;
use super::journal::Journal;
use super::layers::LayerUse;
use super::service::{Host, ROUTES};
use crate::control::events::EventKind;
use crate::control::fleet::{GroupLimitsRequest, GroupRequest, StartRequest};
use crate::control::http::{Request, Response};
use crate::control::link::Hello;
use crate::control::openapi_check::check;
use crate::control::service::{Answer, Service};
use crate::resident::FileId;
use crate::zone::scope::LayerFile;
use crate::zone::{Kind, Limits, Pool, Scope, Share, Tree};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

const GIB: u64 = 1 << 30;

fn openapi() -> Value {
    serde_yaml_ng::from_str(include_str!("../../openapi.yaml")).unwrap()
}

/// A daemon's socket, and what is behind it: a microVM that shares a layer.
fn bench() -> (Host, Rc<RefCell<Fleet>>) {
    let mut fleet = Fleet::new(Tree::new(Pool { capacity_bytes: 4 * GIB, overcommit: false }).unwrap());
    let hello = Hello {
        name: "a".into(),
        pid: 7,
        group: "ci".into(),
        limits: Limits { min: Some(1), max: Some(GIB), ..Limits::default() },
        memory_bytes: GIB,
        zones: vec!["ram".into()],
        inherits: true,
    };
    fleet.greet(&hello, Process { pid: 7, start_ticks: 1 }).unwrap();
    let layer = LayerUse {
        id: FileId { major: 1, minor: 2, inode: 3 },
        file: LayerFile { label: "0123456789ab".into(), scope: Scope::Group("ci".into()) },
        path: Some("/x".into()),
        bytes: 900,
        resident_bytes: 600,
        proportional_bytes: 300,
    };
    fleet.observe_layers("a", &[layer], 600).unwrap();
    fleet.settle_layers(|_| Some(800)).unwrap();
    let fleet = Rc::new(RefCell::new(fleet));
    (Host::new(Rc::clone(&fleet), Rc::new(Journal::new().unwrap())), fleet)
}

/// Asks for a path as the description names it, with these words in the place of its braces.
fn ask(host: &mut Host, method: &str, path: &str, word: &str, body: &str) -> (u16, Value) {
    let asked = path.replace("{name}", word).replace("{number}", word);
    let request =
        Request { client: Some(std::process::id()), ..Request::new(method, &asked, body.as_bytes()) };
    let response: Response = match host.serve(&request) {
        Answer::Now(response) => response,
        Answer::Later { ticket, .. } => host.give_up(ticket),
        Answer::Upgrade(..) => panic!("{path} is no other protocol"),
    };
    // Metrics are text.
    let text = || Value::String(String::from_utf8(response.body.clone()).unwrap());
    (response.status.code(), serde_json::from_slice(&response.body).unwrap_or_else(|_| text()))
}

/// The operations of the description: path, method and responses.
fn operations(openapi: &Value) -> Vec<(String, String, Value)> {
    let paths = openapi["paths"].as_object().unwrap().iter();
    let methods = paths.flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(move |(method, operation)| (path, method, operation))
    });
    methods
        .filter(|(_, method, _)| *method != "parameters")
        .map(|(path, method, operation)| {
            (path.clone(), method.to_uppercase(), operation["responses"].clone())
        })
        .collect()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let described: BTreeSet<_> =
        operations(&openapi()).into_iter().map(|(path, method, _)| (path, method)).collect();
    let routes = ROUTES.iter();
    let served = routes
        .flat_map(|(path, allow)| allow.split(", ").map(|method| ((*path).to_owned(), method.to_owned())));
    assert_eq!(described, served.collect());
    let (mut host, _) = bench();
    // What a method list says is so.
    for (path, allow) in ROUTES {
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
            let (status, _) = ask(&mut host, method, path, "7", "");
            assert_eq!(status != 405, allow.split(", ").any(|allowed| allowed == method), "{method} {path}");
        }
    }
    assert_eq!(ask(&mut host, "GET", "/v1/vms/a/group/b", "", "").0, 404);
}

#[test]
fn every_answer_is_as_described_and_every_described_status_is_given() {
    let openapi = openapi();
    let (mut host, fleet) = bench();
    let mut given = BTreeSet::new();
    let mut answer = |host: &mut Host, method: &str, path: &str, word: &str, body: &str| {
        let (status, document) = ask(host, method, path, word, body);
        let responses = &openapi["paths"][path][method.to_lowercase()]["responses"];
        let content = &responses[status.to_string()]["content"];
        let kind = if path == "/metrics" { "text/plain" } else { "application/json" };
        let schema = &content[kind]["schema"];
        assert!(schema.is_object(), "{method} {path} gives {status}, which is not described");
        check(&openapi, schema, &document, path);
        given.insert((path.to_owned(), method.to_owned(), status.to_string()));
    };
    const GROUP: &str = "/v1/vms/{name}/group";
    const LIMITS: &str = "/v1/vms/{name}/limits";
    const AFTER: &str = "/v1/events/{number}";
    for (method, path, word, body) in [
        ("GET", "/metrics", "", ""),
        ("GET", "/v1/host", "", ""),
        ("GET", "/v1/tree", "", ""),
        ("GET", "/v1/charging", "", ""),
        ("POST", "/v1/vms", "", r#"{"name": "b", "group": "web", "share": "host"}"#),
        ("POST", "/v1/vms", "", r#"{"name": "c", "limits": {"max": 1000000000}}"#),
        ("POST", "/v1/vms", "", r#"{"name": "c"}"#),
        ("POST", "/v1/vms", "", "x"),
        ("PUT", GROUP, "a", r#"{"group": "web"}"#),
        ("PUT", GROUP, "a", r#"{"group": "//"}"#),
        ("PUT", GROUP, "nobody", r#"{"group": "web"}"#),
        ("PUT", GROUP, "a", "x"),
        ("PUT", LIMITS, "a", r#"{"max": 2000000000}"#),
        ("PUT", LIMITS, "a", r#"{"max": 1, "min": 2}"#),
        ("PUT", LIMITS, "nobody", "{}"),
        ("PUT", LIMITS, "a", "x"),
        ("PUT", "/v1/groups", "", r#"{"group": "web", "high": 1000000000}"#),
        ("PUT", "/v1/groups", "", r#"{"group": "web", "weight": 0}"#),
        ("PUT", "/v1/groups", "", r#"{"group": "nosuch"}"#),
        ("PUT", "/v1/groups", "", "x"),
        ("GET", "/v1/events", "", ""),
        ("GET", AFTER, "7", ""),
        ("GET", AFTER, "seven", ""),
    ] {
        answer(&mut host, method, path, word, body);
    }
    // An orphan, which has other members.
    fleet.borrow_mut().end("a");
    answer(&mut host, "GET", "/v1/tree", "", "");
    // Whose process is not known.
    let request = Request::new("POST", "/v1/vms", br#"{"name": "d"}"#);
    assert!(matches!(host.serve(&request), Answer::Now(response) if response.status.code() == 409));
    given.insert(("/v1/vms".into(), "POST".into(), "409".into()));
    // HEAD is GET without content.
    for (path, method, responses) in operations(&openapi).iter().filter(|(_, method, _)| method != "HEAD") {
        for status in responses.as_object().unwrap().keys() {
            let key = (path.clone(), method.clone(), status.clone());
            assert!(given.contains(&key), "{key:?} is described and never given");
        }
    }
}

#[test]
fn every_described_member_exists() {
    let openapi = openapi();
    let members = |document: &Value| document.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let described = |schema: &str| members(&openapi["components"]["schemas"][schema]["properties"]);
    let (mut host, _) = bench();
    let mut get = |path: &str| ask(&mut host, "GET", path, "0", "").1;
    let tree = get("/v1/tree");
    let vm = tree["nodes"].as_array().unwrap().iter().find(|node| node["kind"] == "vm").unwrap();
    let charging = get("/v1/charging");
    // Asking for it has told it.
    let events = get("/v1/events");
    for (schema, document) in [
        ("Host", &get("/v1/host")),
        ("Tree", &tree),
        ("Node", vm),
        ("Limits", &vm["limits"]),
        ("Charging", &charging),
        ("SharedZone", &charging["zones"][0]),
        ("Share", &charging["zones"][0]["shares"][0]),
        ("Events", &events),
        ("Event", &events["events"][0]),
    ] {
        assert_eq!(described(schema), members(document), "{schema}");
    }
}

#[test]
fn what_may_be_sent_and_every_choice_is_as_described() {
    use EventKind::*;
    let openapi = openapi();
    let schemas = &openapi["components"]["schemas"];
    let limits = Limits { low: Some(1), ..Limits::default() };
    let start = StartRequest { name: "a".into(), group: "b".into(), limits, share: Some(Share::Vm) };
    check(&openapi, &schemas["StartRequest"], &json!(start), "request");
    check(&openapi, &schemas["GroupRequest"], &json!(GroupRequest { group: "a".into() }), "request");
    let group = GroupLimitsRequest {
        group: "a".into(),
        min: Some(None),
        low: Some(Some(1)),
        high: Some(None),
        max: Some(None),
        weight: Some(7),
    };
    check(&openapi, &schemas["GroupLimitsRequest"], &json!(group), "request");
    for scope in [Scope::Host, Scope::Group("a".into()), Scope::Vm("b".into())] {
        check(&openapi, &schemas["Scope"], &json!(scope), "scope");
    }
    let kinds = [Kind::Pool, Kind::Group, Kind::Vm, Kind::Zone, Kind::Shared];
    assert_eq!(schemas["Kind"]["enum"], json!(kinds));
    let events = [
        DaemonStarted,
        ConfigReloaded,
        ConfigRefused,
        VmStarted,
        VmFound,
        VmEnded,
        VmLimits,
        VmMoved,
        VmCeiling,
        VmPolicy,
        GroupLimits,
        StartRefused,
        StartForgotten,
        RefusingStarts,
        AdmittingStarts,
        MemoryShort,
        MemoryEnough,
        PressureBegun,
        PressureChanged,
        PressureEnded,
        TakeBegun,
        TakeEnded,
        PageOutBegun,
        PageOutEnded,
        CeilingImposed,
        CeilingLowered,
        CeilingLifted,
        VmKilled,
        VmNotKilled,
        Orphaned,
        Merged,
    ];
    assert_eq!(schemas["EventKind"]["enum"], json!(events));
}

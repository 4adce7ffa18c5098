//! What a scraper gets, and that dashboards and alerts ask for nothing else.

use super::endpoint::{Endpoint, answer};
use super::exposition::{Format, exposition};
use crate::control::fleet::StartRequest;
use crate::control::http::{Options, Request, Response};
use crate::control::link::{Hello, Report, Usage, ZoneUse};
use crate::control::service::{Answer, Service};
use crate::daemon::fleet::Fleet;
use crate::daemon::host::{Held, Process};
use crate::daemon::layers::LayerUse;
use crate::policy::Totals;
use crate::policy::fleet::Host;
use crate::resident::FileId;
use crate::zone::scope::LayerFile;
use crate::zone::{Limits, Pool, Scope, Tree};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

const MIB: u64 = 1 << 20;
const VMM: Process = Process { pid: 7, start_ticks: 1 };

/// One microVM in a group, which has reported and shares a layer.
fn fleet() -> Fleet {
    let pool = Pool { capacity_bytes: 1024 * MIB, overcommit: false };
    let mut fleet = Fleet::new(Tree::new(pool).unwrap());
    let limits =
        Limits { min: Some(64 * MIB), low: Some(64 * MIB), high: None, max: Some(512 * MIB), weight: 100 };
    let request =
        |name: &str| StartRequest { name: name.into(), group: "ci/linux".into(), limits, share: None };
    fleet.admit(&request("web"), VMM).unwrap();
    fleet.admit(&request("much"), VMM).unwrap();
    assert!(fleet.admit(&request("more"), VMM).is_err(), "the pool is promised");
    assert!(fleet.admit(&request("web"), VMM).is_err(), "the name is taken");
    fleet.end("much");
    let hello = Hello {
        name: "web".into(),
        pid: VMM.pid,
        group: "ci/linux".into(),
        limits,
        memory_bytes: 512 * MIB,
        zones: vec!["ram".into(), "cache".into()],
        inherits: true,
    };
    fleet.greet(&hello, VMM).unwrap();
    let sequence = fleet.envelope("web").unwrap().sequence;
    let zone = |name: &str, mib: u64| ZoneUse { name: name.into(), resident_bytes: Some(mib * MIB) };
    let usage = Usage {
        ballooned_bytes: 32 * MIB,
        reported_bytes: 16 * MIB,
        target_bytes: Some(90 * MIB),
        guest_used_bytes: Some(80 * MIB),
        sample_age_ms: Some(1500),
        harm_permille: 250,
        totals: Totals { refault_file: 11, refault_anon: 22, stall_us: 1_500_000 },
        ..Usage::default()
    };
    let report = Report {
        sequence,
        ceiling_bytes: 480 * MIB,
        manual: false,
        floor_bytes: 96 * MIB,
        limits,
        zones: vec![zone("ram", 60), zone("cache", 30)],
        offer: crate::control::link::Offer::default(),
        usage,
    };
    fleet
        .observe("web", &report, || {
            Some(Held { private_bytes: 100 * MIB, swapped_bytes: 7 * MIB, ..Held::default() })
        })
        .unwrap();
    // Two files of one layer: it was imported anew while it was mapped.
    let layer = |inode| LayerUse {
        id: FileId { major: 8, minor: 1, inode },
        file: LayerFile { label: "0123456789ab".into(), scope: Scope::Group("ci".into()) },
        path: None,
        bytes: 8 * MIB,
        resident_bytes: 4 * MIB,
        proportional_bytes: 4 * MIB,
    };
    fleet.observe_layers("web", &[layer(1), layer(2)], 0).unwrap();
    fleet.settle_layers(|_| Some(4 * MIB)).unwrap();
    let host = Host {
        total_bytes: 2048 * MIB,
        available_bytes: 1500 * MIB,
        stall_ppm: 20_000,
        swap_free_bytes: 512 * MIB,
    };
    fleet.arbitrate(host);
    fleet
}

fn text(fleet: &mut Fleet, format: Format) -> String {
    exposition(fleet.snapshot(), format)
}

/// Names of metrics as queries have them.
fn names(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

#[test]
fn a_fleet_is_told_in_series() {
    let text = text(&mut fleet(), Format::OpenMetrics);
    let mib = |mib: u64| mib * MIB;
    for (series, value) in [
        ("ballast_pool_capacity_bytes", mib(1024).to_string()),
        ("ballast_pool_charge_bytes", mib(108).to_string()),
        ("ballast_pool_main_bytes", mib(1024 - 108).to_string()),
        ("ballast_pool_protected_bytes", mib(64).to_string()),
        ("ballast_pool_committed_bytes", mib(512).to_string()),
        ("ballast_host_available_bytes", mib(1500).to_string()),
        ("ballast_host_stall_ratio", "0.02".into()),
        ("ballast_vms", "1".into()),
        ("ballast_orphans", "0".into()),
        ("ballast_arbitration_ticks_total", "1".into()),
        ("ballast_arbitration_lambda_ratio", "1.0".into()),
        ("ballast_arbitration_refusing", "0".into()),
        ("ballast_admissions_total", "2".into()),
        (r#"ballast_admission_refusals_total{reason="committed"}"#, "1".into()),
        (r#"ballast_admission_refusals_total{reason="request"}"#, "1".into()),
        (r#"ballast_admission_refusals_total{reason="host_short"}"#, "0".into()),
        (r#"ballast_group_charge_bytes{group="ci"}"#, mib(108).to_string()),
        (r#"ballast_group_charge_bytes{group="ci/linux"}"#, mib(100).to_string()),
        (r#"ballast_vm_info{vm="web",group="ci/linux"}"#, "1".into()),
        (r#"ballast_vm_memory_size_bytes{vm="web"}"#, mib(512).to_string()),
        (r#"ballast_vm_memory_ceiling_bytes{vm="web"}"#, mib(480).to_string()),
        (r#"ballast_vm_memory_target_bytes{vm="web"}"#, mib(90).to_string()),
        (r#"ballast_vm_memory_resident_bytes{vm="web"}"#, mib(90).to_string()),
        (r#"ballast_vm_memory_charge_bytes{vm="web"}"#, mib(100).to_string()),
        (r#"ballast_vm_memory_footprint_bytes{vm="web"}"#, mib(108).to_string()),
        (r#"ballast_vm_memory_ballooned_bytes{vm="web"}"#, mib(32).to_string()),
        (r#"ballast_vm_memory_swapped_bytes{vm="web"}"#, mib(7).to_string()),
        ("ballast_host_swap_free_bytes", mib(512).to_string()),
        ("ballast_arbitration_page_out_bytes_total", "0".into()),
        ("ballast_arbitration_kills_total", "0".into()),
        ("ballast_arbitration_failed_kills_total", "0".into()),
        (r#"ballast_vm_memory_reported_bytes{vm="web"}"#, mib(16).to_string()),
        (r#"ballast_vm_guest_used_bytes{vm="web"}"#, mib(80).to_string()),
        (r#"ballast_vm_stall_seconds_total{vm="web"}"#, "1.5".into()),
        (r#"ballast_vm_refault_pages_total{vm="web",type="anon"}"#, "22".into()),
        (r#"ballast_vm_harm_ratio{vm="web"}"#, "0.25".into()),
        (r#"ballast_vm_stats_age_seconds{vm="web"}"#, "1.5".into()),
        (r#"ballast_zone_resident_bytes{vm="web",zone="cache"}"#, mib(30).to_string()),
        (r#"ballast_shared_zone_resident_bytes{zone="0123456789ab",scope="group:ci"}"#, mib(8).to_string()),
    ] {
        let line = format!("{series} {value}");
        assert!(text.lines().any(|other| other == line), "no line '{line}' in\n{text}");
    }
}

#[test]
fn both_formats_say_the_same_and_each_series_once() {
    let mut fleet = fleet();
    let open = text(&mut fleet, Format::OpenMetrics);
    let plain = text(&mut fleet, Format::Prometheus);
    assert!(open.ends_with("\n# EOF\n") && open.matches("# EOF").count() == 1, "{open}");
    assert!(!plain.contains("# EOF") && !plain.contains("# UNIT"), "{plain}");
    let series = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(Into::into).collect()
    };
    assert_eq!(series(&open), series(&plain));
    let keys: BTreeSet<String> =
        series(&open).iter().map(|line| line.rsplit_once(' ').unwrap().0.into()).collect();
    assert_eq!(keys.len(), series(&open).len());
    for name in names(&plain) {
        assert_eq!(plain.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
        assert!(plain.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[test]
fn who_has_ended_leaves_no_series() {
    let mut fleet = fleet();
    fleet.sweep(|_| false, |_| Some(Held { private_bytes: 50 * MIB, ..Held::default() }));
    fleet.sweep(|_| false, |_| Some(Held { private_bytes: 50 * MIB, ..Held::default() }));
    let left = text(&mut fleet, Format::Prometheus);
    assert!(!left.contains("\"web\"") && !left.contains("0123456789ab"), "{left}");
    for line in [
        "ballast_orphans 1",
        &format!("ballast_orphan_memory_bytes {}", 50 * MIB),
        "ballast_orphan_oldest_seconds 4",
    ] {
        assert!(left.lines().any(|other| other == line), "no line '{line}' in\n{left}");
    }
}

#[test]
fn dashboards_and_alerts_use_metrics_that_there_are() {
    let text = text(&mut fleet(), Format::Prometheus);
    let known = names(&text);
    for (file, content) in [
        ("ballast.json", include_str!("../../../../resources/grafana/ballast.json")),
        ("metrics.md", include_str!("../../../../docs/metrics.md")),
        ("ballast.rules.yaml", include_str!("../../../../resources/prometheus/ballast.rules.yaml")),
    ] {
        let words = content.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let used: BTreeSet<&str> = words.filter(|word| word.starts_with("ballast_")).collect();
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
        assert!(used.len() >= 8, "{file} asks for next to nothing: {used:?}");
    }
    let documented = include_str!("../../../../docs/metrics.md");
    let silent: Vec<_> = known.iter().filter(|name| !documented.contains(&format!("`{name}`"))).collect();
    assert!(silent.is_empty(), "docs/metrics.md does not tell of {silent:?}");
    let dashboard = include_str!("../../../../resources/grafana/ballast.json");
    assert!(serde_json::from_str::<serde_json::Value>(dashboard).is_ok());
}

fn get(accept: Option<&str>) -> Request {
    let options = Options { accept: accept.map(Into::into), ..Options::default() };
    Request { options, ..Request::new("GET", "/metrics", b"") }
}

#[test]
fn the_client_says_which_format() {
    let mut fleet = fleet();
    // As Prometheus sends it.
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    let mut output = Vec::new();
    answer(&mut fleet, &get(Some(accept))).write(false, false, &mut output);
    let open = String::from_utf8(output).unwrap();
    assert!(
        open.contains("Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{open}"
    );
    assert!(open.ends_with("\n# EOF\n"), "nothing is behind the end: {open}");
    for accept in [None, Some("*/*"), Some("text/plain")] {
        let plain = answer(&mut fleet, &get(accept));
        assert_eq!(plain.content_type, "text/plain; version=0.0.4; charset=utf-8");
    }
}

fn serve(endpoint: &mut Endpoint, request: &Request) -> Response {
    let Answer::Now(response) = endpoint.serve(request) else { panic!("no answer") };
    response
}

#[test]
fn what_is_served_on_tcp_changes_nothing_and_holds_for_a_tick() {
    let fleet = Rc::new(RefCell::new(fleet()));
    let mut endpoint = Endpoint::new(Rc::clone(&fleet));
    for (method, path, status) in [
        ("POST", "/metrics", 405),
        ("GET", "/v1/tree", 404),
        ("POST", "/v1/vms", 404),
        ("GET", "/", 404),
        ("HEAD", "/metrics", 200),
    ] {
        assert_eq!(serve(&mut endpoint, &Request::new(method, path, b"{}")).status.code(), status, "{path}");
    }
    let first = serve(&mut endpoint, &get(None));
    fleet.borrow_mut().end("web");
    assert_eq!(serve(&mut endpoint, &get(None)), first, "a crowd costs one answer a tick");
    let open = serve(&mut endpoint, &get(Some("application/openmetrics-text")));
    assert_ne!(open.content_type, first.content_type);
    fleet.borrow_mut().arbitrate(Host::default());
    assert_ne!(serve(&mut endpoint, &get(None)), first);
}

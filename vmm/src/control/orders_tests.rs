//! What becomes of limits, trims and moves, with an agent that does as the test says.

use super::orders_bench::*;
use proptest::prelude::*;
use proto::{Done, Order};
use serde_json::{Value, json};

#[test]
fn a_lower_max_is_in_force_once_the_agent_has_set_it() {
    let mut bench = Bench::new();
    let ticket = bench.begin("PUT", "/v1/limits", &max(256), Some("\"1\"")).unwrap_err();
    assert_eq!(bench.guest.borrow().given, [Order::Limit { zone: None, max_bytes: Some(256 * MIB) }]);
    bench.pass(1000);
    assert_eq!((bench.take(ticket), bench.limits()["max_bytes"].as_u64()), (None, Some(SIZE)));
    assert_eq!((bench.memory.document.max_bytes, bench.host_max.get()), (SIZE, SIZE));
    // Two at a time could not both be whole.
    assert_eq!(bench.begin("PUT", "/v1/limits", &max(300), None).unwrap().status.code(), 409);
    bench.answers(limited());
    bench.pass(250);
    let (status, document) = bench.take(ticket).unwrap();
    assert_eq!(
        (status, &document["max_bytes"], &document["generation"]),
        (200, &json!(256 * MIB), &json!(2))
    );
    assert_eq!((bench.memory.document.max_bytes, bench.host_max.get()), (256 * MIB, 256 * MIB));
    assert_eq!(bench.memory.document.ceiling.bytes, 256 * MIB);
    // Back to all of it: without a limit in the guest.
    let (status, _) = bench.ask("PUT", "/v1/limits", "{}", Some(limited()));
    assert_eq!((status, bench.memory.document.max_bytes), (200, SIZE));
    assert_eq!(bench.guest.borrow().given[1], Order::Limit { zone: None, max_bytes: None });
}

#[test]
fn limits_without_a_new_max_need_no_agent() {
    let mut bench = Bench::new();
    bench.guest.borrow_mut().absent = true;
    let body = json!({ "min_bytes": 10, "low_bytes": 20, "high_bytes": 200 * MIB, "weight": 7 }).to_string();
    let (status, document) = bench.ask("PUT", "/v1/limits", &body, None);
    assert_eq!(
        (status, document["weight"].as_u64(), document["generation"].as_u64()),
        (200, Some(7), Some(2))
    );
    assert_eq!(bench.limits(), document);
    assert_eq!(bench.ask("PUT", "/v1/limits", &max(256), None).0, 409);
}

#[test]
fn refused_limits_change_nothing() {
    let mut bench = Bench::new();
    let before = bench.limits();
    let said = |bench: &mut Bench, body: &str, does| {
        let (status, document) = bench.ask("PUT", "/v1/limits", body, does);
        (status, document["error"]["message"].as_str().unwrap().to_owned())
    };
    let (status, message) = said(&mut bench, &max(256), Some(refused()));
    assert_eq!((status, message.as_str()), (409, "the limits stay as they were: the workload uses more"));
    let (status, message) = said(&mut bench, &max(100), None);
    assert!(
        status == 422 && message.contains("100 MiB") && message.contains("128 MiB to 512 MiB"),
        "{message}"
    );
    assert_eq!(said(&mut bench, &max(513), None).0, 422);
    let descending = json!({ "min_bytes": 400 * MIB, "max_bytes": 300 * MIB }).to_string();
    assert!(said(&mut bench, &descending, None).1.contains("must ascend"));
    assert_eq!(said(&mut bench, r#"{"weight": 0}"#, None).0, 422);
    assert_eq!(said(&mut bench, r#"{"max": 1}"#, None).0, 400);
    bench.host_refuses.set(true);
    assert_eq!(said(&mut bench, &max(256), Some(limited())).0, 500);
    bench.host_refuses.set(false);
    assert_eq!(said(&mut bench, &max(256), None).0, 504, "silence");
    assert_eq!(bench.begin("PUT", "/v1/limits", &max(256), Some("\"2\"")).unwrap().status.code(), 412);
    assert_eq!((bench.limits(), bench.memory.document.max_bytes, bench.host_max.get()), (before, SIZE, SIZE));
    // After the host's refusal and the silence the guest was told to forget it.
    let unlimited = Order::Limit { zone: None, max_bytes: None };
    assert_eq!(bench.guest.borrow().given.iter().filter(|order| **order == unlimited).count(), 2);
}

#[test]
fn a_promise_hides_no_floor_of_the_guest() {
    for min in [128, 200] {
        let mut bench = Bench::new();
        let promised = json!({ "min_bytes": min * MIB }).to_string();
        assert_eq!(bench.ask("PUT", "/v1/limits", &promised, None).0, 200);
        for below in [max(100), json!({ "high_bytes": 100 * MIB }).to_string()] {
            let (status, document) = bench.ask("PUT", "/v1/limits", &below, Some(limited()));
            assert_eq!((status, &document["error"]["floor_bytes"]), (422, &json!(128 * MIB)), "{below}");
        }
        assert_eq!((bench.memory.document.max_bytes, bench.host_max.get()), (SIZE, SIZE));
        // Nor is what was promised one of the limits to come.
        assert_eq!(bench.ask("PUT", "/v1/limits", &max(150), Some(limited())).0, 200);
        assert_eq!((bench.memory.document.max_bytes, bench.host_max.get()), (150 * MIB, 150 * MIB));
    }
}

#[test]
fn a_trim_tells_what_the_host_got() {
    let mut bench = Bench::new();
    bench.memory.document.resident_bytes = Some(300 * MIB);
    let ticket = bench.begin("POST", "/v1/trim", "{}", None).unwrap_err();
    bench.pass(500);
    assert_eq!(bench.guest.borrow().given, [Order::Trim { zone: None, bytes: None }]);
    bench.answers(Done::Trimmed(TRIMMED));
    for mib in [280, 260, 240, 200] {
        bench.pass(2000);
        assert_eq!(bench.take(ticket), None, "it still falls");
        bench.memory.document.resident_bytes = Some(mib * MIB);
    }
    bench.pass(4500);
    let (status, document) = bench.take(ticket).unwrap();
    assert_eq!(status, 200);
    let expected = json!({
        "zone": null, "before_bytes": 300 * MIB, "after_bytes": 200 * MIB, "settled": true,
        "reclaimed_bytes": 100 * MIB, "file_bytes": 0, "anonymous_bytes": 40 * MIB, "ended": "no-swap"
    });
    assert_eq!(document, expected);
}

#[test]
fn a_trim_waits_for_a_guest_that_never_rests_only_so_long() {
    let mut bench = Bench::new();
    let ticket =
        bench.begin("POST", "/v1/trim", r#"{"zone": "ram", "to_bytes": 209715200}"#, None).unwrap_err();
    bench.pass(500);
    assert_eq!(bench.guest.borrow().given, [Order::Trim { zone: Some(0), bytes: Some(22 * MIB) }]);
    bench.answers(Done::Trimmed(TRIMMED));
    let answer = (0..200u64).find_map(|n| {
        bench.memory.document.resident_bytes = Some(222 * MIB - n * MIB);
        bench.pass(250);
        bench.take(ticket)
    });
    let (status, document) = answer.unwrap();
    assert_eq!((status, &document["settled"], &document["zone"]), (200, &json!(false), &json!("ram")));
}

#[test]
fn what_cannot_be_trimmed_or_moved_is_said() {
    let mut bench = Bench::new();
    for (path, body, status) in [
        ("/v1/trim", "", 400),
        ("/v1/trim", r#"{"bytes": 1, "to_bytes": 1}"#, 400),
        ("/v1/trim", r#"{"zone": "no"}"#, 422),
        ("/v1/move", r#"{"pid": 1}"#, 400),
        ("/v1/move", r#"{"pid": -1, "zone": "ram"}"#, 400),
        ("/v1/move", r#"{"pid": 1, "zone": "no"}"#, 422),
    ] {
        assert_eq!(bench.ask("POST", path, body, None).0, status, "{path} {body}");
    }
    let moving = r#"{"pid": 7, "zone": "cache"}"#;
    let moved = Done::Moved { there_bytes: 8192, elsewhere_bytes: 4096 };
    let (status, document) = bench.ask("POST", "/v1/move", moving, Some(moved));
    assert_eq!((status, document), (200, json!({ "there_bytes": 8192, "elsewhere_bytes": 4096 })));
    assert_eq!(bench.guest.borrow().given, [Order::Move { pid: 7, zone: 1 }]);
    assert_eq!(bench.ask("POST", "/v1/move", moving, Some(refused())).0, 409);
    assert_eq!(bench.ask("POST", "/v1/trim", "{}", Some(refused())).0, 409);
    assert_eq!(bench.ask("POST", "/v1/move", moving, None).0, 504);
    assert_eq!(bench.ask("POST", "/v1/trim", "{}", None).0, 504);
    bench.memory.document.resident_bytes = None;
    assert_eq!(bench.ask("POST", "/v1/trim", r#"{"to_bytes": 1}"#, None).0, 409);
    bench.guest.borrow_mut().absent = true;
    assert_eq!(bench.ask("POST", "/v1/trim", "{}", None).0, 409);
    assert_eq!(bench.ask("POST", "/v1/move", moving, None).0, 409);
}

#[test]
fn a_zone_moves_in_short_turns_and_where_it_lies_is_told() {
    let mut bench = Bench::new();
    let body = r#"{"zone": "cache", "node": 1}"#;
    let ticket = bench.begin("POST", "/v1/zones/node", body, None).unwrap_err();
    assert_eq!(bench.orders.pace(), Some(super::host_nodes::TURN));
    bench.pass(500);
    assert_eq!(bench.take(ticket), None);
    // One zone at a time, and a client that waited long enough is told that it goes on.
    assert_eq!(bench.begin("POST", "/v1/zones/node", body, None).unwrap().status.code(), 409);
    let late = String::from_utf8(bench.orders.give_up(ticket).body).unwrap();
    assert!(late.contains("still on its way to node 1"), "{late}");
    bench.pass(250);
    let there = json!({ "zone": "cache", "node": 1, "moved_bytes": 8192, "there_bytes": 8192, "elsewhere_bytes": 4096 });
    assert_eq!(bench.take(ticket), Some((200, there)));
    assert_eq!(bench.orders.pace(), None);
    let anywhere = bench.ask("POST", "/v1/zones/node", r#"{"zone": "cache", "node": null}"#, None);
    assert_eq!((anywhere.0, &anywhere.1["node"]), (200, &Value::Null));
    assert_eq!(bench.memory.moving, None);
    assert!(bench.guest.borrow().given.is_empty(), "the guest does not notice");
}

#[test]
fn a_zone_is_limited_by_the_agent_or_as_before() {
    let mut bench = Bench::new();
    const PATH: &str = "/v1/zones/max";
    let wanted = |mib: u64| format!(r#"{{"zone": "cache", "max_bytes": {}}}"#, mib * MIB);
    let shown = |bench: &mut Bench| {
        let zones = bench.ask("GET", "/v1/zones", "", None).1;
        [0, 1, 2].map(|zone| zones["zones"][zone]["max_bytes"].as_u64())
    };
    let order = |max: Option<u64>| Order::Limit { zone: Some(1), max_bytes: max.map(|mib| mib * MIB) };
    assert_eq!(bench.ask("POST", PATH, &wanted(100), Some(refused())).0, 409);
    assert_eq!(shown(&mut bench), [None; 3]);
    let (status, document) = bench.ask("POST", PATH, &wanted(100), Some(limited()));
    assert_eq!(
        (status, document),
        (200, json!({ "zone": "cache", "max_bytes": 100 * MIB, "current_bytes": 1 }))
    );
    assert_eq!(shown(&mut bench), [None, Some(100 * MIB), None]);
    // Without an answer the agent is told what was in force.
    assert_eq!(bench.ask("POST", PATH, &wanted(50), None).0, 504);
    assert_eq!(bench.guest.borrow().given, [100, 100, 50, 100].map(|mib| order(Some(mib))));
    assert_eq!(shown(&mut bench)[1], Some(100 * MIB));
    // A change at a time, no more than there is, and none of the only zone.
    let ticket = bench.begin("POST", PATH, r#"{"zone": "cache", "max_bytes": null}"#, None).unwrap_err();
    assert_eq!(bench.begin("POST", PATH, &wanted(70), None).unwrap().status.code(), 409);
    bench.answers(limited());
    bench.pass(250);
    assert_eq!(bench.take(ticket).unwrap().0, 200);
    assert_eq!(shown(&mut bench), [None; 3]);
    let too_large = (bench.memory.document.size_bytes >> 20) + 1;
    for body in [wanted(too_large), r#"{"zone": "no", "max_bytes": 1}"#.into()] {
        assert_eq!(bench.ask("POST", PATH, &body, None).0, 422, "{body}");
    }
    bench.memory.only_zone = true;
    assert_eq!(bench.ask("POST", PATH, r#"{"zone": "ram", "max_bytes": 1}"#, None).0, 422);
    assert_eq!(bench.guest.borrow().given.len(), 5);
}

#[test]
fn clients_that_go_away_leave_nothing_behind() {
    let mut bench = Bench::new();
    let mut begun = 0;
    let full = loop {
        match bench.begin("POST", "/v1/move", r#"{"pid": 7, "zone": "cache"}"#, None) {
            Ok(response) => break response,
            Err(_) => begun += 1,
        }
    };
    assert_eq!((full.status.code(), begun), (503, 16));
    bench.pass(200_000);
    assert_eq!(bench.orders.pace(), None);
    assert_eq!(bench.guest.borrow().forgotten.len(), begun);
}

proptest! {
    /// Whatever agent, host and clock do: once nothing is under way, documents, balloon, host and guest agree.
    #[test]
    fn limits_are_whole_or_not_at_all(
        changes in prop::collection::vec((120u64..520, 0u8..4, any::<bool>()), 1..20)
    ) {
        let mut bench = Bench::new();
        let (mut in_force, mut agents) = (SIZE, SIZE);
        for (mib, does, host_refuses) in changes {
            bench.host_refuses.set(host_refuses);
            let given = bench.guest.borrow().given.len();
            let does = [Some(limited()), Some(refused()), Some(limited()), None][usize::from(does)].clone();
            let took = matches!(does, Some(Done::Limited { .. }));
            let (status, _) = bench.ask("PUT", "/v1/limits", &max(mib), does);
            if status == 200 {
                in_force = mib * MIB;
            }
            // The guest carries out what it was given, but what it refused; what it was silent about it does late.
            for (at, order) in bench.guest.borrow().given.iter().enumerate().skip(given) {
                let Order::Limit { max_bytes, .. } = order else { panic!("{order:?}") };
                if at > given || took || status == 504 {
                    agents = max_bytes.unwrap_or(SIZE);
                }
            }
            prop_assert_eq!(bench.limits()["max_bytes"].as_u64(), Some(in_force));
            prop_assert_eq!(bench.memory.document.max_bytes, in_force);
            prop_assert_eq!(agents, in_force);
            // Where the host once refused to be put back it stays wider, never narrower.
            prop_assert!(bench.host_max.get() >= in_force);
        }
    }
}

#[test]
fn signals_reach_a_workload_that_runs() {
    let mut bench = Bench::new();
    assert_eq!(bench.ask("POST", "/v1/signal", r#"{"signal": 15}"#, None).0, 200);
    for bad in [r#"{"signal": 0}"#, r#"{"signal": 65}"#, r#"{"signal": "TERM"}"#, ""] {
        assert_eq!(bench.ask("POST", "/v1/signal", bad, None).0, 400, "{bad}");
    }
    bench.guest.borrow_mut().absent = true;
    assert_eq!(bench.ask("POST", "/v1/signal", r#"{"signal": 15}"#, None).0, 409);
    assert_eq!(bench.guest.borrow().signals, [15]);
}

//! The socket's answers, without a socket.

use super::orders::Orders;
use super::routes::{self, Answer};
use super::scripted::{MIB, Scripted, ask, route};
use balloon::control::api::*;
use balloon::control::connection::Connection;
use balloon::control::http::{REQUEST_BYTES, Request, Status};
use balloon::control::service::error;
use balloon::device::Values;
use proptest::prelude::*;
use serde_json::json;

#[test]
fn ceilings_within_the_range_are_set() {
    let mut memory = Scripted::new();
    for bytes in [128 * MIB, 300 * MIB, 512 * MIB] {
        let (status, document) =
            ask(&mut memory, "PUT", "/v1/memory/ceiling", &json!({ "bytes": bytes }).to_string());
        assert_eq!((status, &document["ceiling"]), (200, &json!({ "bytes": bytes, "auto": false })));
    }
    let (status, document) = ask(&mut memory, "PUT", "/v1/memory/ceiling", r#"{"auto": true}"#);
    assert_eq!((status, &document["ceiling"]["auto"]), (200, &json!(true)));
}

#[test]
fn ceilings_outside_the_range_are_refused_with_the_numbers() {
    let mut memory = Scripted::new();
    for bytes in [0, 128 * MIB - 1, 512 * MIB + 1, u64::MAX] {
        let (status, document) =
            ask(&mut memory, "PUT", "/v1/memory/ceiling", &json!({ "bytes": bytes }).to_string());
        assert_eq!(status, 422);
        assert_eq!(document["error"]["floor_bytes"], 128 * MIB);
        assert_eq!(document["error"]["max_bytes"], 512 * MIB);
        assert!(document["error"]["message"].as_str().unwrap().contains("128 MiB to 512 MiB"), "{document}");
    }
    assert!(memory.document.ceiling.auto, "nothing was set");
}

#[test]
fn what_is_no_ceiling_is_refused() {
    let mut memory = Scripted::new();
    for body in [
        "",
        "[268435456]",
        " [268435456, null]",
        "{}",
        "[]",
        "512",
        "{\"bytes\": -1}",
        "{\"bytes\": 1e9}",
        "{\"bytes\": \"512m\"}",
        "{\"auto\": false}",
        "{\"bytes\": 1, \"auto\": true}",
        "{\"bytes\": 1, \"bytes\": 2}",
        "{\"ceiling\": 1}",
        "{\"bytes\": 1} x",
        &"[".repeat(10_000),
        "\u{0}",
        "{\"bytes\": 99999999999999999999}",
    ] {
        let (status, document) = ask(&mut memory, "PUT", "/v1/memory/ceiling", body);
        assert_eq!(status, 400, "{body}");
        let message = document["error"]["message"].as_str().unwrap();
        assert!(message.contains(r#"{"bytes": N}"#) && message.len() < 300, "{message}");
    }
    assert!(memory.document.ceiling.auto);
}

#[test]
fn a_vm_without_a_driver_or_with_a_broken_one_is_an_ordinary_vm() {
    for (driver, name, message) in [
        (DriverState::Absent, "absent", "no balloon driver"),
        (DriverState::Broken, "broken", "broke its device"),
    ] {
        let mut memory = Scripted::with_driver(driver);
        let (status, document) = ask(&mut memory, "GET", "/v1/memory", "");
        assert_eq!((status, &document["driver"]), (200, &json!(name)));
        for (method, path, body) in [
            ("PUT", "/v1/memory/ceiling", r#"{"bytes": 268435456}"#),
            ("PUT", "/v1/memory/ceiling", r#"{"bytes": 1}"#),
            ("GET", "/v1/statistics", ""),
        ] {
            let (status, document) = ask(&mut memory, method, path, body);
            assert_eq!(status, 409, "{method} {path}");
            assert!(document["error"]["message"].as_str().unwrap().contains(message), "{document}");
            assert_eq!(document["error"].get("floor_bytes"), None);
        }
        assert_eq!(ask(&mut memory, "PUT", "/v1/memory/ceiling", r#"{"auto": true}"#).0, 200);
    }
}

#[test]
fn statistics_wait_for_the_guest() {
    let mut memory = Scripted::silent();
    assert_eq!(ask(&mut memory, "GET", "/v1/statistics", "").0, 0, "the guest was asked");
    assert_eq!(routes::statistics(&mut memory).status.code(), 504, "it never answered");
    // As the device says a moment before its own clock finds them stale.
    memory.statistics = Some(GuestStatistics { age_ms: 999, stale: false, values: Values::default() });
    let response = routes::statistics(&mut memory);
    assert_eq!(
        (response.status.code(), response.body.as_slice()),
        (200, br#"{"age_ms":999,"stale":true}"#.as_slice())
    );
    memory.prompt = true;
    let (status, document) = ask(&mut memory, "GET", "/v1/statistics", "");
    assert_eq!((status, &document["stale"]), (200, &json!(false)), "it answers within the call");
}

#[test]
fn wrong_paths_and_methods_say_what_there_is() {
    let mut memory = Scripted::new();
    let (status, document) = ask(&mut memory, "GET", "/", "");
    assert_eq!(status, 404);
    assert!(document["error"]["message"].as_str().unwrap().contains("/v1/memory"), "{document}");
    let request = |method: &str| Request::new(method, "/v1/memory/ceiling", b"");
    for method in ["GET", "get", "put", "DELETE", "GET, HEAD"] {
        let Answer::Now(response) =
            route(&request(method), &mut memory, &mut Orders::without_agent(512 * MIB))
        else {
            panic!()
        };
        assert_eq!(
            (response.status.code(), &response.fields[..]),
            (405, &[("Allow", "PUT".to_owned())][..]),
            "{method}"
        );
    }
    for path in ["/v1/vm/", "/V1/vm", "/v1//vm", "v1/vm", "*", "/v1/vm%20"] {
        assert_eq!(ask(&mut memory, "GET", path, "").0, 404, "{path}");
    }
}

/// Everything that a client reads if its bytes arrive in these pieces.
fn talk<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut connection, mut memory, mut read) = (Connection::default(), Scripted::new(), Vec::new());
    let mut orders = Orders::without_agent(512 * MIB);
    let mut turn = |connection: &mut Connection| {
        while let Some(request) = connection.take_request() {
            let answer = match route(&request, &mut memory, &mut orders) {
                Answer::Now(response) => response,
                Answer::Later(_) => error(Status::GuestTimeout, "nobody answers"),
                Answer::Statistics => routes::statistics(&mut memory),
                Answer::Link | Answer::Command(_) => panic!("nobody asked for it"),
            };
            connection.answer(&answer);
            read.extend_from_slice(connection.outgoing());
            connection.sent(connection.outgoing().len());
        }
        read.extend_from_slice(connection.outgoing());
        connection.sent(connection.outgoing().len());
        assert!(connection.held_bytes() <= 2 * REQUEST_BYTES);
    };
    for mut piece in pieces {
        while !piece.is_empty() && connection.room() > 0 {
            let (now, later) = piece.split_at(connection.room().min(piece.len()));
            connection.receive(now);
            turn(&mut connection);
            piece = later;
        }
    }
    connection.end();
    turn(&mut connection);
    assert!(connection.is_over());
    read
}

/// Requests of all kinds, good and bad.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        Just("GET /v1/vm HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        Just("HEAD /v1/memory HTTP/1.1\nHost: a\n\n".to_owned()),
        Just("\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned()),
        Just("GET /v1/statistics HTTP/1.0\r\n\r\n".to_owned()),
        Just("GET /v1/memory HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned()),
        (any::<u32>(), any::<bool>()).prop_map(|(bytes, expect)| {
            let body = format!("{{\"bytes\": {bytes}}}");
            let expect = if expect { "Expect: 100-continue\r\n" } else { "" };
            format!(
                "PUT /v1/memory/ceiling HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        }),
        (0..80_000usize).prop_map(|fill| format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "h".repeat(fill))),
        (0..80_000usize).prop_map(|length| format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}",
            "b".repeat(length)
        )),
    ];
    prop_oneof![8 => text.prop_map(String::into_bytes), 1 => prop::collection::vec(any::<u8>(), 0..40)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_cut_of_the_bytes_gives_the_same_answers(
        requests in prop::collection::vec(request(), 1..6),
        cuts in prop::collection::vec(1..5000usize, 1..40),
    ) {
        let bytes = requests.concat();
        let whole = talk(std::iter::once(bytes.as_slice()));
        prop_assert_eq!(&talk(bytes.chunks(1)), &whole, "byte by byte");
        let mut rest = bytes.as_slice();
        let mut lengths = cuts.iter().cycle();
        let pieces = std::iter::from_fn(|| {
            let (now, later) = rest.split_at((*lengths.next()?).min(rest.len()));
            rest = later;
            (!now.is_empty()).then_some(now)
        });
        prop_assert_eq!(&talk(pieces), &whole);
    }

    #[test]
    fn any_bytes_are_answered_with_well_formed_responses(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let text = talk(std::iter::once(bytes.as_slice()));
        prop_assert!(text.is_empty() || text.starts_with(b"HTTP/1.1 "));
    }
}

use super::*;

fn head(text: &str) -> Result<Head, Status> {
    parse_head(text.as_bytes())
        .map(|(head, length)| {
            assert_eq!(length, text.len());
            head
        })
        .map_err(|refusal| refusal.status)
}

#[test]
fn what_curl_sends_is_understood() {
    let text = "PUT /v1/memory/ceiling HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\
                Content-Length: 20\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n";
    let expected = Head {
        method: "PUT".into(),
        path: "/v1/memory/ceiling".into(),
        options: Options { accept: Some("*/*".into()), ..Options::default() },
        body_bytes: 20,
        close: false,
        expects_continue: false,
    };
    assert_eq!(head(text), Ok(expected));
}

#[test]
fn versions_and_connection_options_say_whether_to_go_on() {
    let close = |text| head(text).map(|head| head.close);
    assert_eq!(close("GET / HTTP/1.1\r\nHost:\r\n\r\n"), Ok(false));
    assert_eq!(close("GET / HTTP/1.1\r\nhost: a\r\nconnection: x , Close\r\n\r\n"), Ok(true));
    assert_eq!(close("GET / HTTP/1.0\r\n\r\n"), Ok(true));
    assert_eq!(close("GET / HTTP/1.1\r\n\r\n"), Err(Status::BadRequest));
    assert_eq!(close("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), Err(Status::BadRequest));
    assert_eq!(close("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), Err(Status::Version));
    assert_eq!(close("hello\r\n\r\n"), Err(Status::BadRequest));
}

#[test]
fn lengths_are_single_plain_numbers() {
    let put = |fields: &str| {
        head(&format!("PUT / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).map(|head| head.body_bytes)
    };
    assert_eq!(put("Content-Length: 7\r\n"), Ok(7));
    assert_eq!(put("Content-Length: 007\r\n"), Ok(7));
    assert_eq!(put(""), Err(Status::LengthRequired));
    assert_eq!(put("Transfer-Encoding: chunked\r\n"), Err(Status::LengthRequired));
    assert_eq!(put("Transfer-Encoding: chunked\r\nContent-Length: 7\r\n"), Err(Status::BadRequest));
    assert_eq!(put("Content-Length: 7\r\nContent-Length: 7\r\n"), Err(Status::BadRequest));
    for value in ["", "+7", "-7", "7, 7", "0x7", "7 7", "\u{661}"] {
        assert_eq!(put(&format!("Content-Length: {value}\r\n")), Err(Status::BadRequest), "{value}");
    }
    for value in ["65536", "99999999999999999999999999"] {
        assert_eq!(put(&format!("Content-Length: {value}\r\n")), Err(Status::ContentTooLarge), "{value}");
    }
    assert_eq!(head("GET / HTTP/1.1\r\nHost: a\r\n\r\n").map(|head| head.body_bytes), Ok(0));
}

#[test]
fn only_one_expectation_is_met() {
    let expect = |value: &str| {
        head(&format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: {value}\r\n\r\n"))
            .map(|head| head.expects_continue)
    };
    assert_eq!(expect("100-Continue"), Ok(true));
    assert_eq!(expect("coffee"), Err(Status::ExpectationFailed));
}

#[test]
fn targets_lose_what_is_no_path() {
    for (target, expected) in [
        ("/v1/vm", "/v1/vm"),
        ("/v1/vm?pretty", "/v1/vm"),
        ("http://localhost/v1/vm?x", "/v1/vm"),
        ("HTTP://localhost", "/"),
        ("http://localhost?x", "/"),
        ("*", "*"),
    ] {
        assert_eq!(path(target), expected, "{target}");
    }
}

#[test]
fn an_upgrade_is_wanted_by_two_fields_and_confirmed_without_content() {
    let upgrade = |fields: &str| {
        head(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).map(|head| head.options.upgrade)
    };
    assert_eq!(upgrade("Upgrade: x\r\nConnection: keep-alive, upgrade\r\n"), Ok(Some("x".into())));
    assert_eq!(upgrade("Upgrade: x\r\n"), Ok(None));
    assert_eq!(
        head("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").unwrap().options.upgrade,
        None
    );
    let mut output = Vec::new();
    Response::upgrade("x").write(false, false, &mut output);
    assert_eq!(output, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
}

#[test]
fn the_tag_that_a_client_has_seen_is_handed_on() {
    let text = "PUT / HTTP/1.1\r\nHost: a\r\nif-match:  \"7\" \r\nContent-Length: 0\r\n\r\n";
    assert_eq!(head(text).unwrap().options.if_match.as_deref(), Some("\"7\""));
}

#[test]
fn too_many_fields_are_refused() {
    let fields = |count| "X: y\r\n".repeat(count);
    assert!(head(&format!("GET / HTTP/1.0\r\n{}\r\n", fields(64))).is_ok());
    assert_eq!(head(&format!("GET / HTTP/1.0\r\n{}\r\n", fields(65))), Err(Status::HeadTooLarge));
}

#[test]
fn responses_say_all_that_clients_need() {
    let response = Response::json(Status::MethodNotAllowed, &serde_json::json!({})).with("Allow", "GET");
    let text = |head_only, close| {
        let mut output = Vec::new();
        response.write(head_only, close, &mut output);
        String::from_utf8(output).unwrap()
    };
    let head = "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: application/json\r\nContent-Length: 3\r\nAllow: GET\r\n";
    assert_eq!(text(false, false), format!("{head}\r\n{{}}\n"));
    assert_eq!(text(true, true), format!("{head}Connection: close\r\n\r\n"));
}

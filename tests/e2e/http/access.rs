//! Mistakes and their answers, retries, authentication, and clients that are slow.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use windrow_testkit::wait;

use super::{END, HttpServer, answer, gzip, post, record};
use crate::{SOON, windrow};

/// Status, a part of the text, headers, body.
type Mistake<'a> = (u16, &'a str, &'a [(&'a str, &'a str)], &'a [u8]);

#[test]
fn mistakes_are_answered_with_their_place_and_store_nothing() {
    let http = HttpServer::start(windrow().sqlite().env("WINDROW_HTTP_MAX_BODY", "64KiB"));
    let json = ("Content-Type", "application/json");
    let bomb = gzip(&vec![b' '; 2 << 20]);
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let nested = format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    let large = format!("[{{\"a\":\"{}\"}}]", "x".repeat(70 << 10));
    let cases: &[Mistake<'_>] = &[
        (
            400,
            "line 2, column 6 (record 2)",
            &[json],
            b"[{\"a\":1},\n{\"b\":}]",
        ),
        (400, "at line 1, column 11 (record 2)", &[json], b"[{\"a\":1}, 7]"),
        (
            400,
            "line 3, column 1",
            &[("Content-Type", "application/x-ndjson")],
            b"{}\n{}\nx\n{}",
        ),
        (400, "(record 3)", &[json], b"{}{} 7"),
        (
            400,
            "not UTF-8 at line 1, column 8",
            &[json],
            b"{\"a\": \"\xff\"}",
        ),
        (400, "sequence, expected a record", &[json], deep.as_bytes()),
        (400, "nested", &[json], nested.as_bytes()),
        (400, "empty", &[json], b""),
        (
            400,
            "(record 1)",
            &[("Content-Type", "application/msgpack")],
            b"\x81\xa1a",
        ),
        (
            400,
            "at byte 2",
            &[("Content-Type", "application/msgpack")],
            b"\x80\x80\xc1",
        ),
        (
            400,
            "(record 2)",
            &[("Content-Type", "application/msgpack")],
            b"\x92\x80\x07",
        ),
        (400, "Gzip", &[json, ("Content-Encoding", "gzip")], b"{}"),
        (
            400,
            "Idempotency-Key",
            &[json, ("Idempotency-Key", "\"\"")],
            b"{}",
        ),
        (413, "65536", &[json], large.as_bytes()),
        (413, "decompressed", &[json, ("Content-Encoding", "gzip")], &bomb),
        (
            415,
            "application/xml",
            &[("Content-Type", "application/xml")],
            b"<a/>",
        ),
        (
            415,
            "latin1",
            &[("Content-Type", "application/json; charset=latin1")],
            b"{}",
        ),
        (415, "br", &[json, ("Content-Encoding", "br")], b"{}"),
        (415, "without Content-Type", &[], b"hello"),
        (
            403,
            "https://page.example",
            &[json, ("Origin", "https://page.example")],
            b"{}",
        ),
    ];
    for (status, text, headers, body) in cases {
        let answer = http.post("/app", headers, body);
        assert_eq!(answer.status, *status, "{text}: {answer:?}");
        assert!(
            answer.json()["error"].as_str().unwrap().contains(text),
            "{text}: {answer:?}"
        );
    }
    let send = |request: &str| {
        let mut stream = TcpStream::connect(http.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        answer(&mut stream)
    };
    let got = send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(
        got.status == 405 && got.content_type.contains("allow: POST"),
        "{got:?}"
    );
    let got =
        send("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n");
    assert_eq!(got.status, 411, "{got:?}");
    // A length that is not sent is refused before the body.
    let got = send(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\nContent-Type: application/json\r\n\r\n",
    );
    assert!(got.status == 413 && got.json()["limit"] == 65536, "{got:?}");
    let got = send(&format!(
        "POST / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "x".repeat(100 << 10)
    ));
    assert_eq!(got.status, 431, "{got:?}");
    assert_eq!(http.server.metric("windrow_input_records_total"), 0.0);
    assert!(http.server.stored().is_empty());
}

#[test]
fn an_idempotency_key_makes_a_retry_no_second_record() {
    let http = HttpServer::start(windrow().sqlite());
    let json = ("Content-Type", "application/json");
    let body = record("once", END).to_string();
    for key in ["abc", "abc", "\"abc\""] {
        let answer = http.post("/", &[json, ("Idempotency-Key", key)], body.as_bytes());
        assert_eq!((answer.status, answer.json()), (200, json!({"records": 1})));
    }
    http.trace("once", 1);
    wait::until_true("both retries to be recognised", SOON, || {
        http.server.metric("windrow_input_chunks_duplicate_total") == 2.0
    });
    // The key names one body only; and without a key equal bodies are records of their own.
    let other = record("once", "another line").to_string();
    assert_eq!(
        http.post("/", &[json, ("Idempotency-Key", "abc")], other.as_bytes())
            .status,
        200
    );
    http.trace("once", 2);
    let body = record("often", END).to_string();
    for _ in 0..3 {
        assert_eq!(
            http.post("/", &[json, ("X-Request-Id", "7")], body.as_bytes())
                .status,
            200
        );
    }
    http.trace("often", 3);
}

#[test]
fn requests_must_authenticate() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "first\nsecond\n").unwrap();
    let mut http = HttpServer::start(
        windrow()
            .sqlite()
            .env("WINDROW_HTTP_TOKEN_FILE", tokens.display().to_string())
            .env("WINDROW_HTTP_USERS", "ann:secret")
            .env("WINDROW_HTTP_CORS_ORIGINS", "https://app.example"),
    );
    let json = ("Content-Type", "application/json");
    let address = http.address;
    let post = |headers: &[(&str, &str)]| post(address, "/", headers, b"{}");
    let refused = post(&[json]);
    assert_eq!(refused.status, 401, "{refused:?}");
    assert!(
        refused
            .content_type
            .contains("www-authenticate: Bearer realm=\"windrow\""),
        "{refused:?}"
    );
    assert_eq!(post(&[json, ("Authorization", "Bearer third")]).status, 401);
    assert_eq!(post(&[json, ("Authorization", "Bearer second")]).status, 200);
    // ann:secret
    assert_eq!(
        post(&[json, ("Authorization", "Basic YW5uOnNlY3JldA==")]).status,
        200
    );
    let page = ("Origin", "https://app.example");
    let allowed = post(&[json, page, ("Authorization", "Bearer first")]);
    let allows = "access-control-allow-origin: https://app.example";
    assert!(
        allowed.status == 200 && allowed.content_type.contains(allows),
        "{allowed:?}"
    );
    let mut stream = TcpStream::connect(http.address).unwrap();
    stream
        .write_all(
            b"OPTIONS /app HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: https://app.example\r\n\
              Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type\r\n\r\n",
        )
        .unwrap();
    let preflight = answer(&mut stream);
    assert_eq!(preflight.status, 204, "{preflight:?}");
    for header in [allows, "access-control-allow-headers: authorization,content-type"] {
        assert!(preflight.content_type.contains(header), "{preflight:?}");
    }
    assert_eq!(post(&[json, ("Origin", "https://other.example")]).status, 403);

    // New tokens without a restart.
    std::fs::write(&tokens, "third\n").unwrap();
    http.server.process().signal(rustix::process::Signal::HUP);
    wait::until_true("the new token to count", SOON, || {
        post(&[json, ("Authorization", "Bearer third")]).status == 200
    });
    assert_eq!(post(&[json, ("Authorization", "Bearer second")]).status, 401);
}

#[test]
fn a_slow_body_is_given_up_and_a_stop_answers() {
    let mut http = HttpServer::start(windrow().sqlite().env("WINDROW_FORWARD_PROGRESS_TIMEOUT", "1s"));
    let begin = |address: SocketAddr| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"a\":")
            .unwrap();
        stream
    };
    let mut slow = begin(http.address);
    let got = answer(&mut slow);
    assert!(
        got.status == 408 && got.content_type.contains("connection: close"),
        "{got:?}"
    );
    // One that has gone halfway leaves nothing.
    drop(begin(http.address));
    wait::until_true("the connection to end", SOON, || {
        http.server.metric("windrow_input_connections") < 0.5
    });
    let mut waiting = begin(http.address);
    let idle = TcpStream::connect(http.address).unwrap();
    wait::until_true("both connections", SOON, || {
        http.server.metric("windrow_input_connections") > 1.5
    });
    assert!(http.server.terminate(Duration::from_secs(20)).success());
    let mut rest = Vec::new();
    // Answered or closed, but not left open.
    waiting.read_to_end(&mut rest).ok();
    drop(idle);
    assert!(http.server.stored().is_empty());
}

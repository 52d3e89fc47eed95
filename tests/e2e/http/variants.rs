//! Variants of requests that clients really send: encodings of several pieces, unusual headers,
//! methods and paths, and OTLP in every form of JSON.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use windrow_testkit::{need, wait};

use super::{END, HttpServer, answer, gzip, post, record};
use crate::{SOON, windrow};

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn exchange(http: &HttpServer, request: &[u8]) -> windrow_testkit::http::Answer {
    let mut stream = TcpStream::connect(http.address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request).unwrap();
    answer(&mut stream)
}

#[test]
fn bodies_in_several_pieces() {
    let http = HttpServer::start(windrow().sqlite());
    let text = |id: &str| format!("{}\n{}\n", record(id, "one"), record(id, END));
    let halves = |id: &str| {
        let text = text(id).into_bytes();
        let (first, second) = text.split_at(text.len() / 2);
        (first.to_vec(), second.to_vec())
    };
    let (first, second) = halves("members");
    let members = [gzip(&first), gzip(&[]), gzip(&second)].concat();
    let (first, second) = halves("frames");
    let frame = |part: &[u8]| zstd::bulk::compress(part, 3).unwrap();
    let frames = [frame(&first), frame(&second)].concat();
    for (id, encoding, body) in [("members", "gzip", members), ("frames", "zstd", frames)] {
        let sent = http.post("/", &[JSON, ("Content-Encoding", encoding)], &body);
        assert_eq!((sent.status, sent.json()), (200, json!({"records": 2})), "{id}");
        http.trace(id, 2);
        // A piece that is cut, and what is no piece behind the last one.
        for wrong in [&body[..body.len() - 3], &[&body[..], b"trailing bytes"].concat()] {
            let sent = http.post("/", &[JSON, ("Content-Encoding", encoding)], wrong);
            assert_eq!(sent.status, 400, "{id}: {sent:?}");
        }
    }
    // A byte order mark, record separators, lines of Windows, and chunks that cut a character.
    let marked = [b"\xef\xbb\xbf", record("marked", END).to_string().as_bytes()].concat();
    assert_eq!(http.post("/", &[JSON], &marked).status, 200);
    http.trace("marked", 1);
    let sequence = format!(
        "\u{1e}{}\r\n\u{1e}{}\r\n",
        record("seq", "one"),
        record("seq", END)
    );
    let sent = http.post(
        "/",
        &[("Content-Type", "application/json-seq")],
        sequence.as_bytes(),
    );
    assert_eq!(sent.status, 200, "{sent:?}");
    http.trace("seq", 2);
    let body = json!({"traceId": "cut", "message": format!("gr\u{fc}n {END}")}).to_string();
    let middle = body.find('\u{fc}').unwrap() + 1;
    let (first, second) = body.as_bytes().split_at(middle);
    let mut chunked = format!("{:x};name=value\r\n", first.len()).into_bytes();
    chunked.extend_from_slice(first);
    chunked.extend_from_slice(format!("\r\n{:X}\r\n", second.len()).as_bytes());
    chunked.extend_from_slice(second);
    chunked.extend_from_slice(b"\r\n0\r\nX-Checksum: 7\r\n\r\n");
    let sent = http.post("/", &[JSON, ("Transfer-Encoding", "chunked")], &chunked);
    assert_eq!(sent.status, 200, "{sent:?}");
    assert_eq!(http.trace("cut", 1)["message"], format!("gr\u{fc}n {END}"));
}

#[test]
fn unusual_headers_methods_and_paths() {
    let http = HttpServer::start(windrow().sqlite());
    let sent = http.post(
        "/%C3%BC//orders/?x=1",
        &[JSON],
        record("path", END).to_string().as_bytes(),
    );
    assert_eq!(sent.status, 200, "{sent:?}");
    assert_eq!(http.trace("path", 1)["windrow"]["tags"], json!(["\u{fc}.orders"]));

    for (status, headers) in [
        (
            415,
            &[JSON, ("Content-Encoding", "gzip"), ("Content-Encoding", "gzip")][..],
        ),
        (415, &[JSON, ("Content-Encoding", "gzip, zstd")]),
        (
            200,
            &[JSON, ("Content-Encoding", "identity"), ("Content-Encoding", "")],
        ),
        (400, &[JSON, ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]),
        (200, &[JSON, ("Idempotency-Key", "a"), ("Idempotency-Key", "a")]),
        (
            200,
            &[
                ("Content-Type", "application/csp-report"),
                ("Accept-Encoding", "br"),
            ],
        ),
        (415, &[("Content-Type", "multipart/form-data; boundary=x")]),
    ] {
        let sent = http.post("/", headers, b"{\"message\":\"x\"}");
        assert_eq!(sent.status, status, "{headers:?}: {sent:?}");
    }
    // Two lengths that differ are an attack; equal ones are one.
    let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let lengths = |first: usize, second: usize| {
        let request = format!("{head}Content-Length: {first}\r\nContent-Length: {second}\r\n\r\n{{}}");
        exchange(&http, request.as_bytes()).status
    };
    assert_eq!((lengths(2, 2), lengths(2, 3)), (200, 400));

    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        let got = exchange(
            &http,
            format!("{method} /app HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        assert!(
            got.status == 405 && got.content_type.contains("allow: POST"),
            "{method}: {got:?}"
        );
        assert_eq!(got.text.is_empty(), method == "HEAD", "{method}: {got:?}");
    }
    // Who asks first is told to go on, or is refused without having to send.
    let expect = |length: usize| {
        let mut stream = TcpStream::connect(http.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let head = format!("{head}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        (String::from_utf8_lossy(&first).into_owned(), stream)
    };
    let (said, mut stream) = expect(2);
    assert_eq!(said, "HTTP/1.1 100");
    stream.write_all(b"{}").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("HTTP/1.1 200 OK"), "{rest}");
    assert_eq!(expect(1 << 40).0, "HTTP/1.1 413");
}

/// OTLP's JSON: ids in hex, 64-bit integers as text or numbers, severities by number or name, keys
/// that are not known.
#[test]
fn otlp_in_every_form_of_json() {
    let http = HttpServer::start(windrow().sqlite());
    let logs = |record: Value| json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record], "later": {"a": [1]}}], "later": 1}]});
    let id = "5B8EFFF798038103D269B633813FC60C";
    let forms = [
        json!({"timeUnixNano": "1700000000000000001", "severityNumber": 17, "traceId": id,
               "body": {"stringValue": "one"}, "attributes": [{"key": "n", "value": {"intValue": "9007199254740993"}}]}),
        json!({"timeUnixNano": 1_700_000_000_000_000_002_u64, "severityNumber": "SEVERITY_NUMBER_ERROR",
               "traceId": id.to_ascii_lowercase(), "body": {"stringValue": "two"}, "futureField": {"x": [null]},
               "attributes": [{"key": "n", "value": {"intValue": 9_007_199_254_740_993_u64}}]}),
        json!({"timeUnixNano": "1700000000000000003", "severityNumber": "17", "traceId": id, "flags": null,
               "spanId": "", "droppedAttributesCount": 0, "body": {"stringValue": "three"},
               "attributes": [{"key": "n", "value": {"intValue": "9007199254740993", "stringValue": null}}]}),
    ];
    for record in forms {
        let sent = post(
            http.otlp,
            "/v1/logs",
            &[JSON],
            logs(record).to_string().as_bytes(),
        );
        assert_eq!((sent.status, sent.text.as_str()), (200, "{}"), "{sent:?}");
    }
    // One trace: the id in lower case, all lines, and the exact number.
    let id = id.to_ascii_lowercase();
    let stored = http.trace(&id, 3);
    assert_eq!(stored["log"], "one\ntwo\nthree", "{stored}");
    assert_eq!(stored["windrow"]["level"], "error", "{stored}");
    assert!(stored.to_string().contains("9007199254740993"), "{stored}");

    let wrong = logs(json!({"severityNumber": "LOUD"}));
    let sent = post(http.otlp, "/v1/logs", &[JSON], wrong.to_string().as_bytes());
    assert!(
        sent.status == 400 && sent.text.contains("severityNumber"),
        "{sent:?}"
    );
    // An empty protobuf body is an empty request; empty JSON is none.
    let protobuf = ("Content-Type", "application/x-protobuf");
    assert_eq!(post(http.otlp, "/v1/logs", &[protobuf], b"").status, 200);
    assert_eq!(post(http.otlp, "/v1/logs", &[JSON], b"").status, 400);
}

/// Load of HTTP/1.1 and HTTP/2 without TLS by `h2load`: each request is answered and stored once.
#[test]
fn h2load_over_both_versions() {
    need!(windrow_testkit::env::program("h2load"));
    let http = HttpServer::start(windrow().sqlite());
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body.json");
    std::fs::write(&body, "[{\"message\":\"one\"},{\"message\":\"two\"}]").unwrap();
    let mut sent = 0.0;
    for version in [&["--h1"][..], &["-m", "20"]] {
        let output = std::process::Command::new("h2load")
            .args([
                "-n",
                "1000",
                "-c",
                "10",
                "-H",
                "content-type: application/json",
                "-d",
            ])
            .arg(&body)
            .args(version)
            .arg(http.url("/load"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("1000 succeeded, 0 failed, 0 errored"), "{said}");
        sent += 2000.0;
        wait::until_true("all records", SOON, || {
            http.server.metric("windrow_records_delivered_total") == sent
        });
    }
}

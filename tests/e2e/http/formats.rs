//! Every format and encoding of a body, and where tags and times come from.

use std::io::Write;

use serde_json::{Value, json};
use windrow_testkit::wait;

use super::{END, HttpServer, gzip, record};
use crate::{SOON, windrow};

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_format_and_encoding() {
    let http = HttpServer::start(windrow().sqlite());
    let two = |id: &str| json!([record(id, "one"), record(id, END)]);
    let lines = |id: &str| format!("{}\n\n{}\n", record(id, "one"), record(id, END)).into_bytes();
    let msgpack = |value: &Value| rmp_serde::to_vec(value).unwrap();
    let json = "application/json";
    let percent = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("%{byte:02x}"))
            .collect::<String>()
    };
    let form = "application/x-www-form-urlencoded";
    let cases: Vec<(&str, &str, &str, Vec<u8>)> = vec![
        ("array", json, "", two("array").to_string().into()),
        (
            "charset",
            "application/json; charset=utf-8",
            "identity",
            two("charset").to_string().into(),
        ),
        (
            "suffix",
            "application/vnd.app+json",
            "",
            two("suffix").to_string().into(),
        ),
        ("lines", "application/x-ndjson", "", lines("lines")),
        ("jsonlines", json, "", lines("jsonlines")),
        (
            "stream",
            json,
            "",
            format!("{}{}", record("stream", "one"), record("stream", END)).into(),
        ),
        ("plain", "text/plain", "", two("plain").to_string().into()),
        ("curl", form, "", two("curl").to_string().into()),
        ("msgpack", "application/msgpack", "", msgpack(&two("msgpack"))),
        (
            "maps",
            "application/x-msgpack",
            "",
            [msgpack(&record("maps", "one")), msgpack(&record("maps", END))].concat(),
        ),
        (
            "entries",
            "application/msgpack",
            "",
            [
                rmp_serde::to_vec(&((1_700_000_000, json!({})), record("entries", "one"))).unwrap(),
                rmp_serde::to_vec(&(1_700_000_001, record("entries", END))).unwrap(),
            ]
            .concat(),
        ),
        ("gzip", json, "gzip", gzip(two("gzip").to_string().as_bytes())),
        ("zlib", json, "deflate", zlib(two("zlib").to_string().as_bytes())),
        (
            "deflate",
            json,
            "deflate",
            raw_deflate(two("deflate").to_string().as_bytes()),
        ),
        (
            "zstd",
            json,
            "zstd",
            zstd::bulk::compress(two("zstd").to_string().as_bytes(), 3).unwrap(),
        ),
        (
            "form",
            form,
            "",
            format!("json={}", percent(two("form").to_string().as_bytes())).into(),
        ),
        (
            "formpack",
            form,
            "",
            format!(
                "time=1700000000.5&msgpack={}",
                percent(&msgpack(&two("formpack")))
            )
            .into(),
        ),
    ];
    for (id, content_type, encoding, body) in &cases {
        let mut headers = vec![("Content-Type", *content_type)];
        if !encoding.is_empty() {
            headers.push(("Content-Encoding", *encoding));
        }
        let answer = http.post("/app/orders", &headers, body);
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({"records": 2})),
            "{id}: {answer:?}"
        );
        let stored = http.trace(id, 2);
        assert_eq!(stored["message"], format!("one\n{END}"), "{id}");
        assert_eq!(stored["windrow"]["tags"], json!(["app.orders"]), "{id}");
    }
    let stored = http.trace("entries", 2);
    assert_eq!(stored["@timestamp"], "2023-11-14T22:13:20.000Z");
    let stored = http.trace("formpack", 2);
    assert_eq!(stored["@timestamp"], "2023-11-14T22:13:20.500Z");

    let answer = http.post(
        "/",
        &[("Content-Type", form)],
        b"traceId=fields&message=request+completed%21",
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    let stored = http.trace("fields", 1);
    assert_eq!(
        (&stored["message"], &stored["windrow"]["tags"]),
        (&json!("request completed!"), &json!(["http"]))
    );
    let answer = http.json("/", &json!([]));
    assert_eq!((answer.status, answer.json()), (200, json!({"records": 0})));

    let chunked = format!(
        "{:x}\r\n{}\r\n0\r\n\r\n",
        record("c", END).to_string().len(),
        record("c", END)
    );
    let headers = [("Content-Type", json), ("Transfer-Encoding", "chunked")];
    assert_eq!(http.post("/", &headers, chunked.as_bytes()).status, 200);
    http.trace("c", 1);
    let metric = |name: &str| http.server.metric(name);
    assert_eq!(metric("windrow_http_requests_total"), 20.0);
    assert_eq!(metric("windrow_input_records_total"), 36.0);
    assert_eq!(
        http.server.metrics()["windrow_input_messages_total{mode=\"http\"}"],
        20.0
    );
    wait::until_true("the audit to be even", SOON, || {
        metric("windrow_audit_difference") == 0.0
    });
}

#[test]
fn times_and_tags_come_from_the_request_or_the_record() {
    let http = HttpServer::start(windrow().sqlite().env("WINDROW_HTTP_TIME_KEY", "date"));
    let at = |id: &str, date: Value| json!({"traceId": id, "message": END, "date": date});
    let cases = [
        ("s", json!(1_700_000_000)),
        ("f", json!(1_700_000_000.25)),
        ("ms", json!(1_700_000_000_250_u64)),
        ("iso", json!("2023-11-14T23:13:20.25+01:00")),
        ("sql", json!("2023-11-14 22:13:20.25")),
    ];
    let body: Vec<Value> = cases.iter().map(|(id, date)| at(id, date.clone())).collect();
    assert_eq!(http.json("/?tag=by.parameter", &json!(body)).status, 200);
    for (id, _) in &cases {
        let stored = http.trace(id, 1);
        let expected = if *id == "s" {
            "2023-11-14T22:13:20.000Z"
        } else {
            "2023-11-14T22:13:20.250Z"
        };
        assert_eq!(stored["@timestamp"], expected, "{id}");
        assert_eq!(stored["date"], Value::Null, "{id}");
        assert_eq!(stored["windrow"]["tags"], json!(["by.parameter"]));
    }
    // What is no time stays, and is counted.
    let bad = json!([at("bad", json!("yesterday")), at("none", json!(null))]);
    let headers = [
        ("Content-Type", "application/json"),
        ("Fluent-Tag", "by.header"),
        ("Fluent-Time", "1700000000"),
    ];
    assert_eq!(http.post("/", &headers, bad.to_string().as_bytes()).status, 200);
    let stored = http.trace("bad", 1);
    assert_eq!(
        (&stored["date"], &stored["windrow"]["tags"]),
        (&json!("yesterday"), &json!(["by.header"]))
    );
    assert_eq!(http.server.metric("windrow_input_time_invalid_total"), 2.0);
    let answer = http.json("/?time=1700000000.75", &record("whole", END));
    assert_eq!(answer.status, 200);
    assert_eq!(http.trace("whole", 1)["@timestamp"], "2023-11-14T22:13:20.750Z");
    assert_eq!(http.json("/?time=soon", &json!({})).status, 400);
}

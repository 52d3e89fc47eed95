//! OTLP input: the same documents as through Fluent Bit's `in_opentelemetry`, in every encoding;
//! the OpenTelemetry SDK for Python and the Collector's exporters; answers of the protocol.

use serde_json::{Value, json};
use windrow_testkit::fluent_bit;
use windrow_testkit::load::{Load, Time};
use windrow_testkit::loggers::{Collector, OtlpPython};
use windrow_testkit::server::Server;
use windrow_testkit::{check, need, ports, wait};

use super::curl::curl;
use super::{HttpServer, gzip, post};
use crate::{SOON, windrow};

/// Writes protobuf.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, number: u8, kind: u8) {
        self.0.push(number << 3 | kind);
    }

    fn varint(mut self, number: u8, mut value: u64) -> Self {
        self.key(number, 0);
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn fixed64(mut self, number: u8, value: u64) -> Self {
        self.key(number, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn fixed32(mut self, number: u8, value: u32) -> Self {
        self.key(number, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(mut self, number: u8, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.key(number, 2);
        let mut length = value.len();
        while length >= 0x80 {
            self.0.push(length as u8 | 0x80);
            length >>= 7;
        }
        self.0.push(length as u8);
        self.0.extend_from_slice(value);
        self
    }

    fn message(self, number: u8, value: Self) -> Self {
        self.bytes(number, value.0)
    }
}

fn text(value: &str) -> Message {
    Message::default().bytes(1, value)
}

fn pair(key: &str, value: Message) -> Message {
    Message::default().bytes(1, key).message(2, value)
}

const TIME: u64 = 1_700_000_000_123_456_789;

/// A request with every field, as protobuf and as JSON.
fn requests() -> (Vec<u8>, Value) {
    let value = |number: u8| Message::default().varint(number, 1);
    let list = Message::default()
        .message(1, text("a"))
        .message(1, Message::default().varint(3, 7));
    let inner = Message::default().message(1, pair("deep", text("value")));
    let full = Message::default()
        .fixed64(1, TIME)
        .varint(2, 9)
        .bytes(3, "Information")
        .message(5, text("order placed"))
        .message(6, pair("http.status_code", Message::default().varint(3, 201)))
        .message(6, pair("ok", value(2)))
        .message(6, pair("ratio", Message::default().fixed64(4, 0.25f64.to_bits())))
        .message(6, pair("list", Message::default().message(5, list)))
        .message(6, pair("map", Message::default().message(6, inner)))
        .message(6, pair("raw", Message::default().bytes(7, [1, 2, 255])))
        .message(6, pair("none", Message::default()))
        .varint(7, 3)
        .fixed32(8, 1)
        .bytes(9, (1..=16).collect::<Vec<u8>>())
        .bytes(10, (1..=8).collect::<Vec<u8>>())
        .fixed64(11, TIME + 1_000_000)
        .bytes(12, "order.placed");
    let map = Message::default()
        .message(1, pair("traceId", text("from-the-body")))
        .message(1, pair("message", text("request completed")))
        .message(
            1,
            pair("status", Message::default().varint(3, (-7i64).cast_unsigned())),
        );
    let observed = Message::default()
        .fixed64(11, TIME + 2_000_000)
        .message(5, Message::default().message(6, map));
    let empty = Message::default().fixed64(1, TIME + 3_000_000);
    let scope = Message::default()
        .bytes(1, "shop")
        .bytes(2, "1.2.3")
        .message(3, pair("library", text("log4j")))
        .varint(4, 2);
    let resource = Message::default()
        .message(1, pair("service.name", text("orders")))
        .message(1, pair("host.name", text("web-1")))
        .varint(2, 4);
    let scopes = Message::default()
        .message(1, scope)
        .message(2, full)
        .message(2, observed)
        .bytes(3, "https://example.com/scope");
    let plain = Message::default()
        .fixed64(1, TIME + 4_000_000)
        .varint(2, 17)
        .message(5, text("no scope"));
    let resource_logs = Message::default()
        .message(1, resource)
        .message(2, scopes)
        .message(2, Message::default().message(2, plain))
        .bytes(3, "https://example.com/resource");
    let bare = Message::default().message(2, Message::default().message(2, empty));
    let request = Message::default().message(1, resource_logs).message(1, bare);

    let string = |value: &str| json!({"stringValue": value});
    let pair = |key: &str, value: Value| json!({"key": key, "value": value});
    let nanos = |after: u64| (TIME + after).to_string();
    let json = json!({"resourceLogs": [
        {
            "scopeLogs": [
                {
                    "logRecords": [
                        {
                            "timeUnixNano": nanos(0), "observedTimeUnixNano": nanos(1_000_000),
                            "severityNumber": 9, "severityText": "Information", "body": string("order placed"),
                            "attributes": [
                                pair("http.status_code", json!({"intValue": "201"})),
                                pair("ok", json!({"boolValue": true})),
                                pair("ratio", json!({"doubleValue": 0.25})),
                                pair("list", json!({"arrayValue": {"values": [string("a"), {"intValue": 7}]}})),
                                pair("map", json!({"kvlistValue": {"values": [pair("deep", string("value"))]}})),
                                pair("raw", json!({"bytesValue": "AQL/"})),
                                pair("none", json!({})),
                            ],
                            "droppedAttributesCount": 3, "flags": 1,
                            "traceId": "0102030405060708090a0B0C0D0E0F10", "spanId": "0102030405060708",
                            "eventName": "order.placed",
                        },
                        {
                            "observedTimeUnixNano": nanos(2_000_000),
                            "body": {"kvlistValue": {"values": [
                                pair("traceId", string("from-the-body")),
                                pair("message", string("request completed")),
                                pair("status", json!({"intValue": "-7"})),
                            ]}},
                        },
                    ],
                    "scope": {
                        "name": "shop", "version": "1.2.3", "droppedAttributesCount": 2,
                        "attributes": [pair("library", string("log4j"))],
                    },
                    "schemaUrl": "https://example.com/scope",
                },
                {"logRecords": [
                    {"timeUnixNano": nanos(4_000_000), "severityNumber": 17, "body": string("no scope"), "traceId": null},
                ]},
            ],
            "resource": {
                "attributes": [pair("service.name", string("orders")), pair("host.name", string("web-1"))],
                "droppedAttributesCount": 4,
            },
            "schemaUrl": "https://example.com/resource",
        },
        {"scopeLogs": [{"logRecords": [{"timeUnixNano": nanos(3_000_000)}]}]},
    ]});
    (request.0, json)
}

/// The documents of a server without what differs from run to run, in the order of their times.
#[track_caller]
fn documents(server: &Server, count: usize) -> Vec<Value> {
    let mut found = wait::until("the documents", SOON, || match server.stored() {
        stored if stored.len() == count => Ok(stored.into_iter().map(|doc| doc.source).collect::<Vec<_>>()),
        stored => Err(format!("{stored:?}")),
    });
    for document in &mut found {
        let windrow = document["windrow"].as_object_mut().unwrap();
        windrow.remove("state");
    }
    found.sort_by_key(|document| document["@timestamp"].to_string());
    found
}

#[test]
fn the_same_documents_as_through_fluent_bit_in_every_encoding() {
    let program = need!(fluent_bit::find());
    let (protobuf, json) = requests();
    let through = windrow().sqlite().start();
    let port = ports::free();
    let configuration = format!(
        "[SERVICE]\n    Flush 0.2\n[INPUT]\n    Name opentelemetry\n    Listen 127.0.0.1\n    Port {port}\n[OUTPUT]\n    \
         Name forward\n    Match *\n    Host 127.0.0.1\n    Port {}\n    Require_ack_response true\n",
        through.forward().port()
    );
    let _running = program.start_with(&configuration, &[]);
    let proto = ("Content-Type", "application/x-protobuf");
    let url = format!("http://127.0.0.1:{port}/v1/logs");
    wait::until("Fluent Bit to take the request", SOON, || {
        let sent = windrow_testkit::http::request("POST", &url, Some((proto.1, &protobuf)));
        sent.map(|answer| assert_eq!(answer.status, 201, "{answer:?}"))
    });
    let expected = documents(&through, 4);
    assert!(
        expected[0].to_string().contains("order placed"),
        "{}",
        expected[0]
    );

    for (name, headers, body) in [
        ("protobuf", vec![proto], protobuf.clone()),
        ("gzip", vec![proto, ("Content-Encoding", "gzip")], gzip(&protobuf)),
        (
            "json",
            vec![("Content-Type", "application/json")],
            json.to_string().into_bytes(),
        ),
    ] {
        let direct = HttpServer::start(windrow().sqlite());
        let answer = post(direct.otlp, "/v1/logs", &headers, &body);
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        assert_eq!(answer.text, if name == "json" { "{}" } else { "" }, "{name}");
        assert_eq!(documents(&direct.server, 4), expected, "{name}");
        // An equal request was sent again.
        assert_eq!(post(direct.otlp, "/v1/logs", &headers, &body).status, 200);
        wait::until_true("the duplicate", SOON, || {
            direct.server.metric("windrow_input_chunks_duplicate_total") == 1.0
        });
    }
    need!(windrow_testkit::env::program("curl"));
    let direct = HttpServer::start(windrow().sqlite());
    let url = format!(
        "http://{}/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        direct.otlp
    );
    let call = |flag: u8, message: &[u8], headers: &[&str]| {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let body = [&[flag], &length[..], message].concat();
        let common = [
            "--http2-prior-knowledge",
            "-i",
            "-H",
            "Content-Type: application/grpc",
            "-H",
            "TE: trailers",
            &url,
        ];
        curl(&[headers, &common].concat(), &body)
    };
    // This curl shows no trailers; the SDK for Python looks at them.
    let said = call(1, &gzip(&protobuf), &["-H", "grpc-encoding: gzip"]);
    assert!(
        said.contains("HTTP/2 200") && !said.contains("grpc-message"),
        "{said}"
    );
    assert_eq!(documents(&direct.server, 4), expected, "gRPC");
    let said = call(0, b"\x0a\xff", &[]);
    assert!(
        said.contains("grpc-status: 3") && said.contains("no protobuf"),
        "{said}"
    );
}

#[test]
fn answers_of_the_protocol() {
    let http = HttpServer::start(windrow().sqlite().env("WINDROW_HTTP_TOKEN", "secret"));
    let token = ("Authorization", "Bearer secret");
    let send = |path: &str, content_type: &str, body: &[u8]| {
        post(http.otlp, path, &[token, ("Content-Type", content_type)], body)
    };
    let json = "application/json";
    let refused = post(http.otlp, "/v1/logs", &[("Content-Type", json)], b"{}");
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (401, &json!(16)),
        "{refused:?}"
    );
    let traces = send("/v1/traces", json, b"{}");
    assert!(
        traces.status == 404 && traces.json()["message"].as_str().unwrap().contains("logs only"),
        "{traces:?}"
    );
    assert_eq!(send("/v1/logs", "text/plain", b"{}").status, 415);
    for (body, place) in [
        (json!({"resourceLogs": 7}), "resourceLogs is not an array"),
        (
            json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{}, 7]}]}]}),
            "resourceLogs[0].scopeLogs[0].logRecords[1] is not an object",
        ),
        (
            json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "x"}]}]}]}),
            "timeUnixNano is not a whole number",
        ),
        (
            json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"intValue": "x"}}]}]}]}),
            "intValue",
        ),
    ] {
        let answer = send("/v1/logs", json, body.to_string().as_bytes());
        assert!(
            answer.status == 400 && answer.text.contains(place),
            "{place}: {answer:?}"
        );
    }
    let bad = send("/v1/logs", "application/x-protobuf", b"\x0a\x05abc");
    // A google.rpc.Status: code 3, and a message.
    assert!(
        bad.status == 400 && bad.text.starts_with("\x08\x03\x12") && bad.text.contains("byte"),
        "{bad:?}"
    );
    let nothing = send("/v1/logs", json, b"{\"resourceLogs\":[]}");
    assert_eq!((nothing.status, nothing.text.as_str()), (200, "{}"));

    // A record that can never be taken does not cost the others.
    let mut deep = text("x");
    for _ in 0..97 {
        deep = Message::default().message(5, Message::default().message(1, deep));
    }
    let record = |time: u64, body: Message| Message::default().fixed64(1, time).message(5, body);
    let records = Message::default()
        .message(2, record(TIME, deep))
        .message(2, record(TIME + 1, text("kept")));
    let body = Message::default().message(1, Message::default().message(2, records));
    let answer = send("/v1/logs", "application/x-protobuf", &body.0);
    assert_eq!(answer.status, 200, "{answer:?}");
    // An ExportLogsServiceResponse: partial_success, rejected_log_records 1, and a message.
    assert!(
        answer.text.starts_with('\n') && answer.text[2..].starts_with("\x08\x01\x12"),
        "{answer:?}"
    );
    assert!(answer.text.contains("record 1 is nested deeper"), "{answer:?}");
    assert!(documents(&http.server, 1)[0].to_string().contains("kept"));
}

#[test]
fn the_python_sdk_over_http_and_grpc() {
    let python = need!(OtlpPython::set_up());
    let http = HttpServer::start(windrow().sqlite());
    let endpoints = [
        ("http", format!("http://{}/v1/logs", http.otlp)),
        ("grpc", http.otlp.to_string()),
    ];
    for (kind, endpoint) in &endpoints {
        let records = json!([{"span": format!("{kind}-one"), "lines": ["first of {kind}", "second"]}, {"span": "two", "lines": ["only"]}]);
        let ids = python.send(kind, endpoint, records.as_array().unwrap());
        assert_eq!(ids.len(), 2);
    }
    wait::until_true("the records", SOON, || {
        http.server.metric("windrow_records_delivered_total") == 6.0
            && http.server.metric("windrow_records_open") < 0.5
    });
    let stored = http.server.stored();
    let all = Value::from(stored.iter().map(|doc| doc.source.clone()).collect::<Vec<_>>()).to_string();
    for part in ["first of", "second", "only", "orders", "orderId", "WARN"] {
        assert!(all.contains(part), "{part}: {all}");
    }
    assert_eq!(http.server.metric("windrow_input_chunks_duplicate_total"), 0.0);
}

#[test]
fn the_collector_over_http_and_grpc() {
    let collector = need!(Collector::set_up());
    let http = HttpServer::start(windrow().sqlite());
    let cases = [
        ("otlphttp", format!("http://{}", http.otlp), "proto"),
        ("otlphttp", format!("http://{}", http.otlp), "json"),
        ("otlp", http.otlp.to_string(), "proto"),
    ];
    for (number, (kind, endpoint, encoding)) in cases.iter().enumerate() {
        let load = Load {
            traces: 200,
            open: 50,
            time: Time::EventTime,
            ..Load::new(http.server.forward(), &format!("collector{number}-"))
        };
        let (records, ledger) = load.by_logger();
        collector.send(kind, endpoint, encoding, &records);
        check::eventually(&ledger, SOON, || http.server.stored()).assert_clean();
    }
}

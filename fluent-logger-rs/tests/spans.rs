//! Tests of the `tracing` layer: closed spans, ids, names, sampling and repeats.
#![cfg(feature = "tracing")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::Duration;

use fluent_logger::{FluentLayer, Logger, Naming, SpanRecords, Stats};
use serde_json::{Value, json};
use support::{PATIENCE, Server, events};
use tracing::subscriber::with_default;
use tracing::{error, error_span, info, info_span, warn};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::Registry;

/// Runs `act` under the layer and returns the records that arrive, and the statistics.
fn run(
    naming: Naming,
    configure: impl FnOnce(FluentLayer) -> FluentLayer,
    act: impl FnOnce(),
) -> (Vec<Value>, Stats) {
    let server = Server::faithful();
    let logger = Logger::builder()
        .address(server.address.to_string())
        .naming(naming)
        .numeric_severity(naming != Naming::Plain)
        .build()
        .unwrap();
    let layer = configure(FluentLayer::new(logger.clone(), "app"));
    with_default(Registry::default().with(layer), act);
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    (events(&server.messages()), logger.stats())
}

fn records(configure: impl FnOnce(FluentLayer) -> FluentLayer, act: impl FnOnce()) -> Vec<Value> {
    run(Naming::Plain, configure, act).0
}

/// Takes a field out that differs from run to run.
fn take(record: &mut Value, key: &str) -> Value {
    record.as_object_mut().unwrap().remove(key).unwrap_or_default()
}

fn is_hex(value: &Value, digits: usize) -> bool {
    value
        .as_str()
        .is_some_and(|text| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[test]
fn a_root_span_writes_a_record_when_it_closes() {
    let mut found = records(
        |layer| layer.span_records(SpanRecords::Root).make_trace_ids(true),
        || {
            let span = info_span!("request", path = "/cart", late = tracing::field::Empty);
            span.in_scope(|| {
                info_span!("query").in_scope(|| info!("asked"));
                std::thread::sleep(Duration::from_millis(20));
            });
            span.record("late", 5);
        },
    );
    assert_eq!(found.len(), 2, "{found:?}");
    let id = take(&mut found[0], "traceId");
    assert!(is_hex(&id, 32), "{id}");
    assert_eq!(take(&mut found[1], "traceId"), id, "one trace");
    let latency = take(&mut found[1], "latencyMs").as_f64().unwrap();
    assert!((20.0..60_000.0).contains(&latency), "{latency}");
    assert_eq!(
        found[1],
        json!({
            "level": "INFO", "target": "spans", "message": "request completed", "span": "request",
            "path": "/cart", "late": 5, "outcome": "success",
        })
    );
}

#[test]
fn every_span_may_write_one_and_an_error_makes_it_a_failure() {
    let found = records(
        |layer| layer.span_records(SpanRecords::All).completion_message("done"),
        || {
            info_span!("a", traceId = "1").in_scope(|| {
                info_span!("fine").in_scope(|| warn!("almost"));
                info_span!("broken", latencyMs = 1).in_scope(|| error!("broken"));
            });
            error_span!("b", error = "refused").in_scope(|| ());
            error_span!("c", error = "refused", outcome = "skipped").in_scope(|| ());
        },
    );
    let closed: Vec<_> = found
        .iter()
        .filter(|record| record.get("outcome").is_some())
        .map(|record| ["span", "message", "outcome"].map(|key| record[key].as_str().unwrap()))
        .collect();
    assert_eq!(
        closed,
        [
            ["fine", "span closed", "success"],
            ["broken", "span closed", "failure"],
            ["a", "done", "failure"],
            ["b", "done", "failure"],
            ["c", "done", "skipped"],
        ]
    );
    let broken = found
        .iter()
        .find(|record| record["message"] == "span closed" && record["span"] == "broken");
    assert_eq!(broken.unwrap()["fields.latencyMs"], 1);
    assert!(found.iter().take(5).all(|record| record["traceId"] == "1"));
}

#[test]
fn ids_path_thread_and_place_are_options() {
    let found = records(
        |layer| {
            layer
                .with_span_ids(true)
                .with_span_path(true)
                .with_thread(true)
                .with_location(true)
        },
        || {
            info_span!("request").in_scope(|| {
                info!("outer");
                info_span!("query").in_scope(|| info!(thread = "mine", "inner"));
            });
        },
    );
    let [outer, inner] = &found[..] else {
        panic!("{found:?}")
    };
    assert!(is_hex(&outer["spanId"], 16) && outer.get("parentSpanId").is_none());
    assert_eq!(inner["parentSpanId"], outer["spanId"]);
    assert_ne!(inner["spanId"], outer["spanId"]);
    assert_eq!(
        (&outer["spans"], &inner["spans"]),
        (&json!("request"), &json!("request:query"))
    );
    assert!(inner["threadId"].as_str().unwrap().starts_with("ThreadId("));
    assert_eq!(inner["fields.thread"], "mine");
    assert!(inner["file"].as_str().unwrap().ends_with("spans.rs") && inner["line"].is_u64());
}

#[test]
fn names_of_ecs() {
    let (mut found, _) = run(
        Naming::Ecs,
        |layer| layer.span_records(SpanRecords::Root),
        || {
            info_span!("request", traceId = "t1").in_scope(|| warn!(n = 1, level = 2, "careful"));
        },
    );
    assert_eq!(
        found[0],
        json!({
            "log.level": "WARN", "log.logger": "spans", "message": "careful", "trace.id": "t1",
            "span.name": "request", "n": 1, "level": 2, "log.syslog.severity.code": 4,
        })
    );
    assert!(take(&mut found[1], "event.duration").is_u64(), "nanoseconds");
    assert_eq!(
        found[1],
        json!({
            "log.level": "INFO", "log.logger": "spans", "message": "request completed", "trace.id": "t1",
            "span.name": "request", "event.outcome": "success", "log.syslog.severity.code": 6,
        })
    );
}

#[test]
fn names_of_opentelemetry() {
    let (mut found, _) = run(
        Naming::OTel,
        |layer| layer.span_records(SpanRecords::Root),
        || {
            info_span!("request", traceId = "t1").in_scope(|| error!("broken"));
        },
    );
    assert_eq!(
        found[0],
        json!({
            "severity_text": "ERROR", "severity_number": 17, "otel.scope.name": "spans", "body": "broken",
            "trace_id": "t1", "span.name": "request",
        })
    );
    assert!(take(&mut found[1], "span.duration").is_f64(), "seconds");
    assert_eq!(found[1]["otel.status_code"], "ERROR");
}

#[test]
fn sampling_leaves_events_out_and_counts_them() {
    let (found, stats) = run(
        Naming::Plain,
        |layer| {
            layer
                .sample("noisy", 0.0)
                .sample("noisy::kept", 1.0)
                .sample("half", 0.5)
        },
        || {
            for _ in 0..1000 {
                info!(target: "noisy::inner", "left out");
                info!(target: "noisy::kept", "kept");
                info!(target: "half", "half");
            }
            warn!(target: "noisy", "a warning");
            info!(target: "noisyneighbour", "another target");
        },
    );
    let count = |text: &str| found.iter().filter(|record| record["message"] == text).count();
    assert_eq!((count("left out"), count("kept")), (0, 1000));
    assert_eq!((count("a warning"), count("another target")), (1, 1));
    assert!((350..650).contains(&count("half")), "{}", count("half"));
    assert_eq!(stats.sampled_out, 3000 - 2000 + 1000 - count("half") as u64);
}

#[test]
fn repeated_lines_are_limited_and_counted() {
    let (found, stats) = run(
        Naming::Plain,
        |layer| layer.limit_repeats(2, Duration::from_millis(300)),
        || {
            let line = || warn!("no connection");
            (0..50).for_each(|_| line());
            info!("another line");
            std::thread::sleep(Duration::from_millis(310));
            line();
        },
    );
    let messages: Vec<_> = found
        .iter()
        .map(|record| record["message"].as_str().unwrap())
        .collect();
    assert_eq!(
        messages,
        ["no connection", "no connection", "another line", "no connection"]
    );
    assert_eq!((&found[3]["repeated"], stats.suppressed), (&json!(48), 48));
}

#[cfg(feature = "opentelemetry")]
#[test]
fn ids_of_opentelemetry_are_those_of_the_spans() {
    use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("a test"));
    let server = Server::faithful();
    let logger = Logger::builder()
        .address(server.address.to_string())
        .build()
        .unwrap();
    let layer = FluentLayer::new(logger.clone(), "app")
        .with_opentelemetry()
        .with_span_ids(true)
        .make_trace_ids(true)
        .span_records(SpanRecords::All);
    let mut expected = [[String::new(), String::new()], [String::new(), String::new()]];
    with_default(Registry::default().with(otel).with(layer), || {
        let ids = |span: &tracing::Span| {
            let context = span.context().span().span_context().clone();
            [context.trace_id().to_string(), context.span_id().to_string()]
        };
        let outer = info_span!("outer");
        outer.in_scope(|| {
            info!("1");
            let inner = info_span!("inner");
            inner.in_scope(|| info!("2"));
            expected = [ids(&outer), ids(&inner)];
        });
    });
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    let found = events(&server.messages());
    let ids: Vec<_> = found
        .iter()
        .map(|record| ["traceId", "spanId"].map(|key| record[key].as_str().unwrap().to_owned()))
        .collect();
    let [outer, inner] = expected;
    assert_eq!(ids, [outer.clone(), inner.clone(), inner, outer]);
    assert_eq!(found[1]["parentSpanId"], found[0]["spanId"]);
}

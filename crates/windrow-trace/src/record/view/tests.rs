//! The names that loggers write, paths, and which of several fields counts.

use serde_json::{Value, json};

use super::*;
use crate::Severity;
use crate::tests::record;

fn context(json: &Value) -> (Option<Severity>, Option<String>) {
    let record = record(json);
    let view = RecordView::new(FieldNames::default());
    let facts = view.read(&record, &mut MadeId::default()).facts;
    let service = facts
        .service
        .map(|name| String::from_utf8_lossy(name).into_owned());
    (facts.level, service)
}

#[test]
fn what_the_loggers_of_the_large_languages_write() {
    use Severity::{Debug, Error, Fatal, Info, Warn};
    let known = [
        // pino, bunyan
        (json!({"level": 50, "name": "x", "msg": "m"}), Some(Error), None),
        // winston
        (
            json!({"level": "error", "service": "user-service"}),
            Some(Error),
            Some("user-service"),
        ),
        // ECS, literally and nested
        (
            json!({"log.level": "WARN", "service.name": "shop"}),
            Some(Warn),
            Some("shop"),
        ),
        (
            json!({"log": {"level": "warn"}, "service": {"name": "shop"}}),
            Some(Warn),
            Some("shop"),
        ),
        // Serilog's compact form
        (json!({"@l": "Fatal", "@mt": "x"}), Some(Fatal), None),
        // python-json-logger
        (
            json!({"levelname": "CRITICAL", "message": "m"}),
            Some(Fatal),
            None,
        ),
        // Monolog
        (
            json!({"level": 400, "level_name": "ERROR", "channel": "app"}),
            Some(Error),
            None,
        ),
        // GELF
        (json!({"short_message": "m", "level": 6}), Some(Info), None),
        // journald
        (
            json!({"PRIORITY": "4", "SYSLOG_IDENTIFIER": "sshd"}),
            Some(Warn),
            Some("sshd"),
        ),
        // Google Cloud
        (json!({"severity": "NOTICE"}), Some(Info), None),
        // OpenTelemetry, flattened
        (json!({"severity_number": 5}), Some(Debug), None),
        // Kubernetes
        (
            json!({"log": "text", "kubernetes": {"container_name": "web", "labels": {"app.kubernetes.io/name": "shop"}}}),
            None,
            Some("shop"),
        ),
        (
            json!({"log": "text", "kubernetes": {"container_name": "web"}}),
            None,
            Some("web"),
        ),
        // Docker
        (
            json!({"log": "text", "container_name": "/web-1"}),
            None,
            Some("web-1"),
        ),
        // What is unusable gives way.
        (json!({"level": null, "severity": "error"}), Some(Error), None),
        (json!({"level": "high", "lvl": "warn"}), Some(Warn), None),
        (
            json!({"service": {"id": 1}, "service_name": "", "app": "a"}),
            None,
            Some("a"),
        ),
        (json!({"service_name": "  ", "app": 5}), None, None),
        (json!({"message": "error"}), None, None),
    ];
    for (json, level, service) in known {
        assert_eq!(context(&json), (level, service.map(str::to_owned)), "{json}");
    }
}

#[test]
fn of_equal_names_the_last_counts_also_if_it_is_unusable() {
    let view = RecordView::new(FieldNames::default());
    let read = |record: &[u8]| view.read(record, &mut MadeId::default()).facts.level;
    assert_eq!(
        read(b"\x82\xa5level\xa5error\xa5level\xa4info"),
        Some(Severity::Info)
    );
    assert_eq!(
        read(b"\x83\xa5level\xa5error\xa3lvl\xa4warn\xa5level\xc0"),
        Some(Severity::Warn)
    );
}

#[test]
fn paths_are_found_however_the_dots_are_spread() {
    for value in [
        json!({"a.b.c": 1}),
        json!({"a": {"b.c": 1}}),
        json!({"a.b": {"c": 1}}),
        json!({"a": {"b": {"c": 1}}}),
        json!({"a": {"x": 2, "b": {"c": 1}}}),
    ] {
        assert_eq!(find_below(&record(&value), b"a.b.c"), Some(&[1][..]), "{value}");
    }
    let reading = |path: &str| Reading {
        meaning: Meaning::Service,
        order: 0,
        below: Some(path.as_bytes().into()),
    };
    let readings = ["b.c", "b", "x.y", "b.d", ".x"].map(reading);
    for value in [
        json!({"b.c": 1, "b": {"c": 2, "d": 3}, "x": {"y": 4}}),
        json!({"b": {"c": 2}, "b.d": 5, "": {"x": 6}}),
        json!({"x": 1, "y": {"b": 1}}),
        json!({"x": {"y": {"z": 1}}, "b": [1]}),
        json!(5),
    ] {
        let map = record(&value);
        let mut found = vec![None; readings.len()];
        for_each_below(&readings, &map, |reading, value| {
            let number = readings.iter().position(|known| std::ptr::eq(known, reading));
            found[number.unwrap()] = Some(value);
        });
        let one_by_one: Vec<_> = readings.iter().map(|reading| reading.value(&map)).collect();
        assert_eq!(found, one_by_one, "{value}");
    }
    for value in [
        json!({"a": {"b": 1}}),
        json!({"a": 1}),
        json!([1]),
        json!({"a": {"b": {"c.": 1}}}),
    ] {
        assert_eq!(find_below(&record(&value), b"a.b.c"), None, "{value}");
    }
    assert_eq!(find_below(&record(&json!({"": {"x": 1}})), b".x"), Some(&[1][..]));
}

#[test]
fn the_first_usable_key_counts() {
    let id = |names: &FieldNames, record: &[u8]| {
        let mut made = MadeId::default();
        let found = RecordView::new(names.clone()).read(record, &mut made);
        let id = if found.id_is_made {
            Some(made.bytes())
        } else {
            found.facts.id
        };
        id.map(|id| String::from_utf8_lossy(id).into_owned())
    };
    let names = FieldNames::default();
    for (json, expected) in [
        (json!({"trace_id": "b", "traceId": "a"}), Some("a")),
        (json!({"trace_id": "b", "traceId": "-"}), Some("b")),
        (json!({"traceId": null, "trace_id": "b"}), Some("b")),
        (json!({"traceId": 5, "trace_id": "b"}), Some("5")),
        (json!({"traceId": {"high": 1}, "trace.id": "c"}), Some("c")),
        (json!({"trace": {"id": "nested"}}), Some("nested")),
        (json!({"dd": {"trace_id": "7"}}), Some("7")),
        (json!({"dd.trace_id": 7}), Some("7")),
        (json!({"log_processed": {"traceId": "merged"}}), Some("merged")),
        (json!({"context": {"trace_id": "monolog"}}), Some("monolog")),
        (json!({"otelTraceID": "0"}), None),
        (json!({"traceId": "-", "trace": {"id": "null"}}), None),
        (json!({"TraceId": "net"}), Some("net")),
        (json!({"@tr": "serilog"}), Some("serilog")),
        (json!({"X-B3-TraceId": "b3"}), Some("b3")),
        (json!({"request_id": "x"}), None),
    ] {
        assert_eq!(id(&names, &record(&json)).as_deref(), expected, "{json}");
    }
    let twice = b"\x82\xa7traceId\xa1a\xa7traceId\xa1b";
    assert_eq!(
        id(&names, twice).as_deref(),
        Some("b"),
        "of equal names the last one"
    );
    let unusable = b"\x83\xa7traceId\xa1a\xa8trace_id\xa1c\xa7traceId\xc0";
    assert_eq!(
        id(&names, unusable).as_deref(),
        Some("c"),
        "also when it is unusable"
    );
    let names = FieldNames {
        keys: vec!["a.b.c".into(), "id|hex".into()],
        ..FieldNames::default()
    };
    let hex = "4BF92F3577B34DA6A3CE929D0E0E4736";
    let found = id(&names, &record(&json!({"a": {"b.c": 0}, "id": hex})));
    assert_eq!(found, Some(hex.to_lowercase()));
}

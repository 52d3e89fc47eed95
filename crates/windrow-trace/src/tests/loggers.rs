//! Lines as loggers, collectors and proxies write them: trace id, text, level and service of each.

use serde_json::{Value, json};

use super::record;
use crate::{FieldNames, MadeId, RecordView};

const HEX: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const ROOT: &str = "1-5759e988-bd862e3fe1be46a994272793";

/// Logger, record, and what is found: `id | text | level | service`, `-` for none.
type Case = (&'static str, Value, &'static str);

#[track_caller]
fn assert_read(cases: Vec<Case>) {
    let view = RecordView::new(FieldNames::default());
    for (logger, json, expected) in cases {
        let record = record(&json);
        let mut made = MadeId::default();
        let found = view.read(&record, &mut made);
        let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let id = if found.id_is_made {
            Some(utf8(made.bytes()))
        } else {
            found.facts.id.map(utf8)
        };
        let text = found.field_text(&view).map(|text| utf8(&text));
        let level = found.facts.level.map(|level| format!("{level:?}"));
        let service = found.facts.service.map(utf8);
        let found = [id, text, level, service].map(|part| part.unwrap_or_else(|| "-".into()));
        let expected = expected.replace("HEX", HEX).replace("ROOT", ROOT);
        assert_eq!(found.join(" | "), expected, "{logger}: {json}");
    }
}

#[test]
fn loggers_of_java() {
    assert_read(vec![
        (
            "logstash-logback-encoder",
            json!({"@timestamp": "t", "@version": "1", "message": "m", "logger_name": "a.B", "level": "INFO",
                   "level_value": 20000, "traceId": "a1", "spanId": "s"}),
            "a1 | m | Info | -",
        ),
        (
            "Spring Boot, ECS",
            json!({"log": {"level": "WARN", "logger": "a.B"}, "service": {"name": "shop"}, "message": "m",
                   "ecs": {"version": "8.11"}, "trace": {"id": "a1"}}),
            "a1 | m | Warn | shop",
        ),
        (
            "Spring Boot, GELF",
            json!({"version": "1.1", "short_message": "m", "level": 4, "_level_name": "WARN", "_traceId": "a1"}),
            "a1 | m | Warn | -",
        ),
        (
            "Logback's JsonLayout",
            json!({"level": "ERROR", "mdc": {"traceId": "a1"}, "message": "m", "context": "default"}),
            "a1 | m | Error | -",
        ),
        (
            "Logback's JsonEncoder",
            json!({"sequenceNumber": 0, "level": "TRACE", "context": {"name": "default", "properties": {}},
                   "mdc": {"trace_id": "a1"}, "formattedMessage": "id 7", "arguments": [7]}),
            "a1 | id 7 | Trace | -",
        ),
        (
            "log4j2's EcsLayout",
            json!({"ecs.version": "1.2.0", "log.level": "INFO", "message": "m", "labels": {"traceId": "a1"}}),
            "a1 | m | Info | -",
        ),
        (
            "log4j2's JsonLayout",
            json!({"level": "FATAL", "message": "m", "contextMap": {"trace_id": "a1"}, "instant": {"epochSecond": 1}}),
            "a1 | m | Fatal | -",
        ),
        (
            "log4j2's GcpLayout",
            json!({"severity": "ERROR", "message": "m",
                   "logging.googleapis.com/trace": format!("projects/p/traces/{HEX}")}),
            "HEX | m | Error | -",
        ),
        (
            "Quarkus",
            json!({"level": "INFO", "message": "m", "mdc": {"traceId": "a1", "sampled": "true"}}),
            "a1 | m | Info | -",
        ),
        (
            "X-Ray's SDK",
            json!({"message": "m", "AWS-XRAY-TRACE-ID": format!("AWS-XRAY-TRACE-ID: {ROOT}@{SPAN}")}),
            "ROOT | m | - | -",
        ),
        (
            "X-Ray's SDK with another layout",
            json!({"message": "m", "AWS-XRAY-TRACE-ID": format!("{ROOT}@{SPAN}")}),
            "ROOT | m | - | -",
        ),
        (
            "SkyWalking, no trace",
            json!({"message": "m", "traceId": "TID: N/A"}),
            "- | m | - | -",
        ),
    ]);
}

#[test]
fn loggers_of_dot_net() {
    assert_read(vec![
        (
            "Serilog's compact form",
            json!({"@t": "t", "@mt": "at {X}", "@l": "Warning", "@tr": "a1", "@sp": "s", "X": 1}),
            "a1 | at {X} | Warn | -",
        ),
        (
            "Serilog's JsonFormatter",
            json!({"Timestamp": "t", "Level": "Information", "MessageTemplate": "at {X}", "RenderedMessage": "at 1",
                   "Properties": {"X": 1, "TraceId": "a1"}}),
            "a1 | at 1 | Info | -",
        ),
        (
            "JSON console",
            json!({"EventId": 0, "LogLevel": "Critical", "Category": "c", "Message": "m", "State": {"Message": "m"},
                   "Scopes": ["text", {"Message": "c", "ConnectionId": "0HN"},
                              {"Message": "SpanId:s, TraceId:a1", "SpanId": "s", "TraceId": "a1", "ParentId": "0"}]}),
            "a1 | m | Fatal | -",
        ),
        (
            "JSON console without a trace",
            json!({"LogLevel": "Information", "Message": "m", "Scopes": [{"TraceId": "00000000000000000000000000000000"}]}),
            "- | m | Info | -",
        ),
        (
            "NLog",
            json!({"level": "Warn", "message": "m", "TraceId": "a1"}),
            "a1 | m | Warn | -",
        ),
        (
            "Application Insights",
            json!({"OperationId": "a1", "Message": "m", "SeverityLevel": 3, "AppRoleName": "shop"}),
            "a1 | m | Error | shop",
        ),
        (
            "Application Insights, classic",
            json!({"operation_Id": "a1", "message": "m", "severityLevel": 1, "cloud_RoleName": "shop"}),
            "a1 | m | Info | shop",
        ),
        (
            "an empty Guid in braces",
            json!({"message": "m", "traceId": "{00000000-0000-0000-0000-000000000000}"}),
            "- | m | - | -",
        ),
    ]);
}

#[test]
fn loggers_of_javascript_and_python() {
    assert_read(vec![
        (
            "pino",
            json!({"level": 30, "msg": "m", "trace_id": "a1"}),
            "a1 | m | Info | -",
        ),
        (
            "pino-http",
            json!({"level": 50, "msg": "m", "req": {"id": 1, "headers": {"traceparent": format!("00-{HEX}-{SPAN}-01")}}}),
            "HEX | m | Error | -",
        ),
        (
            "bunyan",
            json!({"name": "app", "level": 40, "msg": "m", "v": 0}),
            "- | m | Warn | -",
        ),
        (
            "winston with metadata",
            json!({"level": "silly", "message": "m", "metadata": {"traceId": "a1"}}),
            "a1 | m | Trace | -",
        ),
        (
            "winston with colours",
            json!({"level": "\u{1b}[32minfo\u{1b}[39m", "message": "m"}),
            "- | m | Info | -",
        ),
        (
            "structlog",
            json!({"event": "m", "level": "warning", "span": {"trace_id": HEX, "span_id": SPAN}}),
            "HEX | m | Warn | -",
        ),
        (
            "loguru",
            json!({"text": "2026 | INFO | m\n", "record": {"message": "m", "level": {"name": "INFO", "no": 20},
                   "extra": {"trace_id": "a1"}}}),
            "a1 | m | Info | -",
        ),
        (
            "python-json-logger with OpenTelemetry",
            json!({"message": "m", "levelname": "ERROR", "otelTraceID": HEX, "otelServiceName": "shop"}),
            "HEX | m | Error | shop",
        ),
        (
            "the same without a trace",
            json!({"message": "m", "otelTraceID": "0", "otelSpanID": "0"}),
            "- | m | - | -",
        ),
        (
            "Lambda Powertools",
            json!({"level": "INFO", "message": "m", "service": "payment", "xray_trace_id": ROOT}),
            "ROOT | m | Info | payment",
        ),
        (
            "ddtrace",
            json!({"event": "m", "dd.trace_id": "1234567890", "dd.service": "shop"}),
            "1234567890 | m | - | shop",
        ),
        (
            "ddtrace without a trace",
            json!({"event": "m", "dd": {"trace_id": "0"}}),
            "- | m | - | -",
        ),
        (
            "Sentry",
            json!({"message": "m", "sentry-trace": format!("{HEX}-{SPAN}-1")}),
            "HEX | m | - | -",
        ),
        (
            "Sentry, not sampled yet",
            json!({"message": "m", "sentry-trace": format!("{HEX}-{SPAN}")}),
            "HEX | m | - | -",
        ),
        (
            "baggage is no id",
            json!({"message": "m", "baggage": format!("sentry-trace_id={HEX}")}),
            "- | m | - | -",
        ),
    ]);
}

#[test]
fn loggers_of_go_rust_ruby_php_and_elixir() {
    assert_read(vec![
        (
            "zap",
            json!({"level": "dpanic", "ts": 1.5, "msg": "m", "traceID": "a1"}),
            "a1 | m | Fatal | -",
        ),
        (
            "zerolog",
            json!({"level": "trace", "message": "m", "trace_id": "a1"}),
            "a1 | m | Trace | -",
        ),
        (
            "slog with groups",
            json!({"level": "DEBUG-4", "msg": "m", "trace": {"trace_id": "a1"}}),
            "a1 | m | Debug | -",
        ),
        (
            "slog with the group otel",
            json!({"level": "INFO+2", "msg": "m", "otel": {"trace_id": "a1"}}),
            "a1 | m | Info | -",
        ),
        (
            "hclog",
            json!({"@level": "warn", "@message": "m", "@module": "core"}),
            "- | m | Warn | -",
        ),
        (
            "tracing",
            json!({"level": "INFO", "fields": {"message": "m"}, "target": "t", "span": {"name": "request"},
                   "spans": [{"name": "request", "trace_id": "a1"}, {"name": "query"}]}),
            "a1 | m | Info | -",
        ),
        (
            "semantic_logger",
            json!({"application": "shop", "level": "fatal", "message": "m", "named_tags": {"trace_id": "a1"}}),
            "a1 | m | Fatal | shop",
        ),
        (
            "Monolog",
            json!({"message": "m", "context": {"trace_id": "a1"}, "level": 550, "level_name": "ALERT", "extra": []}),
            "a1 | m | Fatal | -",
        ),
        (
            "Monolog without context",
            json!({"message": "m", "context": [], "level": 200, "level_name": "INFO", "extra": []}),
            "- | m | Info | -",
        ),
        (
            "LoggerJSON",
            json!({"message": "m", "severity": "notice", "metadata": {"otel_trace_id": HEX}}),
            "HEX | m | Info | -",
        ),
    ]);
}

#[test]
fn proxies_collectors_and_clouds() {
    assert_read(vec![
        (
            "Caddy",
            json!({"level": "info", "msg": "handled request",
                   "request": {"headers": {"Traceparent": [format!("00-{HEX}-{SPAN}-01")]}}}),
            "HEX | handled request | Info | -",
        ),
        (
            "Kong",
            json!({"message": "m", "trace_id": {"w3c": HEX, "datadog": "7"}}),
            "HEX | m | - | -",
        ),
        (
            "Traefik",
            json!({"msg": "m", "request_Traceparent": format!("00-{HEX}-{SPAN}-00")}),
            "HEX | m | - | -",
        ),
        (
            "Envoy",
            json!({"message": "m", "x_b3_traceid": "-", "x-b3-traceid": null}),
            "- | m | - | -",
        ),
        (
            "Jaeger",
            json!({"message": "m", "uber-trace-id": format!("{HEX}%3A{SPAN}%3A0%3A1")}),
            "HEX | m | - | -",
        ),
        (
            "a load balancer of AWS",
            json!({"message": "m", "trace_id": format!("Root={ROOT}")}),
            "ROOT | m | - | -",
        ),
        (
            "an entry of Google Cloud",
            json!({"textPayload": "m", "severity": "ERROR", "trace": format!("projects/p/traces/{HEX}")}),
            "HEX | m | Error | -",
        ),
        (
            "a stack trace is no id",
            json!({"message": "m", "trace": "#0 /var/www/index.php(3)"}),
            "- | m | - | -",
        ),
        (
            "Vector",
            json!({"message": "m", "trace_id": HEX, "severity_text": "WARN", "resources": {"service.name": "shop"}}),
            "HEX | m | Warn | shop",
        ),
        (
            "OpenTelemetry's own names",
            json!({"TraceId": HEX, "SeverityText": "INFO", "Body": "m", "Resource": {"service.name": "shop"}}),
            "HEX | m | Info | shop",
        ),
        (
            "Honeycomb",
            json!({"message": "m", "trace.trace_id": "a1"}),
            "a1 | m | - | -",
        ),
        (
            "ECS, the original",
            json!({"event": {"original": "m", "kind": "event"}}),
            "- | m | - | -",
        ),
        (
            "PostgreSQL",
            json!({"error_severity": "LOG", "message": "m"}),
            "- | m | Info | -",
        ),
        (
            "Datadog's header",
            json!({"message": "m", "x-datadog-trace-id": "77"}),
            "77 | m | - | -",
        ),
        (
            "a filter in Lua",
            json!({"message": "m", "traceId": 123456.0}),
            "123456 | m | - | -",
        ),
        (
            "a list of one",
            json!({"message": "m", "traceId": ["a1"]}),
            "a1 | m | - | -",
        ),
        (
            "a list of several",
            json!({"message": "m", "traceId": ["a1", "a2"]}),
            "- | m | - | -",
        ),
    ]);
}

/// Values that mean no trace: in quotes, and names of variables that nobody replaced.
#[test]
fn what_was_not_filled_in_is_no_id() {
    let view = RecordView::new(FieldNames::default());
    let has_id = |value: &str| {
        let record = record(&json!({"traceId": value, "message": "m"}));
        view.read(&record, &mut MadeId::default()).facts.id.is_some()
    };
    for value in [
        "\"\"",
        "''",
        "\"-\"",
        " \"null\" ",
        "' '",
        "\"0000\"",
        "${traceId}",
        "${ctx:traceId}",
        "%X{traceId}",
        "%{trace_id}",
        "#{trace_id}",
        "{{traceId}}",
        "{{ .TraceID }}",
        "{TraceId}",
        "$http_traceparent",
        "$opentelemetry_trace_id",
        "(not set)",
        "<missing>",
        "Not Available",
        "tid: n/a",
    ] {
        assert!(!has_id(value), "{value}");
    }
    for value in [
        "\"abc\"",
        "'",
        "\"",
        "${",
        "$",
        "{}x",
        "{4bf92f35-77b3-4da6-a3ce-929d0e0e4736}",
        "{abc}",
        "$5",
        "{1}",
        "50%",
        "%x",
        "#1",
        "{\"a\":1}",
        "${a b}",
    ] {
        assert!(has_id(value), "{value}");
    }
}

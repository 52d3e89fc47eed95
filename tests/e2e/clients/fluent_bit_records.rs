//! What a real Fluent Bit makes of other programs' logs, and what becomes of it: `OpenTelemetry`
//! records, Docker's files with the parser that Windrow ships, nginx without a trace id.

use serde_json::{Value, json};
use windrow_testkit::fluent_bit::{self, Running};
use windrow_testkit::server::Server;
use windrow_testkit::{http, need, ports, wait};

use crate::{SOON, windrow};

/// The parsers that Windrow ships.
const PARSERS: &str = include_str!("../../../fluent-bit/parsers.conf");

fn output(server: &Server) -> String {
    format!(
        "[OUTPUT]\n    Name forward\n    Match *\n    Host 127.0.0.1\n    Port {}\n    Require_ack_response true\n",
        server.forward().port()
    )
}

fn tail(server: &Server, parser: &str) -> String {
    format!(
        "[SERVICE]\n    Flush 0.2\n    Parsers_File @FOLDER@/parsers.conf\n[INPUT]\n    Name tail\n    Path @FOLDER@/app.log\n    \
         Tag app\n    Parser {parser}\n    Read_from_Head On\n    Refresh_Interval 1\n{}",
        output(server)
    )
}

/// The documents, once there are `count`.
#[track_caller]
fn documents(server: &Server, running: &Running, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    wait::until(&format!("{count} documents"), SOON, || {
        found = server.stored().into_iter().map(|stored| stored.source).collect();
        if found.len() == count {
            Ok(())
        } else {
            Err(format!("{} documents: {found:?}\n{}", found.len(), running.log()))
        }
    });
    found
}

#[test]
fn opentelemetry_records_are_one_document_under_the_hex_id() {
    let fluent_bit = need!(fluent_bit::find());
    let server = windrow().sqlite().start();
    let port = ports::free();
    let input = format!(
        "[SERVICE]\n    Flush 0.2\n[INPUT]\n    Name opentelemetry\n    Tag otel\n    Listen 127.0.0.1\n    Port {port}\n"
    );
    let running = fluent_bit.start_with(&(input + &output(&server)), &[]);
    let (trace, span) = ("526274528d3beab4f98a82f459bdc77c", "1442ef1b690cd8b0");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    let record = |number: u128, severity: (u32, &str), body: Value| {
        json!({
            "timeUnixNano": (now + number).to_string(), "observedTimeUnixNano": (now + number).to_string(),
            "severityNumber": severity.0, "severityText": severity.1, "body": body, "traceId": trace, "spanId": span,
        })
    };
    let structured = json!({"kvlistValue": {"values": [
        {"key": "message", "value": {"stringValue": "structured body"}},
        {"key": "n", "value": {"intValue": "5"}},
    ]}});
    let logs = json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
        "scopeLogs": [{"scope": {"name": "root"}, "logRecords": [
            record(1, (9, "INFO"), json!({"stringValue": "begin"})),
            record(2, (17, "ERROR"), structured),
            record(3, (9, "INFO"), json!({"stringValue": "request completed"})),
        ]}],
    }]});
    let url = format!("http://127.0.0.1:{port}/v1/logs");
    let body = serde_json::to_vec(&logs).unwrap();
    wait::until("Fluent Bit takes the records", SOON, || {
        match http::request("POST", &url, Some(("application/json", &body))) {
            Ok(answer) if answer.status < 300 => Ok(()),
            other => Err(format!("{other:?}\n{}", running.log())),
        }
    });
    let documents = documents(&server, &running, 1);
    let document = &documents[0];
    assert_eq!(document["traceId"], trace, "{document}");
    assert_eq!(document["windrow"]["lines"], 3, "{document}");
    let texts = ["message", "log"].map(|name| document[name].as_str().unwrap_or_default());
    for text in ["begin", "structured body", "request completed"] {
        assert!(
            texts.iter().any(|joined| joined.contains(text)),
            "{text}: {document}"
        );
    }
    let metadata = &document["windrow"]["metadata"];
    assert_eq!(metadata["otlp"]["span_id"], span, "{document}");
    assert_eq!(
        metadata["group"]["attributes"]["resource"]["attributes"]["service.name"],
        "shop"
    );
}

#[test]
fn lines_of_docker_have_no_empty_lines_between_them() {
    let fluent_bit = need!(fluent_bit::find());
    let server = windrow().sqlite().arg("--idle-timeout", "1s").start();
    let lines: String = (0..3)
        .map(|number| {
            let line = json!({
                "log": format!("line {number}\n"), "stream": "stdout", "traceId": "docker",
                "time": format!("2026-09-21T14:13:20.00000000{number}Z"),
            });
            format!("{line}\n")
        })
        .collect();
    let running = fluent_bit.start_with(
        &tail(&server, "docker"),
        &[("parsers.conf", PARSERS), ("app.log", &lines)],
    );
    let documents = documents(&server, &running, 1);
    assert_eq!(documents[0]["log"], "line 0\nline 1\nline 2");
    assert_eq!(documents[0]["windrow"]["lines"], 3);
}

#[test]
fn requests_that_nginx_logs_without_a_trace_id_stay_apart() {
    let fluent_bit = need!(fluent_bit::find());
    let server = windrow().sqlite().arg("--idle-timeout", "1s").start();
    let line = |page: u32, id: &str| {
        format!(
            "10.0.0.{page} - - [21/Sep/2026:14:13:20 +0000] \"GET /page{page} HTTP/1.1\" 200 612 \"-\" \"curl/8\" \"{id}\"\n"
        )
    };
    let lines: String = (0..4).map(|page| line(page, "-")).collect::<String>() + &line(9, "abc123");
    let running = fluent_bit.start_with(
        &tail(&server, "nginx"),
        &[("parsers.conf", PARSERS), ("app.log", &lines)],
    );
    let documents = documents(&server, &running, 5);
    let of = |id: &str| {
        documents
            .iter()
            .filter(|document| document["traceId"] == id)
            .count()
    };
    assert_eq!((of("-"), of("abc123")), (4, 1), "{documents:?}");
}

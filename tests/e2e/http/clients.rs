//! Fluent Bit's `http` and `opentelemetry` outputs, with the configurations of `fluent-bit/` and in
//! every format.

use std::path::Path;

use serde_json::Value;
use windrow_testkit::fluent_bit::{self, FluentBit, Running};
use windrow_testkit::{need, wait};

use super::HttpServer;
use crate::{SOON, windrow};

const LINES: usize = 20;

/// Lines of one trace, a second apart.
fn lines(id: &str) -> String {
    let line = |n: usize| {
        let message = if n + 1 == LINES {
            "request completed"
        } else {
            "step"
        };
        format!(
            "{{\"time\":\"2026-09-21T14:13:{n:02}.250Z\",\"traceId\":\"{id}\",\"message\":\"{message} {n}\",\"step\":{n}}}\n"
        )
    };
    (0..LINES).map(line).collect()
}

/// A configuration of the repository, with its environment filled in.
fn start(program: &FluentBit, name: &str, port: u16, edit: impl Fn(String) -> String, id: &str) -> Running {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fluent-bit");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let text = read(name)
        .replace("${LOG_PATH}", "@FOLDER@/app.log")
        .replace("${STATE_DIR}", "@FOLDER@")
        .replace("${WINDROW_HOST}", "127.0.0.1")
        .replace("${WINDROW_PORT}", &port.to_string())
        .replace("${WINDROW_TOKEN}", "secret");
    let parsers = read("parsers.conf");
    program.start_with(
        &edit(text),
        &[("parsers.conf", &parsers), ("app.log", &lines(id))],
    )
}

#[track_caller]
fn arrives(http: &HttpServer, running: &Running, id: &str) -> Value {
    let expected: Vec<String> = (0..LINES)
        .map(|n| {
            if n + 1 == LINES {
                format!("request completed {n}")
            } else {
                format!("step {n}")
            }
        })
        .collect();
    let expected = expected.join("\n");
    wait::until(&format!("{id} to arrive"), SOON, || {
        let stored = http.server.stored();
        let mine: Vec<_> = stored.iter().filter(|doc| doc.source["traceId"] == *id).collect();
        match &mine[..] {
            [one] if one.source["message"] == expected.as_str() => Ok(one.source.clone()),
            other => Err(format!("{other:?}\n{}", running.log())),
        }
    })
}

#[test]
fn fluent_bits_http_output_in_every_format() {
    let program = need!(fluent_bit::find());
    let setup = windrow()
        .sqlite()
        .env("WINDROW_HTTP_TIME_KEY", "date")
        .env("WINDROW_HTTP_TOKEN", "secret");
    let http = HttpServer::start(setup);
    let port = http.address.port();
    let formats = [
        ("json", ""),
        ("json_lines", "gzip"),
        ("json_stream", "zstd"),
        ("msgpack", "gzip"),
    ];
    for (format, compress) in formats {
        let edit = |text: String| {
            let text = text.replace("json_lines", format);
            match compress {
                "" => text.replace("    compress                   gzip\n", ""),
                other => text.replace("gzip", other),
            }
        };
        let id = format!("out-{format}");
        let running = start(&program, "http.conf", port, edit, &id);
        let document = arrives(&http, &running, &id);
        assert_eq!(document["@timestamp"], "2026-09-21T14:13:00.250Z", "{document}");
        assert_eq!(document["windrow"]["tags"][0], "app", "{document}");
        assert_eq!(document["date"], Value::Null, "{document}");
    }
    assert_eq!(http.server.metric("windrow_records_dead_letter_total"), 0.0);
}

#[test]
fn fluent_bits_opentelemetry_output() {
    let program = need!(fluent_bit::find());
    let http = HttpServer::start(windrow().sqlite().env("WINDROW_HTTP_TOKEN", "secret"));
    let port = http.otlp.port();
    // Over gRPC and HTTP/2, and over HTTP/1.1.
    for (id, grpc) in [("otlp-http", "off"), ("otlp-grpc", "on")] {
        let edit = |text: String| {
            text.replace(
                "grpc                       off",
                &format!("grpc                       {grpc}"),
            )
        };
        let running = start(&program, "opentelemetry.conf", port, edit, id);
        wait::until(&format!("{id} to arrive"), SOON, || {
            let delivered = http.server.stored();
            let mine = delivered.iter().filter(|doc| doc.source.to_string().contains(id));
            // A document of one record does not count its lines.
            let lines: u64 = mine
                .map(|doc| doc.source["windrow"]["lines"].as_u64().unwrap_or(1))
                .sum();
            if lines == LINES as u64 {
                Ok(())
            } else {
                Err(format!("{lines} lines\n{}", running.log()))
            }
        });
    }
}

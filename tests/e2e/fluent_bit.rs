//! A real Fluent Bit tails a file and forwards it: with its default version 2 entries, with acks, compressed, with
//! whole seconds, with a tag of each record's own.

use std::fmt::Write as _;

use windrow_testkit::fluent_bit::{self, Running};
use windrow_testkit::server::Server;
use windrow_testkit::{need, wait};

use crate::{SOON, windrow};

const TRACES: usize = 200;
const LINES: usize = 5;

/// Traces interleaved, each line a second after the one before it, so that whole seconds keep the order too.
fn log_file(prefix: &str) -> String {
    let mut text = String::new();
    for line in 0..LINES {
        for trace in 0..TRACES {
            let last = line + 1 == LINES;
            let message = if last { "request completed" } else { "step" };
            writeln!(
                text,
                r#"{{"time":"2026-09-21T14:13:{line:02}.{trace:03}Z","traceId":"{prefix}{trace}","message":"{message} {line} \"é\"","service_name":"orders","step":{line}}}"#
            )
            .unwrap();
        }
    }
    text
}

/// The forward output with more options.
fn configuration(server: &Server, options: &str) -> String {
    format!(
        r"[SERVICE]
    Flush 0.2
    Log_Level info
    Parsers_File @FOLDER@/parsers.conf
[INPUT]
    Name tail
    Path @FOLDER@/app.log
    Tag app.orders
    Parser lines
    Read_from_Head On
    Refresh_Interval 1
[OUTPUT]
    Name forward
    Match *
    Host 127.0.0.1
    Port {}
    Retry_Limit no_limits
{options}",
        server.forward().port()
    )
}

const PARSERS: &str = "[PARSER]
    Name lines
    Format json
    Time_Key time
    Time_Format %Y-%m-%dT%H:%M:%S.%LZ
";

/// Runs Fluent Bit with a finished file to tail and waits for its documents.
#[track_caller]
fn tail(server: &Server, fluent_bit: &fluent_bit::FluentBit, prefix: &str, options: &str) {
    let running = fluent_bit.start_with(
        &configuration(server, options),
        &[("parsers.conf", PARSERS), ("app.log", &log_file(prefix))],
    );
    wait_for(server, &running, prefix);
}

#[track_caller]
fn wait_for(server: &Server, running: &Running, prefix: &str) {
    let expected: String = (0..LINES)
        .map(|line| {
            format!(
                "{} {line} \"é\"",
                if line + 1 == LINES {
                    "request completed"
                } else {
                    "step"
                }
            )
        })
        .collect::<Vec<_>>()
        .join("\n");
    wait::until(&format!("{prefix}: {TRACES} whole documents"), SOON, || {
        let stored = server.stored();
        let mine: Vec<_> = stored
            .iter()
            .filter(|stored| {
                stored.source["traceId"]
                    .as_str()
                    .is_some_and(|id| id.starts_with(prefix))
            })
            .collect();
        let right = mine
            .iter()
            .filter(|stored| {
                stored.source["message"] == expected.as_str()
                    && stored.source["step"] == LINES - 1
                    && stored.source["service_name"] == "orders"
                    && stored.source["@timestamp"]
                        .as_str()
                        .is_some_and(|time| time.starts_with("2026-09-21T14:13:00."))
            })
            .count();
        if (mine.len(), right) == (TRACES, TRACES) {
            return Ok(());
        }
        let wrong = mine
            .iter()
            .find(|stored| stored.source["message"] != expected.as_str());
        Err(format!(
            "{} documents, {right} right; not: {wrong:?}\n{}",
            mine.len(),
            running.log()
        ))
    });
}

#[test]
fn every_shape_of_its_output() {
    let fluent_bit = need!(fluent_bit::find());
    let server = windrow().sqlite().start();
    for (prefix, options) in [
        ("default-", ""),
        ("acks-", "    Require_ack_response true\n"),
        ("gzip-", "    Require_ack_response true\n    Compress gzip\n"),
        (
            "v1-",
            "    Require_ack_response true\n    retain_metadata_in_forward_mode false\n",
        ),
        (
            "v1-gzip-",
            "    Require_ack_response true\n    retain_metadata_in_forward_mode false\n    Compress gzip\n",
        ),
        (
            "whole-",
            "    Require_ack_response true\n    Time_as_Integer true\n",
        ),
        (
            "options-",
            "    Require_ack_response true\n    add_option cluster blue\n",
        ),
        ("literal-", "    Require_ack_response true\n    Tag renamed\n"),
        (
            "dynamic-",
            "    Require_ack_response true\n    Tag app.$service_name\n",
        ),
        ("dynamic-unacked-", "    Tag app.$service_name\n"),
        (
            "recycled-",
            "    Require_ack_response true\n    net.keepalive_max_recycle 1\n",
        ),
    ] {
        tail(&server, &fluent_bit, prefix, options);
    }
    assert_eq!(server.stored().len(), 11 * TRACES, "and nothing else");
}

/// The agent's chunk is resent after the crash, and the file's later half comes from the same agent.
#[test]
fn a_server_killed_under_it() {
    let fluent_bit = need!(fluent_bit::find());
    let mut server = windrow().sqlite().arg("--idle-timeout", "1h").start();
    let text = log_file("killed-");
    let (first, second) = text.split_at(text.match_indices('\n').nth(TRACES * LINES / 2).unwrap().0 + 1);
    let configuration = configuration(&server, "    Require_ack_response true\n").replace(
        "    Flush 0.2\n",
        "    Flush 0.2\n    scheduler.base 1\n    scheduler.cap 2\n",
    );
    let running = fluent_bit.start_with(&configuration, &[("parsers.conf", PARSERS), ("app.log", first)]);
    wait::until_true("the first half", SOON, || {
        server.metric("windrow_input_records_total") >= (TRACES * LINES / 2) as f64
    });
    server.kill();
    running.append("app.log", second);
    server.start_again();
    wait_for(&server, &running, "killed-");
}

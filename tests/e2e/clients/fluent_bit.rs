//! A real Fluent Bit tails a file and forwards it: with its default version 2 entries, with acks,
//! compressed, with whole seconds, with a tag of each record's own, over several workers, without
//! keepalive, with a key, a user and TLS.
//!
//! Its forward output cannot compress with zstd (5.1.1 takes `gzip` and `text` and refuses to start
//! with anything else); zstd is tried by the conformance suite. `Fluentd_Compat` changes metrics
//! and traces only; here it shows that logs stay what they were. Where there is no binary, all of
//! this is skipped visibly.

use std::fmt::Write as _;

use windrow_testkit::fluent_bit::{self, Running};
use windrow_testkit::server::Server;
use windrow_testkit::{need, wait};

use super::{Guard, KEY, USER, assert_nothing_else, shown};
use crate::{SOON, windrow};

const TRACES: usize = 200;
const LINES: usize = 5;

/// Traces interleaved, each line a second after the one before it, so that whole seconds keep the
/// order too.
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
    Path @FOLDER@/*.log
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
        (
            "reconnecting-",
            "    Require_ack_response true\n    net.keepalive off\n",
        ),
        (
            "compat-",
            "    Require_ack_response true\n    Fluentd_Compat true\n",
        ),
    ] {
        tail(&server, &fluent_bit, prefix, options);
    }
    assert_nothing_else(&server, 13);
}

/// Each line of a trace is in a file, a tag and so a chunk of its own; four workers send the chunks
/// in any order.
#[test]
fn four_workers() {
    let fluent_bit = need!(fluent_bit::find());
    let server = windrow().sqlite().start();
    let options = "    Require_ack_response true\n    Workers 4\n";
    let configuration = configuration(&server, options).replace("Tag app.orders", "Tag app.*");
    let text = log_file("workers-");
    let lines: Vec<&str> = text.lines().collect();
    let files: Vec<(String, String)> = lines
        .chunks(TRACES)
        .enumerate()
        .map(|(line, of_line)| (format!("{line}.log"), of_line.join("\n") + "\n"))
        .collect();
    let mut all = vec![("parsers.conf", PARSERS)];
    all.extend(files.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    let running = fluent_bit.start_with(&configuration, &all);
    wait_for(&server, &running, "workers-");
    assert_nothing_else(&server, 1);
}

#[test]
fn over_a_unix_socket() {
    let fluent_bit = need!(fluent_bit::find());
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("windrow.sock");
    let server = windrow()
        .sqlite()
        .arg("--listen", format!("unix:{}", socket.display()))
        .start();
    let path = format!("    Unix_Path {}\n", socket.display());
    tail(&server, &fluent_bit, "unix-", &path);
    let acked = path + "    Require_ack_response true\n";
    tail(&server, &fluent_bit, "unix-acked-", &acked);
    assert_nothing_else(&server, 2);
    assert!(
        server.metric("windrow_input_connections_total") >= 2.0,
        "they came over the socket"
    );
}

/// With what a server asks for, in three forms: default, acks, and compressed over a connection for
/// each chunk.
#[track_caller]
fn behind(guard: Guard) {
    let fluent_bit = need!(fluent_bit::find());
    let guarded = guard.start();
    let (certificates, server) = (&guarded.certificates, &guarded.server);
    let mut options = String::new();
    if matches!(guard, Guard::Key | Guard::KeyAndUser | Guard::TlsKeyAndUser) {
        writeln!(options, "    Shared_Key {KEY}\n    Self_Hostname client.example").unwrap();
    }
    if matches!(guard, Guard::KeyAndUser | Guard::TlsKeyAndUser) {
        writeln!(options, "    Username {}\n    Password {}", USER.0, USER.1).unwrap();
    }
    if matches!(
        guard,
        Guard::Tls | Guard::TlsKeyAndUser | Guard::ClientCertificate
    ) {
        let authority = shown(&certificates.authority());
        writeln!(
            options,
            "    tls on\n    tls.verify on\n    tls.vhost server.example\n    tls.verify_hostname on\n    tls.ca_file {authority}"
        )
        .unwrap();
    }
    if guard == Guard::ClientCertificate {
        let (cert, key) = certificates.client();
        writeln!(
            options,
            "    tls.crt_file {}\n    tls.key_file {}",
            shown(&cert),
            shown(&key)
        )
        .unwrap();
    }
    let forms = [
        ("default-", ""),
        ("acks-", "    Require_ack_response true\n"),
        (
            "gzip-",
            "    Require_ack_response true\n    Compress gzip\n    net.keepalive off\n",
        ),
    ];
    for (prefix, more) in forms {
        tail(server, &fluent_bit, prefix, &format!("{options}{more}"));
    }
    assert_nothing_else(server, forms.len());
}

#[test]
fn with_a_shared_key() {
    behind(Guard::Key);
}

#[test]
fn with_a_shared_key_and_a_user() {
    behind(Guard::KeyAndUser);
}

#[test]
fn over_tls() {
    behind(Guard::Tls);
}

#[test]
fn over_tls_with_a_shared_key_and_a_user() {
    behind(Guard::TlsKeyAndUser);
}

#[test]
fn over_tls_with_a_client_certificate() {
    behind(Guard::ClientCertificate);
}

/// Fluent Bit's messages when the connection is refused, and when it ends after a chunk was sent.
const RECONNECTS: [&str; 6] = [
    "no upstream connections available",
    "failed to flush chunk",
    "broken connection",
    "onnection refused",
    "could not write",
    "cannot get ack",
];

/// Three clean stops while the file grows: the agent has to connect again, which it says, and
/// complains of nothing else.
#[test]
fn clean_stops_under_it() {
    let fluent_bit = need!(fluent_bit::find());
    let mut server = windrow().sqlite().start();
    let text = log_file("clean-");
    let configuration = configuration(&server, "    Require_ack_response true\n").replace(
        "    Flush 0.2\n",
        "    Flush 0.2\n    scheduler.base 1\n    scheduler.cap 2\n",
    );
    let running = fluent_bit.start_with(&configuration, &[("parsers.conf", PARSERS), ("app.log", "")]);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for (n, part) in lines.chunks(TRACES * LINES / 40).enumerate() {
        running.append("app.log", &part.concat());
        if [8, 18, 30].contains(&n) {
            wait::until_true("some records", SOON, || {
                server.metric("windrow_input_records_total") > 0.5
            });
            assert!(server.terminate(SOON).success());
            server.start_again();
        }
        // A file that grows while it is read, not one that is there.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    wait_for(&server, &running, "clean-");
    assert_nothing_else(&server, 1);
    for line in running.log().lines().filter(|line| {
        let level = line.split(['[', ']']).nth(3).unwrap_or_default();
        ["error", " warn"].contains(&level)
    }) {
        assert!(RECONNECTS.iter().any(|known| line.contains(known)), "{line}");
    }
}

/// The agent's chunk is resent after the crash, and the file's later half comes from the same
/// agent.
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

//! Admin API: health, readiness, metrics and recent documents, under their own names and under
//! those that Fluent Bit's users know.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use windrow_testkit::client::Client;
use windrow_testkit::load::Load;
use windrow_testkit::server::{Server, samples};
use windrow_testkit::{http, ports, wait};

use crate::{SOON, assert_stored, windrow};

#[test]
fn health_ready_and_their_twins() {
    let server = windrow().sqlite().start();
    server.wait_ready();
    for path in ["/health", "/api/v1/health", "/ready", "/"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(server.get("/no-such-page").status, 404);
}

/// A thread that cannot go on: only a new start helps, and a supervisor has to learn it.
#[test]
fn documents_that_nobody_reads_any_more_make_it_unhealthy() {
    struct Ends(std::process::Child);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let [forward, admin] =
        [ports::free(), ports::free()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_windrow"))
        .args([
            "--output",
            "stdout",
            "--linger",
            "10ms",
            "--listen",
            &forward.to_string(),
        ])
        .args(["--admin", &admin.to_string(), "--data-dir"])
        .arg(folder.path())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let _ends = Ends(child);
    let health = || http::get(&format!("http://{admin}/health"));
    wait::until_true("it to be alive", SOON, || {
        health().is_ok_and(|answer| answer.status == 200)
    });
    let line = serde_json::json!({"traceId": "a", "message": "request completed"});
    Client::connect(forward).send("app", "c1", &[(1_790_000_000, 0, line)]);
    wait::until("/health to fail", SOON, || match health() {
        Ok(answer) if answer.status == 503 && answer.text.contains("standard output") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let ready = http::get(&format!("http://{admin}/ready")).unwrap();
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("standard output"), "{}", ready.text);
}

/// A thousand silent connections, bad input, and another process that holds the dead letter's lock:
/// probes are answered, and chunks are acknowledged.
#[test]
fn nobody_shuts_out_probes_or_stops_intake() {
    let server = windrow().sqlite().start();
    server.wait_ready();
    let lock = std::fs::File::open(server.data().join("dead-letter/lock")).unwrap();
    lock.lock().unwrap();
    // A PackedForward message whose only entry is nil.
    let mut poison = TcpStream::connect(server.forward()).unwrap();
    poison.write_all(b"\x93\xa1t\xc4\x01\xc0\x80").unwrap();
    ::windrow::serve::raise_file_limit(2000);
    let admin = server.admin();
    let admin = admin.strip_prefix("http://").unwrap();
    let silent: Vec<_> = (0..1000).map(|_| TcpStream::connect(admin).unwrap()).collect();
    let mut client = Client::connect(server.forward());
    for number in 0..5 {
        for path in ["/health", "/ready", "/metrics"] {
            let begin = Instant::now();
            server.get(path);
            let took = begin.elapsed();
            assert!(took < Duration::from_secs(1), "{path}: {took:?}");
        }
        let line = serde_json::json!({"traceId": "a", "message": "request completed"});
        let begin = Instant::now();
        client.send("app", &format!("c{number}"), &[(1_790_000_000, 0, line)]);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(5), "an ack: {took:?}");
    }
    drop((lock, silent));
    server.wait_ready();
}

#[test]
fn metrics_count_what_was_sent() {
    let server = windrow().sqlite().start();
    let report = Load {
        traces: 600,
        chunk_records: 100,
        repeat: 2,
        ..Load::new(server.forward(), "m-")
    }
    .run();
    assert_stored(&server, &report);
    wait::until("the counters", SOON, || {
        let wrong: Vec<String> = [
            ("windrow_input_chunks_acked_total", 60.0),
            ("windrow_input_chunks_duplicate_total", 30.0),
            ("windrow_traces_open", 0.0),
            ("windrow_traces_flushed_total", 600.0),
            ("windrow_output_errors_total", 0.0),
            ("windrow_records_duplicate_total", 3000.0),
            ("windrow_records_delivered_total", 3000.0),
            ("windrow_records_open", 0.0),
            ("windrow_records_dead_letter_total", 0.0),
            ("windrow_audit_difference", 0.0),
            ("windrow_input_records_total", 6000.0),
        ]
        .into_iter()
        .map(|(name, wanted)| (name, wanted, server.metric(name)))
        .filter(|(_, wanted, have)| (wanted - have).abs() > 0.5)
        .map(|(name, wanted, have)| format!("{name} is {have}, not {wanted}"))
        .collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("; "))
        }
    });
    assert!(server.metric("windrow_input_bytes_total") > 0.0);
    let answer = server.get("/metrics");
    assert!(
        answer.content_type.starts_with("text/plain")
            || answer.content_type.starts_with("application/openmetrics-text")
    );
    let twin = samples(&server.get("/api/v1/metrics/prometheus").text);
    let names: Vec<String> = samples(&answer.text).into_keys().collect();
    assert_eq!(twin.into_keys().collect::<Vec<_>>(), names);
    assert!(names.iter().all(|name| name.starts_with("windrow_")), "{names:?}");
}

#[test]
fn logs_are_listed_newest_first() {
    let server = windrow().sqlite().start();
    let report = Load {
        traces: 120,
        open: 10,
        ..Load::new(server.forward(), "l-")
    }
    .run();
    assert_stored(&server, &report);
    let found = server.logs("limit=25");
    assert_eq!(found.len(), 25);
    // Times have three digits of fraction or nine, so they are compared as times.
    let times: Vec<jiff::Timestamp> = found
        .iter()
        .map(|document| document["@timestamp"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    let load = report.ledger.load();
    let one = server.logs(&format!("traceId={}", load.trace_id(7)));
    assert_eq!(one.len(), 1);
    assert_eq!(one[0]["traceId"], load.trace_id(7).as_str());
    assert!(server.logs("traceId=none").is_empty());
    let twin = server.get("/api/v1/logs?limit=25");
    assert_eq!(twin.text, server.get("/logs?limit=25").text);
    assert_eq!(server.get("/logs?limit=many").status, 400);
}

/// A secret in a file can be changed without a restart.
#[test]
fn a_token_in_a_file_is_read_again_on_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "old\n").unwrap();
    let setup = windrow()
        .sqlite()
        .arg("--admin-token-file", file.to_str().unwrap());
    let mut server = setup.start();
    let status = |server: &Server, token: &str| server.get(&format!("/logs?token={token}")).status;
    assert_eq!((status(&server, "old"), status(&server, "new")), (200, 401));
    std::fs::write(&file, "new\n").unwrap();
    server.process().signal(Signal::HUP);
    wait::until_true("the new token to be accepted", SOON, || {
        status(&server, "new") == 200
    });
    assert_eq!(status(&server, "old"), 401);
}

//! Rejected input: it has a bounded folder of its own, so that a client that sends nothing else
//! neither stops the others nor fills the dead letter.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use windrow_testkit::client::Client;
use windrow_testkit::server::Server;
use windrow_testkit::wait;

use crate::{SOON, windrow};

const START: u32 = 1_790_000_000;
const MIB: u64 = 1 << 20;
/// A trace of a client that does nothing wrong is stored after this time at the latest.
const BYSTANDER_TIMEOUT: Duration = Duration::from_secs(3);

/// A server whose dead letter and rejected input have room for 1 MiB each.
fn server() -> Server {
    windrow()
        .sqlite()
        .env("WINDROW_DEAD_LETTER_LIMIT", "1MiB")
        .env("WINDROW_REJECTED_LIMIT", "1MiB")
        .env("WINDROW_TRACE_MAX_TRACE_BYTES", "64KiB")
        .start()
}

/// Sends a trace and waits until it is stored.
#[track_caller]
fn assert_bystander(server: &Server, id: &str) {
    let mut client = Client::connect(server.forward());
    let record = json!({"traceId": id, "message": "request completed"});
    client.send("app", id, &[(START, 0, record)]);
    wait::until_true("the bystander's trace", BYSTANDER_TIMEOUT, || {
        server.stored().iter().any(|stored| stored.id == id)
    });
}

fn folder_bytes(folder: &Path) -> u64 {
    let sizes = fs::read_dir(folder).unwrap();
    sizes.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// The rejected input is at its limit, and nothing else noticed.
#[track_caller]
fn assert_overwritten(server: &mut Server) {
    assert_bystander(server, "after");
    let bytes = folder_bytes(&server.data().join("rejected"));
    assert!((MIB / 2..=MIB).contains(&bytes), "{bytes}");
    assert_eq!(folder_bytes(&server.data().join("dead-letter")), 0);
    wait::until("the counters", SOON, || {
        let metrics = server.metrics();
        let right = metrics["windrow_rejected_overwritten_total"] > 0.0
            && metrics["windrow_rejected_entries_total"] > metrics["windrow_rejected_overwritten_total"]
            && metrics["windrow_rejected_bytes"] == folder_bytes(&server.data().join("rejected")) as f64
            && metrics["windrow_rejected_lost_total"] == 0.0
            && metrics["windrow_audit_difference"] == 0.0;
        right.then_some(()).ok_or_else(|| format!("{metrics:?}"))
    });
    let ready = server.get("/ready");
    assert_eq!(ready.status, 200, "{}", ready.text);
    let lines = server.process().stderr();
    let warned: Vec<_> = lines.iter().filter(|line| line.contains("overwritten")).collect();
    assert!((1..=3).contains(&warned.len()), "{warned:#?}");
    assert!(
        warned[0].contains("tag evil") || warned[0].contains("endless"),
        "{warned:?}"
    );
}

#[test]
fn chunks_of_metrics_stop_nobody() {
    let mut server = server();
    let mut client = Client::connect(server.forward());
    for number in 0..60u8 {
        // `["evil", bin(100,000 bytes), {"chunk": …, "fluent_signal": 1}]`
        let mut message = b"\x93\xa4evil\xc6\x00\x01\x86\xa0".to_vec();
        message.resize(message.len() + 100_000, number);
        message.extend_from_slice(b"\x82\xa5chunk\xa1");
        message.push(b'A' + number);
        message.extend_from_slice(b"\xadfluent_signal\x01");
        client.write(&message);
        assert_eq!(client.ack().as_deref().map(str::len), Some(1));
        if number == 30 {
            assert_bystander(&server, "between");
        }
    }
    assert_overwritten(&mut server);
}

#[test]
fn a_trace_without_end_stops_nobody() {
    let mut server = server();
    let mut client = Client::connect(server.forward());
    let line = json!({"traceId": "endless", "message": "x".repeat(10_000)});
    for number in 0..60 {
        let records: Vec<_> = (0..10).map(|n| (START, n, line.clone())).collect();
        client.send("evil", &format!("chunk-{number}"), &records);
        if number == 30 {
            assert_bystander(&server, "between");
        }
    }
    assert_overwritten(&mut server);
}

/// A payload that decompresses to many times its size is kept as it came.
#[test]
fn lines_beyond_the_limit_of_a_trace_take_no_more_room_than_their_message() {
    let mut server = server();
    let line = rmp_serde::to_vec(&(0, json!({"traceId": "endless", "message": "x".repeat(10_000)}))).unwrap();
    let payload = line.repeat(3000);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &payload).unwrap();
    let payload = encoder.finish().unwrap();
    let mut message = b"\x93\xa4evil\xc6".to_vec();
    message.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    message.extend_from_slice(&payload);
    message.extend_from_slice(b"\x82\xa5chunk\xa1a\xaacompressed\xa4gzip");
    let mut client = Client::connect(server.forward());
    client.write(&message);
    assert_eq!(client.ack().as_deref(), Some("a"));
    wait::until_true("the counters", SOON, || {
        // 64 KiB of the trace are six lines.
        server.metric("windrow_records_dead_letter_total") == 2994.0
    });
    let bytes = folder_bytes(&server.data().join("rejected"));
    let most = 3 * message.len() as u64 + 2000;
    assert!(bytes > message.len() as u64 && bytes < most, "{bytes}, {most}");
    assert_bystander(&server, "after");
    assert!(server.terminate(SOON).success());
}

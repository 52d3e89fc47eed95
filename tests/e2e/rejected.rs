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
    assert!(warned[0].contains("tag evil"), "{warned:?}");
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

//! SIGTERM: acknowledged is kept, what can be written is written, exit 0 within the grace period; a start
//! afterwards goes on with the open traces.

use std::time::Duration;

use serde_json::json;
use windrow_testkit::check;
use windrow_testkit::client::Client;
use windrow_testkit::load::Load;
use windrow_testkit::sink::{Faults, Sink};
use windrow_testkit::wait;

use crate::{SOON, assert_stored, windrow};

#[test]
fn a_clean_stop_under_load_loses_nothing() {
    let mut server = windrow().sqlite().start();
    let running = Load {
        traces: 8000,
        rate: 20_000,
        connections: 3,
        ..Load::new(server.forward(), "stopped-")
    }
    .start();
    for part in 1..=3 {
        running.wait_acknowledged(part * 10_000);
        let status = server.terminate(SOON);
        assert!(status.success(), "{status}");
        server.start_again();
    }
    let report = running.finish();
    assert_stored(&server, &report);
}

#[test]
fn open_traces_stay_open_over_a_clean_stop() {
    let mut server = windrow().sqlite().arg("--idle-timeout", "1h").start();
    let line = |text: &str| json!({"traceId": "stays", "message": text});
    Client::connect(server.forward()).send("app", "c1", &[(1_790_000_000, 0, line("one"))]);
    assert!(server.terminate(SOON).success());
    server.start_again();
    Client::connect(server.forward()).send("app", "c2", &[(1_790_000_001, 0, line("two"))]);
    assert!(server.terminate(SOON).success());
    server.start_again();
    Client::connect(server.forward()).send("app", "c3", &[(1_790_000_002, 0, line("request completed"))]);
    let found = wait::until("the document", SOON, || match server.logs("traceId=stays") {
        found if found.is_empty() => Err("nothing".to_owned()),
        found => Ok(found),
    });
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["message"], "one\ntwo\nrequest completed");
    assert_eq!(found[0]["windrow"]["lines"], 3);
}

#[test]
fn it_ends_within_its_grace_though_elasticsearch_is_away() {
    let mut sink = Sink::stopped();
    let mut server = windrow()
        .elasticsearch(&sink.url(), "away")
        .arg("--shutdown-grace", "2s")
        .start();
    let report = Load {
        traces: 500,
        ..Load::new(server.forward(), "away-")
    }
    .run();
    let status = server.terminate(Duration::from_secs(20));
    assert!(status.success(), "{status}");
    sink.start_again();
    server.start_again();
    check::eventually(&report.ledger, SOON, || sink.documents("away-")).assert_clean();
}

#[test]
fn what_is_sealed_is_written_before_it_ends() {
    let sink = Sink::with(Faults {
        delay: Duration::from_millis(100),
        ..Faults::default()
    });
    let mut server = windrow().elasticsearch(&sink.url(), "drain").start();
    let report = Load {
        traces: 2000,
        ..Load::new(server.forward(), "drain-")
    }
    .run();
    wait::until_true("first documents", SOON, || !sink.documents("drain-").is_empty());
    assert!(server.terminate(SOON).success());
    // Nothing is twice or damaged; what was not yet sealed comes after the start.
    let verdict = check::compare(&report.ledger, &sink.documents("drain-"));
    assert_eq!((verdict.twice.count, verdict.damaged.count), (0, 0), "{verdict}");
    server.start_again();
    check::eventually(&report.ledger, SOON, || sink.documents("drain-")).assert_clean();
}

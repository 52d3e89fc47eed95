//! Graceful shutdown on SIGTERM: acknowledged records are kept, what can be written is written,
//! exit 0 within the grace period; the next start continues with the open traces.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluent_logger::Logger;
use rustix::process::Signal;
use serde_json::json;
use windrow_testkit::check;
use windrow_testkit::client::Client;
use windrow_testkit::fake_elasticsearch::{FakeElasticsearch, Faults};
use windrow_testkit::load::Load;
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

/// The logger of the house under load, three clean stops: it has to connect again, and nothing
/// else.
#[test]
fn clean_stops_under_a_logger_with_acks() {
    let mut server = windrow().sqlite().start();
    let troubles = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&troubles);
    let logger = Logger::builder()
        .address(server.forward().to_string())
        .flush_interval(Duration::from_millis(5))
        .chunk_limit_events(100)
        .retry_wait(Duration::from_millis(20))
        .max_retry_wait(Duration::from_millis(100))
        .ack_timeout(SOON)
        .own_thread(true)
        .on_connection_error(move |error| seen.lock().unwrap().push(format!("{error:?}")))
        .build()
        .unwrap();
    let delivered = |records: u64| {
        wait::until("deliveries", SOON, || match logger.stats().delivered {
            enough if enough >= records => Ok(()),
            less => Err(format!("{less} of {records}")),
        });
    };
    let over = AtomicBool::new(false);
    let traces = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut trace = 0;
            while !over.load(Relaxed) {
                for line in ["begins", "goes on", "request completed"] {
                    let record =
                        json!({"traceId": format!("logged-{trace}"), "message": format!("{line} {trace}")});
                    while logger.log("app", &record).is_err() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                trace += 1;
                std::thread::sleep(Duration::from_micros(300));
            }
            trace
        });
        for part in 1..=3 {
            delivered(part * 2000);
            assert!(server.terminate(SOON).success());
            server.start_again();
        }
        delivered(8000);
        over.store(true, Relaxed);
        writer.join().unwrap()
    });
    let left = logger.blocking_close(SOON).unwrap();
    assert!(left.is_empty(), "{} events were not delivered", left.len());
    let troubles = troubles.lock().unwrap();
    for trouble in troubles.iter() {
        let reconnect = ["Connect(", "ClosedByServer", "Io("];
        assert!(
            reconnect.iter().any(|start| trouble.starts_with(start)),
            "{trouble}"
        );
    }
    wait::until("every trace whole and once", SOON, || {
        let mut wrong = Vec::new();
        let stored = server.stored();
        for document in &stored {
            let number = document.id.strip_prefix("logged-").unwrap_or("?");
            let text = format!("begins {number}\ngoes on {number}\nrequest completed {number}");
            if document.source["message"] != text.as_str() {
                wrong.push(document.source.to_string());
            }
        }
        if stored.len() == traces && wrong.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "{} of {traces} documents, wrong: {:?}",
                stored.len(),
                wrong.first()
            ))
        }
    });
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
    let inspected = std::process::Command::new(env!("CARGO_BIN_EXE_windrow"))
        .args(["journal", "inspect"])
        .arg(server.data())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inspected.stdout);
    assert!(inspected.status.success(), "{said}");
    assert!(
        said.contains("not released: 2 lines of 1 traces, 1 of them open"),
        "{said}"
    );
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
    let mut sink = FakeElasticsearch::stopped();
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
    let sink = FakeElasticsearch::with(Faults {
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

/// For a machine that will not come back: what is open is written, and nothing stays in the
/// journal.
#[test]
fn open_traces_are_written_at_the_end_when_told_to() {
    let mut server = windrow()
        .sqlite()
        .arg("--idle-timeout", "1h")
        .flag("--flush-on-exit")
        .start();
    let line = json!({"traceId": "unfinished", "message": "begins"});
    Client::connect(server.forward()).send("app", "c1", &[(1_790_000_000, 0, line)]);
    assert!(server.terminate(SOON).success());
    let stored = server.stored();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].source["message"], "begins");
    assert_eq!(stored[0].source["windrow"]["reason"], "shutdown");
    server.start_again();
    assert!(
        server.metric("windrow_records_open") < 0.5,
        "nothing is left to do"
    );
    assert!(server.terminate(SOON).success());
    assert_eq!(server.stored().len(), 1);
}

/// A second signal ends it at once, in the middle of draining; a start goes on.
#[test]
fn a_second_signal_ends_it_at_once() {
    let mut sink = FakeElasticsearch::stopped();
    let mut server = windrow()
        .elasticsearch(&sink.url(), "twice")
        .arg("--shutdown-grace", "10m")
        .start();
    let report = Load {
        traces: 300,
        ..Load::new(server.forward(), "twice-")
    }
    .run();
    server.process().signal(Signal::TERM);
    wait::until_true("it to drain", SOON, || {
        let said = server.process().stderr();
        said.iter()
            .any(|line| line.contains("no new connections, draining"))
    });
    assert_eq!(server.terminate(SOON).code(), Some(130));
    sink.start_again();
    server.start_again();
    check::eventually(&report.ledger, SOON, || sink.documents("twice-")).assert_clean();
}

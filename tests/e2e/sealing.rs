//! Sealing of traces: on completion, after the idle timeout, at the maximum age; and where a late
//! line goes.

use serde_json::{Value, json};
use windrow_testkit::client::Client;
use windrow_testkit::server::Server;
use windrow_testkit::wait;

use crate::{SOON, windrow};

const T: u32 = 1_790_000_000;

/// Waits for the one document of a trace to have this text.
#[track_caller]
fn document(server: &Server, trace: &str, text: &str) -> Value {
    wait::until(&format!("{trace}: {text:?}"), SOON, || {
        let mut found = server.logs(&format!("traceId={trace}"));
        match found.len() {
            1 if found[0]["message"] == text => Ok(found.remove(0)),
            _ => Err(format!("{found:?}")),
        }
    })
}

#[test]
fn a_trace_that_never_completes_is_written_after_its_idle_time() {
    let server = windrow().sqlite().arg("--idle-timeout", "1s").start();
    let mut client = Client::connect(server.forward());
    client.send(
        "app",
        "c1",
        &[
            (T, 0, json!({"traceId": "quiet", "message": "one", "step": 1})),
            (T, 1, json!({"traceId": "quiet", "message": "two", "step": 2})),
        ],
    );
    let found = document(&server, "quiet", "one\ntwo");
    assert_eq!(found["windrow"]["reason"], "idle", "{found}");
    assert_eq!(found["step"], 2);
}

#[test]
fn a_line_after_completion_ends_in_the_same_document() {
    let server = windrow().sqlite().arg("--idle-timeout", "1s").start();
    let mut client = Client::connect(server.forward());
    let line = |text: &str, status: u32| json!({"traceId": "late", "message": text, "status": status});
    client.send(
        "app",
        "c1",
        &[
            (T, 10, line("begins", 102)),
            (T, 30, line("request completed", 200)),
        ],
    );
    document(&server, "late", "begins\nrequest completed");
    // Event time decides the place of a late line, and whether its fields are the latest.
    client.send("app", "c2", &[(T, 20, line("goes on", 103))]);
    let found = document(&server, "late", "begins\ngoes on\nrequest completed");
    assert_eq!(found["status"], 200);
    client.send("app", "c3", &[(T, 40, line("afterwards", 500))]);
    let found = document(&server, "late", "begins\ngoes on\nrequest completed\nafterwards");
    assert_eq!(found["status"], 500);
    assert_eq!(found["windrow"]["lines"], 4);
    assert_eq!(found["windrow"]["late"], 2);
    // Counted when the store has confirmed, which is a moment after the document can be seen.
    wait::until("two late records to be counted", SOON, || {
        match server.metric("windrow_records_late_total") {
            2.0 => Ok(()),
            other => Err(format!("{other}")),
        }
    });
    assert_eq!(found["@timestamp"], "2026-09-21T14:13:20.000000010Z");
}

#[test]
fn a_straggler_within_the_linger_is_no_second_write() {
    let server = windrow().arg("--output", "sqlite").arg("--linger", "2s").start();
    let mut client = Client::connect(server.forward());
    let mut other = Client::connect(server.forward());
    client.send(
        "app",
        "c1",
        &[(
            T,
            2,
            json!({"traceId": "straggle", "message": "request completed"}),
        )],
    );
    other.send(
        "app",
        "c2",
        &[(T, 1, json!({"traceId": "straggle", "message": "before"}))],
    );
    let found = document(&server, "straggle", "before\nrequest completed");
    assert_eq!(found["windrow"]["reason"], "completed");
    assert_eq!(found["windrow"]["late"], 0, "{found}");
}

#[test]
fn a_full_table_writes_the_oldest_and_drops_none() {
    let mut server = windrow()
        .sqlite()
        .arg("--idle-timeout", "1h")
        .arg("--max-traces", "50")
        .start();
    let load = windrow_testkit::load::Load {
        traces: 500,
        open: 500,
        chunk_records: 100,
        ..windrow_testkit::load::Load::new(server.forward(), "evicted-")
    };
    let report = load.run();
    crate::assert_stored(&server, &report);
    assert!(server.metric("windrow_traces_evicted_total") >= 450.0);
    assert!(server.terminate(SOON).success());
    assert_eq!(server.stored().len(), 500);
}

#[test]
fn complete_traces_beyond_what_is_worth_to_keep_are_written_early_and_take_their_stragglers_later() {
    let mut server = windrow()
        .arg("--output", "sqlite")
        .arg("--linger", "5m")
        .arg("--idle-timeout", "1s")
        .flag("--flush-on-exit")
        .start();
    let mut client = Client::connect(server.forward());
    // More than 2 MiB of them; what waits at first is 512 KiB. Fewer than a thousand are sealed
    // early, after which none would wait.
    let text = format!("request completed {}", "x".repeat(2000));
    let of = |n: u32| json!({"traceId": format!("many-{n}"), "message": text});
    let records: Vec<_> = (0..1000).map(|n| (T, n, of(n))).collect();
    client.send("app", "complete", &records);
    let hurried = || server.metric("windrow_traces_hurried_total");
    wait::until("most of them to be written", SOON, || match hurried() {
        500.0.. => Ok(()),
        other => Err(format!("{other}")),
    });
    assert!(hurried() < 990.0, "some wait: {}", hurried());
    // The first are written, the last wait.
    for first in [0, 990] {
        let of = |n: u32| json!({"traceId": format!("many-{n}"), "message": "straggler"});
        let records: Vec<_> = (first..first + 10).map(|n| (T, n + 5000, of(n))).collect();
        client.send("app", &format!("stragglers {first}"), &records);
    }
    let both = format!("{text}\nstraggler");
    for n in 0..10 {
        document(&server, &format!("many-{n}"), &both);
    }
    assert!(server.logs("traceId=many-999").is_empty(), "it waits");
    drop(client);
    assert!(server.terminate(SOON).success());
    let stored = server.stored();
    assert_eq!(stored.len(), 1000);
    for n in 990..1000 {
        let id = format!("many-{n}");
        let found = stored
            .iter()
            .find(|stored| stored.id == id)
            .expect("it is stored");
        assert_eq!(found.source["message"], both);
    }
}

#[test]
fn where_many_come_and_no_straggler_nothing_waits_and_a_straggler_finds_its_document() {
    let mut server = windrow()
        .arg("--output", "sqlite")
        .arg("--linger", "5m")
        .arg("--idle-timeout", "1s")
        .start();
    let mut client = Client::connect(server.forward());
    let begun = "x".repeat(100);
    let (chunks, traces) = (40, 1000);
    for chunk in 0..chunks {
        let of = |n: u32, text: &str| json!({"traceId": format!("quick-{chunk}-{n}"), "message": text});
        let first = (0..traces).map(|n| (T, n, of(n, &begun)));
        let second = (0..traces).map(|n| (T, n + traces, of(n, "request completed")));
        let records: Vec<_> = first.chain(second).collect();
        client.send("app", &format!("quick {chunk}"), &records);
    }
    // None waits for its five minutes, though at first some thousand would have had room.
    let all = f64::from(chunks * traces);
    wait::until("all to be written", SOON, || {
        match server.metric("windrow_traces_hurried_total") {
            hurried if hurried == all => Ok(()),
            other => Err(format!("{other}")),
        }
    });
    for chunk in [0, chunks - 1] {
        let record = json!({"traceId": format!("quick-{chunk}-7"), "message": "straggler"});
        client.send("app", &format!("straggler {chunk}"), &[(T, 999_999, record)]);
    }
    for chunk in [0, chunks - 1] {
        let text = format!("{begun}\nrequest completed\nstraggler");
        document(&server, &format!("quick-{chunk}-7"), &text);
    }
    drop(client);
    assert!(server.terminate(SOON).success());
    assert_eq!(server.stored().len(), 40_000);
}

/// The journal and gathering have one clock. Here it was set back by an hour between two runs; a
/// step forward during a run has the same effect: times of reception ahead of those of sealing.
#[test]
fn no_line_is_late_because_the_clock_was_set() {
    let mut server = windrow().sqlite().start();
    assert!(server.terminate(SOON).success());
    let in_an_hour = || windrow::clock::unix_us() + 3_600_000_000;
    let options = windrow_journal::JournalOptions {
        clock: in_an_hour,
        ..windrow_journal::JournalOptions::new(server.data().join("journal"))
    };
    let (journal, _) = windrow_journal::Journal::open(options, Box::new(())).unwrap();
    let receipt = journal.append(u8::MAX, Vec::new().into()).wait().unwrap();
    journal.release(receipt.lsn());
    journal.close();
    server.start_again();
    let mut client = Client::connect(server.forward());
    let line = json!({"traceId": "clock", "message": "request completed"});
    client.send("app", "c1", &[(T, 0, line)]);
    let found = document(&server, "clock", "request completed");
    assert_eq!(found["windrow"]["late"], 0, "{found}");
}

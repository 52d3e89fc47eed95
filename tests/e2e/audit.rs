//! Audit counts: every received record is stored, a duplicate, dead-lettered or open, compared with
//! independent counts: the client's ledger, the stored documents, the files of the dead letter and of
//! rejected input.

use std::path::Path;

use serde_json::{Value, json};
use windrow_testkit::client::{Client, forward};
use windrow_testkit::fake_elasticsearch::{FakeElasticsearch, Faults};
use windrow_testkit::load::Load;
use windrow_testkit::server::Server;
use windrow_testkit::wait;

use crate::{SOON, windrow};

const START: u32 = 1_790_000_000;

/// Lines in documents: of their texts, not what the documents say of themselves.
fn lines<'a>(documents: impl Iterator<Item = &'a Value>) -> usize {
    documents
        .map(|document| document["message"].as_str().unwrap().split('\n').count())
        .sum()
}

/// Lines in the files of a folder of entries: those of documents, and one for each piece of input.
fn dead_lines(folder: &Path) -> usize {
    let mut entries: Vec<Value> = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|end| end == "ndjson") {
            let text = std::fs::read_to_string(path).unwrap();
            entries.extend(
                text.lines()
                    .map(|line| serde_json::from_str::<Value>(line).unwrap()),
            );
        }
    }
    let (documents, raw): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry["document"].is_object());
    raw.len() + lines(documents.into_iter().map(|entry| &entry["document"]))
}

/// Waits for a moment in which nothing moves, and compares.
#[track_caller]
fn assert_books(server: &Server, [received, delivered, duplicate, dead, open]: [usize; 5]) {
    wait::until("the books to be right", SOON, || {
        let metrics = server.metrics();
        let wrong: Vec<String> = [
            ("windrow_input_records_total", received),
            ("windrow_records_delivered_total", delivered),
            ("windrow_records_duplicate_total", duplicate),
            ("windrow_records_dead_letter_total", dead),
            ("windrow_records_open", open),
            ("windrow_audit_difference", 0),
        ]
        .into_iter()
        .map(|(name, wanted)| (name, f64::from(u32::try_from(wanted).unwrap()), metrics[name]))
        .filter(|(_, wanted, have)| (have - wanted).abs() > 0.1)
        .map(|(name, wanted, have)| format!("{name} is {have}, not {wanted}"))
        .collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("; "))
        }
    });
}

#[test]
fn received_is_delivered_repeated_dead_or_open() {
    let sink = FakeElasticsearch::with(Faults {
        poison: Some("of poison-".to_owned()),
        lose_answer_every: 3,
        cut_answer_every: 7,
        drop_before_every: 5,
        item_429_every: 40,
        ..Faults::default()
    });
    // Small requests, so that many meet a fault.
    let mut server = windrow()
        .elasticsearch(&sink.url(), "audit")
        .arg("--idle-timeout", "1h")
        .env("WINDROW_ELASTICSEARCH_BULK_DELAY", "20ms")
        .env("WINDROW_ELASTICSEARCH_BULK_SIZE", "32KiB")
        .start();
    let base = |prefix: &str, traces: u64| Load {
        traces,
        chunk_records: 100,
        ..Load::new(server.forward(), prefix)
    };
    let loads = [
        base("plain-", 800),
        Load {
            repeat: 3,
            ..base("repeated-", 100)
        },
        Load {
            trace_ids: false,
            ..base("single-", 60)
        },
        base("poison-", 40),
        Load {
            completes: false,
            ..base("open-", 30)
        },
    ];
    let (mut received, mut repeated) = (0, 0);
    for load in loads {
        let (records, repeat) = (usize::try_from(load.records()).unwrap(), load.repeat);
        let report = load.run();
        assert_eq!(report.resent, 0);
        assert_eq!(report.ledger.acknowledged(), records as u64);
        received += records * repeat;
        repeated += records * (repeat - 1);
    }
    // A late line, which joins a document; the same chunk once more; and entries that are none.
    let mut client = Client::connect(server.forward());
    let line = |text: &str| json!({"traceId": "late", "message": text});
    client.send("app", "c1", &[(START, 0, line("request completed"))]);
    wait::until_true("its document", SOON, || {
        sink.documents("audit-")
            .iter()
            .any(|document| document.id == "late")
    });
    for _ in 0..2 {
        client.send("app", "c2", &[(START, 1, line("request completed before"))]);
    }
    let mut bad = forward("app", Some("c3"), &[]);
    // `[tag, [1, 2, 3], options]`: the empty array becomes one of three numbers.
    let at = bad.iter().position(|byte| *byte == 0x90).unwrap();
    bad.splice(at..=at, [0x93, 1, 2, 3]);
    client.write(&bad);
    assert_eq!(client.ack().as_deref(), Some("c3"));
    received += 1 + 2 + 3;
    repeated += 1;

    let (dead, open) = (40 * 5 + 3, 30 * 5);
    let delivered = received - repeated - dead - open;
    assert_books(&server, [received, delivered, repeated, dead, open]);
    let stored = sink.documents("audit-");
    assert_eq!(lines(stored.iter().map(|document| &document.source)), delivered);
    let found = ["dead-letter", "rejected"].map(|folder| dead_lines(&server.data().join(folder)));
    assert_eq!(found, [dead - 3, 3]);
    let faults = sink.counts().faults;
    assert!(
        faults > 20,
        "hardly anything went wrong, so nothing is shown: {faults} faults"
    );

    // Counters start at zero after a restart and count what is recovered from the journal. Open
    // traces stay open, and nothing is written twice.
    server.crash();
    wait::until("the books of the new life to be right", SOON, || {
        let metrics = server.metrics();
        let (open, difference) = (
            metrics["windrow_records_open"],
            metrics["windrow_audit_difference"],
        );
        if (open - 150.0).abs() < 0.1 && difference.abs() < 0.1 {
            Ok(())
        } else {
            Err(format!("{open} open, difference {difference}"))
        }
    });
    let stored = sink.documents("audit-");
    assert_eq!(lines(stored.iter().map(|document| &document.source)), delivered);
    assert!(server.terminate(SOON).success());
}

//! Traces and records beyond `trace.max_trace_bytes`: nothing of them is rejected, and every line is
//! in exactly one document, also after crashes, resends and with several instances.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use windrow_testkit::check::Stored;
use windrow_testkit::client::Client;
use windrow_testkit::elasticsearch;
use windrow_testkit::fake_elasticsearch::FakeElasticsearch;
use windrow_testkit::server::{Server, Setup};
use windrow_testkit::{need, wait};

use crate::{SOON, windrow};

const START: u32 = 1_790_000_000;
const LIMIT: usize = 64 << 10;
const CHUNKS: u32 = 40;
const LINES: u32 = 10;

fn limited() -> Setup {
    windrow()
        .env("WINDROW_TRACE_MAX_TRACE_BYTES", "64KiB")
        .arg("--idle-timeout", "1s")
}

/// Sends chunk `number` of the trace: ten lines of about 1,000 bytes.
fn send(client: &mut Client, number: u32) {
    let line = |n: u32| {
        let text = format!("{number}.{n} {}", "x".repeat(1000));
        json!({"traceId": "endless", "message": text, "service": "s"})
    };
    let records: Vec<_> = (0..LINES).map(|n| (START + number, n, line(n))).collect();
    client.send("app", &format!("chunk-{number}"), &records);
}

/// How often each line is stored.
fn lines(stored: &[Stored]) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for document in stored {
        let text = document.source["message"].as_str().unwrap_or_default();
        for line in text.lines() {
            let name = line.split(' ').next().unwrap_or_default();
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Every line is in one document; the first says that it is continued, the others what they continue.
#[track_caller]
fn assert_whole(stored: impl Fn() -> Vec<Stored>) {
    let expected: BTreeMap<String, u32> = (0..CHUNKS)
        .flat_map(|number| (0..LINES).map(move |n| (format!("{number}.{n}"), 1)))
        .collect();
    wait::until("each line to be stored once", SOON, || {
        let found = lines(&stored());
        let wrong: Vec<_> = expected
            .keys()
            .chain(found.keys())
            .filter(|line| found.get(*line) != Some(&1))
            .collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("{wrong:?}"))
        }
    });
    let documents = stored();
    assert!(documents.len() > 5, "{}", documents.len());
    for Stored { id, source, .. } in &documents {
        let about = &source["windrow"];
        assert!(source.to_string().len() <= LIMIT + 4096, "{id}");
        assert_eq!(
            (&source["traceId"], &source["service"]),
            (&json!("endless"), &json!("s"))
        );
        let marks = (about.get("continued"), about.get("continues"));
        if id == "endless" {
            assert_eq!(marks, (Some(&json!(true)), None));
        } else {
            assert_eq!(marks, (None, Some(&json!("endless"))));
        }
    }
}

#[track_caller]
fn assert_nothing_rejected(server: &Server) {
    for folder in ["rejected", "dead-letter"] {
        let bytes: u64 = fs::read_dir(server.data().join(folder))
            .map(|files| files.map(|file| file.unwrap().metadata().unwrap().len()).sum())
            .unwrap_or_default();
        assert_eq!(bytes, 0, "{folder}");
    }
    wait::until("the audit", SOON, || {
        match server.metric("windrow_audit_difference") {
            0.0 => Ok(()),
            difference => Err(format!("{difference}")),
        }
    });
}

#[test]
fn a_trace_without_end_goes_on_in_further_documents() {
    let mut server = limited().sqlite().start();
    let mut client = Client::connect(server.forward());
    for number in 0..CHUNKS / 2 {
        send(&mut client, number);
    }
    // Some of it is stored and not yet confirmed, some is open.
    server.kill();
    server.start_again();
    let mut client = Client::connect(server.forward());
    for number in CHUNKS / 4..CHUNKS {
        send(&mut client, number);
    }
    assert_whole(|| server.stored());
    assert_nothing_rejected(&server);
    let logs = server.logs("traceId=endless&limit=100");
    assert_eq!(logs.len(), server.stored().len(), "/logs has its continuations");
    assert_eq!(
        logs[0]["windrow"]["continued"], true,
        "the first document is first"
    );
    assert!(server.terminate(SOON).success());
}

#[test]
fn several_instances_write_each_line_once() {
    let sink = FakeElasticsearch::start();
    write_with_two(
        || limited().elasticsearch(&sink.url(), "long").start(),
        || sink.documents("long-"),
        || {},
    );
}

/// As [`several_instances_write_each_line_once`], in a real node.
#[test]
fn several_instances_write_each_line_once_in_a_real_store() {
    let node = need!(elasticsearch::shared());
    let client = node.client();
    client.delete("endless-*");
    write_with_two(
        || limited().elasticsearch(&node.url(), "endless").start(),
        || client.documents("endless-*"),
        || {},
    );
    client.delete("endless-*");
}

/// The documents of one trace lie in the indices that an alias had when they were written.
#[test]
fn several_instances_write_each_line_once_through_a_rollover_alias() {
    let node = need!(elasticsearch::shared());
    let client = node.client();
    client.delete("rolled-*");
    let aliases = json!({"aliases": {"rolled": {"is_write_index": true}}});
    client.request("PUT", "rolled-000001", Some(&aliases)).unwrap();
    let start = || {
        limited()
            .arg("--output", "elasticsearch")
            .arg("--elasticsearch-url", node.url())
            .arg("--index", "rolled")
            .arg("--linger", "200ms")
            .start()
    };
    let roll = || {
        client.request("POST", "rolled/_rollover", None).unwrap();
    };
    write_with_two(start, || client.documents("rolled-*"), roll);
    assert!(client.indices("rolled-*").len() > 1);
    client.delete("rolled-*");
}

/// Sends all chunks to each of two instances, twice, and kills one; `between` is called after half.
fn write_with_two(start: impl Fn() -> Server, stored: impl Fn() -> Vec<Stored>, between: impl Fn()) {
    let (mut first, mut second) = (start(), start());
    for _ in 0..2 {
        let (mut a, mut b) = (
            Client::connect(first.forward()),
            Client::connect(second.forward()),
        );
        for number in 0..CHUNKS {
            send(&mut a, number);
            send(&mut b, (number + CHUNKS / 2) % CHUNKS);
        }
        first.kill();
        first.start_again();
        between();
    }
    assert_whole(stored);
    for server in [&mut first, &mut second] {
        assert_nothing_rejected(server);
        assert!(server.terminate(SOON).success());
    }
}

#[test]
fn a_record_beyond_the_limit_is_a_document_of_its_own() {
    let mut server = limited().sqlite().start();
    let mut client = Client::connect(server.forward());
    let long = "y".repeat(3 * LIMIT);
    let records: Vec<(u32, u32, Value)> = vec![
        (START, 0, json!({"traceId": "t", "message": "before"})),
        (START, 1, json!({"traceId": "t", "message": long})),
        (START, 2, json!({"traceId": "t", "message": "after"})),
        (START, 3, json!({"message": long, "single": true})),
    ];
    client.send("app", "chunk", &records);
    let texts = |trace: &Value| {
        let mut texts: Vec<_> = server
            .stored()
            .iter()
            .filter(|stored| stored.source.get("traceId").unwrap_or(&Value::Null) == trace)
            .flat_map(|stored| {
                let text = stored.source["message"].as_str().unwrap().to_owned();
                text.lines().map(str::len).collect::<Vec<_>>()
            })
            .collect();
        texts.sort_unstable();
        texts
    };
    wait::until("all lines", SOON, || {
        let found = (texts(&json!("t")), texts(&Value::Null));
        let expected = (vec![5, 6, 3 * LIMIT], vec![3 * LIMIT]);
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    assert_nothing_rejected(&server);
    assert!(server.terminate(SOON).success());
}

/// 30 MB in a few kilobytes.
#[test]
fn a_compressed_trace_of_many_limits_is_kept() {
    let mut server = limited().sqlite().start();
    let line = rmp_serde::to_vec(&(0, json!({"traceId": "endless", "message": "x".repeat(10_000)}))).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &line.repeat(3000)).unwrap();
    let payload = encoder.finish().unwrap();
    let mut message = b"\x93\xa3app\xc6".to_vec();
    message.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    message.extend_from_slice(&payload);
    message.extend_from_slice(b"\x82\xa5chunk\xa1a\xaacompressed\xa4gzip");
    let mut client = Client::connect(server.forward());
    client.write(&message);
    assert_eq!(client.ack().as_deref(), Some("a"));
    wait::until("all lines", SOON, || {
        let count = |stored: &Stored| stored.source["message"].as_str().unwrap().lines().count();
        match server.stored().iter().map(count).sum() {
            3000 => Ok(()),
            lines => Err(format!("{lines} lines")),
        }
    });
    assert_nothing_rejected(&server);
    assert!(server.terminate(SOON).success());
}

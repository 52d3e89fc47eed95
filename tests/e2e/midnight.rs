//! Traces across midnight UTC: one document each, in the index of the first event's day, also when
//! that event comes last.

use serde_json::json;
use windrow_testkit::check::{self, Stored};
use windrow_testkit::client::Client;
use windrow_testkit::elasticsearch;
use windrow_testkit::fake_elasticsearch::FakeElasticsearch;
use windrow_testkit::load::Load;
use windrow_testkit::{need, wait};

use crate::{SOON, windrow};

/// 2026-09-22T00:00:00Z.
const MIDNIGHT: u32 = 1_790_035_200;

#[track_caller]
fn assert_days(prefix: &str, documents: &[Stored]) {
    let mut days = std::collections::BTreeMap::<String, u64>::new();
    for document in documents {
        let day = &document.source["@timestamp"].as_str().unwrap()[..10];
        assert_eq!(document.index, format!("{prefix}-{day}"), "{document:?}");
        *days.entry(day.to_owned()).or_default() += 1;
    }
    assert_eq!(days.len(), 2, "documents on both sides: {days:?}");
}

#[test]
fn a_load_across_midnight() {
    let node = need!(elasticsearch::shared());
    let client = node.client();
    let server = windrow().elasticsearch(&node.url(), "midnight").start();
    // 5,000 records of event time before midnight and as many after it.
    let load = Load {
        start: MIDNIGHT - 5,
        per_second: 1000,
        traces: 2000,
        ..Load::new(server.forward(), "n")
    };
    let report = Load {
        spread: true,
        connections: 3,
        chunk_records: 100,
        ..load
    }
    .run();
    check::eventually(&report.ledger, SOON, || client.documents("midnight-*")).assert_clean();
    assert_days("midnight", &client.documents("midnight-*"));
}

/// The document stands in the second day's index when a line of the first day arrives.
#[test]
fn a_late_line_from_the_day_before() {
    let sink = FakeElasticsearch::start();
    let mut server = windrow()
        .elasticsearch(&sink.url(), "dawn")
        .arg("--idle-timeout", "1s")
        .start();
    let line = |text: &str| json!({"traceId": "dawn", "message": text});
    let mut client = Client::connect(server.forward());
    client.send("app", "c1", &[(MIDNIGHT + 1, 0, line("request completed"))]);
    wait::until_true("the document of the second day", SOON, || {
        sink.documents("dawn-2026-09-22").len() == 1
    });
    client.send("app", "c2", &[(MIDNIGHT - 1, 0, line("begins"))]);
    let whole = |documents: &[Stored]| match documents {
        [one] if one.index == "dawn-2026-09-21" && one.source["message"] == "begins\nrequest completed" => {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    };
    wait::until("one document on the first day", SOON, || {
        whole(&sink.documents("dawn-"))
    });
    client.send("app", "c3", &[(MIDNIGHT + 2, 0, line("afterwards"))]);
    wait::until("the last line in it", SOON, || {
        let documents = sink.documents("dawn-");
        match &documents[..] {
            [one] if one.source["message"] == "begins\nrequest completed\nafterwards" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(server.terminate(SOON).success());
    assert_eq!(sink.documents("dawn-").len(), 1);
}

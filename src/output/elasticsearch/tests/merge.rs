//! Tests of the merge with existing documents, with faults at every step.

use super::fake::{Fake, Fault};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_exists_is_merged_and_nothing_of_it_is_lost() {
    let fake = Fake::start().await;
    fake.with(|i| {
        i.store.put(
            TODAY,
            "other-part",
            json!({"traceId": "other-part", "parts": {"x": 1}}),
        );
        i.store.put(
            TODAY,
            "same-part",
            json!({"traceId": "same-part", "parts": {"p": 1}}),
        );
        i.store.put(TODAY, "foreign", json!({"hello": 1}));
        i.store.put(TODAY, "no-trace", json!({"hello": 1}));
    });
    let running = Running::start(quick(&fake.url));
    let documents = vec![
        running.part("new", "p", NOON),
        running.part("other-part", "p", NOON),
        running.part("same-part", "p", NOON),
        running.part("foreign", "p", NOON),
        running.sealed("no-trace", "p", NOON, &json!({"hello": 1}), false),
        running.part("twice", "p", NOON),
        running.part("twice", "q", NOON),
        running.part("twice", "r", NOON),
    ];
    running.give(documents).await;
    let dead_letter = running.dead_letter.clone();
    let folder = dead_letter.folder().to_owned();
    until("all are confirmed", || running.confirmed.count() == 8).await;
    let text = std::fs::read_to_string(folder.join("001.ndjson")).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("not_a_windrow_document"), "{text}");
    let documents = fake.documents();
    assert_eq!(
        part_names(&documents[&key(TODAY, "other-part")]),
        HashSet::from(["x", "p"])
    );
    assert_eq!(
        part_names(&documents[&key(TODAY, "same-part")]),
        HashSet::from(["p"])
    );
    assert_eq!(
        part_names(&documents[&key(TODAY, "twice")]),
        HashSet::from(["p", "q", "r"])
    );
    assert_eq!(documents[&key(TODAY, "foreign")], json!({"hello": 1}));
    assert_eq!(
        fake.with(|i| i.store.get(TODAY, "same-part").unwrap().version),
        1,
        "nothing new, nothing written"
    );
    running.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_changes_or_vanishes_during_the_merge_is_read_again() {
    let fake = Fake::start().await;
    let mut n = 0;
    fake.with(|i| {
        i.store
            .put(TODAY, "busy", json!({"traceId": "busy", "parts": {"x0": 0}}));
        i.store
            .put(TODAY, "gone", json!({"traceId": "gone", "parts": {"x": 0}}));
        // Between each read and the write that follows it, another writer adds a part, or deletes.
        i.before = Some(Box::new(move |path, store| {
            if path != "/_bulk" {
                return;
            }
            n += 1;
            if (2..5).contains(&n) {
                let mut source = store.get(TODAY, "busy").unwrap().source.clone();
                source["parts"][format!("x{n}")] = json!(n);
                store.put(TODAY, "busy", source);
            }
            if n == 2 {
                store.delete(TODAY, "gone");
            }
        }));
    });
    let running = Running::start(quick(&fake.url));
    running
        .give(vec![
            running.part("busy", "p", NOON),
            running.part("gone", "p", NOON),
        ])
        .await;
    running.finish().await;
    let documents = fake.documents();
    assert_eq!(
        part_names(&documents[&key(TODAY, "busy")]),
        HashSet::from(["x0", "x2", "x3", "x4", "p"])
    );
    assert_eq!(part_names(&documents[&key(TODAY, "gone")]), HashSet::from(["p"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_survives_failing_requests() {
    for fault in [
        Fault::Refuse(429),
        Fault::Refuse(503),
        Fault::LoseAnswer,
        Fault::Break,
        Fault::Refuse(403),
    ] {
        let fake = Fake::start().await;
        fake.with(|i| {
            for n in 0..20 {
                i.store.put(
                    TODAY,
                    &format!("t{n}"),
                    json!({"traceId": format!("t{n}"), "parts": {"x": 1}}),
                );
            }
            i.mget_faults.extend([fault.clone(), fault.clone()]);
            // The create passes, the write-back of the union does not.
            i.bulk_faults
                .extend([Fault::Slow(Duration::ZERO), Fault::Slow(Duration::ZERO)]);
            i.bulk_faults.extend([Fault::Slow(Duration::ZERO), fault.clone()]);
        });
        let running = Running::start(quick(&fake.url));
        running
            .give(
                (0..20)
                    .map(|n| running.part(&format!("t{n}"), "p", NOON))
                    .collect(),
            )
            .await;
        let (confirmed, _) = running.finish().await;
        assert_eq!(confirmed.len(), 20);
        for (_, document) in fake.documents() {
            assert_eq!(part_names(&document), HashSet::from(["x", "p"]));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_writers_of_the_same_traces_make_one_document_each() {
    let fake = Fake::start().await;
    let writers: Vec<_> = (0..3).map(|_| Running::start(quick(&fake.url))).collect();
    for (w, running) in writers.iter().enumerate() {
        for round in 0..5 {
            let part = format!("w{w}r{round}");
            running
                .give(
                    (0..40)
                        .map(|n| running.part(&format!("t{n}"), &part, NOON))
                        .collect(),
                )
                .await;
        }
    }
    for running in writers {
        assert_eq!(running.finish().await.0.len(), 200);
    }
    let documents = fake.documents();
    assert_eq!(documents.len(), 40);
    for document in documents.values() {
        assert_eq!(part_names(document).len(), 15);
    }
}

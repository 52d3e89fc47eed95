//! Tests of the join across midnight.

use std::sync::atomic::Ordering::Relaxed;

use super::fake::{Fake, Fault};
use super::*;

const SECOND: i64 = 1_000_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_later_of_two_documents_goes_into_the_earlier_index() {
    // Whichever comes first.
    for order in [[-5, 5], [5, -5]] {
        let fake = Fake::start().await;
        let running = Running::start(quick(&fake.url));
        for (n, seconds) in order.into_iter().enumerate() {
            running
                .give(vec![running.part(
                    "t",
                    &format!("p{seconds}"),
                    MIDNIGHT + seconds * SECOND,
                )])
                .await;
            until("confirmed", || running.confirmed.count() == n + 1).await;
        }
        let (_, stats) = running.finish().await;
        let documents = fake.documents();
        assert_eq!(documents.len(), 1, "{documents:?}");
        assert_eq!(
            part_names(&documents[&key(YESTERDAY, "t")]),
            HashSet::from(["p-5", "p5"])
        );
        assert_eq!(stats.day_joins.load(Relaxed), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_from_midnight_and_without_a_trace_nothing_is_looked_up() {
    let fake = Fake::start().await;
    let running = Running::start(quick(&fake.url));
    running
        .give(vec![
            running.part("t", "p", NOON),
            running.part("u", "p", MIDNIGHT + 700 * SECOND),
        ])
        .await;
    running
        .give(vec![running.sealed(
            "v",
            "p",
            MIDNIGHT + SECOND,
            &json!({"x": 1}),
            false,
        )])
        .await;
    running.finish().await;
    assert_eq!(fake.with(|i| i.mgets), 0);
    assert_eq!(fake.documents().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_join_survives_failing_requests_and_foreign_documents() {
    for fault in [
        Fault::Refuse(429),
        Fault::Refuse(503),
        Fault::LoseAnswer,
        Fault::Break,
    ] {
        for broken_bulk in 1..4 {
            let fake = Fake::start().await;
            fake.with(|i| {
                i.store
                    .put(TODAY, "t", json!({"traceId": "t", "parts": {"x": 1}}));
                i.store.put(TODAY, "foreign", json!({"hello": 1}));
                i.mget_faults.push_back(fault.clone());
                i.bulk_faults
                    .extend(vec![Fault::Slow(Duration::ZERO); broken_bulk]);
                i.bulk_faults.push_back(fault.clone());
            });
            let running = Running::start(quick(&fake.url));
            let at = MIDNIGHT - SECOND;
            running
                .give(vec![running.part("t", "p", at), running.part("foreign", "p", at)])
                .await;
            running.finish().await;
            let documents = fake.documents();
            assert_eq!(documents.len(), 3, "{documents:?}");
            assert_eq!(
                part_names(&documents[&key(YESTERDAY, "t")]),
                HashSet::from(["x", "p"])
            );
            assert_eq!(documents[&key(TODAY, "foreign")], json!({"hello": 1}));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_comes_into_the_later_document_during_the_join_is_not_lost() {
    let fake = Fake::start().await;
    let mut n = 0;
    fake.with(|i| {
        i.store
            .put(TODAY, "t", json!({"traceId": "t", "parts": {"x0": 1}}));
        // Requests: create, probe, read both, union, delete. Another writer adds a part before each
        // write.
        i.before = Some(Box::new(move |path, store| {
            if path == "/_bulk"
                && let Some(doc) = store.get(TODAY, "t")
                && n < 4
            {
                n += 1;
                let mut source = doc.source.clone();
                source["parts"][format!("x{n}")] = json!(n);
                store.put(TODAY, "t", source);
            }
        }));
    });
    let running = Running::start(quick(&fake.url));
    running
        .give(vec![running.part("t", "p", MIDNIGHT - SECOND)])
        .await;
    running.finish().await;
    let documents = fake.documents();
    assert_eq!(documents.len(), 1, "{documents:?}");
    assert_eq!(
        part_names(&documents[&key(YESTERDAY, "t")]),
        HashSet::from(["x0", "x1", "x2", "x3", "x4", "p"])
    );
}

/// Several writers, all parts of a few traces on both sides of midnight at the same time, under
/// item faults.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_on_both_sides_at_once_leave_one_document() {
    for round in 0..12_u64 {
        let fake = Fake::start().await;
        fake.with(|i| {
            i.shuffle = 0x9e37_79b9_7f4a_7c15 ^ (round << 32);
            let mut n = round;
            i.item_fault = Some(Box::new(move |_, _, _, _| {
                n += 1;
                n.is_multiple_of(17)
                    .then_some((429, "es_rejected_execution_exception"))
            }));
        });
        let writers: Vec<_> = (0..4)
            .map(|_| {
                Running::start(ElasticsearchConfig {
                    bulk_bytes: 800,
                    ..quick(&fake.url)
                })
            })
            .collect();
        for part in 0..4 {
            for (w, running) in writers.iter().enumerate() {
                let side = if (w + part) % 2 == 0 { -SECOND } else { SECOND };
                let name = format!("w{w}p{part}");
                running
                    .give(
                        (0..12)
                            .map(|n| running.part(&format!("t{n}"), &name, MIDNIGHT + side))
                            .collect(),
                    )
                    .await;
            }
        }
        for running in writers {
            assert_eq!(running.finish().await.0.len(), 48);
        }
        let documents = fake.documents();
        assert_eq!(documents.len(), 12, "round {round}: {:?}", documents.keys());
        for ((index, _), document) in &documents {
            assert_eq!(index, YESTERDAY);
            assert_eq!(part_names(document).len(), 16);
        }
    }
}

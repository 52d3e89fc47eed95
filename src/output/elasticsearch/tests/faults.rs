//! Tests of the outcome tables through the whole output, against a cluster with faults.

use super::fake::{Fake, Fault};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_written_once_and_confirmed() {
    let fake = Fake::start().await;
    let running = Running::start(quick(&fake.url));
    for n in 0..50 {
        let ids: Vec<String> = (0..20).map(|m| format!("t{n}-{m}")).collect();
        running
            .give(ids.iter().map(|id| running.part(id, "p", NOON)).collect())
            .await;
    }
    let (confirmed, stats) = running.finish().await;
    assert_eq!(confirmed.len(), 1000);
    assert_eq!(stats.documents.load(Relaxed), 1000);
    assert_eq!(stats.lines.load(Relaxed), 1000);
    assert_eq!(stats.retries.load(Relaxed), 0);
    let documents = fake.documents();
    assert_eq!(documents.len(), 1000);
    assert!(documents.keys().all(|(index, _)| index == TODAY));
    assert_eq!(
        documents[&key(TODAY, "t7-3")],
        json!({"traceId": "t7-3", "parts": {"p": NOON}})
    );
    assert!(fake.with(|i| i.template.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_requests_that_fail_are_sent_again() {
    for fault in [
        Fault::Refuse(429),
        Fault::Refuse(500),
        Fault::Refuse(502),
        Fault::Refuse(503),
        Fault::Refuse(504),
        Fault::Refuse(401),
        Fault::Refuse(403),
        Fault::Refuse(404),
        Fault::RetryAfter(0),
        Fault::LoseAnswer,
        Fault::Break,
    ] {
        let fake = Fake::start().await;
        fake.with(|i| i.bulk_faults.extend([fault.clone(), fault.clone(), fault]));
        let running = Running::start(quick(&fake.url));
        running
            .give(
                (0..30)
                    .map(|n| running.part(&format!("t{n}"), "p", NOON))
                    .collect(),
            )
            .await;
        let output = running.output.clone();
        let (confirmed, stats) = running.finish().await;
        assert_eq!(confirmed.len(), 30);
        assert_eq!(fake.documents().len(), 30);
        assert!(stats.retries.load(Relaxed) >= 3);
        assert_eq!(output.health().state(), OutputState::Ok);
        let twice = fake.with(|i| i.store.docs.values().filter(|doc| doc.version != 1).count());
        assert_eq!(twice, 0, "a repeated create changes nothing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_an_answer_times_out_and_is_sent_again() {
    let fake = Fake::start().await;
    fake.with(|i| i.bulk_faults.push_back(Fault::Slow(LONG)));
    let config = ElasticsearchConfig {
        request_timeout: Duration::from_millis(200),
        ..quick(&fake.url)
    };
    let running = Running::start(config);
    running.give(vec![running.part("a", "p", NOON)]).await;
    let (confirmed, stats) = running.finish().await;
    assert_eq!(confirmed.len(), 1);
    assert_eq!(stats.requests_failed.load(Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_obeyed() {
    let fake = Fake::start().await;
    fake.with(|i| i.bulk_faults.push_back(Fault::RetryAfter(1)));
    let running = Running::start(quick(&fake.url));
    let started = std::time::Instant::now();
    running.give(vec![running.part("a", "p", NOON)]).await;
    running.finish().await;
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "the backoff of the test is 50 ms at most"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_items_that_failed_are_sent_again() {
    for (status, kind) in [
        (429, "es_rejected_execution_exception"),
        (503, "unavailable_shards_exception"),
        (500, "exception"),
        (429, "cluster_block_exception"),
        (403, "cluster_block_exception"),
        (404, "index_not_found_exception"),
        (400, "index_closed_exception"),
    ] {
        let fake = Fake::start().await;
        fake.with(|i| {
            i.item_fault = Some(Box::new(move |_, _, id, seen| {
                (id.ends_with('7') && seen < 2).then_some((status, kind))
            }));
        });
        let running = Running::start(quick(&fake.url));
        running
            .give(
                (0..40)
                    .map(|n| running.part(&format!("t{n}"), "p", NOON))
                    .collect(),
            )
            .await;
        let output = running.output.clone();
        let (confirmed, stats) = running.finish().await;
        assert_eq!(confirmed.len(), 40, "{status} {kind}");
        assert_eq!(fake.documents().len(), 40);
        let sent = fake.with(|i| i.sent.len());
        assert_eq!(sent, 40 + 2 * 4, "{status} {kind}: 4 of 40 are refused twice");
        assert_eq!(stats.retried_documents.load(Relaxed), 8);
        assert_eq!(stats.dead_letters.load(Relaxed), 0);
        assert_eq!(output.health().state(), OutputState::Ok, "{status} {kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_an_operator_is_reported_and_goes_on() {
    let fake = Fake::start().await;
    fake.with(|i| i.item_fault = Some(Box::new(|_, _, _, _| Some((403, "cluster_block_exception")))));
    let running = Running::start(quick(&fake.url));
    running.give(vec![running.part("a", "p", NOON)]).await;
    let health = running.output.health().clone();
    reported(&health, WaitReason::Blocked).await;
    assert!(
        matches!(health.state(), OutputState::Waiting { reason, .. } if reason.contains("cluster_block_exception"))
    );
    assert!(!running.confirmed.has("a/p"));
    fake.with(|i| i.item_fault = None);
    running.finish().await;
    assert_eq!(health.state(), OutputState::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_goes_to_the_dead_letter_with_its_reason_and_spoils_nothing() {
    let fake = Fake::start().await;
    fake.with(|i| {
        i.item_fault = Some(Box::new(|_, _, id, _| {
            id.ends_with('7').then_some((400, "document_parsing_exception"))
        }));
    });
    let running = Running::start(quick(&fake.url));
    running
        .give(
            (0..20)
                .map(|n| running.part(&format!("t{n}"), "p", NOON))
                .collect(),
        )
        .await;
    let dead_letter = running.dead_letter.clone();
    let folder = dead_letter.folder().to_owned();
    until("all are confirmed", || running.confirmed.count() == 20).await;
    assert_eq!(dead_letter.usage().entries, 2);
    let text = std::fs::read_to_string(folder.join("001.ndjson")).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["source"], "elasticsearch");
    assert_eq!(first["status"], 400);
    assert_eq!(first["type"], "document_parsing_exception");
    assert_eq!(first["reason"], "injected document_parsing_exception");
    assert_eq!(first["index"], TODAY);
    assert_eq!(first["id"], "t7");
    assert_eq!(first["parts"], json!(["p"]));
    assert_eq!(first["document"], json!({"traceId": "t7", "parts": {"p": NOON}}));
    assert_eq!(fake.documents().len(), 18);

    // The mapping is fixed: a replay writes them.
    fake.with(|i| i.item_fault = None);
    let output = running.output.clone();
    let send = async |entries: &[dead_letter::Entry]| output.replay(entries).await;
    let summary = crate::output::replay::replay(&folder, send, |_| {})
        .await
        .unwrap();
    assert_eq!((summary.entries, summary.written), (2, 2));
    assert_eq!(fake.documents().len(), 20);
    assert_eq!(dead_letter.usage().entries, 0);
    let (_, stats) = running.finish().await;
    assert_eq!(stats.dead_letters.load(Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_counted_for_the_admin_side() {
    use crate::metrics::{DeadLetterSource, DocumentResult as Result, Metrics, Output, OutputError};
    let fake = Fake::start().await;
    fake.with(|i| {
        i.store
            .put(TODAY, "merged", json!({"traceId": "merged", "parts": {"x": 1}}));
        i.store
            .put(TODAY, "same", json!({"traceId": "same", "parts": {"p": 1}}));
        i.bulk_faults.push_back(Fault::Refuse(429));
        i.item_fault = Some(Box::new(|_, _, id, _| {
            (id == "bad").then_some((400, "document_parsing_exception"))
        }));
    });
    let running = Running::start(quick(&fake.url));
    let metrics = Arc::new(Metrics::new(Output::ALL));
    running.output.report_to(Arc::clone(&metrics));
    let ids = ["new", "new too", "merged", "same", "bad"];
    running
        .give(ids.into_iter().map(|id| running.part(id, "p", NOON)).collect())
        .await;
    running.finish().await;
    let output = metrics.output(Output::Elasticsearch);
    let of = |result: Result| output.documents[result].get();
    let results = [
        Result::Created,
        Result::Merged,
        Result::Unchanged,
        Result::Rejected,
    ]
    .map(of);
    assert_eq!(results, [2, 1, 1, 1]);
    assert_eq!(output.proc_records.get(), 4);
    assert_eq!((output.retries.get(), output.retried_records.get()), (1, 5));
    assert_eq!(output.errors[OutputError::Throttled].get(), 1);
    assert_eq!(output.errors[OutputError::Conflict].get(), 2);
    // As it is, with its fields moved, and with everything moved.
    assert_eq!(output.errors[OutputError::Rejected].get(), 3);
    assert_eq!(
        metrics.dead_letter_documents[DeadLetterSource::Elasticsearch].get(),
        1
    );
    assert_eq!(metrics.output_dropped_records.sum(), 1);
    assert_eq!(output.in_flight.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_dead_letter_holds_the_document_back() {
    let fake = Fake::start().await;
    fake.with(|i| {
        i.item_fault = Some(Box::new(|_, _, id, _| {
            (id == "bad").then_some((400, "document_parsing_exception"))
        }));
    });
    let running = Running::start_with(quick(&fake.url), 100);
    running
        .give(vec![
            running.part("bad", "p", NOON),
            running.part("good", "p", NOON),
        ])
        .await;
    let health = running.output.health().clone();
    reported(&health, WaitReason::DeadLetter).await;
    assert!(running.dead_letter.usage().entries == 0);
    assert!(running.confirmed.has("good/p"));
    assert!(!running.confirmed.has("bad/p"));
    // The mapping is fixed: the waiting document is accepted.
    fake.with(|i| i.item_fault = None);
    let (confirmed, _) = running.finish().await;
    assert_eq!(confirmed.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_long_bodies_are_halved_and_a_single_one_goes_to_the_dead_letter() {
    let fake = Fake::start().await;
    fake.with(|i| i.longest_body = Some(4000));
    let running = Running::start(quick(&fake.url));
    let mut documents: Vec<_> = (0..100)
        .map(|n| running.part(&format!("t{n}"), "p", NOON))
        .collect();
    let long = json!({"traceId": "long", "message": "x".repeat(5000), "parts": {"p": 1}});
    documents.insert(50, running.sealed("long", "p", NOON, &long, true));
    running.give(documents).await;
    let dead_letter = running.dead_letter.clone();
    until("all are confirmed", || running.confirmed.count() == 101).await;
    assert_eq!(fake.documents().len(), 100);
    assert_eq!(dead_letter.usage().entries, 1);
    running.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_waited_for_at_bounded_memory() {
    let fake = Fake::start().await;
    fake.with(|i| i.down = Some(503));
    let config = ElasticsearchConfig {
        bulk_bytes: 1000,
        max_in_flight: 3,
        ..quick(&fake.url)
    };
    let running = Running::start(config);
    let sender = running.sender.clone().unwrap();
    let mut given = 0;
    // Until the output takes no more: the bound is (3 + 2) x 1000 bytes and what the channel holds.
    loop {
        let document = running.part(&format!("t{given}"), "p", NOON);
        match tokio::time::timeout(Duration::from_millis(300), sender.send(document.batch())).await {
            Ok(sent) => sent.unwrap(),
            Err(_) => break,
        }
        given += 1;
        assert!(given < 100, "memory is not bounded");
    }
    drop(sender);
    let stats = running.output.stats().clone();
    assert!(stats.outstanding_bytes.load(Relaxed) < 5000 + 300);
    assert!(matches!(
        running.output.health().state(),
        OutputState::Waiting { .. }
    ));
    assert_eq!(running.confirmed.count(), 0);
    fake.with(|i| i.down = None);
    let output = running.output.clone();
    let (confirmed, _) = running.finish().await;
    assert_eq!(confirmed.len(), given);
    assert_eq!(output.health().state(), OutputState::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_confirms_nothing_that_is_not_written() {
    let fake = Fake::start().await;
    fake.with(|i| i.down = Some(503));
    let mut running = Running::start(quick(&fake.url));
    running.give(vec![running.part("a", "p", NOON)]).await;
    until("a request was refused", || {
        running.output.stats().requests_failed.load(Relaxed) > 0 || {
            matches!(running.output.health().state(), OutputState::Waiting { .. })
        }
    })
    .await;
    running.stop.cancel();
    tokio::time::timeout(LONG, &mut running.task)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(running.confirmed.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_are_under_way_but_not_more_than_allowed() {
    let fake = Fake::start().await;
    fake.with(|i| {
        i.bulk_faults
            .extend(vec![Fault::Slow(Duration::from_millis(20)); 60]);
    });
    let config = ElasticsearchConfig {
        bulk_bytes: 300,
        max_in_flight: 4,
        ..quick(&fake.url)
    };
    let running = Running::start(config);
    for n in 0..60 {
        running
            .give(
                (0..4)
                    .map(|m| running.part(&format!("t{n}-{m}"), "p", NOON))
                    .collect(),
            )
            .await;
    }
    let (confirmed, _) = running.finish().await;
    assert_eq!(confirmed.len(), 240);
    let most = fake.with(|i| i.most_under_way);
    assert!((2..=4).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firewall_that_refuses_one_document_stops_no_other() {
    let fake = Fake::start().await;
    fake.with(|i| i.poison = Some(("<script>".into(), 403)));
    let running = Running::start(quick(&fake.url));
    let attack = json!({"traceId": "attack", "message": "<script>", "parts": {"p": 1}});
    running
        .give(
            (0..50)
                .map(|n| running.part(&format!("a{n}"), "p", NOON))
                .chain([running.sealed("attack", "p", NOON, &attack, true)])
                .chain((50..99).map(|n| running.part(&format!("a{n}"), "p", NOON)))
                .collect(),
        )
        .await;
    // Others come while it is refused, as in a running server.
    let mut more = 0;
    until_async("all but the one are stored", async || {
        running
            .give(vec![running.part(&format!("b{more}"), "p", NOON)])
            .await;
        more += 1;
        (0..99).all(|n| running.confirmed.has(&format!("a{n}/p")))
    })
    .await;
    let health = running.output.health().clone();
    reported(&health, WaitReason::Blocked).await;
    assert!(!running.confirmed.has("attack/p"));
    fake.with(|i| i.poison = None);
    running.finish().await;
    assert!(fake.documents().contains_key(&key(TODAY, "attack")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_an_operator_leaves_memory_and_survives_a_restart() {
    let fake = Fake::start().await;
    let closed = |_: &str, index: &str, _: &str, _: u64| {
        (index == YESTERDAY).then_some((400, "index_closed_exception"))
    };
    fake.with(|i| i.item_fault = Some(Box::new(closed)));
    let folder = tempfile::tempdir().unwrap();
    let config = ElasticsearchConfig {
        deferred_dir: Some(folder.path().join("deferred")),
        deferred_limit: 1 << 20,
        ..quick(&fake.url)
    };
    let noon_before = NOON - 86_400_000_000_000;
    let running = Running::start(config.clone());
    let given = (0..200).flat_map(|n| {
        [
            running.part(&format!("old{n}"), "p", noon_before),
            running.part(&format!("new{n}"), "p", NOON),
        ]
    });
    running.give(given.collect()).await;
    until("all are confirmed", || running.confirmed.count() == 400).await;
    let account = Arc::clone(&running.account);
    assert_eq!(account.deferred.load(Relaxed), 200);
    assert_eq!(account.delivered.load(Relaxed), 200);
    let notes = running.output.health().notes();
    assert!(
        notes[0].contains(YESTERDAY) && notes[0].contains("index_closed_exception"),
        "{notes:?}"
    );
    assert_eq!(
        running.output.health().state(),
        OutputState::Ok,
        "others are delivered"
    );
    running.finish().await;
    assert_eq!(fake.documents().len(), 200);
    // The next run finds them, and writes them when the index is open.
    let running = Running::start(config);
    let health = running.output.health().clone();
    until("they are found", || !health.notes().is_empty()).await;
    fake.with(|i| i.item_fault = None);
    until("they are stored", || fake.documents().len() == 400).await;
    until("nothing waits", || health.notes().is_empty()).await;
    running.finish().await;
    assert_eq!(
        std::fs::read_dir(folder.path().join("deferred")).unwrap().count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_judged_by_what_the_index_does_with_others() {
    // Of a type that both documents and indices cause, with a text that a client chose.
    let refused = (400, "illegal_argument_exception");
    let fake = Fake::start().await;
    fake.with(|i| i.item_fault = Some(Box::new(move |_, _, _, _| Some(refused))));
    let running = Running::start(quick(&fake.url));
    running.give(vec![running.part("first", "p", NOON)]).await;
    let health = running.output.health().clone();
    reported(&health, WaitReason::Blocked).await;
    assert_eq!(
        running.dead_letter.usage().entries,
        0,
        "the index may be at fault"
    );
    fake.with(|i| i.item_fault = Some(Box::new(move |_, _, id, _| (id == "bad").then_some(refused))));
    until("it is stored when the index takes documents", || {
        running.confirmed.has("first/p")
    })
    .await;
    running
        .give(vec![
            running.part("bad", "p", NOON),
            running.part("good", "p", NOON),
        ])
        .await;
    until("the bad one is given up", || running.confirmed.has("bad/p")).await;
    assert_eq!(
        running.dead_letter.usage().entries,
        1,
        "the index took another one"
    );
    running.finish().await;
}

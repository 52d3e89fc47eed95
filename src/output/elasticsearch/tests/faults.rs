//! The outcome tables, driven through the whole output against a cluster with faults.

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
        assert_eq!(output.health().state(), State::Ok);
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
        assert_eq!(output.health().state(), State::Ok, "{status} {kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_an_operator_is_reported_and_goes_on() {
    let fake = Fake::start().await;
    fake.with(|i| i.item_fault = Some(Box::new(|_, _, _, _| Some((403, "cluster_block_exception")))));
    let running = Running::start(quick(&fake.url));
    running.give(vec![running.part("a", "p", NOON)]).await;
    let health = running.output.health().clone();
    until("waiting is reported", || {
        health
            .reasons()
            .iter()
            .any(|(cause, ..)| *cause == Cause::Blocked)
    })
    .await;
    assert!(
        matches!(health.state(), State::Waiting { reason, .. } if reason.contains("cluster_block_exception"))
    );
    assert!(!running.confirmed.has("a/p"));
    fake.with(|i| i.item_fault = None);
    running.finish().await;
    assert_eq!(health.state(), State::Ok);
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

    // The mapping is mended: a replay writes them.
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
    assert_eq!(output.errors[OutputError::Rejected].get(), 1);
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
    until("waiting is reported", || {
        health
            .reasons()
            .iter()
            .any(|(cause, ..)| *cause == Cause::DeadLetter)
    })
    .await;
    assert!(running.dead_letter.usage().entries == 0);
    assert!(running.confirmed.has("good/p"));
    assert!(!running.confirmed.has("bad/p"));
    // The mapping is mended: the waiting document is taken.
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
        match tokio::time::timeout(Duration::from_millis(300), sender.send(vec![document])).await {
            Ok(sent) => sent.unwrap(),
            Err(_) => break,
        }
        given += 1;
        assert!(given < 100, "memory is not bounded");
    }
    drop(sender);
    let stats = running.output.stats().clone();
    assert!(stats.outstanding_bytes.load(Relaxed) < 5000 + 300);
    assert!(matches!(running.output.health().state(), State::Waiting { .. }));
    assert_eq!(running.confirmed.count(), 0);
    fake.with(|i| i.down = None);
    let output = running.output.clone();
    let (confirmed, _) = running.finish().await;
    assert_eq!(confirmed.len(), given);
    assert_eq!(output.health().state(), State::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_confirms_nothing_that_is_not_written() {
    let fake = Fake::start().await;
    fake.with(|i| i.down = Some(503));
    let mut running = Running::start(quick(&fake.url));
    running.give(vec![running.part("a", "p", NOON)]).await;
    until("a request was refused", || {
        running.output.stats().requests_failed.load(Relaxed) > 0 || {
            matches!(running.output.health().state(), State::Waiting { .. })
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
async fn a_dead_node_is_passed_over_and_found_again() {
    let alive = Fake::start().await;
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = away.local_addr().unwrap().port();
    drop(away);
    let config = ElasticsearchConfig {
        urls: vec![format!("http://127.0.0.1:{port}"), alive.url.clone()],
        ..quick(&alive.url)
    };
    let running = Running::start(config);
    for n in 0..10 {
        running
            .give(vec![running.part(&format!("t{n}"), "p", NOON)])
            .await;
        until("confirmed", || running.confirmed.count() == n + 1).await;
    }
    assert_eq!(running.output.health().state(), State::Ok);
    assert_eq!(running.output.stats().requests_failed.load(Relaxed), 0);
    let back = Fake::start_at(port).await;
    let mut n = 10;
    while back.with(|i| i.bulks) == 0 {
        running
            .give(vec![running.part(&format!("t{n}"), "p", NOON)])
            .await;
        n += 1;
        until("confirmed", || running.confirmed.count() == n).await;
        assert!(n < 10_000, "the node that came back is never used");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writing_waits_for_the_template_but_not_for_a_forbidden_one() {
    for (faults, installed) in [
        (
            vec![
                Fault::Refuse(503),
                Fault::Break,
                Fault::Refuse(401),
                Fault::Refuse(503),
            ],
            true,
        ),
        (vec![Fault::Refuse(403)], false),
        (vec![Fault::Refuse(400)], false),
    ] {
        let fake = Fake::start().await;
        fake.with(|i| {
            i.template_faults.extend(faults);
            i.before = Some(Box::new(|path, store| {
                if path == "/_bulk" {
                    store.put("seen", "bulk", json!({}));
                }
            }));
        });
        let running = Running::start(quick(&fake.url));
        running.give(vec![running.part("a", "p", NOON)]).await;
        let output = running.output.clone();
        running.finish().await;
        assert_eq!(fake.with(|i| i.template.is_some()), installed);
        assert_eq!(output.health().state(), State::Ok);
    }
    // While it cannot be installed, nothing is written.
    let fake = Fake::start().await;
    fake.with(|i| i.template_faults.extend(vec![Fault::Refuse(503); 1_000_000]));
    let running = Running::start(quick(&fake.url));
    running.give(vec![running.part("a", "p", NOON)]).await;
    let health = running.output.health().clone();
    until("waiting is reported", || {
        health
            .reasons()
            .iter()
            .any(|(cause, ..)| *cause == Cause::Template)
    })
    .await;
    assert_eq!(fake.with(|i| i.bulks), 0);
    fake.with(|i| i.template_faults.clear());
    running.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_and_gzip_go_over_the_wire() {
    let fake = Fake::start().await;
    let with_user = fake.url.replace("http://", "http://el%40stic:s3cret@");
    for (url, auth, expected) in [
        (&fake.url, Auth::None, None),
        (
            &fake.url,
            Auth::Basic {
                user: "u".into(),
                password: "p".into(),
            },
            Some("Basic dTpw"),
        ),
        (
            &fake.url,
            Auth::ApiKey("aWQ6a2V5".into()),
            Some("ApiKey aWQ6a2V5"),
        ),
        (&fake.url, Auth::Bearer("token".into()), Some("Bearer token")),
        (&with_user, Auth::None, Some("Basic ZWxAc3RpYzpzM2NyZXQ=")),
    ] {
        let config = ElasticsearchConfig {
            auth,
            gzip_level: 1,
            ..quick(url)
        };
        let running = Running::start(config);
        assert!(!format!("{:?}", running.output).contains("s3cret"));
        running.give(vec![running.part("a", "p", NOON)]).await;
        running.finish().await;
        assert_eq!(fake.with(|i| i.authorization.clone()).as_deref(), expected);
    }
    assert_eq!(fake.documents().len(), 1);
}

#[test]
fn wrong_settings_are_explained_without_secrets() {
    let open = |config| {
        Elasticsearch::open(config, RULES)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let config = |url: &str| ElasticsearchConfig {
        urls: vec![url.into()],
        ..Default::default()
    };
    let wrong = open(config("ftp://user:s3cret@host/"));
    assert!(wrong.contains("http://") && !wrong.contains("s3cret"), "{wrong}");
    let wrong = open(config("http://user:s3cret@"));
    assert!(!wrong.contains("s3cret"), "{wrong}");
    assert!(
        open(ElasticsearchConfig {
            urls: vec![],
            ..Default::default()
        })
        .contains("no Elasticsearch address")
    );
    assert!(
        open(ElasticsearchConfig {
            index: "%H".into(),
            ..Default::default()
        })
        .contains("within a day")
    );
    let wrong = open(ElasticsearchConfig {
        ca_file: Some("/nowhere/ca.pem".into()),
        ..Default::default()
    });
    assert!(wrong.contains("/nowhere/ca.pem"), "{wrong}");
    let wrong = open(ElasticsearchConfig {
        auth: Auth::Bearer("a\nb".into()),
        ..Default::default()
    });
    assert!(
        wrong.contains("credentials") && !wrong.contains("a\nb"),
        "{wrong}"
    );
}

//! Tests of batches that are sent as they were rendered, with and without faults.

use super::fake::{Fake, Fault};
use super::*;

/// Documents of a batch.
const DOCUMENTS: usize = 100;
/// Bytes of each, more or less: together enough to be sent as they are.
const LONG_TEXT: usize = 6 << 10;

/// A batch of traces `t0`, `t1`, … with one part each, at these times. It is confirmed under the
/// name `batch`.
fn batch(running: &Running, first_ns: impl Fn(usize) -> i64) -> Batch {
    let mut framing = running.output.framing();
    let (mut text, mut ids, mut rows) = (Vec::new(), String::new(), Vec::new());
    for n in 0..DOCUMENTS {
        let (start, id) = (text.len(), format!("t{n}"));
        framing.write_prefix(&mut text, &id, first_ns(n), crate::output::DestinationId::DEFAULT);
        let json = text.len();
        let document = json!({"traceId": id, "parts": {"p": first_ns(n)}, "text": "x".repeat(LONG_TEXT)});
        text.extend_from_slice(document.to_string().as_bytes());
        text.push(b'\n');
        let at = ids.len()..ids.len() + id.len();
        ids.push_str(&id);
        rows.push(DocumentMeta::new(
            at,
            true,
            first_ns(n),
            2,
            DocumentSpan::new(start, json, text.len()),
        ));
    }
    let confirmed = running.confirmed.clone();
    let release = move |_| *confirmed.0.lock().unwrap().entry("batch".into()).or_default() += 1;
    let claims = vec![RecordClaim::new(1, 1, Arc::new(release))];
    let charge = MemoryCharge::new(0, &Arc::default());
    running.account.in_flight.fetch_add(2 * DOCUMENTS as u64, Relaxed);
    let buffer = BatchBuffer::new(text.into(), ids, rows);
    Batch::new(buffer, true, claims, charge, &running.account, 1)
}

async fn give(running: &Running, batch: Batch) {
    let sent = running.sender.as_ref().unwrap().send(batch);
    tokio::time::timeout(LONG, sent).await.unwrap().unwrap();
}

/// Waits until the batch is confirmed; then each of its lines has been counted once.
async fn finish(running: Running, dead: u64) -> Arc<Stats> {
    let account = running.account.clone();
    let (confirmed, stats) = running.finish().await;
    assert_eq!(confirmed.len(), 1, "{confirmed:?}");
    let count = |of: &std::sync::atomic::AtomicU64| of.load(Relaxed);
    assert_eq!(count(&account.in_flight), 0);
    assert_eq!(count(&account.dead), dead);
    assert_eq!(
        count(&account.delivered) + count(&account.duplicate),
        2 * DOCUMENTS as u64 - dead
    );
    stats
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_one_request_as_it_was_rendered() {
    let fake = Fake::start().await;
    let running = Running::start(quick(&fake.url));
    give(&running, batch(&running, |_| NOON)).await;
    let stats = finish(running, 0).await;
    assert_eq!(fake.documents().len(), DOCUMENTS);
    assert_eq!(fake.with(|i| (i.bulks, i.mgets)), (1, 0));
    assert_eq!(stats.documents.load(Relaxed), DOCUMENTS as u64);
    assert_eq!(stats.lines.load(Relaxed), 2 * DOCUMENTS as u64);
    assert_eq!(stats.retried_documents.load(Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_as_a_whole_is_sent_again() {
    for fault in [
        Fault::Refuse(429),
        Fault::Refuse(503),
        Fault::Refuse(400),
        Fault::LoseAnswer,
        Fault::Break,
    ] {
        let fake = Fake::start().await;
        fake.with(|i| i.bulk_faults.extend([fault.clone(), fault]));
        let running = Running::start(quick(&fake.url));
        give(&running, batch(&running, |_| NOON)).await;
        let stats = finish(running, 0).await;
        assert_eq!(fake.documents().len(), DOCUMENTS);
        let twice = fake.with(|i| i.store.docs.values().filter(|doc| doc.version != 1).count());
        assert_eq!(twice, 0, "a repeated create changes nothing");
        assert!(stats.retried_documents.load(Relaxed) >= DOCUMENTS as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_too_long_is_halved() {
    let fake = Fake::start().await;
    fake.with(|i| i.longest_body = Some(200 << 10));
    let running = Running::start(quick(&fake.url));
    give(&running, batch(&running, |_| NOON)).await;
    finish(running, 0).await;
    assert_eq!(fake.documents().len(), DOCUMENTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_one_with_troubles_each_document_has_its_own() {
    let fake = Fake::start().await;
    fake.with(|i| {
        // One is there already, with another part; some are turned away twice, and one for ever.
        i.store
            .put(TODAY, "t5", json!({"traceId": "t5", "parts": {"q": 1}}));
        i.item_fault = Some(Box::new(|_, _, id, seen| match id {
            "t8" => Some((400, "document_parsing_exception")),
            id if id.ends_with('7') && seen < 2 => Some((429, "es_rejected_execution_exception")),
            _ => None,
        }));
    });
    let running = Running::start(quick(&fake.url));
    give(&running, batch(&running, |_| NOON)).await;
    let stats = finish(running, 2).await;
    let documents = fake.documents();
    assert_eq!(documents.len(), DOCUMENTS - 1);
    assert_eq!(
        part_names(&documents[&key(TODAY, "t5")]),
        HashSet::from(["p", "q"])
    );
    assert_eq!(stats.dead_letters.load(Relaxed), 1);
    assert_eq!(
        stats.retried_documents.load(Relaxed),
        20,
        "ten are turned away twice"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_near_midnight_in_it_is_looked_for_on_the_other_side() {
    // Among the first, the last, or those between two days.
    for near in [0, DOCUMENTS / 2, DOCUMENTS - 1] {
        let fake = Fake::start().await;
        let id = format!("t{near}");
        fake.with(|i| {
            let there = json!({"traceId": id, "parts": {"q": 1}});
            i.store.put(YESTERDAY, &id, there);
        });
        let running = Running::start(quick(&fake.url));
        let first = |n| if n == near { MIDNIGHT + 5_000_000_000 } else { NOON };
        give(&running, batch(&running, first)).await;
        let stats = finish(running, 0).await;
        let documents = fake.documents();
        assert_eq!(documents.len(), DOCUMENTS);
        assert_eq!(
            part_names(&documents[&key(YESTERDAY, &id)]),
            HashSet::from(["p", "q"])
        );
        assert_eq!(stats.day_joins.load(Relaxed), 1);
    }
}

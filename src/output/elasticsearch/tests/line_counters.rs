//! Tests of the line counters: delivered or duplicate.

use super::fake::{Fake, Fault};
use super::*;

/// Delivered, stored before, added to a document that was there, in flight.
async fn counts(fake: &Fake, documents: &[(&str, bool)]) -> [u64; 4] {
    let running = Running::start(quick(&fake.url));
    let account = Arc::clone(&running.account);
    let given = documents.iter().map(|(id, is_trace)| {
        let json = json!({"traceId": id, "parts": {"p": NOON}});
        running.sealed(id, "p", NOON, &json, *is_trace)
    });
    running.give(given.collect()).await;
    running.finish().await;
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
    [
        read(&account.delivered),
        read(&account.duplicate),
        read(&account.late),
        read(&account.in_flight),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_before_is_counted_so() {
    let fake = Fake::start().await;
    fake.with(|i| {
        for id in ["same", "plain"] {
            i.store.put(TODAY, id, json!({"traceId": id, "parts": {"p": 1}}));
        }
        i.store
            .put(TODAY, "late", json!({"traceId": "late", "parts": {"x": 1}}));
        // A request that was certainly not carried out changes nothing.
        i.bulk_faults.push_back(Fault::Refuse(429));
    });
    let documents = [("new", true), ("same", true), ("late", true), ("plain", false)];
    assert_eq!(counts(&fake, &documents).await, [2, 2, 1, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_answer_hid_is_counted_as_written() {
    for fault in [Fault::LoseAnswer, Fault::Break, Fault::Refuse(504)] {
        let fake = Fake::start().await;
        fake.with(|i| {
            i.store
                .put(TODAY, "late", json!({"traceId": "late", "parts": {"x": 1}}));
            // The create, and later the write-back of the union, which is the third request.
            i.bulk_faults.extend([fault.clone(), Fault::Slow(Duration::ZERO)]);
            i.bulk_faults.push_back(fault.clone());
        });
        let documents = [("new", true), ("late", true), ("plain", false)];
        assert_eq!(counts(&fake, &documents).await, [3, 0, 1, 0], "{fault:?}");
        assert_eq!(fake.documents().len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_its_neighbour_at_midnight_is_counted_once() {
    let fake = Fake::start().await;
    fake.with(|i| i.mget_faults.extend([Fault::LoseAnswer, Fault::Refuse(503)]));
    let running = Running::start(quick(&fake.url));
    let account = Arc::clone(&running.account);
    running.give(vec![running.part("a", "p", MIDNIGHT)]).await;
    running.finish().await;
    assert_eq!(account.delivered.load(Relaxed), 1);
    assert_eq!(account.duplicate.load(Relaxed), 0);
}

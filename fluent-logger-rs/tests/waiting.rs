//! Tests of queueing that waits for room, of static fields and of published metrics.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::Duration;

use fluent_logger::{Logger, OnFull, Rejected};
use serde_json::json;
use support::{PATIENCE, Server, events, serve};

#[tokio::test]
async fn log_async_waits_for_room_without_blocking_the_only_thread() {
    let unused = Server::faithful();
    let address = unused.address;
    drop(unused);
    let logger = Logger::builder()
        .address(address.to_string())
        .buffer_limit(5)
        .on_full(OnFull::Wait(Duration::from_secs(60)))
        .retry_wait(Duration::from_millis(5))
        .max_retry_wait(Duration::from_millis(20))
        .build()
        .unwrap();
    for n in 0..5 {
        logger.log_async("t", &json!({ "n": n })).await.unwrap();
    }
    let waiting = logger.log_async("t", &json!({ "n": 5 }));
    let taken_back = logger.log_async("t", &json!({ "n": 6 }));
    // The timer of the only thread runs although both wait.
    let both = async { (waiting.await, taken_back.await) };
    let mut both = Box::pin(both);
    let timed_out = tokio::time::timeout(Duration::from_millis(50), &mut both).await;
    assert!(timed_out.is_err(), "the buffer is full");
    drop(both);
    let waiting = logger.log_async("t", &json!({ "n": 7 }));
    let server = Server::start_at(address, serve);
    tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(logger.close(PATIENCE).await, []);
    let found: Vec<_> = events(&server.messages())
        .iter()
        .map(|event| event["n"].clone())
        .collect();
    assert_eq!(json!(found), json!([0, 1, 2, 3, 4, 7]));
    assert_eq!(logger.log_async("t", &json!({})).await, Err(Rejected::Closed));
}

#[test]
fn static_fields_are_in_every_record() {
    let server = Server::faithful();
    let logger = Logger::builder()
        .address(server.address.to_string())
        .service_name("shop")
        .service_version("1.2.3")
        .environment("test")
        .host("h1")
        .field("region", "eu")
        .field("shard", &3)
        .build()
        .unwrap();
    logger.log("t", &json!({ "region": "us", "n": 1 })).unwrap();
    logger
        .log_encoded(std::time::SystemTime::now(), "t", b"\x81\xa1n\x02")
        .unwrap();
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    let about = json!({
        "service": "shop", "version": "1.2.3", "environment": "test", "host": "h1", "shard": 3,
    });
    let with = |mut more: serde_json::Value| {
        let all = more.as_object_mut().unwrap();
        all.extend(about.as_object().unwrap().clone());
        more
    };
    assert_eq!(
        events(&server.messages()),
        [
            with(json!({ "region": "us", "n": 1 })),
            with(json!({ "region": "eu", "n": 2 }))
        ]
    );
}

#[cfg(feature = "metrics")]
#[test]
fn statistics_are_published_as_metrics() {
    use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder};
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    #[derive(Default)]
    struct Kept(Arc<Mutex<HashMap<String, f64>>>);
    struct Value(String, Arc<Mutex<HashMap<String, f64>>>);
    impl Value {
        fn keep(&self, value: f64) {
            self.1.lock().unwrap().insert(self.0.clone(), value);
        }
    }
    impl CounterFn for Value {
        fn increment(&self, _: u64) {
            panic!("counters are absolute");
        }
        fn absolute(&self, value: u64) {
            self.keep(value as f64);
        }
    }
    impl GaugeFn for Value {
        fn increment(&self, _: f64) {
            panic!("gauges are set");
        }
        fn decrement(&self, _: f64) {
            panic!("gauges are set");
        }
        fn set(&self, value: f64) {
            self.keep(value);
        }
    }
    impl Recorder for Kept {
        fn describe_counter(&self, _: KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(Arc::new(Value(key.name().to_owned(), Arc::clone(&self.0))))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(Arc::new(Value(key.name().to_owned(), Arc::clone(&self.0))))
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            panic!("there are none");
        }
    }

    let logger = Logger::builder()
        .address("127.0.0.1:9")
        .buffer_limit(2)
        .build()
        .unwrap();
    for n in 0..3 {
        let _ = logger.log("t", &json!({ "n": n }));
    }
    let kept = Kept::default();
    metrics::with_local_recorder(&kept, || logger.publish_metrics());
    let values = kept.0.lock().unwrap();
    assert_eq!(values["fluent_logger_events_accepted_total"], 2.0);
    assert_eq!(values["fluent_logger_events_rejected_total"], 1.0);
    assert_eq!(values["fluent_logger_buffered_events"], 2.0);
    assert_eq!(values.len(), 18);
    assert_eq!(logger.blocking_close(Duration::ZERO).unwrap().len(), 2);
}

//! Tests of delivery over real sockets, against a scripted server.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::HashSet;
use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fluent_logger::{Builder, FlushError, Logger, Mode, OnFull, Outcome, Rejected, SendError};
use serde_json::{Value, json};
use support::{PATIENCE, Server, events, serve};

fn builder(server: &Server) -> Builder {
    Logger::builder()
        .address(server.address.to_string())
        .flush_interval(Duration::from_millis(5))
        .retry_wait(Duration::from_millis(20))
        .max_retry_wait(Duration::from_millis(100))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mode_arrives_in_order_with_and_without_acks() {
    for mode in [Mode::Message, Mode::Forward, Mode::Packed] {
        for acks in [true, false] {
            let server = Server::faithful();
            let logger = builder(&server).mode(mode).request_ack(acks).build().unwrap();
            for number in 0..100 {
                logger.log("app.web", &json!({ "n": number })).unwrap();
            }
            assert_eq!(logger.close(PATIENCE).await, []);
            server.wait_for_events(100);
            let messages = server.messages();
            let expected: Vec<_> = (0..100).map(|number| json!({ "n": number })).collect();
            assert_eq!(events(&messages), expected, "{mode:?} {acks}");
            assert!(messages.iter().all(|(_, message)| message.tag == "app.web"));
            assert!(
                messages
                    .iter()
                    .all(|(_, message)| message.chunk.is_some() == acks)
            );
            let stats = logger.stats();
            assert_eq!(
                (stats.accepted, stats.delivered, stats.buffered_events),
                (100, 100, 0)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn send_resolves_when_acknowledged() {
    let server = Server::faithful();
    let logger = builder(&server)
        .flush_interval(Duration::from_secs(3600))
        .build()
        .unwrap();
    for number in 0..20 {
        logger.send("t", &json!({ "n": number })).await.unwrap();
        assert_eq!(events(&server.messages()).len(), number + 1);
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn gives_back_what_was_not_delivered_when_the_deadline_is_over() {
    // Reads everything, acknowledges nothing.
    let server = Server::start(|peer| while peer.read().is_some() {});
    let logger = builder(&server).build().unwrap();
    let time = UNIX_EPOCH + Duration::new(1_700_000_000, 5);
    for number in 0..3 {
        logger.log_at(time, "t", &json!({ "n": number })).unwrap();
    }
    server.wait_for_events(3);
    let waiting = logger.send("t", &json!({ "n": 3 }));
    let started = Instant::now();
    let undelivered = logger.close(Duration::from_millis(300)).await;
    assert!(started.elapsed() < Duration::from_secs(5));
    let records: Vec<Value> = undelivered
        .iter()
        .map(|event| event.deserialize().unwrap())
        .collect();
    assert_eq!(
        records,
        (0..4).map(|number| json!({ "n": number })).collect::<Vec<_>>()
    );
    assert_eq!((undelivered[0].tag(), undelivered[0].time()), ("t", Some(time)));
    assert!(undelivered[0].may_have_arrived());
    assert_eq!(waiting.await, Err(SendError::Closed));
    assert_eq!(logger.log("t", &json!({})), Err(Rejected::Closed));
    assert_eq!(logger.close(Duration::ZERO).await, []);
    assert_eq!(logger.flush().await, Err(FlushError::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn returns_everything_when_there_never_was_a_server() {
    for mode in [Mode::Packed, Mode::Message] {
        let logger = Logger::builder()
            .address("127.0.0.1:9")
            .mode(mode)
            .build()
            .unwrap();
        for number in 0..10 {
            logger.log("t", &json!({ "n": number })).unwrap();
        }
        let undelivered = logger.close(Duration::from_millis(200)).await;
        let records: Vec<Value> = undelivered
            .iter()
            .map(|event| event.deserialize().unwrap())
            .collect();
        assert_eq!(
            records,
            (0..10).map(|number| json!({ "n": number })).collect::<Vec<_>>()
        );
        assert!(logger.stats().connect_failures > 0);
        assert!(logger.stats().last_error.is_some());
    }
}

#[test]
fn works_without_a_runtime_of_ones_own() {
    let server = Server::faithful();
    let logger = builder(&server).build().unwrap();
    logger.blocking_send("t", &json!({ "n": 0 })).unwrap();
    logger.log("t", &json!({ "n": 1 })).unwrap();
    logger.blocking_flush(PATIENCE).unwrap();
    assert_eq!(events(&server.messages()).len(), 2);
    logger.log("t", &json!({ "n": 2 })).unwrap();
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    assert_eq!(events(&server.messages()).len(), 3);
}

#[test]
fn a_dropped_logger_still_delivers() {
    let server = Server::faithful();
    let logger = builder(&server)
        .flush_interval(Duration::from_secs(3600))
        .build()
        .unwrap();
    logger.log("t", &json!({ "n": 0 })).unwrap();
    drop(logger);
    server.wait_for_events(1);
}

#[test]
fn when_its_runtime_ends_close_returns_the_rest() {
    let server = Server::start(|peer| while peer.read().is_some() {});
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let logger = runtime.block_on(async { builder(&server).own_thread(false).build().unwrap() });
    logger.log("t", &json!({ "n": 0 })).unwrap();
    server.wait_for_events(1);
    logger.log("t", &json!({ "n": 1 })).unwrap();
    drop(runtime);
    assert_eq!(logger.log("t", &json!({})), Err(Rejected::Closed));
    let undelivered = logger.blocking_close(PATIENCE).unwrap();
    assert_eq!(undelivered.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_byte_by_byte_glued_and_out_of_order() {
    let server = Server::start(|peer| {
        let mut held = Vec::new();
        while let Some(message) = peer.read() {
            held.push(message.chunk.unwrap());
            if held.len() < 4 {
                continue;
            }
            let mut out = Vec::new();
            for chunk in held.drain(..).rev() {
                out.extend_from_slice(b"\x82\xa1x\x01\xa3ack\xc4\x18");
                out.extend_from_slice(&chunk);
            }
            let (glued, single) = out.split_at(out.len() / 2);
            peer.write(glued);
            for byte in single {
                peer.write(&[*byte]);
            }
        }
    });
    let logger = builder(&server).mode(Mode::Message).build().unwrap();
    let sent: Vec<_> = (0..40)
        .map(|number| logger.send("t", &json!({ "n": number })))
        .collect();
    for sending in sent {
        sending.await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    assert_eq!(logger.stats().resent, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_ack_a_refusal_or_silence_leads_to_the_same_chunk_on_a_new_connection() {
    let answers: [&[u8]; 5] = [
        b"\x81\xa3ack\xa5wrong",
        b"\x80",
        b"",
        b"\x92\xa4HELO\x80",
        b"\xc1",
    ];
    for answer in answers {
        let server = Server::start(move |peer| {
            if peer.number == 0 {
                peer.read();
                peer.write(answer);
                peer.wait_for_end();
            } else {
                serve(peer);
            }
        });
        let errors = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&errors);
        let logger = builder(&server)
            .ack_timeout(Duration::from_millis(200))
            .on_connection_error(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
            })
            .build()
            .unwrap();
        logger.send("t", &json!({ "n": 1 })).await.unwrap();
        let messages = server.messages();
        assert_eq!(messages.len(), 2, "{answer:?}");
        assert_eq!(messages[0].1.raw, messages[1].1.raw, "the same bytes");
        assert_eq!(errors.load(Ordering::SeqCst), 1, "said once");
        assert_eq!(logger.stats().delivered, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_torn_at_any_byte_loses_nothing_and_resends_in_order() {
    for torn_at in [0, 1, 2, 10, 40, 60] {
        let server = Server::start(move |peer| {
            if peer.number < 3 {
                let mut part = vec![0; torn_at];
                let _ = peer.stream().read_exact(&mut part);
            } else {
                serve(peer);
            }
        });
        let logger = builder(&server).build().unwrap();
        for number in 0..5 {
            logger.log("t", &json!({ "n": number })).unwrap();
            if number == 2 {
                // The next two may go in another chunk.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert_eq!(logger.close(PATIENCE).await, []);
        let numbers: Vec<_> = events(&server.messages())
            .iter()
            .map(|event| event["n"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4], "torn at {torn_at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_reading_is_left() {
    let server = Server::start(|peer| {
        if peer.number == 0 {
            while !peer.stopped() && peer.alive() {
                std::thread::sleep(Duration::from_millis(5));
            }
        } else {
            serve(peer);
        }
    });
    let logger = builder(&server)
        .write_timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let big = "x".repeat(900_000);
    for number in 0..30 {
        logger.log("t", &json!({ "n": number, "pad": big })).unwrap();
    }
    assert_eq!(logger.close(PATIENCE).await, []);
    assert_eq!(events(&server.messages()).len(), 30);
    assert!(logger.stats().connection_losses >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_was_closed_is_noticed_before_writing_even_without_acks() {
    let server = Server::start(|peer| {
        // One message per connection, then the server closes.
        peer.read();
    });
    let logger = builder(&server).request_ack(false).build().unwrap();
    for number in 0..10 {
        logger.send("t", &json!({ "n": number })).await.unwrap();
        server.wait_for_events(number + 1);
        server.wait_for_closed(number + 1);
    }
    assert_eq!(events(&server.messages()).len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_exactly_what_does_not_fit_while_the_server_is_away_and_delivers_the_rest() {
    let address = Server::faithful().address;
    let logger = Logger::builder()
        .address(address.to_string())
        .buffer_limit(1000)
        .retry_wait(Duration::from_millis(20))
        .max_retry_wait(Duration::from_millis(50))
        .build()
        .unwrap();
    let mut refused = 0;
    let mut slowest = Duration::ZERO;
    for number in 0..5000 {
        let started = Instant::now();
        match logger.log("t", &json!({ "n": number })) {
            Ok(()) => {}
            Err(Rejected::Full { events, .. }) => {
                assert_eq!(events, 1000);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "the caller waited {slowest:?}");
    let stats = logger.stats();
    assert_eq!((stats.accepted, stats.rejected, refused), (1000, 4000, 4000));
    let server = Server::start_at(address, serve);
    assert_eq!(logger.close(PATIENCE).await, []);
    let numbers: Vec<_> = events(&server.messages())
        .iter()
        .map(|event| event["n"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn drops_the_oldest_counts_and_reports_them() {
    let address = Server::faithful().address;
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dropped);
    let logger = Logger::builder()
        .address(address.to_string())
        .buffer_limit(100)
        .on_full(OnFull::DropOldest)
        .retry_wait(Duration::from_millis(20))
        .max_retry_wait(Duration::from_millis(50))
        .on_delivery(move |report| {
            if matches!(report.outcome, Outcome::Dropped) {
                counted.fetch_add(report.events, Ordering::SeqCst);
            }
        })
        .build()
        .unwrap();
    for number in 0..500 {
        logger.log("t", &json!({ "n": number })).unwrap();
    }
    let server = Server::start_at(address, serve);
    assert_eq!(logger.close(PATIENCE).await, []);
    let numbers: Vec<_> = events(&server.messages())
        .iter()
        .map(|event| event["n"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (400..500).collect::<Vec<_>>());
    assert_eq!(
        (logger.stats().dropped, dropped.load(Ordering::SeqCst)),
        (400, 400)
    );
}

#[test]
fn waits_for_room_if_told_so() {
    let address = Server::faithful().address;
    let logger = Logger::builder()
        .address(address.to_string())
        .buffer_limit(10)
        .on_full(OnFull::Wait(Duration::from_millis(50)))
        .retry_wait(Duration::from_millis(20))
        .max_retry_wait(Duration::from_millis(50))
        .build()
        .unwrap();
    for number in 0..10 {
        logger.log("t", &json!({ "n": number })).unwrap();
    }
    let started = Instant::now();
    assert!(matches!(logger.log("t", &json!({})), Err(Rejected::Full { .. })));
    assert!(started.elapsed() >= Duration::from_millis(50));
    let sending = logger.send("t", &json!({ "n": 10 }));
    assert_eq!(sending.rejected(), None, "it waits for room");
    let server = Server::start_at(address, serve);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(sending).unwrap();
    for number in 11..200 {
        // Now and then the buffer is full; the wait is short because the server reads.
        while logger.log("t", &json!({ "n": number })).is_err() {}
    }
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    assert_eq!(events(&server.messages()).len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn gives_up_after_max_retry_and_hands_the_events_over() {
    let lost = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lost);
    let logger = Logger::builder()
        .address("127.0.0.1:9")
        .flush_interval(Duration::ZERO)
        .retry_wait(Duration::from_millis(1))
        .max_retry_wait(Duration::from_millis(2))
        .max_retry(3)
        .on_delivery(move |report| {
            if let Outcome::GaveUp { attempts, lost } = report.outcome {
                assert_eq!(attempts, 4);
                kept.lock().unwrap().extend(lost);
            }
        })
        .build()
        .unwrap();
    assert_eq!(
        logger.send("t", &json!({ "n": 1 })).await,
        Err(SendError::GaveUp { attempts: 4 })
    );
    // The callback may be told a moment after the caller.
    let told = async {
        while lost.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!(
        lost.lock().unwrap()[0].deserialize::<Value>().unwrap(),
        json!({ "n": 1 })
    );
    logger.log("t", &json!({ "n": 2 })).unwrap();
    assert_eq!(logger.flush().await, Err(FlushError::Lost { events: 1 }));
    assert_eq!(logger.stats().given_up, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_callback_is_caught_and_counted() {
    let server = Server::faithful();
    let logger = builder(&server)
        .on_delivery(|_| panic!("in a callback"))
        .build()
        .unwrap();
    logger.send("t", &json!({})).await.unwrap();
    logger.send("t", &json!({})).await.unwrap();
    logger.close(PATIENCE).await;
    assert_eq!(logger.stats().callback_panics, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_threads_send_without_crosstalk() {
    let server = Server::faithful();
    let logger = builder(&server).build().unwrap();
    let mut tasks = Vec::new();
    for thread in 0..8u64 {
        let logger = logger.clone();
        tasks.push(tokio::task::spawn_blocking(move || {
            for number in 0..200u64 {
                logger
                    .blocking_send(
                        &format!("t{}", number % 3),
                        &json!({ "id": thread * 1000 + number }),
                    )
                    .unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let ids: HashSet<u64> = events(&server.messages())
        .iter()
        .map(|event| event["id"].as_u64().unwrap())
        .collect();
    assert_eq!((ids.len(), events(&server.messages()).len()), (1600, 1600));
}

#[test]
fn an_undelivered_event_shows_what_was_lost() {
    let logger = Logger::builder().address("127.0.0.1:9").build().unwrap();
    logger
        .log(
            "sale",
            &json!({ "item": "hat", "cents": [1, null, -2.5, true], "n": { "é": "\n" } }),
        )
        .unwrap();
    let lost = logger.blocking_close(Duration::ZERO).unwrap();
    let text = format!("{:?}", lost[0]);
    assert!(
        text.contains(r#"record: {"item": "hat", "cents": [1, null, -2.5, true], "n": {"é": "\n"}}"#),
        "{text}"
    );
}

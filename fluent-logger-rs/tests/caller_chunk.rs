//! Tests of chunks with an id of the caller.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::{Duration, UNIX_EPOCH};

use fluent_logger::{Builder, Logger, Mode, OnFull, Rejected, SendError};
use serde_json::json;
use support::{PATIENCE, Server, serve};

fn builder(server: &Server) -> Builder {
    Logger::builder().address(server.address.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_under_ones_own_id_is_one_message_of_the_same_bytes_every_time() {
    let time = UNIX_EPOCH + Duration::new(1_700_000_000, 5);
    let chunk: Vec<_> = (0..20)
        .map(|number| (time + Duration::from_millis(number), json!({ "n": number })))
        .collect();
    for mode in [Mode::Message, Mode::Forward, Mode::Packed] {
        let mut seen = Vec::new();
        // Another process after a crash has another logger.
        for _ in 0..2 {
            let server = Server::faithful();
            let logger = builder(&server)
                .tag_prefix("app")
                .mode(mode)
                .chunk_limit_events(3)
                .flush_interval(Duration::from_secs(3600))
                .build()
                .unwrap();
            logger.log("a", &json!({ "n": "before" })).unwrap();
            logger.send_chunk("my-id", "a", chunk.clone()).await.unwrap();
            logger.log("a", &json!({ "n": "after" })).unwrap();
            logger.flush().await.unwrap();
            let messages = server.messages();
            assert_eq!(messages.len(), 3, "{mode:?}: alone in its chunk, in order");
            let message = &messages[1].1;
            assert_eq!(
                (message.chunk.as_deref(), &*message.tag),
                (Some(&b"my-id"[..]), "app.a")
            );
            let records: Vec<_> = message.events.iter().map(|(_, record)| record.clone()).collect();
            assert_eq!(records, (0..20).map(|n| json!({ "n": n })).collect::<Vec<_>>());
            seen.push(message.raw.clone());
        }
        assert_eq!(seen[0], seen[1], "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_under_ones_own_id_is_resent_never_dropped_and_refused_whole() {
    let address = Server::faithful().address;
    let make = |policy| {
        Logger::builder()
            .address(address.to_string())
            .buffer_limit(100)
            .on_full(policy)
            .retry_wait(Duration::from_millis(5))
            .max_retry_wait(Duration::from_millis(20))
            .build()
            .unwrap()
    };
    let events_of = |count: usize| (0..count).map(|n| (UNIX_EPOCH, json!({ "n": n })));
    let logger = make(OnFull::DropOldest);
    let sending = logger.send_chunk("one", "t", events_of(60));
    assert_eq!(sending.rejected(), None);
    for _ in 0..200 {
        logger.log("t", &json!({ "n": "one of many" })).unwrap();
    }
    assert_eq!(logger.stats().dropped, 160, "none of the chunk's");
    let full = logger.send_chunk("two", "t", events_of(10));
    assert!(matches!(full.rejected(), Some(Rejected::Full { .. })));
    assert_eq!(logger.stats().buffered_events, 100, "nothing of it is there");
    let waiting = make(OnFull::Wait(Duration::ZERO));
    let first = waiting.send_chunk("three", "t", events_of(60));
    let second = waiting.send_chunk("four", "t", events_of(60));
    assert_eq!(second.rejected(), None, "it waits for room");

    let server = Server::start_at(address, |peer| {
        if peer.number < 2 {
            // The first message of a connection is read and never acknowledged.
            peer.read();
        } else {
            serve(peer);
        }
    });
    let (one, two, three) = tokio::join!(sending, first, second);
    assert_eq!((one, two, three), (Ok(()), Ok(()), Ok(())));
    assert_eq!(
        (logger.close(PATIENCE).await, waiting.close(PATIENCE).await),
        (vec![], vec![])
    );
    for id in ["one", "three", "four"] {
        let messages = server.messages();
        let mut copies: Vec<_> = messages
            .iter()
            .map(|(_, message)| message)
            .filter(|message| message.chunk.as_deref() == Some(id.as_bytes()))
            .collect();
        copies.dedup();
        assert_eq!(
            (copies.len(), copies[0].events.len()),
            (1, 60),
            "{id}: always the same"
        );
    }
    for (id, count, acks) in [
        ("", 1, true),
        (&*"x".repeat(65), 1, true),
        ("a", 0, true),
        ("a", 101, true),
        ("a", 1, false),
    ] {
        let logger = builder(&server)
            .buffer_limit(100)
            .request_ack(acks)
            .build()
            .unwrap();
        let result = logger.send_chunk(id, "t", events_of(count)).await;
        assert!(
            matches!(result, Err(SendError::Rejected(Rejected::NoChunk { .. }))),
            "{id} {count} {acks}: {result:?}"
        );
        assert_eq!(logger.stats().rejected, 1);
    }
}

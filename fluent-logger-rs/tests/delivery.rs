//! Delivery over real sockets against a scripted server.

mod support;

use std::time::Duration;

use fluent_logger::{Builder, Logger, Mode};
use serde_json::json;
use support::{PATIENCE, Server, events};

fn builder(server: &Server) -> Builder {
    Logger::builder()
        .address(server.address.to_string())
        .flush_interval(Duration::from_millis(5))
        .retry_wait(Duration::from_millis(20))
        .max_retry_wait(Duration::from_millis(100))
}

#[tokio::test]
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

#[tokio::test]
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

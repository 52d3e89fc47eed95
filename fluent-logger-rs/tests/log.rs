//! Tests of the adapter for the `log` facade.
#![cfg(feature = "log")]

mod support;

use fluent_logger::{FluentLog, Logger};
use serde_json::json;
use support::{PATIENCE, Server, events};

#[test]
fn records_of_the_facade_arrive() {
    let server = Server::faithful();
    let logger = Logger::builder()
        .address(server.address.to_string())
        .tag_prefix("shop")
        .build()
        .unwrap();
    FluentLog::new(logger.clone(), "app")
        .max_level(log::LevelFilter::Info)
        .init()
        .unwrap();
    log::info!(target: "cart", "{} items", 3);
    log::debug!("too fine");
    log::logger().flush();
    assert!(
        FluentLog::new(logger.clone(), "app").init().is_err(),
        "there is one already"
    );
    assert_eq!(logger.blocking_close(PATIENCE), []);
    let messages = server.messages();
    assert_eq!(messages[0].1.tag, "shop.app");
    let found = events(&messages);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["level"], json!("INFO"));
    assert_eq!(
        (&found[0]["target"], &found[0]["message"]),
        (&json!("cart"), &json!("3 items"))
    );
    assert!(found[0]["file"].as_str().unwrap().ends_with("log.rs"));
}

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
    let pi = 3.5;
    log::info!(
        target: "cart", traceId = "t1", n = 3, big = u128::from(u64::MAX) + 1, pi, ok = true,
        who:? = Some(1), level = "own", message = "other";
        "{} items", 3
    );
    log::debug!("too fine");
    log::logger().flush();
    assert!(
        FluentLog::new(logger.clone(), "app").init().is_err(),
        "there is one already"
    );
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    let messages = server.messages();
    assert_eq!(messages[0].1.tag, "shop.app");
    let found = events(&messages);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["level"], json!("INFO"));
    assert_eq!(
        (&found[0]["target"], &found[0]["message"]),
        (&json!("cart"), &json!("3 items"))
    );
    let object = found[0].as_object().unwrap();
    let fields: serde_json::Map<_, _> = object
        .iter()
        .filter(|(key, _)| !["file", "line", "target"].contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    assert_eq!(
        json!(fields),
        json!({
            "level": "INFO", "message": "3 items", "traceId": "t1", "n": 3, "big": "18446744073709551616",
            "pi": 3.5, "ok": true, "who": "Some(1)", "fields.level": "own", "fields.message": "other",
        })
    );
    assert!(found[0]["file"].as_str().unwrap().ends_with("log.rs"));
}

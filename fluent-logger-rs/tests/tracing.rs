//! Tests of the `tracing` layer: the records of events and spans.
#![cfg(feature = "tracing")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::Duration;

use fluent_logger::{FluentLayer, Logger};
use serde_json::{Value, json};
use support::{PATIENCE, Server, events};
use tracing::subscriber::with_default;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::Registry;

/// Runs `act` under the layer and returns the records that arrive.
fn records(configure: impl FnOnce(FluentLayer) -> FluentLayer, act: impl FnOnce()) -> Vec<Value> {
    let server = Server::faithful();
    let logger = Logger::builder()
        .address(server.address.to_string())
        .build()
        .unwrap();
    let layer = configure(FluentLayer::new(logger.clone(), "app"));
    with_default(Registry::default().with(layer), act);
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    assert!(server.messages().iter().all(|(_, message)| message.tag == "app"));
    events(&server.messages())
}

#[test]
fn an_event_has_its_level_target_message_and_fields() {
    let found = records(
        |layer| layer,
        || {
            tracing::warn!(target: "shop::cart", items = 3, price = 1.5, gift = true, delta = -7, r#type = "x", who = ?Some(1), "hello {}", "you");
        },
    );
    assert_eq!(
        found,
        [json!({
            "level": "WARN", "target": "shop::cart", "message": "hello you", "items": 3, "price": 1.5,
            "gift": true, "delta": -7, "type": "x", "who": "Some(1)",
        })]
    );
}

#[test]
fn spans_are_flattened_and_the_innermost_wins() {
    let found = records(
        |layer| layer,
        || {
            let outer = tracing::info_span!(
                "request",
                traceId = "t1",
                user = "ann",
                path = "/a",
                late = tracing::field::Empty
            );
            let _outer = outer.enter();
            let inner = tracing::info_span!("query", user = "db", rows = 2);
            let _inner = inner.enter();
            outer.record("late", 5);
            tracing::info!(rows = 3, "done");
        },
    );
    assert_eq!(
        found,
        [json!({
            "level": "INFO", "target": "tracing", "message": "done", "rows": 3, "span": "query", "user": "db",
            "traceId": "t1", "path": "/a", "late": 5,
        })]
    );
}

#[test]
fn trace_id_goes_by_either_name_and_from_the_nearest_place() {
    let found = records(
        |layer| layer,
        || {
            tracing::info_span!("a", trace_id = "snake").in_scope(|| tracing::info!("1"));
            tracing::info_span!("a", trace_id = "outer").in_scope(|| {
                tracing::info_span!("b", traceId = "inner").in_scope(|| tracing::info!("2"));
                tracing::info!(traceId = "own", "3");
            });
            tracing::info!("4");
        },
    );
    let ids: Vec<_> = found
        .iter()
        .map(|record| record.get("traceId").cloned())
        .collect();
    assert_eq!(
        ids,
        [
            Some(json!("snake")),
            Some(json!("inner")),
            Some(json!("own")),
            None
        ]
    );
    assert!(found.iter().all(|record| record.get("trace_id").is_none()));
}

#[test]
fn the_trace_id_of_opentelemetry_is_added_where_that_layer_is() {
    use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let tracer = provider.tracer("a test");
    let server = Server::faithful();
    let logger = Logger::builder()
        .address(server.address.to_string())
        .build()
        .unwrap();
    let layer = FluentLayer::new(logger.clone(), "app").trace_id_from_context(|| {
        let context = opentelemetry::Context::current();
        let span = context.span().span_context().clone();
        span.is_valid().then(|| span.trace_id().to_string())
    });
    let otel = tracing_opentelemetry::layer().with_tracer(tracer);
    with_default(Registry::default().with(otel).with(layer), || {
        tracing::info!("in no span");
        tracing::info_span!("one").in_scope(|| {
            tracing::info!("outer");
            tracing::info_span!("inner").in_scope(|| tracing::info!("inner"));
        });
        tracing::info_span!("two").in_scope(|| tracing::info!("another trace"));
        tracing::info_span!("three", traceId = "own").in_scope(|| tracing::info!("a field comes first"));
    });
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    let found = events(&server.messages());
    let ids: Vec<Option<&str>> = found.iter().map(|record| record["traceId"].as_str()).collect();
    let [None, Some(outer), Some(inner), Some(other), Some("own")] = *ids else {
        panic!("{found:?}");
    };
    assert!(outer == inner && outer != other, "{found:?}");
    assert!(
        outer.len() == 32 && outer.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{outer}"
    );
}

#[test]
fn the_key_of_the_trace_id_can_be_chosen_and_its_source_be_a_span_extension() {
    struct Otel(&'static str);
    /// Stands for the layer of OpenTelemetry.
    struct Marker;
    impl<S> tracing_subscriber::Layer<S> for Marker
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        fn on_new_span(
            &self,
            _: &tracing::span::Attributes<'_>,
            id: &tracing::span::Id,
            context: tracing_subscriber::layer::Context<'_, S>,
        ) {
            context
                .span(id)
                .unwrap()
                .extensions_mut()
                .insert(Otel("4bf92f35"));
        }
    }
    let server = Server::faithful();
    let logger = Logger::builder()
        .address(server.address.to_string())
        .build()
        .unwrap();
    let layer = FluentLayer::new(logger.clone(), "app")
        .trace_id_key("trace.id")
        .with_location(true)
        .trace_id_from_span(|extensions| extensions.get::<Otel>().map(|otel| otel.0.to_owned()));
    with_default(Registry::default().with(Marker).with(layer), || {
        tracing::info_span!("a").in_scope(|| tracing::info!("1"));
    });
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    let found = events(&server.messages());
    assert_eq!(found[0]["trace.id"], "4bf92f35");
    assert!(found[0]["file"].as_str().unwrap().ends_with("tracing.rs"));
    assert!(found[0]["line"].as_u64().unwrap() > 0);
}

#[test]
fn errors_come_with_their_causes() {
    #[derive(Debug)]
    struct Outer(std::io::Error);
    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "outer")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let found = records(
        |layer| layer,
        || {
            let error = Outer(std::io::Error::other("inner"));
            tracing::error!(error = &error as &dyn std::error::Error, "failed");
        },
    );
    assert_eq!(found[0]["error"], "outer: inner");
}

#[test]
fn what_the_logger_itself_logs_is_left_out() {
    let server = Server::faithful();
    let (sender, receiver) = std::sync::mpsc::sync_channel(100);
    let logger = Logger::builder()
        .address(server.address.to_string())
        .flush_interval(Duration::from_millis(1))
        .on_delivery(move |report| {
            // A callback that logs, by the layer that leads here.
            tracing::info!("delivered {}", report.events);
            let _ = sender.try_send(());
        })
        .own_thread(true)
        .build()
        .unwrap();
    let layer = FluentLayer::new(logger.clone(), "app");
    // For all threads: the callback runs on the logger's own.
    tracing::subscriber::set_global_default(Registry::default().with(layer)).unwrap();
    for _ in 0..5 {
        tracing::info!("from outside");
        receiver.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(logger.blocking_close(PATIENCE).unwrap(), []);
    let messages: Vec<_> = events(&server.messages())
        .iter()
        .map(|event| event["message"].clone())
        .collect();
    assert_eq!(messages, vec![json!("from outside"); 5]);
}

#[test]
fn fields_named_like_the_layers_own_are_kept_under_another_name() {
    let found = records(
        |layer| layer,
        || {
            tracing::info_span!("request", level = "gold", span = "x", rows = 1u128).in_scope(|| {
                tracing::info!(target: "shop", level = 9, target = "moon", big = u128::MAX, "done");
            });
        },
    );
    assert_eq!(
        found,
        [json!({
            "level": "INFO", "target": "shop", "message": "done", "span": "request", "fields.level": 9,
            "fields.target": "moon", "fields.span": "x", "rows": 1,
            "big": "340282366920938463463374607431768211455",
        })]
    );
}

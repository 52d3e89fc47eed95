//! Tests of the `tower` layer, with axum.
#![cfg(feature = "tower")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use axum::body::Body;
use axum::routing::get;
use axum::{Extension, Router};
use fluent_logger::{FluentLayer, Logger, Naming, RequestLayer, TraceContext};
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use support::{PATIENCE, Server, events};
use tower::ServiceExt as _;
use tracing::info;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::Registry;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn app(logger: &Logger) -> Router {
    Router::new()
        .route(
            "/cart/{id}",
            get(|Extension(trace): Extension<TraceContext>| async move {
                info!("cart shown");
                tokio::task::yield_now().await;
                assert_eq!(TraceContext::current(), Some(trace.clone()));
                let elsewhere = tokio::spawn(trace.scope(async { TraceContext::current_headers() }));
                let headers = elsewhere.await.unwrap();
                headers["x-trace-id"].to_str().unwrap().to_owned()
            }),
        )
        .route("/broken", get(|| async { StatusCode::BAD_GATEWAY }))
        .route("/never", get(std::future::pending::<()>))
        .layer(RequestLayer::new(logger.clone(), "app"))
}

async fn call(app: &Router, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    app.clone().oneshot(request).await.unwrap()
}

async fn body(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The records of `act`, without those fields that differ from run to run.
async fn records(naming: Naming, act: impl AsyncFnOnce(Router)) -> Vec<Value> {
    let server = Server::faithful();
    let logger = Logger::builder()
        .address(server.address.to_string())
        .naming(naming)
        .build()
        .unwrap();
    let layer = FluentLayer::new(logger.clone(), "app");
    let _subscriber = tracing::subscriber::set_default(Registry::default().with(layer));
    act(app(&logger)).await;
    assert_eq!(logger.close(PATIENCE).await, []);
    events(&server.messages())
}

#[tokio::test]
async fn a_request_has_one_trace_from_its_headers_to_its_answer() {
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let mut found = records(Naming::Plain, async |app| {
        let answer = call(&app, "/cart/7?secret=1", &[("traceparent", &parent)]).await;
        assert_eq!(answer.headers()["x-trace-id"], TRACE);
        assert_eq!(body(answer).await, TRACE, "outgoing requests carry it");
    })
    .await;
    let record = found[1].as_object_mut().unwrap();
    assert!(record.remove("latencyMs").unwrap().as_f64().unwrap() >= 0.0);
    assert_eq!(record.remove("spanId").unwrap().as_str().unwrap().len(), 16);
    assert_eq!(
        found,
        [
            json!({
                "level": "INFO", "target": "tower", "message": "cart shown", "span": "request",
                "traceId": TRACE, "method": "GET", "path": "/cart/7",
            }),
            json!({
                "level": "INFO", "message": "request completed", "traceId": TRACE, "method": "GET",
                "path": "/cart/7", "status": 200, "outcome": "success", "parentSpanId": "00f067aa0ba902b7",
            }),
        ]
    );
}

#[tokio::test]
async fn a_request_without_headers_gets_a_trace_and_one_with_x_trace_id_keeps_it() {
    let found = records(Naming::Plain, async |app| {
        let made = call(&app, "/cart/1", &[]).await;
        assert_eq!(made.headers()["x-trace-id"].len(), 32);
        let other = call(&app, "/cart/2", &[]).await;
        assert_ne!(made.headers()["x-trace-id"], other.headers()["x-trace-id"]);
        let given = call(&app, "/cart/3", &[("x-trace-id", "order-17")]).await;
        assert_eq!(given.headers()["x-trace-id"], "order-17");
    })
    .await;
    let ids: Vec<_> = found.iter().map(|record| record["traceId"].clone()).collect();
    assert_eq!((ids.len(), &ids[0], &ids[2]), (6, &ids[1], &ids[3]));
    assert_eq!((&ids[4], &ids[5]), (&json!("order-17"), &json!("order-17")));
}

#[tokio::test]
async fn failures_have_their_status_and_dropped_requests_their_reason() {
    let found = records(Naming::Ecs, async |app| {
        let answer = call(&app, "/broken", &[]).await;
        assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
        let missing = call(&app, "/nowhere", &[]).await;
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
        let never = call(&app, "/never", &[]);
        let dropped = tokio::time::timeout(std::time::Duration::from_millis(20), never).await;
        assert!(dropped.is_err());
    })
    .await;
    let fields = |key: &str| -> Vec<Value> { found.iter().map(|record| record[key].clone()).collect() };
    assert_eq!(
        fields("event.outcome"),
        [json!("failure"), json!("success"), json!("failure")]
    );
    assert_eq!(
        fields("http.response.status_code"),
        [json!(502), json!(404), Value::Null]
    );
    assert_eq!(
        fields("url.path"),
        [json!("/broken"), json!("/nowhere"), json!("/never")]
    );
    assert_eq!(
        fields("error"),
        [
            Value::Null,
            Value::Null,
            json!("the request was dropped before its answer")
        ]
    );
}

#[tokio::test]
async fn an_event_whose_span_a_filter_leaves_out_still_has_the_trace() {
    let server = Server::faithful();
    let logger = Logger::builder()
        .address(server.address.to_string())
        .build()
        .unwrap();
    let only_here = tracing_subscriber::filter::filter_fn(|metadata| metadata.target() == "tower");
    let layer = FluentLayer::new(logger.clone(), "app").with_filter(only_here);
    let _subscriber = tracing::subscriber::set_default(Registry::default().with(layer));
    call(&app(&logger), "/cart/1", &[("x-trace-id", "t1")]).await;
    assert_eq!(logger.close(PATIENCE).await, []);
    let found = events(&server.messages());
    assert_eq!(
        (&found[0]["message"], &found[0]["traceId"]),
        (&json!("cart shown"), &json!("t1"))
    );
    assert_eq!(found[0].get("span"), None);
}

//! Tests of the admin server: responses and access control; the page and its API in `page`, slow clients
//! in `sockets`.

mod page;
mod sockets;

use std::sync::Mutex;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method};
use tower::ServiceExt;

use super::*;
use crate::config::{Config, Secret};

/// A store that returns given documents and records its queries.
#[derive(Default)]
struct Shelf {
    documents: Vec<String>,
    failure: Option<String>,
    asked: Mutex<Vec<(Option<String>, usize)>>,
}

impl DocumentStore for Shelf {
    fn recent<'a>(
        &'a self,
        trace_id: Option<&'a str>,
        limit: usize,
        _max_bytes: usize,
    ) -> RecentDocuments<'a> {
        self.asked
            .lock()
            .unwrap()
            .push((trace_id.map(str::to_owned), limit));
        let raw = |text: &String| RawValue::from_string(text.clone()).unwrap();
        let answer = match &self.failure {
            Some(what) => Err(what.clone()),
            None => Ok(FoundDocuments {
                documents: self.documents.iter().take(limit).map(raw).collect(),
                omitted: 0,
            }),
        };
        Box::pin(std::future::ready(answer))
    }
}

struct Fixture {
    metrics: Arc<Metrics>,
    readiness: Arc<Mutex<Readiness>>,
    shelf: Arc<Shelf>,
    config: AdminConfig,
}

impl Fixture {
    fn new() -> Self {
        Self::with(Shelf::default())
    }

    fn with(shelf: Shelf) -> Self {
        Self {
            metrics: Arc::new(Metrics::new(&[Output::Sqlite])),
            readiness: Arc::default(),
            shelf: Arc::new(shelf),
            config: Config::default().admin,
        }
    }

    fn state(&self) -> AdminState {
        let readiness = Arc::clone(&self.readiness);
        AdminState {
            metrics: Arc::clone(&self.metrics),
            peers: Arc::new(|| None),
            readiness: Arc::new(move || readiness.lock().unwrap().clone()),
            store: Some(Arc::clone(&self.shelf) as Arc<dyn DocumentStore>),
            search: None,
            names: windrow_query::Names::default(),
            outputs: vec![Output::Sqlite],
            forward_address: Some("0.0.0.0:24224".into()),
            open_traces: None,
            dead_letter: None,
            tail: None,
        }
    }

    fn router(&self) -> Router {
        router(self.state(), &self.config, &CancellationToken::new())
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let (status, _, body) = self.ask(Method::GET, path, &[("host", "127.0.0.1:2020")]).await;
        (status, body)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .router()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (
            parts.status,
            parts.headers,
            String::from_utf8(body.to_vec()).unwrap(),
        )
    }
}

fn value(body: &str) -> serde_json::Value {
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn health_and_ready_tell_different_things() {
    let fixture = Fixture::new();
    assert_eq!(fixture.get("/health").await, (StatusCode::OK, "ok\n".into()));
    assert_eq!(
        fixture.get("/api/v1/health").await,
        (StatusCode::OK, "ok\n".into())
    );
    fixture
        .readiness
        .lock()
        .unwrap()
        .notes
        .push("the dead letter holds 3 documents".into());
    let (status, body) = fixture.get("/ready").await;
    assert_eq!(status, StatusCode::OK);
    let notes = json!(["the dead letter holds 3 documents"]);
    assert_eq!(
        value(&body),
        json!({ "ready": true, "reasons": [], "notes": notes })
    );

    fixture
        .readiness
        .lock()
        .unwrap()
        .reasons
        .push("elasticsearch: connection refused".into());
    let (status, body) = fixture.get("/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        value(&body)["reasons"],
        json!(["elasticsearch: connection refused"])
    );
    assert_eq!(fixture.metrics.ready.get(), 0);
    assert_eq!(fixture.get("/health").await.0, StatusCode::OK);

    fixture.readiness.lock().unwrap().fatal = Some("the journal could not be synced".into());
    let (status, body) = fixture.get("/health").await;
    assert_eq!(
        (status, body.as_str()),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the journal could not be synced\n"
        )
    );
    assert_eq!(
        value(&fixture.get("/ready").await.1)["reasons"][0],
        "the journal could not be synced"
    );
}

#[tokio::test]
async fn metrics_at_both_paths() {
    let fixture = Fixture::new();
    fixture.metrics.input_records.inc_by(5);
    for path in ["/metrics", "/api/v1/metrics/prometheus"] {
        let (status, headers, body) = fixture.ask(Method::GET, path, &[]).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            headers[header::CONTENT_TYPE],
            "text/plain; version=0.0.4; charset=utf-8"
        );
        assert!(
            body.contains("\nwindrow_input_records_total 5\n") && body.contains("\nwindrow_ready 1\n"),
            "{body}"
        );
    }
    assert!(value(&fixture.get("/api/v1/uptime").await.1)["uptime_sec"].is_u64());
}

#[tokio::test]
async fn logs_are_an_array_of_what_the_store_has() {
    let documents = vec![
        r#"{"traceId":"b","n":1e400}"#.to_owned(),
        r#"{"traceId":"a"}"#.to_owned(),
    ];
    let fixture = Fixture::with(Shelf {
        documents: documents.clone(),
        ..Shelf::default()
    });
    let (status, headers, body) = fixture.ask(Method::GET, "/logs", &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    // The documents are the very bytes of the store, whatever numbers they hold.
    assert_eq!(body, format!("[\n{},\n{}\n]\n", documents[0], documents[1]));
    let (_, body) = fixture.get("/api/v1/logs?traceId=a%20b%26c&limit=1").await;
    assert_eq!(body, format!("[\n{}\n]\n", documents[0]));
    fixture.get("/logs?trace_id=x").await;
    let asked = fixture.shelf.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        [(None, 100), (Some("a b&c".into()), 1), (Some("x".into()), 100)]
    );
}

#[tokio::test]
async fn an_empty_store_is_an_empty_array() {
    assert_eq!(value(&Fixture::new().get("/logs").await.1), json!([]));
}

#[tokio::test]
async fn bad_questions_are_answered_with_what_is_allowed() {
    let fixture = Fixture::new();
    for (path, what) in [
        ("/logs?limit=0", "limit=0 is not a whole number from 1 to 1000"),
        ("/logs?limit=1001", "limit=1001"),
        ("/logs?limit=x", "limit=x"),
        ("/logs?traceid=a", "unknown parameter \"traceid\""),
        ("/logs?traceId=", "traceId is empty"),
    ] {
        let (status, body) = fixture.get(path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        let body = value(&body);
        assert!(body["error"].as_str().unwrap().contains(what), "{body}");
        assert!(
            body["allowed"].as_str().unwrap().contains("limit=1..1000"),
            "{body}"
        );
    }
    assert!(fixture.shelf.asked.lock().unwrap().is_empty());
    let (status, body) = fixture.get("/log").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(value(&body)["allowed"].as_str().unwrap().contains("/logs"));
    let (status, headers, body) = fixture.ask(Method::POST, "/metrics", &[]).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(
        headers.contains_key(header::ALLOW)
            && value(&body)["allowed"].as_str().unwrap().starts_with("GET, HEAD"),
        "{body}"
    );
}

#[tokio::test]
async fn a_store_that_fails_or_is_not_there_says_so() {
    let fixture = Fixture::with(Shelf {
        failure: Some("elasticsearch is away".into()),
        ..Shelf::default()
    });
    let (status, body) = fixture.get("/logs").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(value(&body)["error"], "elasticsearch is away");

    let state = AdminState {
        store: None,
        ..fixture.state()
    };
    let request = Request::builder().uri("/logs").body(Body::empty()).unwrap();
    let router = router(state, &fixture.config, &CancellationToken::new());
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test]
async fn with_a_token_log_content_needs_it_and_probes_do_not() {
    let mut fixture = Fixture::new();
    fixture.config.token = Some(Secret::new("s3cret+/"));
    for path in ["/logs", "/api/v1/logs", "/api/v1/stats"] {
        let (status, headers, body) = fixture.ask(Method::GET, path, &[]).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer realm=\"windrow\"");
        assert!(
            value(&body)["allowed"].as_str().unwrap().contains("Bearer TOKEN"),
            "{body}"
        );
        for authorization in ["Bearer s3cret+/", "bearer s3cret+/"] {
            let shown = [("authorization", authorization), ("host", "windrow.example.org")];
            assert_eq!(
                fixture.ask(Method::GET, path, &shown).await.0,
                StatusCode::OK,
                "{path}"
            );
        }
        for authorization in ["Bearer s3cret", "Bearer ", "Basic s3cret+/", "s3cret+/"] {
            let (status, ..) = fixture
                .ask(Method::GET, path, &[("authorization", authorization)])
                .await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path} {authorization}");
        }
        // In an address only where version 0.1.0 has documented it.
        let with_address = fixture.get(&format!("{path}?token=s3cret%2B%2F")).await.0;
        assert_eq!(with_address == StatusCode::OK, path.ends_with("/logs"), "{path}");
        assert_eq!(
            fixture.get(&format!("{path}?token=other")).await.0,
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
    for path in ["/health", "/ready", "/metrics", "/api/v1/uptime"] {
        assert_eq!(fixture.get(path).await.0, StatusCode::OK, "{path}");
    }
}

/// Addresses are in histories and in the logs of proxies.
#[tokio::test]
async fn no_path_of_the_page_and_its_api_takes_a_token_from_its_address() {
    let mut fixture = Fixture::new();
    fixture.config.token = Some(Secret::new("s3cret"));
    let description = api::tests::description();
    let described = description["paths"].as_object().unwrap();
    let mut asked = 0;
    for (path, item) in described.iter().filter(|(path, _)| !path.ends_with("/logs")) {
        for (name, operation) in item.as_object().unwrap() {
            let method = match name.as_str() {
                "get" => Method::GET,
                "post" => Method::POST,
                _ => continue,
            };
            // Probes are open, and logging in is how a token is given.
            if operation["security"] == json!([]) {
                continue;
            }
            let path = path.replace("{id}", "a");
            let headers = [("content-type", "application/json")];
            let address = format!("{path}?token=s3cret");
            let (status, _, body) = fixture.ask(method, &address, &headers).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{name} {path}: {body}");
            assert!(
                value(&body)["error"].as_str().unwrap().contains("header"),
                "{body}"
            );
            asked += 1;
        }
    }
    assert!(asked >= 9, "{asked} operations");
    // With the header it is a parameter that does not exist.
    let both = [("authorization", "Bearer s3cret")];
    let (status, _, body) = fixture
        .ask(Method::GET, "/api/v1/traces?token=s3cret", &both)
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test]
async fn without_a_token_foreign_names_see_no_log_content() {
    let mut fixture = Fixture::new();
    let ask =
        async |fixture: &Fixture, host: &str| fixture.ask(Method::GET, "/logs", &[("host", host)]).await.0;
    for host in [
        "127.0.0.1:2020",
        "[::1]:2020",
        "localhost:2020",
        "windrow:2020",
        "10.1.2.3",
        "w.ns.svc",
        "w.ns.svc.cluster.local:1",
    ] {
        assert_eq!(ask(&fixture, host).await, StatusCode::OK, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:2020",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
    ] {
        assert_eq!(ask(&fixture, host).await, StatusCode::FORBIDDEN, "{host}");
    }
    assert_eq!(
        fixture
            .ask(Method::GET, "/metrics", &[("host", "evil.example")])
            .await
            .0,
        StatusCode::OK
    );
    fixture.config.hosts = vec!["logs.example.org".into()];
    assert_eq!(ask(&fixture, "Logs.Example.org:2020").await, StatusCode::OK);
    assert_eq!(ask(&fixture, "evil.example").await, StatusCode::FORBIDDEN);
    fixture.config.hosts = vec!["*".into()];
    assert_eq!(ask(&fixture, "evil.example").await, StatusCode::OK);
}

/// A store with documents of 10 MiB.
fn large() -> Fixture {
    Fixture::with(Shelf {
        documents: vec![format!("\"{}\"", "x".repeat(10 << 20)); 5],
        ..Shelf::default()
    })
}

#[tokio::test]
async fn a_large_answer_is_cut_and_says_so() {
    let (status, headers, body) = large().ask(Method::GET, "/logs", &[]).await;
    assert_eq!(
        (status, &headers["windrow-left-out"]),
        (StatusCode::OK, &"2".parse().unwrap())
    );
    let documents: Vec<String> = serde_json::from_str(&body).unwrap();
    assert_eq!(documents.len(), 3);
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_together() {
    let router = large().router();
    let ask = async || {
        let request = Request::builder().uri("/logs").body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    };
    let mut unread = Vec::new();
    for _ in 0..10 {
        unread.push(ask().await);
    }
    unread.retain(|response| response.status() == StatusCode::OK);
    assert_eq!(unread.len(), 2, "of 30 MiB each, within 64 MiB");
    let refused = ask().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    unread.pop();
    assert_eq!(ask().await.status(), StatusCode::OK);
}

//! Proxy before a real store: lets a test act before a request, and write as a node does that does
//! not know of a rollover.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

/// A proxy on loopback. It ends with the runtime of the test.
#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    store: String,
    http: reqwest::Client,
    /// Requests with documents that came.
    requests: AtomicU64,
    /// The name is rolled over before the request of this number.
    rollover: Mutex<Option<(u64, String)>>,
    /// Creates of the first name are written to the second, an index.
    stale: Mutex<Option<(String, String)>>,
}

impl Proxy {
    pub(super) async fn start(store: &str) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            shared: Arc::new(Shared {
                store: store.to_owned(),
                http: reqwest::Client::new(),
                requests: AtomicU64::new(0),
                rollover: Mutex::default(),
                stale: Mutex::default(),
            }),
        };
        let app = axum::Router::new()
            .fallback(forward)
            .layer(DefaultBodyLimit::disable())
            .with_state(proxy.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        proxy
    }

    /// Rolls the name over before a coming request with documents, 0 for the next.
    pub(super) fn roll_over_before(&self, number: u64, name: &str) {
        let at = self.shared.requests.load(Relaxed) + number;
        *self.shared.rollover.lock().unwrap() = Some((at, name.to_owned()));
    }

    /// Whether the rollover has not happened yet.
    pub(super) fn waits(&self) -> bool {
        self.shared.rollover.lock().unwrap().is_some()
    }

    /// Writes new documents of the name to this index.
    pub(super) fn be_stale(&self, name: &str, index: &str) {
        *self.shared.stale.lock().unwrap() = Some((name.to_owned(), index.to_owned()));
    }

    /// Knows the newest index again.
    pub(super) fn be_fresh(&self) {
        *self.shared.stale.lock().unwrap() = None;
    }
}

async fn forward(State(Proxy { shared, .. }): State<Proxy>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let target = head.uri.path_and_query().unwrap().as_str().to_owned();
    if head.uri.path() == "/_bulk" || head.uri.path() == "/_mget" {
        let number = shared.requests.fetch_add(1, Relaxed);
        let due = shared.rollover.lock().unwrap().take_if(|(at, _)| *at == number);
        if let Some((_, name)) = due {
            let path = format!("{}/{name}/_rollover", shared.store);
            let rolled = shared.http.post(path).send().await.unwrap();
            assert!(rolled.status().is_success(), "{}", rolled.text().await.unwrap());
        }
    }
    let stale = shared.stale.lock().unwrap().clone();
    if let Some((name, index)) = stale.filter(|_| head.uri.path() == "/_bulk") {
        body = stale_body(&body, &name, &index);
    }
    let mut sent = shared
        .http
        .request(head.method, format!("{}{target}", shared.store));
    if let Some(kind) = head.headers.get("content-type") {
        sent = sent.header("content-type", kind);
    }
    let answer = sent.body(body).send().await.unwrap();
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
    (status, answer.bytes().await.unwrap()).into_response()
}

/// The body in which what is created in `name` is created in `index`. A store takes such a request
/// only from another node, so it is an update of a document that does not exist.
fn stale_body(body: &Bytes, name: &str, index: &str) -> Bytes {
    let mut lines = std::str::from_utf8(body).unwrap().lines();
    let mut made = String::new();
    while let Some(action) = lines.next() {
        let parsed: Value = serde_json::from_str(action).unwrap();
        let meta = &parsed["create"];
        if meta["_index"] == name {
            let source: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
            let action = json!({"update": {"_index": index, "_id": meta["_id"]}});
            let update = json!({"doc": source, "doc_as_upsert": true});
            made += &format!("{action}\n{update}\n");
            continue;
        }
        made += action;
        made.push('\n');
        if parsed["delete"].is_null() {
            made += lines.next().unwrap();
            made.push('\n');
        }
    }
    made.into()
}

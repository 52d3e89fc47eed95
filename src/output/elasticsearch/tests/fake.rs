//! In-memory Elasticsearch with injectable faults: the APIs that the output uses.
//!
//! Written from the documentation of Elasticsearch; shares no code with the output.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

/// What to do with the next request of a kind.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Answer with this status and do nothing.
    Refuse(u16),
    /// Answer 429 with a `Retry-After` of this many seconds.
    RetryAfter(u64),
    /// Carry it out, then break the connection in the middle of the answer.
    LoseAnswer,
    /// Break the connection, do nothing.
    Break,
    /// Carry it out, but answer later.
    Slow(Duration),
}

/// Turns single items away: (action, index, id, times it was seen) to (status, type).
pub(crate) type ItemFault = Box<dyn FnMut(&str, &str, &str, u64) -> Option<(u16, &'static str)> + Send>;
/// Called before a request is carried out, with its path: other writers can act there.
pub(crate) type Before = Box<dyn FnMut(&str, &mut Store) + Send>;

#[derive(Clone, Debug)]
pub(crate) struct Doc {
    pub(crate) source: Value,
    pub(crate) seq_no: u64,
    pub(crate) version: u64,
}

#[derive(Default)]
pub(crate) struct Store {
    pub(crate) docs: BTreeMap<(String, String), Doc>,
    next_seq_no: u64,
}

impl Store {
    pub(crate) fn put(&mut self, index: &str, id: &str, source: Value) {
        self.next_seq_no += 1;
        let version = self.get(index, id).map_or(1, |doc| doc.version + 1);
        let doc = Doc {
            source,
            seq_no: self.next_seq_no,
            version,
        };
        self.docs.insert((index.into(), id.into()), doc);
    }
    pub(crate) fn get(&self, index: &str, id: &str) -> Option<&Doc> {
        self.docs.get(&(index.to_owned(), id.to_owned()))
    }
    pub(crate) fn delete(&mut self, index: &str, id: &str) -> bool {
        self.next_seq_no += 1;
        self.docs.remove(&(index.to_owned(), id.to_owned())).is_some()
    }
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) bulk_faults: VecDeque<Fault>,
    pub(crate) mget_faults: VecDeque<Fault>,
    pub(crate) template_faults: VecDeque<Fault>,
    /// Refuses everything with this status.
    pub(crate) down: Option<u16>,
    pub(crate) item_fault: Option<ItemFault>,
    pub(crate) before: Option<Before>,
    pub(crate) longest_body: Option<usize>,
    /// Where lifecycle policies are kept, such as `/_ilm/policy/`; any other place does not exist.
    pub(crate) policies_at: &'static str,
    pub(crate) policies: BTreeMap<String, Value>,
    /// Indices that were made by hand, with their bodies.
    pub(crate) made: BTreeMap<String, Value>,
    /// A text: bulk requests that contain it are refused with this status, as by a firewall.
    pub(crate) poison: Option<(String, u16)>,
    /// State of the random delays, in milliseconds up to 3, before each request is carried out; 0
    /// for none.
    pub(crate) shuffle: u64,
    pub(crate) template: Option<Value>,
    pub(crate) bulks: u64,
    pub(crate) mgets: u64,
    pub(crate) under_way: u64,
    pub(crate) most_under_way: u64,
    /// Items of every bulk that was read, in order.
    pub(crate) sent: Vec<(String, String)>,
    pub(crate) authorization: Option<String>,
}

impl Inner {
    fn policy(&mut self, path: &str, put: bool, body: &[u8]) -> Value {
        let Some(name) = path
            .strip_prefix(self.policies_at)
            .filter(|_| !self.policies_at.is_empty())
        else {
            return json!({"error": "no handler found", "status": 400});
        };
        if put {
            self.policies
                .insert(name.to_owned(), serde_json::from_slice(body).unwrap());
            return json!({"acknowledged": true});
        }
        match self.policies.get(name) {
            Some(policy) => json!({name: policy}),
            None => json!({"error": "none", "status": 404}),
        }
    }

    /// The next random delay (xorshift64).
    fn delay(&mut self) -> Option<Duration> {
        self.shuffle ^= self.shuffle << 13;
        self.shuffle ^= self.shuffle >> 7;
        self.shuffle ^= self.shuffle << 17;
        (self.shuffle != 0).then(|| Duration::from_millis(self.shuffle % 4))
    }
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) url: String,
    inner: Arc<Mutex<Inner>>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::start_at(0).await
    }

    pub(crate) async fn start_at(port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Self {
            url,
            inner: Arc::default(),
        };
        let app = Router::new()
            .fallback(any)
            .layer(DefaultBodyLimit::disable())
            .with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        fake
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap())
    }

    pub(crate) fn documents(&self) -> BTreeMap<(String, String), Value> {
        self.with(|i| {
            i.store
                .docs
                .iter()
                .map(|(k, d)| (k.clone(), d.source.clone()))
                .collect()
        })
    }
}

async fn any(State(fake): State<Fake>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let gzip = head.headers.get("content-encoding").is_some_and(|v| v == "gzip");
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let fault = fake.with(|i| {
        i.authorization = head
            .headers
            .get("authorization")
            .map(|v| v.to_str().unwrap().to_owned());
        if let Some(status) = i.down {
            return Some(Fault::Refuse(status));
        }
        if path == "/_bulk" {
            i.bulks += 1;
            if i.longest_body.is_some_and(|most| body.len() > most) {
                return Some(Fault::Refuse(413));
            }
            if let Some((text, status)) = &i.poison
                && body.windows(text.len()).any(|window| window == text.as_bytes())
            {
                return Some(Fault::Refuse(*status));
            }
            i.bulk_faults.pop_front()
        } else if path == "/_mget" {
            i.mgets += 1;
            i.mget_faults.pop_front()
        } else if path.starts_with("/_index_template") && head.method == "PUT" {
            i.template_faults.pop_front()
        } else {
            None
        }
    });
    match fault {
        Some(Fault::Refuse(status)) => {
            let answer = json!({"error": {"type": "injected", "reason": "injected"}, "status": status});
            return (StatusCode::from_u16(status).unwrap(), answer.to_string()).into_response();
        }
        Some(Fault::RetryAfter(seconds)) => {
            return (
                StatusCode::TOO_MANY_REQUESTS,
                [("retry-after", seconds.to_string())],
                "{}",
            )
                .into_response();
        }
        Some(Fault::Break) => return broken(Bytes::new()),
        _ => {}
    }
    fake.with(|i| {
        i.under_way += 1;
        i.most_under_way = i.most_under_way.max(i.under_way);
    });
    if let Some(Fault::Slow(time)) = fault {
        tokio::time::sleep(time).await;
    } else if let Some(delay) = fake.with(Inner::delay) {
        tokio::time::sleep(delay).await;
    }
    let answer = fake.with(|i| {
        i.under_way -= 1;
        if let Some(mut before) = i.before.take() {
            before(&path, &mut i.store);
            i.before.get_or_insert(before);
        }
        match path.as_str() {
            "/_bulk" => bulk(i, &unpacked(&body, gzip)),
            "/_mget" => mget(i, &body, head.uri.query().unwrap_or("")),
            "/" => json!({"version": {"number": "8.18.8"}}),
            path if path.starts_with("/_index_template/_simulate_index")
                || head.method == "GET" && path.starts_with("/_index_template") =>
            {
                json!({})
            }
            path if path.starts_with("/_index_template") => {
                i.template = Some(serde_json::from_slice(&body).unwrap());
                json!({"acknowledged": true})
            }
            path if path.starts_with("/_resolve/") => json!({}),
            path if path.ends_with("/_mapping") => json!({"acknowledged": true}),
            path if path.starts_with("/_ilm/") || path.starts_with("/_plugins/") => {
                i.policy(path, head.method == "PUT", &body)
            }
            path if head.method == "HEAD" => {
                json!({"status": if i.made.contains_key(path) { 200 } else { 404 }})
            }
            path if head.method == "PUT" && !path.starts_with("/_") => {
                i.made
                    .insert(path.to_owned(), serde_json::from_slice(&body).unwrap());
                json!({"acknowledged": true})
            }
            path => panic!("the fake does not know {path}"),
        }
    });
    let text = Bytes::from(answer.to_string());
    if let Some(status) = answer["status"].as_u64() {
        return (StatusCode::from_u16(status as u16).unwrap(), text).into_response();
    }
    if let Some(Fault::LoseAnswer) = fault {
        return broken(text.slice(..text.len() / 2));
    }
    text.into_response()
}

fn broken(part: Bytes) -> Response {
    let parts = [Ok(part), Err(std::io::Error::other("injected"))];
    Body::from_stream(futures_util::stream::iter(parts)).into_response()
}

fn unpacked(body: &[u8], gzip: bool) -> Vec<u8> {
    use std::io::Read as _;
    let mut out = Vec::new();
    if gzip {
        flate2::bufread::MultiGzDecoder::new(body)
            .read_to_end(&mut out)
            .unwrap();
    } else {
        out.extend_from_slice(body);
    }
    out
}

fn bulk(i: &mut Inner, body: &[u8]) -> Value {
    assert_eq!(body.last(), Some(&b'\n'), "a bulk body ends with a newline");
    let mut lines = body[..body.len() - 1].split(|&b| b == b'\n');
    let mut items = Vec::new();
    let mut errors = false;
    while let Some(line) = lines.next() {
        let action: Value = serde_json::from_slice(line).unwrap();
        let (name, meta) = action.as_object().unwrap().iter().next().unwrap();
        let (index, id) = (meta["_index"].as_str().unwrap(), meta["_id"].as_str().unwrap());
        let source =
            (name != "delete").then(|| serde_json::from_slice::<Value>(lines.next().unwrap()).unwrap());
        let seen = i
            .sent
            .iter()
            .filter(|(sent, its)| sent == name && its == id)
            .count() as u64;
        i.sent.push((name.clone(), id.to_owned()));
        let refused = i
            .item_fault
            .as_mut()
            .and_then(|fault| fault(name, index, id, seen));
        let (status, kind) = refused.unwrap_or_else(|| apply(&mut i.store, name, meta, index, id, source));
        let mut item = json!({"status": status});
        if status >= 300 && kind != "not_found" {
            item["error"] = json!({"type": kind, "reason": format!("injected {kind}")});
        }
        errors |= status >= 300 && kind != "not_found";
        items.push(json!({name.as_str(): item}));
    }
    json!({"errors": errors, "took": 1, "items": items})
}

fn apply(
    store: &mut Store,
    name: &str,
    meta: &Value,
    index: &str,
    id: &str,
    source: Option<Value>,
) -> (u16, &'static str) {
    let there = store.get(index, id).cloned();
    if let Some(seq_no) = meta["if_seq_no"].as_u64() {
        assert_eq!(meta["if_primary_term"], 1);
        if there.as_ref().is_none_or(|doc| doc.seq_no != seq_no) {
            return (409, "version_conflict_engine_exception");
        }
    }
    match name {
        "create" if there.is_some() => (409, "version_conflict_engine_exception"),
        "delete" => {
            if store.delete(index, id) {
                (200, "")
            } else {
                (404, "not_found")
            }
        }
        _ => {
            store.put(index, id, source.unwrap());
            (if there.is_some() { 200 } else { 201 }, "")
        }
    }
}

fn mget(i: &Inner, body: &[u8], query: &str) -> Value {
    let wanted: Value = serde_json::from_slice(body).unwrap();
    let indices: Vec<&str> = i.store.docs.keys().map(|(index, _)| index.as_str()).collect();
    let one = |doc: &Value| {
        let (index, id) = (doc["_index"].as_str().unwrap(), doc["_id"].as_str().unwrap());
        match i.store.get(index, id) {
            Some(doc) => {
                let mut found = json!({"_index": index, "_id": id, "_version": doc.version, "_seq_no": doc.seq_no,
                    "_primary_term": 1, "found": true});
                if !query.contains("_source=false") {
                    found["_source"] = doc.source.clone();
                }
                found
            }
            None if !indices.contains(&index) => json!({"_index": index, "_id": id, "error": {
                "type": "index_not_found_exception", "reason": format!("no such index [{index}]"),
                "root_cause": [{"type": "index_not_found_exception"}]}}),
            None => json!({"_index": index, "_id": id, "found": false}),
        }
    };
    json!({"docs": wanted["docs"].as_array().unwrap().iter().map(one).collect::<Vec<_>>()})
}

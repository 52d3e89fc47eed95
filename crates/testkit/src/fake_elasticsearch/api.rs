//! HTTP API of the fake Elasticsearch: what a bulk writer and a simple reader ask. Everything else
//! is answered by the counting store.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get, post, put};
use serde_json::{Value, json};
use windrow_bench::store;

use super::answer::{answer, refusal};
use super::{Shared, Shares, bulk};

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/_cluster/health", get(health))
        .route("/_bulk", post(bulk::bulk).put(bulk::bulk))
        .route("/{index}/_bulk", post(bulk::bulk).put(bulk::bulk))
        .route("/_mget", any(mget))
        .route("/{index}/_mget", any(mget))
        .route("/{index}/_doc/{id}", get(one))
        .route("/{index}/_search", any(search))
        .route("/{index}/_count", any(count))
        .route("/_index_template/{name}", put(template).get(template_get))
        .fallback_service(store::router(Arc::default()))
        .layer(from_fn_with_state(Arc::clone(&shared), refuse_all))
        .layer(DefaultBodyLimit::disable())
        .with_state(shared)
}

/// Refuses everything but the root, when that is the fault.
async fn refuse_all(State(shared): Shares, request: Request, next: Next) -> Response {
    let status = match shared.state().faults.refuse_all {
        0 => None,
        status => StatusCode::from_u16(status).ok(),
    };
    match status {
        Some(status) if request.uri().path() != "/" => {
            shared.state().counts.faults += 1;
            refusal(status, "refused_exception")
        }
        _ => next.run(request).await,
    }
}

async fn health() -> Response {
    answer(
        StatusCode::OK,
        &json!({"cluster_name": "store", "status": "green", "timed_out": false}),
    )
}

async fn template(State(shared): Shares) -> Response {
    shared.state().counts.templates += 1;
    answer(StatusCode::OK, &json!({"acknowledged": true}))
}

async fn template_get(State(shared): Shares) -> Response {
    let there = shared.state().counts.templates > 0;
    let status = if there {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    };
    answer(status, &json!({"index_templates": []}))
}

async fn mget(State(shared): Shares, index: Option<Path<String>>, body: Bytes) -> Response {
    let Ok(wanted) = serde_json::from_slice::<Value>(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "parse_exception");
    };
    let index = index.map(|Path(index)| index).unwrap_or_default();
    let mut state = shared.state();
    state.counts.mgets += 1;
    let mut documents = Vec::new();
    for document in wanted["docs"].as_array().into_iter().flatten() {
        let index = document["_index"].as_str().unwrap_or(&index);
        documents.push(
            state
                .documents
                .look_up(index, document["_id"].as_str().unwrap_or_default()),
        );
    }
    for id in wanted["ids"].as_array().into_iter().flatten() {
        documents.push(state.documents.look_up(&index, id.as_str().unwrap_or_default()));
    }
    answer(StatusCode::OK, &json!({"docs": documents}))
}

async fn one(State(shared): Shares, Path((index, id)): Path<(String, String)>) -> Response {
    let document = shared.state().documents.look_up(&index, &id);
    let status = if document["found"] == true {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    };
    answer(status, &document)
}

/// The documents of an index pattern (`prefix*`) that match a `term` query on a top-level field,
/// newest first.
fn matching(shared: &Shared, pattern: &str, body: &[u8]) -> Vec<Value> {
    let wanted: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let term = wanted["query"]["term"]
        .as_object()
        .and_then(|term| term.iter().next());
    let mut hits: Vec<Value> = shared
        .state()
        .documents
        .matching(pattern.trim_end_matches('*'))
        .into_iter()
        .filter(|stored| pattern.ends_with('*') || stored.index == pattern)
        .filter(|stored| {
            term.is_none_or(|(field, value)| {
                let value = value.get("value").unwrap_or(value);
                stored.source.get(field.trim_end_matches(".keyword")) == Some(value)
            })
        })
        .map(|stored| json!({"_index": stored.index, "_id": stored.id, "_source": stored.source}))
        .collect();
    hits.sort_by(|a, b| {
        b["_source"]["@timestamp"]
            .as_str()
            .cmp(&a["_source"]["@timestamp"].as_str())
    });
    hits
}

async fn search(State(shared): Shares, Path(pattern): Path<String>, body: Bytes) -> Response {
    let mut hits = matching(&shared, &pattern, &body);
    let total = hits.len();
    let wanted: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    hits.truncate(
        wanted["size"]
            .as_u64()
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(10),
    );
    answer(
        StatusCode::OK,
        &json!({"took": 1, "timed_out": false, "hits": {"total": {"value": total, "relation": "eq"}, "hits": hits}}),
    )
}

async fn count(State(shared): Shares, Path(pattern): Path<String>, body: Bytes) -> Response {
    let count = matching(&shared, &pattern, &body).len();
    answer(StatusCode::OK, &json!({"count": count}))
}

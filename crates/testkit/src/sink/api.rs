//! The sink's HTTP side: the requests that a bulk writer and a simple reader make.

use std::io::Read;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::store::{Write, Written, failure};
use super::{Faults, Shared};

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", any(root))
        .route("/_cluster/health", get(health))
        .route("/_bulk", post(bulk).put(bulk))
        .route("/{index}/_bulk", post(bulk).put(bulk))
        .route("/_mget", any(mget))
        .route("/{index}/_mget", any(mget))
        .route("/{index}/_doc/{id}", get(one))
        .route("/{index}/_search", any(search))
        .route("/{index}/_count", any(count))
        .route("/_index_template/{name}", put(template).get(template_get))
        .fallback(any(other))
        .layer(DefaultBodyLimit::disable())
        .with_state(shared)
}

type Shares = State<Arc<Shared>>;

fn product(status: StatusCode, body: Value) -> Response {
    (status, [("x-elastic-product", "Elasticsearch")], Json(body)).into_response()
}

fn error(status: StatusCode, kind: &str) -> Response {
    product(
        status,
        json!({"error": {"type": kind, "reason": "as told"}, "status": status.as_u16()}),
    )
}

/// Ends the connection without another byte: the panic ends its task, and no hook prints it.
fn cut() -> ! {
    std::panic::resume_unwind(Box::new("the sink cuts the connection"))
}

/// The refusal of everything, when that is the fault.
fn refused(shared: &Shared) -> Option<Response> {
    let status = shared.state().faults.refuse_all;
    let status = StatusCode::from_u16(status).ok().filter(|_| status != 0)?;
    shared.state().counts.faults += 1;
    Some(error(status, "refused_exception"))
}

async fn root() -> Response {
    product(
        StatusCode::OK,
        json!({"name": "sink", "cluster_name": "sink", "cluster_uuid": "sink", "tagline": "You Know, for Search",
        "version": {"number": "8.18.8", "build_flavor": "default", "lucene_version": "9.12.1",
            "minimum_wire_compatibility_version": "7.17.0", "minimum_index_compatibility_version": "7.0.0"}}),
    )
}

async fn health(State(shared): Shares) -> Response {
    refused(&shared).unwrap_or_else(|| {
        product(
            StatusCode::OK,
            json!({"cluster_name": "sink", "status": "green", "timed_out": false}),
        )
    })
}

async fn other(State(shared): Shares) -> Response {
    refused(&shared).unwrap_or_else(|| product(StatusCode::OK, json!({"acknowledged": true})))
}

async fn template(State(shared): Shares) -> Response {
    if let Some(refusal) = refused(&shared) {
        return refusal;
    }
    shared.state().counts.templates += 1;
    product(StatusCode::OK, json!({"acknowledged": true}))
}

async fn template_get(State(shared): Shares) -> Response {
    let there = shared.state().counts.templates > 0;
    let status = if there {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    };
    product(status, json!({"index_templates": []}))
}

/// What happens to one bulk request as a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Take,
    Refuse(StatusCode, &'static str),
    DropBefore,
    LoseAnswer,
    CutAnswer,
}

fn fate(faults: &Faults, n: u64, bytes: u64) -> Fate {
    let every = |k: u64| k > 0 && n.is_multiple_of(k);
    if faults.limit_bytes > 0 && bytes > faults.limit_bytes {
        Fate::Refuse(StatusCode::PAYLOAD_TOO_LARGE, "content_too_long_exception")
    } else if every(faults.refuse_every) {
        Fate::Refuse(StatusCode::TOO_MANY_REQUESTS, "es_rejected_execution_exception")
    } else if every(faults.unavailable_every) {
        Fate::Refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable_shards_exception")
    } else if every(faults.drop_before_every) {
        Fate::DropBefore
    } else if every(faults.lose_answer_every) {
        Fate::LoseAnswer
    } else if every(faults.cut_answer_every) {
        Fate::CutAnswer
    } else {
        Fate::Take
    }
}

async fn bulk(
    State(shared): Shares,
    index: Option<Path<String>>,
    Query(query): Query<std::collections::HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(refusal) = refused(&shared) {
        return refusal;
    }
    let (delay, fate) = {
        let mut state = shared.state();
        state.counts.bulks += 1;
        state.since_faults.bulks += 1;
        let fate = fate(&state.faults, state.since_faults.bulks, body.len() as u64);
        state.counts.faults += u64::from(fate != Fate::Take);
        (state.faults.delay, fate)
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    match fate {
        Fate::Refuse(status, kind) => return error(status, kind),
        Fate::DropBefore => cut(),
        Fate::Take | Fate::LoseAnswer | Fate::CutAnswer => {}
    }
    let plain = if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| encoding == "gzip")
    {
        let mut plain = Vec::new();
        if flate2::read::MultiGzDecoder::new(&body[..])
            .read_to_end(&mut plain)
            .is_err()
        {
            return error(StatusCode::BAD_REQUEST, "not_gzip");
        }
        plain
    } else {
        body.to_vec()
    };
    let index = index.map(|Path(index)| index);
    let Some((items, errors)) = take(&shared, index.as_deref(), &plain) else {
        return error(StatusCode::BAD_REQUEST, "illegal_argument_exception");
    };
    if fate == Fate::LoseAnswer {
        cut();
    }
    let short = query
        .get("filter_path")
        .is_some_and(|wanted| !wanted.contains("items"));
    let answer = if short && !errors {
        json!({"took": 1, "errors": false})
    } else {
        json!({"took": 1, "errors": errors, "items": items})
    };
    if fate == Fate::CutAnswer {
        let text = answer.to_string();
        let half: String = text.chars().take(text.len() / 2).collect();
        return ([(header::CONTENT_TYPE, "application/json")], half).into_response();
    }
    product(StatusCode::OK, answer)
}

/// Applies a bulk body; `None` when it is malformed (as in Elasticsearch, what stood before it is done).
fn take(shared: &Shared, path_index: Option<&str>, text: &[u8]) -> Option<(Vec<Value>, bool)> {
    let mut rows = text.split(|byte| *byte == b'\n').filter(|row| !row.is_empty());
    let (mut items, mut errors) = (Vec::new(), false);
    while let Some(action) = rows.next() {
        let action: Value = serde_json::from_slice(action).ok()?;
        let (op, meta) = action.as_object()?.iter().next()?;
        let index = meta["_index"].as_str().or(path_index)?;
        let source = if op == "delete" { &[][..] } else { rows.next()? };
        let mut state = shared.state();
        state.counts.items += 1;
        state.since_faults.items += 1;
        let item = state.since_faults.items;
        let auto = format!("auto-{}", state.counts.items);
        let id = meta["_id"].as_str().unwrap_or(&auto);
        let write = Write {
            op,
            index,
            id,
            if_seq_no: meta["if_seq_no"].as_u64(),
            source,
        };
        let every = |k: u64| k > 0 && item.is_multiple_of(k);
        let fault = if every(state.faults.item_429_every) {
            Some(failure(&write, 429, "es_rejected_execution_exception", "as told"))
        } else if every(state.faults.item_503_every) {
            Some(failure(&write, 503, "unavailable_shards_exception", "as told"))
        } else if state
            .faults
            .poison
            .as_ref()
            .is_some_and(|poison| contains(source, poison.as_bytes()))
        {
            Some(failure(
                &write,
                400,
                "document_parsing_exception",
                "failed to parse field [poison] as told",
            ))
        } else {
            None
        };
        if let Some(answer) = fault {
            state.counts.faults += 1;
            errors = true;
            items.push(answer);
            continue;
        }
        items.push(match state.store.write(&write) {
            Written::Created(answer) => {
                state.counts.created += 1;
                answer
            }
            Written::Updated(answer) => {
                state.counts.updated += 1;
                answer
            }
            Written::Deleted(answer) => answer,
            Written::Conflict(answer) => {
                state.counts.conflicts += 1;
                errors = true;
                answer
            }
            Written::Malformed(answer) => {
                errors = true;
                answer
            }
        });
    }
    Some((items, errors))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len().max(1)).any(|window| window == part)
}

async fn mget(State(shared): Shares, index: Option<Path<String>>, body: Bytes) -> Response {
    if let Some(refusal) = refused(&shared) {
        return refusal;
    }
    let Ok(wanted) = serde_json::from_slice::<Value>(&body) else {
        return error(StatusCode::BAD_REQUEST, "parse_exception");
    };
    let index = index.map(|Path(index)| index).unwrap_or_default();
    let mut state = shared.state();
    state.counts.mgets += 1;
    let mut documents = Vec::new();
    for document in wanted["docs"].as_array().into_iter().flatten() {
        let index = document["_index"].as_str().unwrap_or(&index);
        documents.push(
            state
                .store
                .look_up(index, document["_id"].as_str().unwrap_or_default()),
        );
    }
    for id in wanted["ids"].as_array().into_iter().flatten() {
        documents.push(state.store.look_up(&index, id.as_str().unwrap_or_default()));
    }
    product(StatusCode::OK, json!({"docs": documents}))
}

async fn one(State(shared): Shares, Path((index, id)): Path<(String, String)>) -> Response {
    if let Some(refusal) = refused(&shared) {
        return refusal;
    }
    let document = shared.state().store.look_up(&index, &id);
    let status = if document["found"] == true {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    };
    product(status, document)
}

/// The documents of an index pattern (`prefix*`) that match a `term` query on a top-level field, newest first.
fn matching(shared: &Shared, pattern: &str, body: &[u8]) -> Vec<Value> {
    let wanted: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let term = wanted["query"]["term"]
        .as_object()
        .and_then(|term| term.iter().next());
    let mut hits: Vec<Value> = shared
        .state()
        .store
        .documents(pattern.trim_end_matches('*'))
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
    if let Some(refusal) = refused(&shared) {
        return refusal;
    }
    let mut hits = matching(&shared, &pattern, &body);
    let total = hits.len();
    let wanted: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    hits.truncate(
        wanted["size"]
            .as_u64()
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(10),
    );
    product(
        StatusCode::OK,
        json!({"took": 1, "timed_out": false, "hits": {"total": {"value": total, "relation": "eq"}, "hits": hits}}),
    )
}

async fn count(State(shared): Shares, Path(pattern): Path<String>, body: Bytes) -> Response {
    refused(&shared).unwrap_or_else(|| {
        product(
            StatusCode::OK,
            json!({"count": matching(&shared, &pattern, &body).len()}),
        )
    })
}

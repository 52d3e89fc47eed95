//! Bulk requests of the fake Elasticsearch, with the faults that are played on requests and on
//! items.

use std::io::Read;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::answer::{answer, refusal};
use super::documents::{BulkItem, ItemResult, failure};
use super::{Faults, Shared, Shares};

/// How much of a refused document its reason repeats.
const PREVIEW_CHARS: usize = 200;

/// Ends the connection without another byte: the panic ends its task, and no hook prints it.
fn cut() -> ! {
    std::panic::resume_unwind(Box::new("the connection is cut"))
}

/// Outcome of one bulk request as a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RequestOutcome {
    Store,
    Refuse(StatusCode, &'static str),
    DropBefore,
    LoseAnswer,
    CutAnswer,
}

fn outcome(faults: &Faults, n: u64, bytes: u64) -> RequestOutcome {
    let every = |k: u64| k > 0 && n.is_multiple_of(k);
    if faults.limit_bytes > 0 && bytes > faults.limit_bytes {
        RequestOutcome::Refuse(StatusCode::PAYLOAD_TOO_LARGE, "content_too_long_exception")
    } else if every(faults.refuse_every) {
        RequestOutcome::Refuse(StatusCode::TOO_MANY_REQUESTS, "es_rejected_execution_exception")
    } else if every(faults.unavailable_every) {
        RequestOutcome::Refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable_shards_exception")
    } else if every(faults.drop_before_every) {
        RequestOutcome::DropBefore
    } else if every(faults.lose_answer_every) {
        RequestOutcome::LoseAnswer
    } else if every(faults.cut_answer_every) {
        RequestOutcome::CutAnswer
    } else {
        RequestOutcome::Store
    }
}

/// `POST /_bulk` and `POST /{index}/_bulk`.
pub(super) async fn bulk(
    State(shared): Shares,
    index: Option<Path<String>>,
    Query(query): Query<std::collections::HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (delay, outcome) = {
        let mut state = shared.state();
        state.counts.bulks += 1;
        state.since_faults.bulks += 1;
        let outcome = outcome(&state.faults, state.since_faults.bulks, body.len() as u64);
        state.counts.faults += u64::from(outcome != RequestOutcome::Store);
        (state.faults.delay, outcome)
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    match outcome {
        RequestOutcome::Refuse(status, kind) => return refusal(status, kind),
        RequestOutcome::DropBefore => cut(),
        RequestOutcome::Store | RequestOutcome::LoseAnswer | RequestOutcome::CutAnswer => {}
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
            return refusal(StatusCode::BAD_REQUEST, "not_gzip");
        }
        plain
    } else {
        body.to_vec()
    };
    let index = index.map(|Path(index)| index);
    let Some((items, errors)) = apply(&shared, index.as_deref(), &plain) else {
        return refusal(StatusCode::BAD_REQUEST, "illegal_argument_exception");
    };
    if outcome == RequestOutcome::LoseAnswer {
        cut();
    }
    let short = query
        .get("filter_path")
        .is_some_and(|wanted| !wanted.contains("items"));
    let body = if short && !errors {
        json!({"took": 1, "errors": false})
    } else {
        json!({"took": 1, "errors": errors, "items": items})
    };
    if outcome == RequestOutcome::CutAnswer {
        let text = body.to_string();
        let half: String = text.chars().take(text.len() / 2).collect();
        return ([(header::CONTENT_TYPE, "application/json")], half).into_response();
    }
    answer(StatusCode::OK, &body)
}

/// Applies a bulk body; `None` when it is malformed; as in Elasticsearch, the items before the
/// fault are applied.
fn apply(shared: &Shared, path_index: Option<&str>, text: &[u8]) -> Option<(Vec<Value>, bool)> {
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
        let bulk_item = BulkItem {
            op,
            index,
            id,
            if_seq_no: meta["if_seq_no"].as_u64(),
            source,
        };
        let every = |k: u64| k > 0 && item.is_multiple_of(k);
        let fault = if every(state.faults.item_429_every) {
            Some(failure(
                &bulk_item,
                429,
                "es_rejected_execution_exception",
                "as told",
            ))
        } else if every(state.faults.item_503_every) {
            Some(failure(
                &bulk_item,
                503,
                "unavailable_shards_exception",
                "as told",
            ))
        } else if state
            .faults
            .poison
            .as_ref()
            .is_some_and(|poison| contains(source, poison.as_bytes()))
        {
            let preview = String::from_utf8_lossy(source);
            let preview: String = preview.chars().take(PREVIEW_CHARS).collect();
            Some(failure(
                &bulk_item,
                400,
                "document_parsing_exception",
                &format!("failed to parse field [poison]. Preview of field's value: '{preview}'"),
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
        items.push(match state.documents.apply(&bulk_item) {
            ItemResult::Created(answer) => {
                state.counts.created += 1;
                answer
            }
            ItemResult::Updated(answer) => {
                state.counts.updated += 1;
                answer
            }
            ItemResult::Deleted(answer) => answer,
            ItemResult::Conflict(answer) => {
                state.counts.conflicts += 1;
                errors = true;
                answer
            }
            ItemResult::Malformed(answer) => {
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

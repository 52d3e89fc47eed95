//! `/logs`: the newest documents, as one JSON array.
//!
//! Parameters: `traceId` (also `trace_id`, `trace.id`), `limit`, `token`. An unknown one is an
//! error, because a misspelt filter would show everything.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::answer::{Answer, MAX_ANSWER_BYTES};
use super::{AdminShared, problem};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
const ALLOWED: &str = "traceId=ID, limit=1..1000 (default 100), token=TOKEN";
/// Timeout of one search.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Header with the number of omitted documents.
const OMITTED_HEADER: &str = "windrow-left-out";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogsQuery {
    pub(super) trace_id: Option<String>,
    pub(super) limit: usize,
}

/// Answers with the newest documents first.
pub(super) async fn logs(State(shared): State<AdminShared>, uri: Uri) -> Response {
    let query = match parse(uri.query().unwrap_or_default()) {
        Ok(query) => query,
        Err(what) => return problem(StatusCode::BAD_REQUEST, &what, ALLOWED),
    };
    match find(&shared, &query).await {
        Ok(answer) => {
            let omitted = answer.omitted;
            let body = Body::new(answer.into_body());
            let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
            if omitted > 0 {
                response.headers_mut().insert(OMITTED_HEADER, omitted.into());
            }
            response
        }
        Err((status, what)) => problem(status, &what, ""),
    }
}

/// Searches the store, with limits on memory and time.
pub(super) async fn find(shared: &AdminShared, query: &LogsQuery) -> Result<Answer, (StatusCode, String)> {
    let Some(store) = &shared.state.store else {
        let what = "no output keeps documents; add --output sqlite or --output elasticsearch";
        return Err((StatusCode::NOT_IMPLEMENTED, what.into()));
    };
    let Some(reservation) = shared.budget.reserve().await else {
        let what = "the memory for answers is in use: other clients are still reading theirs; ask again";
        return Err((StatusCode::SERVICE_UNAVAILABLE, what.into()));
    };
    let search = store.recent(query.trace_id.as_deref(), query.limit, MAX_ANSWER_BYTES);
    match tokio::time::timeout(SEARCH_TIMEOUT, search).await {
        Ok(Ok(found)) => Ok(Answer::new(found.documents, found.omitted, reservation)),
        Ok(Err(what)) => Err((StatusCode::SERVICE_UNAVAILABLE, what)),
        Err(_elapsed) => {
            let what = format!("no answer from the store within {} s", SEARCH_TIMEOUT.as_secs());
            Err((StatusCode::GATEWAY_TIMEOUT, what))
        }
    }
}

pub(super) fn parse(query: &str) -> Result<LogsQuery, String> {
    let mut parsed = LogsQuery {
        trace_id: None,
        limit: DEFAULT_LIMIT,
    };
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "traceId" | "trace_id" | "trace.id" => {
                if value.is_empty() {
                    return Err(format!("{name} is empty"));
                }
                parsed.trace_id = Some(value.into_owned());
            }
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                parsed.limit = limit
                    .ok_or_else(|| format!("limit={value} is not a whole number from 1 to {MAX_LIMIT}"))?;
            }
            "token" => {}
            _ => return Err(format!("unknown parameter {name:?}")),
        }
    }
    Ok(parsed)
}

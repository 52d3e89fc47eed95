//! `/api/v1/open`: the traces that are being gathered.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::AdminShared;
use super::api::error;
use crate::gather::OpenTraces;

/// Time in which the gathering thread must answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Answers with the open traces.
pub(super) async fn open(State(shared): State<AdminShared>) -> Response {
    let Some(probe) = &shared.state.open_traces else {
        return error(StatusCode::NOT_IMPLEMENTED, "nothing is gathered here");
    };
    let Some(answer) = probe.request() else {
        let what = "too many requests wait for the open traces";
        return error(StatusCode::SERVICE_UNAVAILABLE, what);
    };
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(Ok(open)) => Json(body(&open)).into_response(),
        Ok(Err(_)) => error(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"),
        Err(_) => {
            let what = "gathering waits for an output; /ready has the reason";
            error(StatusCode::SERVICE_UNAVAILABLE, what)
        }
    }
}

fn body(open: &OpenTraces) -> serde_json::Value {
    let since = |then: i64| open.now.saturating_sub(then).max(0) / 1000;
    let traces: Vec<_> = open
        .traces
        .iter()
        .map(|trace| {
            json!({
                "id": String::from_utf8_lossy(&trace.id),
                "ageMs": since(trace.opened_at),
                "idleMs": since(trace.last_seen),
                "lines": trace.lines,
                "completed": trace.is_complete,
                "text": String::from_utf8_lossy(&trace.text),
            })
        })
        .collect();
    json!({ "total": open.total, "lines": open.lines, "traces": traces })
}

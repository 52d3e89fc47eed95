//! Answers of the fake Elasticsearch: JSON, and errors in Elasticsearch's form.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use windrow_bench::store::respond;

/// An answer as JSON.
pub(super) fn answer(status: StatusCode, body: &Value) -> Response {
    respond(status, body.to_string())
}

/// An error in Elasticsearch's form.
pub(super) fn refusal(status: StatusCode, kind: &str) -> Response {
    answer(
        status,
        &json!({"error": {"type": kind, "reason": "as told"}, "status": status.as_u16()}),
    )
}

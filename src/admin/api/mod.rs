//! Search API, version 1: traces, histogram, facets, and their description.
//!
//! Owns the paths, the parameters and the form of answers and errors. What is searched is behind
//! [`TraceSearch`](crate::search::TraceSearch). `openapi.json` describes everything; a test compares
//! it with the handlers.
//!
//! An error is `{"error":{"message":"…","key":"PARAMETER","at":0,"length":0}}`; `at` and `length`
//! are bytes of `q`.

mod parameters;
#[cfg(test)]
pub(super) mod tests;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};
use windrow_query::QueryError;

use super::AdminShared;
use crate::search::{SearchError, TraceSearch};

/// The description of this API.
const OPENAPI: &str = include_str!("openapi.json");

/// Time for a search.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);

/// The routes; all of them show log content.
pub(super) fn routes() -> Router<AdminShared> {
    Router::new()
        .route("/api/v1/traces", get(traces::page))
        .route("/api/v1/traces/{id}", get(traces::trace))
        .route("/api/v1/histogram", get(traces::histogram))
        .route("/api/v1/facets", get(traces::facets))
        .route("/api/v1/openapi.json", get(openapi))
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// An error of the API.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
    key: Option<&'static str>,
    place: Option<(usize, usize)>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            key: None,
            place: None,
        }
    }

    /// A parameter is wrong.
    pub(super) fn parameter(key: &'static str, message: impl Into<String>) -> Self {
        Self {
            key: Some(key),
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }
}

/// The response to an error outside of the search.
pub(super) fn error(status: StatusCode, message: impl Into<String>) -> Response {
    ApiError::new(status, message).into_response()
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self {
            place: Some((error.at, error.length)),
            ..Self::parameter("q", error.message)
        }
    }
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Unavailable(message) => Self::new(StatusCode::SERVICE_UNAVAILABLE, message),
            SearchError::Invalid { key, message } => Self::parameter(key, message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut error = Map::new();
        error.insert("message".into(), self.message.into());
        if let Some(key) = self.key {
            error.insert("key".into(), key.into());
        }
        if let Some((at, length)) = self.place {
            error.insert("at".into(), at.into());
            error.insert("length".into(), length.into());
        }
        (self.status, axum::Json(json!({ "error": Value::Object(error) }))).into_response()
    }
}

/// The store to search.
fn search_of(shared: &AdminShared) -> Result<Arc<dyn TraceSearch>, ApiError> {
    shared.state.search.clone().ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "no output can be searched; add --output sqlite or --output elasticsearch, and leave sqlite.search on",
        )
    })
}

/// The result of a search, within its time.
async fn in_time<T>(search: impl Future<Output = Result<T, SearchError>>) -> Result<T, ApiError> {
    match tokio::time::timeout(SEARCH_TIMEOUT, search).await {
        Ok(result) => Ok(result?),
        Err(_elapsed) => Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "no answer from the store within {} s; search a shorter time or for rarer words",
                SEARCH_TIMEOUT.as_secs()
            ),
        )),
    }
}

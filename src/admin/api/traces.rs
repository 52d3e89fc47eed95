//! Handlers of the search API.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use windrow_query::{Document, Names, Query};

use super::parameters::Parameters;
use super::{AdminShared, ApiError, in_time, search_of};
use crate::admin::answer::{MAX_ANSWER_BYTES, Reservation, json_body};
use crate::runtime;
use crate::search::summary::{lines_of, rfc3339};
use crate::search::{Buckets, FoundDocument, TraceSummary};

/// Memory for one summary while it is read and written, bytes.
const SUMMARY_BYTES: usize = 8 << 10;
/// Memory for a histogram or for facets, bytes.
const COUNTS_BYTES: usize = 256 << 10;
/// Documents of an answer, bytes: their lines take as much again, and their text is parsed.
const MAX_DOCUMENT_BYTES: usize = MAX_ANSWER_BYTES / 3;
/// Longer documents are taken apart while another thread serves the sockets.
const LONG_DOCUMENT_BYTES: usize = 64 << 10;

/// `GET /api/v1/traces`
pub(super) async fn page(State(shared): State<AdminShared>, uri: Uri) -> Result<Response, ApiError> {
    let allowed = ["q", "from", "to", "limit", "cursor", "sort"];
    let request = Parameters::read(uri.query().unwrap_or_default(), &allowed)?.page()?;
    let search = search_of(&shared)?;
    let memory = reserve(&shared, request.limit * SUMMARY_BYTES).await?;
    let page = in_time(search.page(request)).await?;
    answer(&page, memory)
}

/// `GET /api/v1/histogram`
pub(super) async fn histogram(State(shared): State<AdminShared>, uri: Uri) -> Result<Response, ApiError> {
    let parameters = Parameters::read(uri.query().unwrap_or_default(), &["q", "from", "to", "buckets"])?;
    let (selection, from, to) = parameters.period()?;
    let buckets = Buckets::covering(from, to, parameters.buckets()?);
    let search = search_of(&shared)?;
    let memory = reserve(&shared, COUNTS_BYTES).await?;
    // Times of the query may leave nothing.
    let histogram = if selection.from_ms <= selection.to_ms {
        in_time(search.histogram(selection, buckets)).await?
    } else {
        crate::search::Histogram::default()
    };
    let time = |ms: i64| rfc3339(ms.saturating_mul(1_000_000));
    let none = std::collections::BTreeMap::new();
    let counts: Vec<_> = buckets
        .starts()
        .map(|start| json!({"time": time(start), "counts": histogram.counts.get(&start).unwrap_or(&none)}))
        .collect();
    let mut body =
        json!({"from": time(from), "to": time(to), "bucketMs": buckets.width_ms, "buckets": counts});
    if histogram.partial {
        body["partial"] = true.into();
    }
    answer(&body, memory)
}

/// `GET /api/v1/facets`
pub(super) async fn facets(State(shared): State<AdminShared>, uri: Uri) -> Result<Response, ApiError> {
    let selection = Parameters::read(uri.query().unwrap_or_default(), &["q", "from", "to"])?.selection()?;
    let search = search_of(&shared)?;
    let memory = reserve(&shared, COUNTS_BYTES).await?;
    let facets = in_time(search.facets(selection)).await?;
    answer(&facets, memory)
}

/// `GET /api/v1/traces/{id}`
pub(super) async fn trace(
    State(shared): State<AdminShared>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    Parameters::read(uri.query().unwrap_or_default(), &[])?;
    let search = search_of(&shared)?;
    let memory = reserve(&shared, MAX_ANSWER_BYTES).await?;
    let documents = in_time(search.documents(id.clone(), MAX_DOCUMENT_BYTES)).await?;
    if documents.is_empty() {
        let message =
            format!("there is no trace {id:?}; it may not be complete yet, or retention has deleted it");
        return Err(ApiError::new(StatusCode::NOT_FOUND, message));
    }
    let bytes: usize = documents.iter().map(|found| found.json.get().len()).sum();
    let names = shared.state.names.clone();
    let parts = if bytes > LONG_DOCUMENT_BYTES {
        runtime::block_in_place(|| trace_parts(&id, documents, &names))
    } else {
        trace_parts(&id, documents, &names)
    };
    Ok(json_response(parts?, memory))
}

/// The answer in pieces, of which the documents are not copied.
fn trace_parts(id: &str, documents: Vec<FoundDocument>, names: &Names) -> Result<Vec<Box<str>>, ApiError> {
    let everything = Query::parse("", 0)?;
    let mut parts: Vec<Box<str>> = vec![format!("{{\"id\":{},\"traces\":[", text(&id)?).into()];
    for (n, found) in documents.into_iter().enumerate() {
        let json = found.json.get();
        let document = Document::parse(&found.id, json.as_bytes(), names).ok_or_else(|| {
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the stored document is no JSON object",
            )
        })?;
        let summary = TraceSummary::of(&document, found.index.clone(), &everything);
        drop(document);
        let lines = lines_of(json.as_bytes(), summary.truncated > 0);
        let comma = if n == 0 { "" } else { "," };
        parts.push(
            format!(
                "{comma}{{\"index\":{},\"summary\":{},\"lines\":{},\"document\":",
                text(&found.index)?,
                text(&summary)?,
                text(&lines)?
            )
            .into(),
        );
        parts.push(Box::<str>::from(found.json));
        parts.push("}".into());
    }
    parts.push("]}\n".into());
    Ok(parts)
}

async fn reserve(shared: &AdminShared, bytes: usize) -> Result<Reservation, ApiError> {
    shared.budget.reserve_bytes(bytes).await.ok_or_else(|| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the memory for answers is in use: other clients are still reading theirs; ask again",
        )
    })
}

fn answer(value: &impl serde::Serialize, memory: Reservation) -> Result<Response, ApiError> {
    Ok(json_response(vec![text(value)?.into(), "\n".into()], memory))
}

fn json_response(parts: Vec<Box<str>>, memory: Reservation) -> Response {
    let body = Body::new(json_body(parts, memory));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn text(value: &impl serde::Serialize) -> Result<String, ApiError> {
    serde_json::to_string(value)
        .map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

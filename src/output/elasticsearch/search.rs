//! Search for the newest documents, for `/logs`.
//!
//! Returns documents as they are stored.

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::Client;
use super::http::Request;
use crate::output::MAX_ID_BYTES;

/// Most documents of one search: Elasticsearch's `index.max_result_window`.
const MAX_DOCUMENTS: usize = 10_000;

/// A longer response is an error.
const MAX_RESPONSE_BYTES: u64 = 32 << 20;

/// The newest documents by `@timestamp`, of one trace or of all. A document is found at the index's
/// next refresh (1 s by default) after it was written.
///
/// # Errors
/// A message for the reader: Elasticsearch is down, refuses, or its response cannot be read.
pub(crate) async fn recent(
    client: &Client,
    trace_id: Option<&str>,
    limit: usize,
) -> Result<Vec<Box<RawValue>>, String> {
    let query = trace_id.map_or_else(|| json!({"match_all": {}}), by_trace_id);
    let body = json!({
        "size": limit.min(MAX_DOCUMENTS),
        "query": query,
        "sort": [{"@timestamp": {"order": "desc", "unmapped_type": "date"}}],
        "track_total_hits": false,
    });
    let response = send(client, &body).await?;
    let wire: SearchWire =
        serde_json::from_slice(&response).map_err(|e| format!("unreadable search response: {e}"))?;
    Ok(wire.hits.hits.into_iter().map(|hit| hit.source).collect())
}

/// The query for the document of a trace and its continuations.
pub(super) fn by_trace_id(id: &str) -> Value {
    // `_id` is exact whatever the mapping; a trace id over 512 bytes is hashed there and found by its
    // field.
    if id.len() <= MAX_ID_BYTES {
        json!({"bool": {"should": [
            {"ids": {"values": [id]}},
            {"term": {"windrow.continues": id}},
            {"term": {"windrow.continues.keyword": id}},
        ]}})
    } else {
        let names = ["traceId", "trace_id", "trace.id"];
        json!({"bool": {"should": names.map(|name| json!({"term": {name: id}}))}})
    }
}

/// Sends a search to all indices, and returns the body of its response.
pub(crate) async fn send(client: &Client, body: &Value) -> Result<Bytes, String> {
    let path = format!("/{}/_search", client.search_patterns());
    let mut request = Request::json(Method::POST, path, body.to_string());
    request.query = &[("ignore_unavailable", "true"), ("allow_no_indices", "true")];
    request.max_response_bytes = MAX_RESPONSE_BYTES;
    let response = client.ask(&request).await.and_then(|response| response.success());
    response.map_err(|error| error.reason().to_owned())
}

#[derive(Deserialize)]
struct SearchWire {
    hits: SearchWireHits,
}

#[derive(Deserialize)]
struct SearchWireHits {
    hits: Vec<SearchWireHit>,
}

#[derive(Deserialize)]
struct SearchWireHit {
    #[serde(rename = "_source")]
    source: Box<RawValue>,
}

//! Reader of the documents of given traces, from Windrow's admin API or from Elasticsearch.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use reqwest::Url;
use serde_json::{Value, json};

use crate::{
    Error,
    client::{chain, direct_client, parse_url},
};

/// Source of the documents.
#[derive(Debug)]
pub(super) struct Source {
    client: reqwest::Client,
    url: Url,
    elasticsearch: bool,
}

impl Source {
    /// Windrow's `/logs`.
    pub(super) fn windrow(admin: &str) -> Result<Self, Error> {
        let url = parse_url("the address of Windrow", &format!("{admin}/logs"))?;
        Ok(Self {
            client: direct_client(READ_TIMEOUT)?,
            url,
            elasticsearch: false,
        })
    }

    /// The indices `requests-*` of an Elasticsearch.
    pub(super) fn elasticsearch(base: &str) -> Result<Self, Error> {
        let address = format!("{}/requests-*/_search", base.trim_end_matches('/'));
        let url = parse_url("--elasticsearch-url", &address)?;
        Ok(Self {
            client: direct_client(READ_TIMEOUT)?,
            url,
            elasticsearch: true,
        })
    }

    /// The documents of each of the traces, where there are any.
    pub(super) async fn look(&self, traces: &[&str]) -> Result<HashMap<String, Vec<Value>>, String> {
        if traces.is_empty() {
            return Ok(HashMap::new());
        }
        if self.elasticsearch {
            self.search(traces).await
        } else {
            self.logs(traces).await
        }
    }

    /// The traces that a search for `windrow.level:error` finds, once the index has all documents.
    pub(super) async fn with_errors(&self) -> Result<Vec<String>, String> {
        if self.elasticsearch {
            let query = json!({"size": 1000, "query": {"term": {"windrow.level": "error"}}});
            return Ok(texts(&self.hits(&query).await?, "traceId"));
        }
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        let since = Instant::now();
        loop {
            let mut url = self
                .url
                .join("api/v1/traces")
                .map_err(|error| error.to_string())?;
            url.query_pairs_mut()
                .append_pair("q", "windrow.level:error")
                .append_pair("limit", "500")
                .extend_pairs(cursor.iter().map(|cursor| ("cursor", cursor)));
            let page = read(self.client.get(url)).await?;
            let is_behind = page.pointer("/lag/documents").and_then(Value::as_u64) > Some(0);
            if is_behind && since.elapsed() < INDEX_TIMEOUT {
                tokio::time::sleep(INDEX_POLL).await;
                continue;
            }
            let traces = page["traces"].as_array().ok_or("the answer has no traces")?;
            found.extend(texts(traces, "id"));
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return Ok(found);
            }
        }
    }

    async fn logs(&self, traces: &[&str]) -> Result<HashMap<String, Vec<Value>>, String> {
        let mut found = HashMap::new();
        for trace in traces {
            let mut url = self.url.clone();
            url.query_pairs_mut()
                .append_pair("traceId", trace)
                .append_pair("limit", "10");
            let answer = read(self.client.get(url)).await?;
            let documents = answer.as_array().ok_or("the answer of /logs is no array")?;
            if !documents.is_empty() {
                found.insert((*trace).to_owned(), documents.clone());
            }
        }
        Ok(found)
    }

    async fn search(&self, traces: &[&str]) -> Result<HashMap<String, Vec<Value>>, String> {
        let mut found: HashMap<String, Vec<Value>> = HashMap::new();
        for some in traces.chunks(500) {
            let query = json!({"size": 2 * some.len(), "query": {"terms": {"traceId.keyword": some}}});
            for document in self.hits(&query).await? {
                if let Some(trace) = document.get("traceId").and_then(Value::as_str) {
                    found.entry(trace.to_owned()).or_default().push(document);
                }
            }
        }
        Ok(found)
    }

    /// The documents that a search finds.
    async fn hits(&self, query: &Value) -> Result<Vec<Value>, String> {
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json");
        let answer = read(request.body(query.to_string())).await?;
        let hits = answer
            .pointer("/hits/hits")
            .and_then(Value::as_array)
            .ok_or("the answer has no hits")?;
        Ok(hits
            .iter()
            .filter_map(|hit| hit.get("_source").cloned())
            .collect())
    }
}

async fn read(request: reqwest::RequestBuilder) -> Result<Value, String> {
    let answer = request
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|e| chain(&e))?;
    let body = answer.bytes().await.map_err(|e| chain(&e))?;
    serde_json::from_slice(&body).map_err(|error| format!("the answer is not JSON: {error}"))
}

/// The lines of a document's text.
pub(super) fn lines(document: &Value) -> Vec<&str> {
    document
        .get("message")
        .and_then(Value::as_str)
        .map(|text| text.split('\n').collect())
        .unwrap_or_default()
}

/// The document for people, without the server's own state.
pub(super) fn pretty(document: &Value) -> String {
    let mut shown = document.clone();
    if let Some(own) = shown.get_mut("windrow").and_then(Value::as_object_mut) {
        own.retain(|key, _| !matches!(key.as_str(), "state" | "ids"));
    }
    serde_json::to_string_pretty(&shown).unwrap_or_default()
}

const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The values of a field with a text.
fn texts(found: &[Value], field: &str) -> Vec<String> {
    let texts = found.iter().filter_map(|found| found[field].as_str());
    texts.map(str::to_owned).collect()
}

/// Time in which the index of the search must have all documents.
const INDEX_TIMEOUT: Duration = Duration::from_secs(10);
const INDEX_POLL: Duration = Duration::from_millis(100);

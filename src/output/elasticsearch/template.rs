//! Index template: the mapping of Windrow's documents, and its installation at the start.
//!
//! Trace ids are keywords, under their own name and under `.keyword`, so that a query written for a
//! default mapping works. `message` is text. `windrow.state` is kept in the source only: an object
//! with `enabled: false` is not parsed, whatever its value and length. Date detection is off: a
//! field that looks like a date once would reject every later value that does not. All else is
//! dynamic mapping.

use std::time::Duration;

use bytes::Bytes;
use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::backoff::full_jitter;
use super::client::Client;
use super::health::{OutputHealth, WaitReason};
use super::nodes::Request;
use super::outcome::RequestError;
use crate::config::IndexTemplate;

/// Above Elasticsearch's built-in templates for `logs-*-*` and similar patterns, which have 100.
const TEMPLATE_PRIORITY: u32 = 200;

/// Result of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InstallResult {
    /// It is installed.
    Done,
    /// It is not allowed or not possible; documents are written without it. The reason.
    Impossible(String),
    /// To be retried; the reason.
    Retry(String),
}

/// The body of `PUT _index_template`.
pub(crate) fn body(template: &IndexTemplate, index_pattern: &str) -> Value {
    let keyword = json!({"type": "keyword", "ignore_above": 1024});
    let both = json!({"type": "keyword", "ignore_above": 1024, "fields": {"keyword": keyword}});
    let mut settings = serde_json::Map::new();
    if let Some(shards) = template.shards {
        settings.insert("index.number_of_shards".into(), shards.into());
    }
    if let Some(replicas) = template.replicas {
        settings.insert("index.number_of_replicas".into(), replicas.into());
    }
    if template.ignore_malformed {
        settings.insert("index.mapping.ignore_malformed".into(), true.into());
    }
    json!({
        "index_patterns": [index_pattern],
        "priority": TEMPLATE_PRIORITY,
        "_meta": {"description": "one document per trace, written by Windrow"},
        "template": {
            "settings": settings,
            "mappings": {
                "date_detection": false,
                "properties": {
                    "@timestamp": {"type": "date"},
                    "traceId": both,
                    "trace_id": both,
                    "message": {"type": "text"},
                    "windrow": {"properties": {
                        "reason": {"type": "keyword"},
                        "lines": {"type": "long"},
                        "last": {"type": "date"},
                        "durationMs": {"type": "double"},
                        "tags": {"type": "keyword"},
                        "parts": {"type": "long"},
                        "late": {"type": "long"},
                        "level": {"type": "keyword"},
                        "services": {"type": "keyword"},
                        "truncated": {"type": "long"},
                        "state": {"type": "object", "enabled": false},
                    }},
                },
            },
        },
    })
}

/// Attempts to install the template once.
pub(crate) async fn install(client: &Client, template: &IndexTemplate) -> InstallResult {
    let text = body(template, &client.indices.wildcard()).to_string();
    let request = Request::json(
        Method::Put,
        format!("/_index_template/{}", template.name),
        Bytes::from(text),
    );
    match client.ask(&request).await.and_then(|response| response.success()) {
        Ok(_) => InstallResult::Done,
        // Wrong credentials block writing too; without the privilege for templates, writing may
        // still be allowed.
        Err(RequestError::Denied(reason)) if reason.starts_with("status 401") => InstallResult::Retry(reason),
        Err(error @ (RequestError::Denied(_) | RequestError::Malformed(_) | RequestError::Unexpected(_))) => {
            InstallResult::Impossible(error.reason().to_owned())
        }
        Err(error) => InstallResult::Retry(error.reason().to_owned()),
    }
}

/// Installs the template, with retries, until it is installed or known to be impossible.
pub(crate) async fn install_with_retries(
    client: &Client,
    template: &IndexTemplate,
    health: &OutputHealth,
    base: Duration,
    cap: Duration,
) {
    for attempt in 0.. {
        match install(client, template).await {
            InstallResult::Done => {
                tracing::info!(template = %template.name, "index template installed");
                break;
            }
            InstallResult::Impossible(reason) => {
                tracing::warn!(
                    template = %template.name, %reason,
                    "the index template cannot be installed; new indices get dynamic mapping"
                );
                break;
            }
            InstallResult::Retry(reason) => {
                health.set(
                    WaitReason::Template,
                    format!("the index template cannot be installed yet: {reason}"),
                );
                let pause = full_jitter(base, cap, attempt);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = client.nodes.revived.notified() => {}
                }
            }
        }
    }
    health.clear(WaitReason::Template);
}

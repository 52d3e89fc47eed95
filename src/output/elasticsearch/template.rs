//! The index template: what the fields of our documents are. Owns its text and its installation at start.
//!
//! Trace ids are keywords, under their own name and under `.keyword`, so that a query written for a default mapping
//! works. `message` is text. `windrow.state` is kept in the source only: an object with `enabled: false` is not parsed,
//! whatever its value and length. Dates are not guessed from strings: a field that looks like a date once
//! would turn away every later value that does not. All else is Elasticsearch's own dynamic mapping.

use bytes::Bytes;
use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::health::{Health, WaitReason};
use super::nodes::Request;
use super::outcome::RequestError;
use crate::config::IndexTemplate;

/// Above the templates that Elasticsearch brings along for `logs-*-*` and the like (100).
const TEMPLATE_PRIORITY: u32 = 200;

/// What came of the installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Installed {
    /// It is there.
    Yes,
    /// It is not allowed or not possible; writing goes on without it.
    No(String),
    /// Not now.
    Later(String),
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
                        "truncated": {"type": "long"},
                        "state": {"type": "object", "enabled": false},
                    }},
                },
            },
        },
    })
}

/// Tries to install the template once.
pub(crate) async fn install(client: &Client, template: &IndexTemplate) -> Installed {
    let text = body(template, &client.indices.wildcard()).to_string();
    let request = Request::json(
        Method::Put,
        format!("/_index_template/{}", template.name),
        Bytes::from(text),
    );
    match client.ask(&request).await.and_then(|reply| reply.success()) {
        Ok(_) => Installed::Yes,
        // Wrong credentials are waited for, a missing privilege is not: writing may be all that is allowed.
        Err(RequestError::Denied(reason)) if reason.starts_with("status 401") => Installed::Later(reason),
        Err(
            problem @ (RequestError::Denied(_) | RequestError::Malformed(_) | RequestError::Unexpected(_)),
        ) => Installed::No(problem.reason().to_owned()),
        Err(problem) => Installed::Later(problem.reason().to_owned()),
    }
}

/// Installs the template, however long it takes, or finds out that it is not possible.
pub(crate) async fn install_at_last(
    client: &Client,
    template: &IndexTemplate,
    health: &Health,
    base: std::time::Duration,
    cap: std::time::Duration,
) {
    for n in 0.. {
        match install(client, template).await {
            Installed::Yes => {
                tracing::info!(template = %template.name, "index template installed");
                break;
            }
            Installed::No(reason) => {
                tracing::warn!(
                    template = %template.name, %reason,
                    "the index template cannot be installed; new indices get Elasticsearch's own mapping"
                );
                break;
            }
            Installed::Later(reason) => {
                health.set(
                    WaitReason::Template,
                    format!("the index template cannot be installed yet: {reason}"),
                );
                let pause = super::backoff::full_jitter(base, cap, n);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = client.nodes.revived.notified() => {}
                }
            }
        }
    }
    health.clear(WaitReason::Template);
}

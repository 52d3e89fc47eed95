//! Index template: the mapping of Windrow's documents, and its installation at the start.
//!
//! Trace ids are keywords, under their own name and under `.keyword`, so that a query written for a
//! default mapping works. The text is text. `windrow.state` is kept in the source only: an object
//! with `enabled: false` is not parsed, whatever its value and length. Date detection is off: a
//! field that looks like a date once would reject every later value that does not. Labels and
//! annotations are one field each, whose keys are no paths. All else is dynamic mapping.

use std::time::Duration;

use bytes::Bytes;
use elasticsearch::http::Method;
use serde_json::{Map, Value, json};
use windrow_trace::{DocumentSchema, Severity};

use super::backoff::full_jitter;
use super::client::Client;
use super::health::{OutputHealth, WaitReason};
use super::nodes::{Request, Response};
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

/// Longest label that is searched, characters: a term has at most 32,766 bytes.
const LABEL_IGNORE_ABOVE: u32 = 4096;

/// The type of fields whose keys are no paths in Elasticsearch, and in OpenSearch.
pub(crate) fn flattened_types() -> [Value; 2] {
    [
        json!({"type": "flattened", "ignore_above": LABEL_IGNORE_ABOVE}),
        json!({"type": "flat_object"}),
    ]
}

/// Dynamic templates: objects of the names that `windrow-trace` takes for labels and annotations
/// are of the type `flattened`, at any depth. As dynamic templates and not as properties, so that
/// an index has only those that occur, and a text of such a name is one.
pub(crate) fn dynamic_templates(flattened: &Value) -> Value {
    let named =
        |pattern: &str| json!({"match": pattern, "match_mapping_type": "object", "mapping": flattened});
    json!([
        {"labels": named("labels")},
        {"annotations": named("annotations")},
        {"other_labels": named("*_labels")},
        {"other_annotations": named("*_annotations")},
    ])
}

/// The body of `PUT _index_template`.
pub(crate) fn body(template: &IndexTemplate, index_pattern: &str, flattened: &Value) -> Value {
    let keyword = json!({"type": "keyword", "ignore_above": 1024});
    let both = json!({"type": "keyword", "ignore_above": 1024, "fields": {"keyword": keyword}});
    let mut settings = Map::new();
    if let Some(shards) = template.shards {
        settings.insert("index.number_of_shards".into(), shards.into());
    }
    if let Some(replicas) = template.replicas {
        settings.insert("index.number_of_replicas".into(), replicas.into());
    }
    if template.ignore_malformed {
        settings.insert("index.mapping.ignore_malformed".into(), true.into());
    }
    let mut body = json!({
        "index_patterns": [index_pattern],
        "priority": TEMPLATE_PRIORITY,
        "_meta": {"description": "one document per trace, written by Windrow"},
        "template": {
            "settings": settings,
            "mappings": {
                "date_detection": false,
                "dynamic_templates": dynamic_templates(flattened),
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
                        "level": {"type": "keyword"},
                        "levels": {"properties": levels()},
                        "services": {"type": "keyword"},
                        "fields": {"type": "object", "enabled": false},
                        "state": {"type": "object", "enabled": false},
                        // OpenSearch checks the type of properties, not that of dynamic templates.
                        "unmapped": flattened,
                    }},
                },
            },
        },
    });
    let properties = body.pointer_mut("/template/mappings/properties");
    if let Some(properties) = properties.and_then(Value::as_object_mut) {
        properties.extend(of_schema(template.schema));
    }
    body
}

/// Numbers of lines by level.
fn levels() -> Map<String, Value> {
    let count = json!({"type": "integer"});
    let names = Severity::ALL.iter().map(|level| level.as_str().to_owned());
    names.map(|name| (name, count.clone())).collect()
}

/// The mapping of the names that a schema has besides those of all documents.
fn of_schema(schema: DocumentSchema) -> Map<String, Value> {
    let keyword = json!({"type": "keyword", "ignore_above": 1024});
    let fields = match schema {
        DocumentSchema::Plain => json!({}),
        DocumentSchema::Ecs => json!({
            "trace": {"properties": {"id": keyword}},
            "log": {"properties": {"level": keyword}},
            "service": {"properties": {"name": keyword}},
            "event": {"properties": {"duration": {"type": "long"}, "outcome": keyword}},
            "ecs": {"properties": {"version": keyword}},
        }),
        DocumentSchema::Otel => json!({
            "body": {"type": "text"},
            "severity_text": keyword,
            "severity_number": {"type": "integer"},
            "service": {"properties": {"name": keyword}},
        }),
    };
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Attempts to install the template once, with the type of labels that the store knows.
pub(crate) async fn install(client: &Client, template: &IndexTemplate) -> InstallResult {
    let [elasticsearch, opensearch] = flattened_types();
    let mut response = put(client, template, &elasticsearch).await;
    if let Ok(refusal) = &response
        && refusal.status == 400
        && String::from_utf8_lossy(&refusal.body).contains("[flattened]")
    {
        response = put(client, template, &opensearch).await;
    }
    match response.and_then(|response| response.success()) {
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

async fn put(client: &Client, template: &IndexTemplate, flattened: &Value) -> Result<Response, RequestError> {
    let text = body(template, &client.indices.wildcard(), flattened).to_string();
    let path = format!("/_index_template/{}", template.name);
    client
        .ask(&Request::json(Method::Put, path, Bytes::from(text)))
        .await
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

//! Index template: settings and mapping of Windrow's documents. `install` puts it to the store.
//!
//! Trace ids are keywords, under their own name and under `.keyword`, so that a query written for a
//! default mapping works. The text is text. `windrow.state` and `windrow.metadata` are kept in the
//! source only: an object with `enabled: false` is not parsed, whatever its value and length. Date
//! detection is off: a field that looks like a date once would reject every later value that does
//! not. Labels and annotations are one field each, whose keys are no paths. All else is dynamic
//! mapping.

use serde_json::{Map, Value, json};
use windrow_trace::{DocumentSchema, Severity};

use super::lifecycle::Lifecycle;
use crate::config::IndexTemplate;

/// Above Elasticsearch's built-in templates for `logs-*-*` and similar patterns, which have 100.
pub(super) const TEMPLATE_PRIORITY: u32 = 200;

/// Deepest nesting of a moved field that is searched.
const UNMAPPED_DEPTH: u32 = 200;
/// Longest value of a moved field that is searched, characters: a term has at most 32,766 bytes.
const UNMAPPED_IGNORE_ABOVE: u32 = 4096;

/// Mappings of fields whose keys are no paths, of `windrow.unmapped` and labels, the best first; each store knows some of them: Elasticsearch,
/// OpenSearch, and all.
pub(super) fn unmapped_mappings() -> [Value; 3] {
    [
        json!({"type": "flattened", "ignore_above": UNMAPPED_IGNORE_ABOVE, "depth_limit": UNMAPPED_DEPTH}),
        json!({"type": "flat_object"}),
        json!({"type": "object", "enabled": false}),
    ]
}

/// What a template has besides its mapping, the best first; each store knows some of them.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) unmapped: Value,
    /// `index.mode`, which Elasticsearch may otherwise choose for a data stream by its name.
    mode: Option<&'static str>,
    /// Options of a data stream: what it refuses is healed, and not hidden.
    options: Option<Value>,
    /// The lifecycle of a data stream can be a part of it.
    pub(super) has_lifecycle: bool,
}

/// The variants of a template for indices, or for data streams.
pub(super) fn variants(data_streams: bool) -> Vec<Variant> {
    let plain = |unmapped: Value| Variant {
        unmapped,
        mode: None,
        options: None,
        has_lifecycle: false,
    };
    let [flattened, flat_object, object] = unmapped_mappings();
    let mut all = Vec::new();
    if data_streams {
        let standard = |options, has_lifecycle| Variant {
            mode: Some("standard"),
            options,
            has_lifecycle,
            ..plain(flattened.clone())
        };
        let no_failure_store = json!({"failure_store": {"enabled": false}});
        all.extend([
            standard(Some(no_failure_store), true),
            standard(None, true),
            standard(None, false),
        ]);
    }
    all.extend([flattened, flat_object, object].map(plain));
    all
}

/// The mapping that an index needs for documents with moved fields.
pub(super) fn healed_mapping(unmapped: &Value) -> Value {
    json!({"properties": {"windrow": {"properties": {
        "unmapped": unmapped,
        "unindexed": {"type": "object", "enabled": false},
    }}}})
}

/// Dynamic templates: objects of the names that `windrow-trace` takes for labels and annotations
/// are of the type `flattened`, at any depth. As dynamic templates and not as properties, so that
/// an index has only those that occur, and a text of such a name is one.
fn dynamic_templates(flattened: &Value) -> Value {
    let named =
        |pattern: &str| json!({"match": pattern, "match_mapping_type": "object", "mapping": flattened});
    json!([
        {"labels": named("labels")},
        {"annotations": named("annotations")},
        {"other_labels": named("*_labels")},
        {"other_annotations": named("*_annotations")},
    ])
}

/// The body of `PUT _index_template`, for indices or for data streams.
pub(super) fn body(
    template: &IndexTemplate,
    lifecycle: &Lifecycle,
    patterns: &[String],
    priority: u32,
    variant: &Variant,
) -> Value {
    let unmapped = &variant.unmapped;
    let keyword = json!({"type": "keyword", "ignore_above": 1024});
    let both = if template.trace_id_keyword {
        json!({"type": "keyword", "ignore_above": 1024, "fields": {"keyword": keyword}})
    } else {
        keyword
    };
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
    if let Some(fields) = template.total_fields {
        settings.insert("index.mapping.total_fields.limit".into(), fields.into());
    }
    if let Some(codec) = &template.codec {
        settings.insert("index.codec".into(), codec.as_str().into());
    }
    if let Some(interval) = template.refresh_interval {
        let milliseconds = format!("{}ms", interval.as_millis());
        settings.insert("index.refresh_interval".into(), milliseconds.into());
    }
    if let Some(mode) = variant.mode {
        settings.insert("index.mode".into(), mode.into());
    }
    settings.extend(lifecycle.settings.clone());
    let mut body = json!({
        "index_patterns": patterns,
        "priority": priority,
        "_meta": {"description": "one document per trace, written by Windrow", "managed_by": "windrow"},
        "template": {
            "settings": settings,
            "mappings": {
                "date_detection": false,
                "dynamic_templates": dynamic_templates(unmapped),
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
                        "continued": {"type": "boolean"},
                        "continues": both,
                        "state": {"type": "object", "enabled": false},
                        "metadata": {"type": "object", "enabled": false},
                        "unmapped": unmapped,
                        "unindexed": {"type": "object", "enabled": false},
                    }},
                },
            },
        },
    });
    let properties = body.pointer_mut("/template/mappings/properties");
    if let Some(properties) = properties.and_then(Value::as_object_mut) {
        properties.extend(of_schema(template.schema, &both));
    }
    if lifecycle.data_streams {
        body["data_stream"] = json!({});
        if let Some(options) = &variant.options {
            body["template"]["data_stream_options"] = options.clone();
        }
        if let Some(own) = lifecycle.own.as_ref().filter(|_| variant.has_lifecycle) {
            body["template"]["lifecycle"] = own.clone();
        }
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
fn of_schema(schema: DocumentSchema, trace_id: &Value) -> Map<String, Value> {
    let keyword = json!({"type": "keyword", "ignore_above": 1024});
    let fields = match schema {
        DocumentSchema::Plain => json!({}),
        DocumentSchema::Ecs => json!({
            "trace": {"properties": {"id": trace_id}},
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

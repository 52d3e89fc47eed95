//! Plain reading of chunks: the documents that gathering should write.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Chunk;

fn time(ms: i64) -> Value {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap();
    json!(format!("{time:.3}"))
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some()
}

/// The trace id that a value is.
fn as_id(value: &Value) -> Option<String> {
    match value {
        Value::String(id) if !unquoted(id.trim()).is_empty() && id != "N/A" => Some(id.clone()),
        Value::Number(id) if !id.is_f64() && id.as_i64() != Some(0) => Some(id.to_string()),
        Value::Number(id) => id
            .as_f64()
            .filter(|id| id.fract() == 0.0 && *id != 0.0)
            .map(|id| format!("{id:.0}")),
        Value::Array(list) => match &list[..] {
            [one @ Value::String(_)] => as_id(one),
            _ => None,
        },
        _ => None,
    }
}

fn unquoted(text: &str) -> &str {
    ['"', '\'']
        .iter()
        .find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
        .map_or(text, str::trim)
}

/// Whether a value is the trace id, and not something that contains it.
fn is_whole_id(value: &Value, id: &str) -> bool {
    !value.is_array() && as_id(value).as_deref() == Some(id)
}

/// All fields but the id as `key=value`.
fn as_line(fields: &Map<String, Value>, id: &str) -> Option<String> {
    let word = |text: &str| {
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
        if !text.is_empty() && text.chars().all(is_plain) {
            text.to_owned()
        } else {
            json!(text).to_string()
        }
    };
    let is_id = |name: &str, value: &Value| ["traceId", "trace_id"].contains(&name) && is_whole_id(value, id);
    let line: Vec<_> = fields
        .iter()
        .filter(|(name, value)| !is_id(name, value))
        .map(|(name, value)| {
            let value = value.as_str().map_or_else(
                || value.to_string(),
                |text| word(text.strip_suffix('\n').unwrap_or(text)),
            );
            format!("{}={value}", word(name))
        })
        .collect();
    (!line.is_empty()).then(|| line.join(" "))
}

/// Values of the field `level`, the worst one last.
pub(super) const LEVELS: [&str; 4] = ["no level", "debug", "info", "error"];

/// The index of a record's level.
fn level(fields: &Map<String, Value>) -> Option<usize> {
    LEVELS
        .iter()
        .position(|level| fields.get("level").is_some_and(|value| value == level))
}

/// The name of a field in the document: reserved names get a suffix.
fn own(name: &str) -> String {
    match name {
        "" | "_id" | "@timestamp" | "windrow" => format!("{name}_"),
        _ => name.to_owned(),
    }
}

/// The name of a field with this value: stores have a text of some names.
fn own_of(name: &str, value: &Value) -> String {
    match name {
        "message" | "traceId" | "trace_id" if value.is_array() || value.is_object() => format!("{name}_"),
        _ => own(name),
    }
}

/// The expected documents, by a plain reading.
pub(super) fn plainly(chunks: &[Chunk]) -> BTreeMap<String, Value> {
    // The name of the first three stays; the last one gives way to the first.
    const TEXT: [&str; 4] = ["message", "log", "msg", "event"];
    let mut traces: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let mut documents = BTreeMap::new();
    for (number, chunk) in chunks.iter().enumerate() {
        for (position, (ms, fields, metadata)) in chunk.records.iter().enumerate() {
            let id = ["traceId", "trace_id", "trace.id"]
                .iter()
                .find_map(|name| as_id(fields.get(*name)?));
            if let Some(id) = id {
                let line = (*ms, number, position, chunk.tag, fields, metadata);
                traces.entry(id).or_default().push(line);
                continue;
            }
            let mut document = Map::from_iter([("@timestamp".to_owned(), time(*ms))]);
            let pairs = fields.iter();
            document.extend(pairs.map(|(name, value)| (own_of(name, value), value.clone())));
            document.insert("windrow".into(), json!({"tags": [chunk.tag]}));
            if let Some(rank @ 1..) = level(fields) {
                document["windrow"]["level"] = LEVELS[rank].into();
            }
            if !metadata.is_empty() {
                document["windrow"]["metadata"] = json!(metadata);
            }
            documents.insert(format!("single {}", documents.len()), document.into());
        }
    }
    for (id, mut lines) in traces {
        lines.sort_by_key(|(ms, number, position, ..)| (*ms, *number, *position));
        let mut document = Map::new();
        let (mut texts, mut best, mut all_metadata) = (Vec::new(), TEXT.len(), Map::new());
        let text_of = |fields: &Map<String, Value>| {
            let named = |is_text: fn(&Value) -> bool| {
                TEXT.iter()
                    .position(|name| fields.get(*name).is_some_and(is_text))
            };
            named(is_text).or_else(|| named(|value| !value.is_null()))
        };
        let completed = lines.iter().any(|(.., fields, _)| {
            let text = text_of(fields).map(|rank| &fields[TEXT[rank]]);
            text.is_some_and(|text| text.as_str() == Some("request completed"))
        });
        for (.., fields, metadata) in &lines {
            let text = text_of(fields);
            for (name, value) in *fields {
                let rank = TEXT.iter().position(|text| text == name);
                let name = match (name.as_str(), rank) {
                    ("traceId", _) if is_whole_id(value, &id) => continue,
                    ("traceId", _) => "traceId_".to_owned(),
                    (_, Some(rank)) if text == Some(rank) && is_text(value) => continue,
                    (name, Some(0..3)) if !is_text(value) => format!("{name}_"),
                    (name, _) => own_of(name, value),
                };
                let is_worse =
                    |known: &Value| level(fields) >= LEVELS.iter().position(|level| known == level);
                if name != "level" || document.get("level").is_none_or(is_worse) {
                    document.insert(name, value.clone());
                }
            }
            let line = match text.map(|rank| &fields[TEXT[rank]]) {
                Some(Value::String(text)) => Some(text.strip_suffix('\n').unwrap_or(text).to_owned()),
                Some(value) => Some(value.to_string()),
                None => as_line(fields, &id),
            };
            if let Some(line) = line {
                best = best.min(text.filter(|rank| *rank < 3).unwrap_or(0));
                texts.push(line);
            }
            all_metadata.extend((*metadata).clone());
        }
        if let Some(name) = TEXT.get(best) {
            document.insert((*name).into(), texts.join("\n").into());
        }
        let (first, last) = (lines[0].0, lines[lines.len() - 1].0);
        let tags: BTreeSet<_> = lines.iter().map(|line| line.3).collect();
        let parts: BTreeSet<_> = lines.iter().map(|line| line.1).collect();
        document.insert("traceId".into(), id.clone().into());
        document.insert("@timestamp".into(), time(first));
        let mut about = json!({
            "reason": if completed { "completed" } else { "shutdown" }, "lines": lines.len(), "last": time(last), "durationMs": last - first,
            "tags": tags, "parts": parts.len(), "late": 0,
        });
        for (.., fields, _) in &lines {
            if let Some(rank @ 1..) = level(fields) {
                let count = about["levels"][LEVELS[rank]].as_u64().unwrap_or(0);
                about["levels"][LEVELS[rank]] = (count + 1).into();
                let worst = about["level"].as_str().map_or(0, |known| {
                    LEVELS.iter().position(|level| *level == known).unwrap()
                });
                about["level"] = LEVELS[rank.max(worst)].into();
            }
        }
        if !all_metadata.is_empty() {
            about["metadata"] = all_metadata.into();
        }
        document.insert("windrow".into(), about);
        documents.insert(id, document.into());
    }
    documents
}

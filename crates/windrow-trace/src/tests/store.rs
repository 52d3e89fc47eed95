//! Model of what Elasticsearch and OpenSearch accept as a document, as far as names decide: their
//! `DocumentParser`, `DotExpandingXContentParser` and `FlattenedFieldParser`, and Windrow's index
//! template. The tests of the Elasticsearch output ask real nodes the same.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value with its pairs as they are written, also equal ones.
#[derive(Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Value(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Value(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Value(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Value(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Value(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Value(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(one) = all.next_element()? {
            array.push(one);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(pair) = all.next_entry()? {
            object.push(pair);
        }
        Ok(Json::Object(object))
    }
}

/// Names that a store refuses at the root of a document, by what it says.
const METADATA: &str = "_data_stream_timestamp _doc_count _feature _field_names _id _ignored \
    _ignored_source _index _index_mode _inference_fields _nested_path _primary_term _routing _seq_no \
    _size _source _tier _ts_routing_hash _tsid _type _version __soft_deletes _tombstone \
    _recovery_source _recovery_source_size";

/// Fields that the template maps as values.
const MAPPED: [&str; 4] = ["@timestamp", "message", "traceId", "trace_id"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Object,
    Value,
}

/// Why a store refuses the document.
pub(crate) fn refusal(document: &[u8]) -> Option<String> {
    let json: Json = serde_json::from_slice(document).expect("it is JSON");
    let mut paths = BTreeMap::new();
    for name in MAPPED {
        paths.insert(name.to_owned(), Kind::Value);
    }
    object(&mut paths, "", &json).err()
}

fn object(paths: &mut BTreeMap<String, Kind>, path: &str, json: &Json) -> Result<(), String> {
    let Json::Object(pairs) = json else {
        return Err("it is no object".into());
    };
    for (i, (name, value)) in pairs.iter().enumerate() {
        if pairs[..i].iter().any(|(other, _)| other == name) {
            return Err(format!("duplicate field {name:?} in {path:?}"));
        }
        // As Java splits: empty segments at the end do not count.
        let segments = name.trim_end_matches('.');
        if segments.is_empty() {
            return Err(format!("{name:?} is empty or has only dots, in {path:?}"));
        }
        let mut at = path.to_owned();
        let count = segments.split('.').count();
        for (number, segment) in segments.split('.').enumerate() {
            let java_blank = |c: char| {
                matches!(c, '\t'..='\r' | '\x1c'..='\x1f')
                    || (c.is_whitespace() && !matches!(c, '\u{a0}' | '\u{2007}' | '\u{202f}' | '\u{85}'))
            };
            if segment.chars().all(java_blank) {
                return Err(format!("{name:?} has a blank segment, in {path:?}"));
            }
            if at.is_empty() {
                if METADATA.split_ascii_whitespace().any(|known| known == segment) {
                    return Err(format!("{name:?} is a metadata field"));
                }
            } else {
                at.push('.');
            }
            at.push_str(segment);
            if number + 1 < count {
                put(paths, &at, Kind::Object)?;
            }
        }
        member(paths, &at, value)?;
    }
    Ok(())
}

fn member(paths: &mut BTreeMap<String, Kind>, path: &str, json: &Json) -> Result<(), String> {
    let last = path.rsplit('.').next().unwrap_or_default();
    let is_flattened = ["labels", "annotations"]
        .iter()
        .any(|name| last == *name || last.ends_with(&format!("_{name}")));
    match json {
        Json::Null => Ok(()),
        Json::Value(_) => put(paths, path, Kind::Value),
        Json::Array(all) => all.iter().try_for_each(|one| member(paths, path, one)),
        Json::Object(_) => {
            put(paths, path, Kind::Object)?;
            if is_flattened {
                flattened(json)
            } else {
                object(paths, path, json)
            }
        }
    }
}

/// Keys are no paths, but must differ, and must not have the separator of key and value.
fn flattened(json: &Json) -> Result<(), String> {
    match json {
        Json::Object(pairs) => {
            for (i, (name, value)) in pairs.iter().enumerate() {
                if name.contains('\0') || pairs[..i].iter().any(|(other, _)| other == name) {
                    return Err(format!("key {name:?} in a flattened field"));
                }
                flattened(value)?;
            }
            Ok(())
        }
        Json::Array(all) => all.iter().try_for_each(flattened),
        _ => Ok(()),
    }
}

fn put(paths: &mut BTreeMap<String, Kind>, path: &str, kind: Kind) -> Result<(), String> {
    match paths.insert(path.to_owned(), kind) {
        Some(before) if before != kind => Err(format!("{path:?} is an object and a value")),
        _ => Ok(()),
    }
}

#[test]
fn refuses_what_stores_refuse() {
    for document in [
        r#"{"":1}"#,
        r#"{"n":[{" ":1}]}"#,
        r#"{".a":1}"#,
        r#"{"a..b":1}"#,
        r#"{"...":1}"#,
        r#"{"_id.x":1}"#,
        r#"{"_ignored_source":1}"#,
        r#"{"a":1,"a.b":2}"#,
        r#"{"n":[{"a":1},{"a":{}}]}"#,
        r#"{"n":{"a":1,"a":1}}"#,
        r#"{"message":{}}"#,
        r#"{"labels":{"\u0000":1}}"#,
    ] {
        assert_ne!(refusal(document.as_bytes()), None, "{document}");
    }
    for document in [
        r#"{"a.":1,"n":{"_id":1}}"#,
        r#"{"a":{"b":1},"a.b":2,"a.c":[]}"#,
        r#"{"labels":{"app":1,"app.kubernetes.io/name":2,"":3}}"#,
        r#"{"a":null,"a.b":2}"#,
    ] {
        assert_eq!(refusal(document.as_bytes()), None, "{document}");
    }
}

//! JSON in a record's text: `{"log":"{\"traceId\":…}"}`, as container runtimes write what an
//! application logs as JSON.
//!
//! The record becomes the object: its fields win over those around it, its text is the text. If it
//! has no text of its own, the JSON stays the text. Nothing is lost: a field around it that would
//! be taken for the trace id or the text in place of the object's gets a `_` appended.

use std::collections::HashSet;

use forward_protocol::entries::{Key, MapPairs, Pair};
use forward_protocol::json::write_object;
use forward_protocol::msgpack::{write_map_len, write_str};
use windrow_trace::{NUMBER_EXTENSION, read_token};

use super::root_names::{RootNames, TextField, name};
use crate::config::ParseJson;

/// Most bytes of MessagePack that a byte of JSON becomes: a float of three characters and its comma
/// take nine bytes.
const MAX_EXPANSION: usize = 3;

/// Names that are compared one by one; more are looked up in a table.
const MAX_COMPARED: usize = 24;

/// A set of names.
enum NameSet<'a> {
    Few(Vec<&'a [u8]>),
    Many(HashSet<&'a [u8], foldhash::fast::RandomState>),
}

/// Converts such records. Keeps its buffers for reuse.
#[derive(Debug, Default)]
pub(in crate::gather) struct JsonText {
    parse: ParseJson,
    max_depth: u32,
    object: Vec<u8>,
    record: Vec<u8>,
}

impl JsonText {
    /// Converts when `parse` says so; objects that are nested deeper than `max_depth` stay text.
    pub(in crate::gather) fn new(parse: ParseJson, max_depth: u32) -> Self {
        Self {
            parse,
            max_depth,
            object: Vec::new(),
            record: Vec::new(),
        }
    }

    /// The record that `record` means, if its text is such an object. `has_id` tells whether a
    /// record has a trace id.
    pub(in crate::gather) fn record(
        &mut self,
        names: &RootNames,
        record: &[u8],
        has_id: impl FnOnce(&[u8]) -> bool,
    ) -> Option<&[u8]> {
        if self.parse == ParseJson::Never {
            return None;
        }
        let field = names.text_field(record)?;
        if field.text.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        self.object.clear();
        let max_len = field.text.len().saturating_mul(MAX_EXPANSION);
        write_object(
            &mut self.object,
            field.text,
            max_len,
            self.max_depth,
            NUMBER_EXTENSION,
        )
        .ok()?;
        let has_id = has_id(&self.object);
        if self.parse == ParseJson::Auto && !has_id {
            return None;
        }
        self.record.clear();
        join(names, record, &field, (&self.object, has_id), &mut self.record);
        Some(&self.record)
    }

    /// Frees the buffers; called when the server is idle.
    pub(in crate::gather) fn shrink(&mut self) {
        (self.object, self.record) = (Vec::new(), Vec::new());
    }
}

impl<'a> NameSet<'a> {
    /// The names of the fields of `map`.
    fn of(map: &'a [u8]) -> Self {
        let pairs = MapPairs::new(map);
        match pairs.remaining() as usize {
            0..=MAX_COMPARED => Self::Few(pairs.filter_map(|pair| name(&pair)).collect()),
            _ => Self::Many(pairs.filter_map(|pair| name(&pair)).collect()),
        }
    }

    fn contains(&self, name: &[u8]) -> bool {
        match self {
            Self::Few(names) => names.contains(&name),
            Self::Many(names) => names.contains(name),
        }
    }
}

/// Writes the fields of `record` that the object leaves, and those of the object, of which is known
/// whether it has a trace id.
fn join(
    names: &RootNames,
    record: &[u8],
    text: &TextField<'_>,
    (object, has_id): (&[u8], bool),
    out: &mut Vec<u8>,
) {
    let taken = NameSet::of(object);
    let is_set = |pair: &Pair<'_>| pair.value != [0xc0];
    let id = MapPairs::new(object).find(|pair| is_set(pair) && names.is_key(pair));
    let has_text = MapPairs::new(object).any(|pair| is_set(&pair) && names.is_text(&pair));

    let mut count = MapPairs::new(object).remaining();
    let mut fields = Vec::with_capacity(record.len());
    let mut renamed = Vec::new();
    for (number, pair) in MapPairs::new(record).enumerate() {
        let name = match pair.key {
            Key::Text(name) if taken.contains(name) => continue,
            Key::Text(name) => name,
            Key::Other(key) => {
                count += 1;
                fields.extend_from_slice(key);
                fields.extend_from_slice(pair.value);
                continue;
            }
        };
        if number == text.number && has_text {
            continue;
        }
        let is_other_id = has_id && names.is_key(&pair) && id.is_none_or(|id| id.value != pair.value);
        if is_other_id || (has_text && names.is_text(&pair)) {
            renamed.push((name, pair.value));
            continue;
        }
        count += 1;
        write_str(&mut fields, name);
        fields.extend_from_slice(pair.value);
    }
    if !renamed.is_empty() {
        let around = NameSet::of(record);
        for (name, value) in renamed {
            let mut free = [name, b"_"].concat();
            while taken.contains(&free) || around.contains(&free) {
                free.push(b'_');
            }
            count += 1;
            write_str(&mut fields, &free);
            fields.extend_from_slice(value);
        }
    }
    write_map_len(out, count);
    out.extend_from_slice(&fields);
    // Behind the others, because of equal names the last counts.
    out.extend_from_slice(pairs_of(object));
}

/// The pairs of a map, without its header.
fn pairs_of(map: &[u8]) -> &[u8] {
    let header = read_token(map, 0).map_or(map.len(), |(_, first)| first);
    map.get(header..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use windrow_trace::{FieldNames, MadeId, RecordView, write_json_value};

    use super::*;

    fn msgpack(record: &Value) -> Vec<u8> {
        rmp_serde::to_vec(record).unwrap()
    }

    fn has_id(record: &[u8]) -> bool {
        MapPairs::new(record).any(|pair| pair.key == Key::Text(b"traceId"))
    }

    /// As gathering finds it.
    fn has_usable_id(record: &[u8]) -> bool {
        let found = RecordView::new(FieldNames::default());
        let mut made = MadeId::default();
        let found = found.read(record, &mut made);
        found.id_is_made || found.facts.id.is_some()
    }

    /// The text of the JSON that the record becomes.
    fn converted(parse: ParseJson, record: &Value) -> Option<String> {
        converted_with(parse, record, has_id)
    }

    fn converted_with(parse: ParseJson, record: &Value, has_id: fn(&[u8]) -> bool) -> Option<String> {
        let mut json_text = JsonText::new(parse, 100);
        let record = msgpack(record);
        let means = json_text.record(&RootNames::new(&FieldNames::default()), &record, has_id)?;
        let mut json = Vec::new();
        write_json_value(&mut json, means, 0);
        Some(String::from_utf8(json).unwrap())
    }

    #[test]
    fn an_object_with_a_trace_id_becomes_the_record() {
        let text = r#" {"traceId":"a","message":"hi","level":"info"}
"#;
        let record = json!({"log": text, "stream": "stdout", "level": "?", "kubernetes": {"pod": "p"}});
        let expected =
            r#"{"stream":"stdout","kubernetes":{"pod":"p"},"traceId":"a","message":"hi","level":"info"}"#;
        assert_eq!(converted(ParseJson::Auto, &record).as_deref(), Some(expected));
        assert_eq!(converted(ParseJson::Always, &record).as_deref(), Some(expected));
        assert_eq!(converted(ParseJson::Never, &record), None);
    }

    #[test]
    fn other_texts_stay() {
        for text in [
            "",
            "{",
            "{}",
            "{traceId}",
            r#"{"traceId":"a"} tail"#,
            r#"[{"traceId":"a"}]"#,
            r#"{"id":"a","message":"hi"}"#,
            r#"x {"traceId":"a"}"#,
            r#"{"traceId":"\ud800"}"#,
        ] {
            assert_eq!(converted(ParseJson::Auto, &json!({"log": text})), None, "{text}");
        }
        assert_eq!(
            converted(ParseJson::Auto, &json!({"log": 5, "x": "{\"traceId\":1}"})),
            None
        );
        let preferred = json!({"log": r#"{"traceId":"a"}"#, "message": "the text"});
        assert_eq!(converted(ParseJson::Auto, &preferred), None);
        let always = converted(ParseJson::Always, &json!({"log": r#"{"id":"a","msg":"hi"}"#}));
        assert_eq!(always.as_deref(), Some(r#"{"id":"a","msg":"hi"}"#));
    }

    #[test]
    fn an_object_without_a_text_keeps_the_json_as_text() {
        let text = r#"{"traceId":"a","n":1,"message":null}"#;
        let means = converted(ParseJson::Auto, &json!({"log": text}));
        let expected =
            r#"{"log":"{\"traceId\":\"a\",\"n\":1,\"message\":null}","traceId":"a","n":1,"message":null}"#;
        assert_eq!(means.as_deref(), Some(expected));
    }

    #[test]
    fn fields_around_the_object_give_way_and_stay() {
        let text = r#"{"traceId":"inner","msg":"the text","log":"other"}"#;
        let around = json!({"message": text, "trace_id": "outer", "msg": "gone", "trace_id_": 1});
        assert_eq!(
            converted(ParseJson::Auto, &around).as_deref(),
            Some(r#"{"trace_id_":1,"trace_id__":"outer","traceId":"inner","msg":"the text","log":"other"}"#)
        );
        let same = json!({"message": text, "trace_id": "inner"});
        assert_eq!(
            converted(ParseJson::Auto, &same).as_deref(),
            Some(r#"{"trace_id":"inner","traceId":"inner","msg":"the text","log":"other"}"#)
        );
    }

    #[test]
    fn an_id_around_the_object_stays_unless_the_object_has_one() {
        let around = |text: &str| json!({"message": text, "trace_id": "outer"});
        let converted = |parse, text| converted_with(parse, &around(text), has_usable_id);
        let none = converted(ParseJson::Always, r#"{"traceId":"-","msg":"m"}"#);
        assert_eq!(
            none.as_deref(),
            Some(r#"{"trace_id":"outer","traceId":"-","msg":"m"}"#)
        );
        let nested = converted(ParseJson::Auto, r#"{"trace":{"id":"inner"},"msg":"m"}"#);
        assert_eq!(
            nested.as_deref(),
            Some(r#"{"trace_id_":"outer","trace":{"id":"inner"},"msg":"m"}"#)
        );
    }

    #[test]
    fn numbers_keep_their_digits() {
        let text = r#"{"traceId":"a","message":"m","n":[18446744073709551616,1.50,-0,1e3,0.1,123456789012345.678901]}"#;
        let means = converted(ParseJson::Auto, &json!({"log": text}));
        assert_eq!(means.as_deref(), Some(text));
    }

    #[test]
    fn an_object_that_is_nested_too_deep_stays_text() {
        let nested = |depth| format!(r#"{{"traceId":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(converted(ParseJson::Auto, &json!({"log": nested(99)})).is_some());
        assert!(converted(ParseJson::Auto, &json!({"log": nested(100)})).is_none());
        assert!(converted(ParseJson::Auto, &json!({"log": nested(100_000)})).is_none());
    }
}

//! A document as queries see it.

use serde_json::{Map, Value};

use crate::bounded::{ParseLimits, parse_fields};
use crate::time::parse_time;
use crate::values::Level;

/// What is parsed of a document that is shown or matched.
const LIMITS: ParseLimits = ParseLimits {
    value_bytes: 16 << 20,
    text_bytes: 16 << 20,
};

/// Names of fields that the configuration of the server decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Fields that may hold the text, as `trace.text`.
    pub text: Vec<String>,
    /// The field with the trace id in documents: the first of `trace.keys`.
    pub key: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            text: ["message", "log", "msg"].map(str::to_owned).to_vec(),
            key: "traceId".to_owned(),
        }
    }
}

/// A parsed document.
#[derive(Clone, Debug)]
pub struct Document<'n> {
    id: String,
    fields: Map<String, Value>,
    names: &'n Names,
}

/// A value of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leaf<'a> {
    Text(&'a str),
    Number(f64),
    Bool(bool),
}

impl<'n> Document<'n> {
    /// Parses the JSON of a document with this `_id`, up to 16 MiB of texts and as much of other
    /// values. `None` if it is no JSON object.
    #[must_use]
    pub fn parse(id: &str, json: &[u8], names: &'n Names) -> Option<Self> {
        Self::parse_within(id, json, names, LIMITS)
    }

    /// Parses as much of a document as the limits allow, see [`parse_fields`].
    #[must_use]
    pub fn parse_within(id: &str, json: &[u8], names: &'n Names, limits: ParseLimits) -> Option<Self> {
        Some(Self {
            id: id.to_owned(),
            fields: parse_fields(json, limits)?,
            names,
        })
    }

    /// Its fields.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Its `_id`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn names(&self) -> &Names {
        self.names
    }

    /// Its trace id, if it has one.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        self.fields.get(&self.names.key)?.as_str()
    }

    /// Its time, Unix ms; the start of 1970 if it has none.
    #[must_use]
    pub fn time_ms(&self) -> i64 {
        let time = self.fields.get("@timestamp").and_then(Value::as_str);
        time.and_then(|time| parse_time(time, 0)).unwrap_or(0)
    }

    /// The value of a field in `windrow`.
    #[must_use]
    pub fn windrow(&self, name: &str) -> Option<&Value> {
        self.fields.get("windrow")?.get(name)
    }

    /// A number in `windrow`.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<f64> {
        self.windrow(name)?.as_f64()
    }

    /// Its worst level.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        Level::of_name(self.windrow("level")?.as_str()?)
    }

    /// Its services.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        strings(self.windrow("services"))
    }

    /// Its tags.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        strings(self.windrow("tags"))
    }

    /// Its texts: usually one.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.names
            .text
            .iter()
            .flat_map(|name| strings(self.fields.get(name)))
    }

    /// Calls `each` with the path and the value of every leaf of the application's fields: not of
    /// `@timestamp`, the trace id and what Windrow adds, except for metadata. A text has the path
    /// of its field and is told apart by `is_text`.
    pub(crate) fn each_leaf<'a>(&'a self, mut each: impl FnMut(&str, Leaf<'a>, bool)) {
        let mut path = String::new();
        for (name, value) in &self.fields {
            let is_text = self.names.text.contains(name);
            path.clear();
            path.push_str(name);
            if name == "windrow" {
                if let Some(metadata) = value.get("metadata") {
                    path.push_str(".metadata");
                    walk(metadata, &mut path, &mut |path, leaf| each(path, leaf, false));
                }
            } else if name != "@timestamp" && *name != self.names.key {
                walk(value, &mut path, &mut |path, leaf| {
                    each(
                        path,
                        leaf,
                        is_text && matches!(leaf, Leaf::Text(_)) && path == name,
                    );
                });
            }
        }
    }
}

fn walk<'a>(value: &'a Value, path: &mut String, each: &mut dyn FnMut(&str, Leaf<'a>)) {
    match value {
        Value::Null => {}
        Value::Bool(value) => each(path, Leaf::Bool(*value)),
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                each(path, Leaf::Number(number));
            }
        }
        Value::String(text) => each(path, Leaf::Text(text)),
        Value::Array(values) => values.iter().for_each(|value| walk(value, path, each)),
        Value::Object(fields) => {
            for (name, value) in fields {
                let length = path.len();
                path.push('.');
                path.push_str(name);
                walk(value, path, each);
                path.truncate(length);
            }
        }
    }
}

/// The strings of a value: itself, or those of an array.
fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, many) = match value {
        Some(Value::String(text)) => (Some(text.as_str()), &[][..]),
        Some(Value::Array(values)) => (None, values.as_slice()),
        _ => (None, &[][..]),
    };
    one.into_iter().chain(many.iter().filter_map(Value::as_str))
}

//! Pairs of a JSON object in order, with raw values: documents are changed without a loss of
//! precision or order.

use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The pairs of a JSON object.
#[derive(Default)]
pub(crate) struct RawFields<'a>(pub(crate) Vec<(String, &'a RawValue)>);

/// Appends a value on one line: the store may return a document with line breaks.
pub(crate) fn write_raw(out: &mut Vec<u8>, raw: &RawValue) {
    out.extend(raw.get().bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')));
}

impl<'a> RawFields<'a> {
    pub(crate) fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        let mut from = serde_json::Deserializer::from_slice(json);
        let pairs = from.deserialize_map(RawFieldsVisitor)?;
        from.end()?;
        Ok(pairs)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, raw)| *raw)
    }
}

struct RawFieldsVisitor;

impl<'de> Visitor<'de> for RawFieldsVisitor {
    type Value = RawFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(RawFields(pairs))
    }
}

/// A string. A store that builds documents from its columns returns a list of one value as the
/// value, and the other way round.
pub(crate) fn text_of(raw: &RawValue) -> Option<String> {
    let one = |texts: Vec<String>| texts.into_iter().next();
    let text = serde_json::from_str(raw.get());
    text.or_else(|error| texts_of(raw).map(one).map_err(|_| error))
        .ok()?
}

/// A list of strings, or one string.
pub(crate) fn texts_of(raw: &RawValue) -> Result<Vec<String>, serde_json::Error> {
    serde_json::from_str(raw.get()).or_else(|_| serde_json::from_str(raw.get()).map(|text| vec![text]))
}

//! A parsed document: its lines with their texts, and its fields with raw values.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::document::state::{DocumentState, FieldLocation, LineState, PartState, StateError};

/// A parsed document.
pub(super) struct ParsedDocument<'a> {
    pub(super) key_name: String,
    pub(super) key: String,
    pub(super) state: DocumentState,
    pub(super) text: Option<String>,
    pub(super) fields: Vec<(FieldLocation, String, &'a RawValue)>,
    pub(super) tags: Vec<String>,
}

impl<'a> ParsedDocument<'a> {
    pub(super) fn parse(json: &'a [u8]) -> Result<Self, String> {
        let mut key = None;
        let mut texts: HashMap<String, String> = HashMap::new();
        let pairs = RawFields::parse(json).map_err(|error| format!("not a JSON object: {error}"))?;
        let object = pairs.get("windrow").ok_or("it has no \"windrow\" object")?;
        let object =
            RawFields::parse(object.get().as_bytes()).map_err(|error| format!("\"windrow\": {error}"))?;
        let text_of = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
        let state = object
            .get("state")
            .and_then(text_of)
            .ok_or("it has no \"windrow.state\"")?;
        let state = DocumentState::read(&state).map_err(|error: StateError| error.to_string())?;
        let tags = object
            .get("tags")
            .map_or(Ok(Vec::new()), |raw| serde_json::from_str(raw.get()));
        let tags: Vec<String> = tags.map_err(|error| format!("\"windrow.tags\": {error}"))?;

        let mut fields = Vec::with_capacity(pairs.0.len());
        for (name, raw) in &pairs.0 {
            if *name == state.key_name {
                key = text_of(raw);
            } else if state.text_name.as_ref() == Some(name) {
                texts.insert(
                    name.clone(),
                    text_of(raw).ok_or("its joined text is not a string")?,
                );
            } else if name != "@timestamp" && name != "windrow" {
                fields.push((FieldLocation::TopLevel, name.clone(), *raw));
            }
        }
        if let Some(metadata) = object.get("metadata") {
            let pairs = RawFields::parse(metadata.get().as_bytes())
                .map_err(|error| format!("\"windrow.metadata\": {error}"))?;
            fields.extend(
                pairs
                    .0
                    .into_iter()
                    .map(|(name, raw)| (FieldLocation::Metadata, name, raw)),
            );
        }
        let text = state
            .text_name
            .as_ref()
            .map(|name| texts.remove(name).ok_or("its joined text is missing"));
        let document = Self {
            key: key.ok_or_else(|| format!("it has no {:?}", state.key_name))?,
            key_name: state.key_name.clone(),
            text: text.transpose()?,
            state,
            fields,
            tags,
        };
        if document.state.lines.is_empty() {
            return Err("it has no lines".into());
        }
        document
            .line_texts()
            .ok_or("its joined text does not have the lengths that windrow.state notes")?;
        Ok(document)
    }

    /// The text of each line, cut from the joined text.
    pub(super) fn line_texts(&self) -> Option<Vec<Option<&str>>> {
        let joined = self.text.as_deref().unwrap_or("");
        let mut at = 0;
        let mut some = false;
        let mut texts = Vec::with_capacity(self.state.lines.len());
        for line in &self.state.lines {
            let Some(length) = line.text else {
                texts.push(None);
                continue;
            };
            if some {
                if joined.as_bytes().get(at) != Some(&b'\n') {
                    return None;
                }
                at += 1;
            }
            some = true;
            let end = at.checked_add(length as usize)?;
            texts.push(Some(joined.get(at..end)?));
            at = end;
        }
        (at == joined.len()).then_some(texts)
    }

    pub(super) fn line_part(&self, line: &LineState) -> Option<&PartState> {
        self.state.parts.get(line.part as usize)
    }

    /// The line that the value of a field comes from.
    pub(super) fn origin(
        &self,
        older: &HashMap<(FieldLocation, &str), u32>,
        location: FieldLocation,
        name: &str,
    ) -> Option<&LineState> {
        match older.get(&(location, name)) {
            Some(line) => self.state.lines.get(*line as usize),
            None => self.state.lines.last(),
        }
    }

    pub(super) fn older(&self) -> HashMap<(FieldLocation, &str), u32> {
        self.state
            .older
            .iter()
            .map(|older| ((older.location, older.name.as_str()), older.line))
            .collect()
    }
}

/// The pairs of a JSON object in order, with raw values.
pub(super) struct RawFields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> RawFields<'a> {
    fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        let mut from = serde_json::Deserializer::from_slice(json);
        let pairs = from.deserialize_map(RawFieldsVisitor)?;
        from.end()?;
        Ok(pairs)
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, raw)| *raw)
    }
}

pub(super) struct RawFieldsVisitor;

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

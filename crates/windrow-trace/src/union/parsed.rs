//! Parsed document: what the union reads of a stored document.
//!
//! Fields that were moved to `windrow.unmapped` are fields of their own names here.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::Field;
use crate::document::state::{DocumentState, FieldLocation, LineState, PartState, StateError};
use crate::raw_fields::{RawFields, text_of, texts_of};
use crate::unmapped::{METADATA_OWNER, UNMAPPED, moved_metadata};

/// A parsed document.
pub(super) struct ParsedDocument<'a> {
    pub(super) key_name: String,
    pub(super) key: String,
    pub(super) state: DocumentState,
    pub(super) text: Option<String>,
    pub(super) fields: Vec<Field<'a, String>>,
    pub(super) tags: Vec<String>,
    pub(super) continued: bool,
    pub(super) continues: Option<String>,
    /// Names of time, trace id and text that are not at the top, but in `windrow.unmapped`.
    pub(super) unmapped: Vec<String>,
}

impl<'a> ParsedDocument<'a> {
    pub(super) fn parse(json: &'a [u8]) -> Result<Self, String> {
        let pairs = RawFields::parse(json).map_err(|error| format!("not a JSON object: {error}"))?;
        let object = pairs.get("windrow").ok_or("it has no \"windrow\" object")?;
        let object =
            RawFields::parse(object.get().as_bytes()).map_err(|error| format!("\"windrow\": {error}"))?;
        let state = object
            .get("state")
            .and_then(text_of)
            .ok_or("it has no \"windrow.state\"")?;
        let state = DocumentState::read(&state).map_err(|error: StateError| error.to_string())?;
        let tags = object.get("tags").map_or(Ok(Vec::new()), texts_of);
        let tags = tags.map_err(|error| format!("\"windrow.tags\": {error}"))?;

        let mut document = Self {
            key: String::new(),
            key_name: state.key_name.clone(),
            text: None,
            fields: Vec::with_capacity(pairs.0.len()),
            tags,
            continued: object.get("continued").is_some_and(|raw| raw.get() == "true"),
            continues: object.get("continues").and_then(text_of),
            unmapped: Vec::new(),
            state,
        };
        let mut key = None;
        for (name, raw) in pairs.0.into_iter().filter(|(name, _)| name != "windrow") {
            document.add(&mut key, name, raw, false)?;
        }
        let inner = |name: &str| match object.get(name) {
            Some(raw) => {
                RawFields::parse(raw.get().as_bytes()).map_err(|error| format!("\"windrow.{name}\": {error}"))
            }
            None => Ok(RawFields::default()),
        };
        let mut metadata = vec![(inner("metadata")?, false)];
        let moved = inner(UNMAPPED)?;
        metadata.extend(moved_metadata(&moved).map(|moved| (moved, true)));
        for (name, raw) in moved.0.into_iter().filter(|(name, _)| name != METADATA_OWNER) {
            document.add(&mut key, name, raw, true)?;
        }
        for (metadata, unmapped) in metadata {
            document
                .fields
                .extend(metadata.0.into_iter().map(|(name, raw)| Field {
                    location: FieldLocation::Metadata,
                    name,
                    raw,
                    unmapped,
                }));
        }
        if document.state.text_name.is_some() && document.text.is_none() {
            return Err("its joined text is missing".into());
        }
        document.key = key.ok_or_else(|| format!("it has no {:?}", document.key_name))?;
        if document.state.lines.is_empty() {
            return Err("it has no lines".into());
        }
        document
            .line_texts()
            .ok_or("its joined text does not have the lengths that windrow.state notes")?;
        Ok(document)
    }

    /// Adds a field of the document, from the top or from `windrow.unmapped`.
    pub(super) fn add(
        &mut self,
        key: &mut Option<String>,
        name: String,
        raw: &'a RawValue,
        unmapped: bool,
    ) -> Result<(), String> {
        if name == self.state.key_name {
            *key = text_of(raw);
        } else if self.state.text_name.as_ref() == Some(&name) {
            self.text = Some(text_of(raw).ok_or("its joined text is not a string")?);
        } else if name != "@timestamp" {
            self.fields.push(Field {
                location: FieldLocation::TopLevel,
                name,
                raw,
                unmapped,
            });
            return Ok(());
        }
        if unmapped {
            self.unmapped.push(name);
        }
        Ok(())
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

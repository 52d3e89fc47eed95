//! A parsed document: its lines with their texts, and its fields with raw values, also those that
//! were moved to `windrow.unmapped`.

use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::document::json::one_line;
use crate::document::kept::{DocumentValues, KeptRecord, is_displaced, read_kept};
use crate::document::merge_rule::MergeRule;
use crate::document::state::{
    DocumentState, FieldLocation, FieldState, LineState, PartState, StateError, usual_rule,
};
use crate::name_origin::{NameOrigin, name_origins};
use crate::raw_fields::{RawFields, text_of, texts_of};
use crate::unmapped::{METADATA_OWNER, UNMAPPED, moved_metadata};

/// A parsed document.
pub(super) struct ParsedDocument<'a> {
    pub(super) key_name: String,
    pub(super) key: String,
    pub(super) state: DocumentState,
    pub(super) text: Option<String>,
    pub(super) fields: Vec<ParsedField<'a>>,
    pub(super) tags: Vec<String>,
    /// Sorted.
    pub(super) services: Vec<String>,
    /// Names of time, trace id and text that are not at the top, but in `windrow.unmapped`.
    pub(super) unmapped: Vec<String>,
    /// The records of the lines, if they were kept.
    kept: Vec<Option<KeptRecord>>,
}

/// A field of a document.
pub(super) struct ParsedField<'a> {
    pub(super) location: FieldLocation,
    pub(super) name: String,
    pub(super) raw: &'a RawValue,
    /// It is in `windrow.unmapped`.
    pub(super) unmapped: bool,
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
        let names = |name: &str| -> Result<Vec<String>, String> {
            let names = object.get(name).map_or(Ok(Vec::new()), texts_of);
            names.map_err(|error| format!("\"windrow.{name}\": {error}"))
        };
        let mut document = Self {
            key: String::new(),
            key_name: state.key_name.clone(),
            text: None,
            fields: Vec::with_capacity(pairs.0.len()),
            tags: names("tags")?,
            services: names("services")?,
            unmapped: Vec::new(),
            kept: Vec::new(),
            state,
        };
        let (mut key, has_level) = (None, object.get("level").is_some());
        for (name, raw) in pairs.0.into_iter().filter(|(name, _)| name != "windrow") {
            document.add(&mut key, has_level, name, raw, false)?;
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
            document.add(&mut key, has_level, name, raw, true)?;
        }
        for (metadata, unmapped) in metadata {
            let fields = metadata.0.into_iter().map(|(name, raw)| ParsedField {
                location: FieldLocation::Metadata,
                name,
                raw,
                unmapped,
            });
            document.fields.extend(fields);
        }
        if let Some(raw) = object.get("fields") {
            let kept = read_kept(raw, &document.values());
            document.kept = kept.map_err(|error| format!("\"windrow.fields\": {error}"))?;
        }
        if document.state.text_name.is_some() && document.text.is_none() {
            return Err("its joined text is missing".into());
        }
        document.key = key.ok_or_else(|| format!("it has no {:?}", document.key_name))?;
        document.check()?;
        Ok(document)
    }

    /// Adds a field of the document, from the top or from `windrow.unmapped`.
    fn add(
        &mut self,
        key: &mut Option<String>,
        has_level: bool,
        name: String,
        raw: &'a RawValue,
        unmapped: bool,
    ) -> Result<(), String> {
        let schema = self.state.schema;
        if name == self.state.key_name {
            *key = text_of(raw);
        } else if self.state.text_name.as_ref() == Some(&name) {
            self.text = Some(text_of(raw).ok_or("its joined text is not a string")?);
        } else if name != "@timestamp" {
            if !schema.is_derived(&name, has_level, !self.services.is_empty()) {
                self.fields.push(ParsedField {
                    location: FieldLocation::TopLevel,
                    name,
                    raw,
                    unmapped,
                });
            }
            return Ok(());
        }
        if unmapped {
            self.unmapped.push(name);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.state.lines.is_empty() {
            return Err("it has no lines".into());
        }
        let mut of_lines = self.state.lines.iter().filter_map(|line| line.service);
        if of_lines.any(|number| number as usize >= self.services.len()) {
            return Err("\"windrow.services\" lacks names that windrow.state refers to".into());
        }
        self.line_texts()
            .ok_or("its joined text does not have the lengths that windrow.state notes")?;
        Ok(())
    }

    /// The names that fields have in the records, by location and name in the document.
    pub(super) fn origins(&self) -> HashMap<(FieldLocation, &str), NameOrigin<'_>> {
        name_origins(&self.state)
    }

    /// The values of fields under the names that they have in the records.
    fn values(&self) -> DocumentValues {
        let origins = self.origins();
        let mut values = DocumentValues::new();
        for field in &self.fields {
            let origin = origins.get(&(field.location, field.name.as_str())).copied();
            let origin = origin.unwrap_or((&field.name, &field.name));
            if !is_displaced(origin) {
                let value: Vec<u8> = one_line(field.raw).collect();
                let value = String::from_utf8(value).unwrap_or_default();
                values.insert((field.location, origin.0.to_owned()), value);
            }
        }
        values
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

    /// The record of a line, if it was kept.
    pub(super) fn kept(&self, line: usize) -> Option<&KeptRecord> {
        self.kept.get(line)?.as_ref()
    }

    /// The service of a line.
    pub(super) fn line_service(&self, line: &LineState) -> Option<&str> {
        self.services.get(line.service? as usize).map(String::as_str)
    }

    /// The rule of a field, and the line that its value comes from.
    pub(super) fn field_state(
        &self,
        noted: &NotedFields<'_>,
        location: FieldLocation,
        name: &str,
    ) -> (MergeRule, Option<&LineState>) {
        match noted.get(&(location, name)) {
            Some(field) => (field.rule, self.state.lines.get(field.line as usize)),
            None => (usual_rule(name.as_bytes()), self.state.lines.last()),
        }
    }

    /// The fields that the state names.
    pub(super) fn noted(&self) -> NotedFields<'_> {
        self.state
            .fields
            .iter()
            .map(|field| ((field.location, field.name.as_str()), field))
            .collect()
    }
}

/// Fields of a state by location and name.
pub(super) type NotedFields<'a> = HashMap<(FieldLocation, &'a str), &'a FieldState>;

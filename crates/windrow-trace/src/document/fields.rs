//! The merged fields of a document: for each name the value of the newest line that has it, and
//! that line's number.
//!
//! Owns which fields are the trace id and the text. Borrows values from the records; copies only
//! names that are no UTF-8. Names are those of the records; [`MergedFields::names`] gives those of
//! the document.

use std::borrow::Cow;

use super::field_names::top_level::{Field, document_names, value_names};
use super::field_names::{is_simple_at_top, text};
use super::json;
use super::msgpack::{Token, read_token, skip};
use super::names::{FieldNames, as_text};
use crate::record::text::RecordText;
use crate::record::view::RecordView;

/// Maximum number of fields to allocate for before they are seen.
const MAX_RESERVED_FIELDS: usize = 64;

/// A field: its name in the records and the location of its newest value.
pub(crate) struct MergedField<'a> {
    pub(crate) name: Cow<'a, [u8]>,
    /// It has the name of the trace id or a text, but is none.
    is_displaced: bool,
    pub(crate) line: u32,
    pub(crate) map: &'a [u8],
    /// Offset of the value in `map`.
    pub(crate) value: usize,
}

/// The merged fields, in the order in which their names were first seen.
#[derive(Default)]
pub(crate) struct MergedFields<'a> {
    pub(crate) list: Vec<MergedField<'a>>,
    /// Some name may not be that in the document.
    has_special_names: bool,
}

/// The names of the fields in the document.
pub(crate) struct DocumentNames<'a> {
    /// In the order of the fields; empty if all are those of the records.
    pub(crate) names: Vec<String>,
    /// What the names are made of.
    pub(crate) fields: Vec<Field<'a>>,
}

impl DocumentNames<'_> {
    /// The name of the field with this number.
    pub(crate) fn get<'n>(&'n self, number: usize, field: &'n MergedField<'_>) -> &'n [u8] {
        self.names.get(number).map_or(&field.name, |name| name.as_bytes())
    }

    /// The fields that are renamed.
    pub(crate) fn renamed(&self) -> impl Iterator<Item = (&str, &Field<'_>)> {
        let all = self.names.iter().map(String::as_str).zip(&self.fields);
        all.filter(|(name, field)| field.original != *name)
    }
}

impl<'a> MergedFields<'a> {
    /// Merges the pairs of a metadata map.
    pub(crate) fn add_map(&mut self, map: &'a [u8], line: u32) {
        let Some((Token::Map(n), mut at)) = read_token(map, 0) else {
            return;
        };
        for slot in 0..n as usize {
            let Some((name, value)) = json::key(map, at) else {
                return;
            };
            let Some(end) = skip(map, value) else { return };
            self.put(name, false, slot, line, map, value);
            at = end;
        }
    }

    /// Merges all fields of a record without a trace id. Lists and objects are displaced where stores
    /// have a text.
    pub(crate) fn add_untraced(&mut self, names: &FieldNames, record: &'a [u8]) {
        let Some((Token::Map(n), mut at)) = read_token(record, 0) else {
            return;
        };
        for slot in 0..n as usize {
            let Some((name, value)) = json::key(record, at) else {
                return;
            };
            let Some(end) = skip(record, value) else { return };
            let is_displaced = is_container(record, value) && names.is_value_name(&name);
            self.put(name, is_displaced, slot, 0, record, value);
            at = end;
        }
    }

    /// Merges the fields of a record of the trace `id`, except the id and the text, which the
    /// document has elsewhere. Other values under their names are displaced. Returns the rank of the
    /// text's name in the document, and the text. `known`: the text, if the record has a shape.
    pub(crate) fn add_record(
        &mut self,
        view: &RecordView,
        record: &'a [u8],
        line: u32,
        id: &[u8],
        known: Option<(usize, &'a [u8])>,
    ) -> Option<(usize, Cow<'a, [u8]>)> {
        let (Token::Map(n), mut at) = read_token(record, 0)? else {
            return None;
        };
        if self.list.is_empty() {
            // A record may claim more fields than it has.
            self.list.reserve((n as usize).min(MAX_RESERVED_FIELDS));
        }
        let (rank, text, text_field) = match known {
            Some((rank, text)) => (rank, RecordText::Field(text), None),
            None => view.text(record),
        };
        let is_text =
            |bytes: &[u8]| matches!(text, RecordText::Field(text) if text.as_ptr() == bytes.as_ptr());
        // Offset of the field with the name of the document's id: of equal names the last counts.
        let mut canonical = None;
        let mut slot = 0;
        for _ in 0..n {
            let Some((name, value)) = json::key(record, at) else {
                break;
            };
            let Some((token, next)) = read_token(record, value) else {
                break;
            };
            let end = match token {
                Token::Array(_) | Token::Map(_) => match skip(record, value) {
                    Some(end) => end,
                    None => break,
                },
                _ => next,
            };
            at = end;
            let readings = view.readings(&name);
            if !readings.is_empty() {
                if &*name == view.key() {
                    canonical = Some((value, end));
                    continue;
                }
                if let Some(reading) = readings.iter().find(|reading| reading.is_text()) {
                    let string = as_text(token);
                    if string.is_some_and(is_text) {
                        continue;
                    }
                    // An earlier field of the text's name, whose value does not count.
                    if string.is_some() && text_field == Some(&*name) {
                        continue;
                    }
                    if string.is_none() && view.is_text_name(reading) {
                        self.put(name, true, slot, line, record, value);
                        continue;
                    }
                }
            }
            let is_displaced =
                matches!(token, Token::Array(_) | Token::Map(_)) && view.names().is_value_name(&name);
            self.put(name, is_displaced, slot, line, record, value);
            slot += 1;
        }
        if let Some((value, end)) = canonical
            && !view.is_id(view.key(), record.get(value..end).unwrap_or_default(), id)
        {
            let name = Cow::Owned(view.key().to_vec());
            self.put(name, true, slot, line, record, value);
        }
        match known {
            // Without its terminator already.
            Some((rank, text)) => Some((rank, Cow::Borrowed(text))),
            None => Some((rank, text.write(view, record, id)?)),
        }
    }

    /// `slot` is the index of the name if the record has the same fields as the one before.
    #[inline]
    fn put(
        &mut self,
        name: Cow<'a, [u8]>,
        is_displaced: bool,
        slot: usize,
        line: u32,
        map: &'a [u8],
        value: usize,
    ) {
        if let Some(field) = self.list.get_mut(slot)
            && field.name == name
            && field.is_displaced == is_displaced
        {
            (field.line, field.map, field.value) = (line, map, value);
            return;
        }
        self.put_slow(name, is_displaced, line, map, value);
    }

    #[inline(never)]
    fn put_slow(
        &mut self,
        mut name: Cow<'a, [u8]>,
        is_displaced: bool,
        line: u32,
        map: &'a [u8],
        value: usize,
    ) {
        let is_special = is_displaced || !is_simple_at_top(&name);
        if is_special && let Cow::Owned(other) = text(&name) {
            name = Cow::Owned(other.into_bytes());
        }
        let mut known = self.list.iter_mut();
        if let Some(field) = known.find(|field| field.name == name && field.is_displaced == is_displaced) {
            (field.line, field.map, field.value) = (line, map, value);
            return;
        }
        self.has_special_names |= is_special;
        self.list.push(MergedField {
            name,
            is_displaced,
            line,
            map,
            value,
        });
    }

    /// Whether a record had a field of this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.list.iter().any(|field| *field.name == *name.as_bytes())
    }

    /// The names of the fields in the document. Those of the trace id and of texts, which are in it
    /// or may be, are `own`.
    pub(crate) fn names<'n>(&self, own: impl IntoIterator<Item = &'n str>) -> DocumentNames<'_> {
        if self.has_special_names {
            self.special_names(&value_names(own.into_iter()))
        } else {
            DocumentNames {
                names: Vec::new(),
                fields: Vec::new(),
            }
        }
    }

    #[cold]
    fn special_names(&self, own: &[&str]) -> DocumentNames<'_> {
        let fields: Vec<Field<'_>> = self
            .list
            .iter()
            .map(|field| Field::new(text(&field.name), field.is_displaced))
            .collect();
        let names = document_names(&fields, own, |number| {
            let mut json = Vec::new();
            if let Some(field) = self.list.get(number) {
                json::write_field_value(&mut json, &field.name, field.map, field.value);
            }
            Cow::Owned(json)
        });
        DocumentNames { names, fields }
    }
}

/// Whether the value at `at` is a list or an object.
fn is_container(map: &[u8], at: usize) -> bool {
    matches!(read_token(map, at), Some((Token::Array(_) | Token::Map(_), _)))
}

//! The merged fields of a document: for each name the value of the newest line that has it, and
//! that line's number.
//!
//! Owns which fields are the trace id and the text. Borrows values from the records; copies only
//! names that must change.

use std::borrow::Cow;

use super::json;
use super::msgpack::{Token, read_token, skip};
use super::names::{as_text, document_name, renamed};
use crate::record::text::RecordText;
use crate::record::view::RecordView;

/// Maximum number of fields to allocate for before they are seen.
const MAX_RESERVED_FIELDS: usize = 64;

/// A field: its name and the location of its newest value.
pub(crate) struct MergedField<'a> {
    pub(crate) name: Cow<'a, [u8]>,
    pub(crate) line: u32,
    pub(crate) map: &'a [u8],
    /// Offset of the value in `map`.
    pub(crate) value: usize,
}

/// The merged fields, in the order in which their names were first seen.
#[derive(Default)]
pub(crate) struct MergedFields<'a> {
    pub(crate) list: Vec<MergedField<'a>>,
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
            self.put(name, slot, line, map, value);
            at = end;
        }
    }

    /// Merges all fields of a record without a trace id.
    pub(crate) fn add_untraced(&mut self, record: &'a [u8]) {
        self.add_map(record, 0);
    }

    /// Merges the fields of a record of the trace `id`, except the id and the text, which the
    /// document has elsewhere. Returns the rank of the text's name in the document, and the text.
    /// `known`: the text, if the record has a shape.
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
                        self.put(renamed(&name), slot, line, record, value);
                        continue;
                    }
                }
            }
            self.put(name, slot, line, record, value);
            slot += 1;
        }
        if let Some((value, end)) = canonical
            && !view.is_id(view.key(), record.get(value..end).unwrap_or_default(), id)
        {
            self.put(renamed(view.key()), slot, line, record, value);
        }
        match known {
            // Without its terminator already.
            Some((rank, text)) => Some((rank, Cow::Borrowed(text))),
            None => Some((rank, text.write(view, record, id)?)),
        }
    }

    /// `slot` is the index of the name if the record has the same fields as the one before.
    #[inline]
    fn put(&mut self, name: Cow<'a, [u8]>, slot: usize, line: u32, map: &'a [u8], value: usize) {
        if let Some(field) = self.list.get_mut(slot)
            && field.name == name
        {
            (field.line, field.map, field.value) = (line, map, value);
            return;
        }
        self.put_slow(name, line, map, value);
    }

    #[inline(never)]
    fn put_slow(&mut self, name: Cow<'a, [u8]>, line: u32, map: &'a [u8], value: usize) {
        let name = match document_name(&name) {
            Cow::Owned(other) => Cow::Owned(other),
            Cow::Borrowed(_) => name,
        };
        if let Some(field) = self.list.iter_mut().find(|field| field.name == name) {
            (field.line, field.map, field.value) = (line, map, value);
        } else {
            self.list.push(MergedField {
                name,
                line,
                map,
                value,
            });
        }
    }
}

//! The union of two parsed documents, and how it is written.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;

use super::parsed::ParsedDocument;
use crate::document::json::{write_escaped, write_string};
use crate::document::state::{DocumentState, FieldLocation, LineState, OlderField, PartState, SealReason};
use crate::document::time::Rfc3339Writer;
use crate::document::windrow_object::{WindrowObject, begin_document, trace_id_prefix, write_windrow_object};
use crate::part::PartId;

/// The sort key of a line: event time, reception, part, position.
type LineOrder = (i64, i64, PartId, u32);

/// The union of two documents, ready to be written.
pub(super) struct MergedDocument<'a> {
    key_name: &'a str,
    key: &'a str,
    text_name: Option<&'a str>,
    parts: BTreeMap<PartId, PartState>,
    pub(super) lines: BTreeMap<LineOrder, Option<&'a str>>,
    fields: Vec<(FieldLocation, &'a str, LineOrder, &'a RawValue)>,
    tags: Vec<&'a str>,
    state: (SealReason, i64),
}

pub(super) fn join<'a>(a: &'a ParsedDocument<'a>, b: &'a ParsedDocument<'a>) -> MergedDocument<'a> {
    let mut parts: BTreeMap<PartId, PartState> = BTreeMap::new();
    for part in a.state.parts.iter().chain(&b.state.parts) {
        parts
            .entry(part.id)
            .and_modify(|known| {
                known.received = known.received.max(part.received);
                known.total = known.total.max(part.total);
            })
            .or_insert(*part);
    }
    let order = |document: &ParsedDocument<'_>, line: &LineState| -> Option<LineOrder> {
        let id = document.line_part(line)?.id;
        Some((line.time, parts.get(&id)?.received, id, line.position))
    };
    let mut lines: BTreeMap<LineOrder, Option<&'a str>> = BTreeMap::new();
    let mut fields: Vec<(FieldLocation, &'a str, LineOrder, &'a RawValue)> = Vec::new();
    let mut known: HashMap<(FieldLocation, &'a str), usize> = HashMap::new();
    for document in [a, b] {
        for (line, text) in document
            .state
            .lines
            .iter()
            .zip(document.line_texts().unwrap_or_default())
        {
            if let Some(order) = order(document, line) {
                lines.entry(order).or_insert(text);
            }
        }
        let older = document.older();
        for (location, name, raw) in &document.fields {
            let Some(order) = document
                .origin(&older, *location, name)
                .and_then(|line| order(document, line))
            else {
                continue;
            };
            match known.get(&(*location, name.as_str())) {
                None => {
                    known.insert((*location, name), fields.len());
                    fields.push((*location, name, order, raw));
                }
                Some(&at) if fields[at].2 < order => fields[at] = (*location, name, order, raw),
                Some(_) => {}
            }
        }
    }
    let mut tags: Vec<&str> = a.tags.iter().chain(&b.tags).map(String::as_str).collect();
    tags.sort_unstable();
    tags.dedup();
    MergedDocument {
        key_name: &a.key_name,
        key: &a.key,
        text_name: preferred(a.state.text_name.as_deref(), b.state.text_name.as_deref()),
        parts,
        lines,
        fields,
        tags,
        state: (
            a.state.reason.max(b.state.reason),
            a.state.sealed_at.min(b.state.sealed_at),
        ),
    }
}

/// Of two names of the text the more preferred one; unknown ones come last, in alphabetical order.
fn preferred<'a>(a: Option<&'a str>, b: Option<&'a str>) -> Option<&'a str> {
    let rank = |name: &str| {
        ["message", "log", "msg"]
            .iter()
            .position(|known| *known == name)
            .unwrap_or(usize::MAX)
    };
    match (a, b) {
        (Some(a), Some(b)) => Some(if (rank(b), b) < (rank(a), a) { b } else { a }),
        (a, b) => a.or(b),
    }
}

impl MergedDocument<'_> {
    pub(super) fn adds_nothing_to(&self, a: &ParsedDocument<'_>) -> bool {
        self.lines.len() == a.state.lines.len()
            && self.parts.len() == a.state.parts.len()
            && a.state
                .parts
                .iter()
                .all(|part| self.parts.get(&part.id) == Some(part))
            && self.state == (a.state.reason, a.state.sealed_at)
            && self.tags.len() == a.tags.len()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (reason, sealed_at) = self.state;
        let mut parts: Vec<PartState> = self.parts.values().copied().collect();
        parts.sort_unstable_by_key(|part| (part.received, part.id));
        let number: HashMap<PartId, u32> = parts.iter().zip(0..).map(|(part, i)| (part.id, i)).collect();
        let line_number: HashMap<LineOrder, u32> =
            self.lines.keys().zip(0..).map(|(order, i)| (*order, i)).collect();
        let first = self.lines.first_key_value().map_or(0, |(order, _)| order.0);
        let last = self.lines.last_key_value().map_or(0, |(order, _)| order.0);

        let mut times = Rfc3339Writer::default();
        begin_document(
            out,
            &mut times,
            first,
            &trace_id_prefix(self.key_name),
            self.key.as_bytes(),
        );
        if let Some(name) = self.text_name {
            out.push(b',');
            write_string(out, name.as_bytes());
            out.extend_from_slice(b":\"");
            for (i, text) in self.lines.values().flatten().enumerate() {
                if i > 0 {
                    out.extend_from_slice(b"\\n");
                }
                write_escaped(out, text.as_bytes());
            }
            out.push(b'"');
        }
        let of = |location: FieldLocation| self.fields.iter().filter(move |field| field.0 == location);
        for (_, name, _, raw) in of(FieldLocation::TopLevel) {
            out.push(b',');
            write_string(out, name.as_bytes());
            out.push(b':');
            write_raw(out, raw);
        }
        let total: u64 = parts.iter().map(|part| u64::from(part.total)).sum();
        let late = self.lines.keys().filter(|order| order.1 > sealed_at).count() as u64;
        let object = WindrowObject {
            reason,
            first,
            last,
            lines: self.lines.len(),
            tags: &self.tags,
            parts: parts.len(),
            late,
            truncated: total.saturating_sub(self.lines.len() as u64),
        };
        write_windrow_object(out, &mut times, &object);
        let mut metadata = of(FieldLocation::Metadata).peekable();
        if metadata.peek().is_some() {
            out.extend_from_slice(b",\"metadata\":{");
            for (i, (_, name, _, raw)) in metadata.enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_string(out, name.as_bytes());
                out.push(b':');
                write_raw(out, raw);
            }
            out.push(b'}');
        }
        let newest = (self.lines.len() as u32).saturating_sub(1);
        let older = self.fields.iter().filter_map(|(location, name, order, _)| {
            let line = *line_number.get(order)?;
            (line != newest).then(|| OlderField {
                location: *location,
                name: (*name).to_owned(),
                line,
            })
        });
        let state = DocumentState {
            key_name: self.key_name.to_owned(),
            text_name: self.text_name.map(str::to_owned),
            reason,
            sealed_at,
            lines: self
                .lines
                .iter()
                .filter_map(|(&(time, _, id, position), text)| {
                    let part = *number.get(&id)?;
                    Some(LineState {
                        time,
                        part,
                        position,
                        text: text.map(|text| text.len() as u32),
                    })
                })
                .collect(),
            parts,
            older: older.collect(),
        };
        out.extend_from_slice(b",\"state\":\"");
        state.write(out);
        out.extend_from_slice(b"\"}}");
    }
}

/// Appends a value on one line: the store may return a document with line breaks.
fn write_raw(out: &mut Vec<u8>, raw: &RawValue) {
    out.extend(raw.get().bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')));
}

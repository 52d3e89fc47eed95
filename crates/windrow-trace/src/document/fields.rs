//! The merged fields of a document: for each name the value that its merge rule chooses, and the
//! line that it comes from.
//!
//! Owns which fields are the trace id and the text. Borrows values from the records; copies names
//! that must change, and the values of rules that compare them.

use std::borrow::Cow;

use super::content::Line;
use super::json::{self, write_string};
use super::merge_rule::{MergeRule, ValueSet};
use super::msgpack::{Token, read_token, skip};
use super::names::{FieldNames, as_text, document_name, renamed};
use super::schema::Placement;
use super::state::{FieldLocation, usual_rule};
use crate::part::{PartId, PartInfo};
use crate::record::severity::Severity;

/// Maximum number of fields to allocate for before they are seen.
const MAX_RESERVED_FIELDS: usize = 64;

/// A field: its name and the location of its value.
pub(crate) struct MergedField<'a> {
    pub(crate) name: Cow<'a, [u8]>,
    pub(crate) rule: MergeRule,
    /// The line of the value, if the rule chooses by line.
    pub(crate) line: u32,
    map: &'a [u8],
    /// Offset of the value in `map`.
    value: usize,
    /// The values, if the rule chooses by value.
    values: ValueSet,
}

/// The merged fields, in the order in which their names were first seen.
pub(crate) struct MergedFields<'a> {
    pub(crate) list: Vec<MergedField<'a>>,
    names: &'a FieldNames,
    location: FieldLocation,
    /// What the rules compare: the lines that the fields come from, and their parts.
    lines: &'a [Line],
    parts: &'a [PartInfo],
    /// Whether the document has a level and services.
    known: (bool, bool),
    /// The trace id, if fields that repeat it are left out.
    repeated_id: Option<&'a [u8]>,
}

impl<'a> MergedFields<'a> {
    pub(crate) fn new(
        names: &'a FieldNames,
        location: FieldLocation,
        lines: &'a [Line],
        parts: &'a [PartInfo],
        known: (bool, bool),
    ) -> Self {
        Self {
            list: Vec::new(),
            names,
            location,
            lines,
            parts,
            known,
            repeated_id: None,
        }
    }

    /// Leaves out fields that repeat the trace id, if its name is not that of the records.
    pub(crate) fn without_repeated_id(mut self, id: &'a [u8]) -> Self {
        self.repeated_id = self.names.document.schema.key().map(|_| id);
        self
    }

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

    /// Merges the fields of a record. Returns its text: the rank of the name, and the bytes. With
    /// `is_trace` the trace id and the text are not merged, because the document has them
    /// elsewhere.
    pub(crate) fn add_record(
        &mut self,
        record: &'a [u8],
        line: u32,
        is_trace: bool,
    ) -> Option<(usize, &'a [u8])> {
        let (Token::Map(n), mut at) = read_token(record, 0)? else {
            return None;
        };
        if self.list.is_empty() {
            // A record may claim more fields than it has.
            self.list.reserve((n as usize).min(MAX_RESERVED_FIELDS));
        }
        let names = self.names;
        let mut text: Option<(usize, &'a [u8], usize)> = None;
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
            if is_trace {
                if &*name == names.key().as_bytes() {
                    if as_text(token).is_none_or(<[u8]>::is_empty) {
                        self.put(renamed(&name), slot, line, record, value);
                    }
                    continue;
                }
                if self.repeated_id.is_some() && as_text(token) == self.repeated_id && names.is_key(&name) {
                    continue;
                }
                if let Some(rank) = names.text_rank(&name) {
                    match (as_text(token), text) {
                        (None, _) => self.put(renamed(&name), slot, line, record, value),
                        (Some(bytes), None) => text = Some((rank, bytes, value)),
                        (Some(bytes), Some((best, _, other))) if rank <= best => {
                            if rank < best {
                                let name = names
                                    .text
                                    .get(best)
                                    .map(|name| Cow::Owned(name.as_bytes().to_vec()));
                                self.put(name.unwrap_or_default(), slot, line, record, other);
                            }
                            text = Some((rank, bytes, value));
                        }
                        (Some(_), Some(_)) => self.put(name, slot, line, record, value),
                    }
                    continue;
                }
            }
            self.put(name, slot, line, record, value);
            slot += 1;
        }
        text.map(|(rank, bytes, _)| (rank, bytes))
    }

    /// `slot` is the index of the name if the record has the same fields as the one before.
    #[inline]
    fn put(&mut self, name: Cow<'a, [u8]>, slot: usize, line: u32, map: &'a [u8], value: usize) {
        if let Some(field) = self.list.get_mut(slot)
            && field.name == name
            && field.rule == MergeRule::Newest
        {
            (field.line, field.map, field.value) = (line, map, value);
            return;
        }
        self.put_slow(name, line, map, value);
    }

    #[inline(never)]
    fn put_slow(&mut self, name: Cow<'a, [u8]>, line: u32, map: &'a [u8], value: usize) {
        let rule = match self.location {
            FieldLocation::TopLevel => self.names.merge_rule(&name),
            FieldLocation::Metadata => self.names.metadata_rule(&name),
        };
        let name = match document_name(&name) {
            Cow::Owned(other) => Cow::Owned(other),
            Cow::Borrowed(_) => name,
        };
        let Some(name) = self.place(name, map, value) else {
            return;
        };
        let found = self.list.iter().position(|field| field.name == name);
        let Some(at) = found else {
            let mut field = MergedField {
                name,
                rule,
                line,
                map,
                value,
                values: ValueSet::default(),
            };
            field.compare_value(map, value);
            self.list.push(field);
            return;
        };
        let known = self.list.get(at).map_or(line, |field| field.line);
        let replaces = match rule {
            MergeRule::Oldest => self.age(line) <= self.age(known),
            MergeRule::Worst => (self.level(line), self.age(line)) >= (self.level(known), self.age(known)),
            _ => true,
        };
        if let Some(field) = self.list.get_mut(at).filter(|_| replaces) {
            (field.line, field.map, field.value) = (line, map, value);
            field.compare_value(map, value);
        }
    }

    /// The name that a field has in the document, if it has one.
    fn place(&self, name: Cow<'a, [u8]>, map: &[u8], value: usize) -> Option<Cow<'a, [u8]>> {
        let schema = self.names.document.schema;
        if self.location == FieldLocation::Metadata {
            return Some(name);
        }
        let is_map = matches!(read_token(map, value), Some((Token::Map(_), _)));
        match schema.placement(&name, is_map, self.known.0, self.known.1) {
            Placement::Keep => Some(name),
            Placement::Drop => None,
            Placement::Rename => Some(renamed(&name)),
        }
    }

    /// The age of a line for rules that must not depend on when it was received.
    fn age(&self, line: u32) -> Option<(i64, Option<PartId>, u32)> {
        let line = self.lines.get(line as usize)?;
        let part = self.parts.get(line.part as usize);
        Some((line.time, part.map(|part| part.id), line.position))
    }

    fn level(&self, line: u32) -> Option<Severity> {
        self.lines.get(line as usize)?.level
    }

    /// The fields that the state of the document must name: those whose value is not that of the
    /// line `newest`, or whose rule is not the usual one.
    pub(crate) fn to_note(&self, newest: u32) -> impl Iterator<Item = (&MergedField<'a>, u32)> {
        let line = move |field: &MergedField<'_>| {
            if field.rule.is_by_value() {
                newest
            } else {
                field.line
            }
        };
        let noted =
            move |field: &&MergedField<'_>| line(field) != newest || field.rule != usual_rule(&field.name);
        self.list
            .iter()
            .filter(noted)
            .map(move |field| (field, line(field)))
    }
}

impl MergedField<'_> {
    /// Takes a value into account, if the rule compares values.
    fn compare_value(&mut self, map: &[u8], value: usize) {
        if self.rule.is_by_value() {
            let mut text = Vec::new();
            json::write_json_value(&mut text, map, value);
            if let Ok(text) = std::str::from_utf8(&text) {
                self.values.add(self.rule, text);
            }
        }
    }

    /// Appends name and value.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_string(out, &self.name);
        out.push(b':');
        self.write_value(out);
    }

    /// Appends the value.
    pub(crate) fn write_value(&self, out: &mut Vec<u8>) {
        if self.rule.is_by_value() {
            self.values.write(self.rule, out);
        } else {
            json::write_json_value(out, self.map, self.value);
        }
    }
}

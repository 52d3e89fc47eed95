//! The merged fields of a document: for each name the value that its merge rule chooses, and the
//! line that it comes from.
//!
//! Owns which fields are the trace id and the text. Borrows values from the records; copies names
//! that are no UTF-8, and the values of rules that compare them. Names are those of the records;
//! [`MergedFields::names`] gives those of the document.

use std::borrow::Cow;

use super::content::Line;
use super::field_names::top_level::{Field, document_names, value_names};
use super::field_names::{is_simple_at_top, text};
use super::json;
use super::merge_rule::{MergeRule, ValueSet};
use super::msgpack::{Token, read_token, skip};
use super::names::{FieldNames, as_text};
use super::schema::Placement;
use super::state::{FieldLocation, usual_rule};
use crate::part::{PartId, PartInfo};
use crate::record::severity::Severity;

/// Maximum number of fields to allocate for before they are seen.
const MAX_RESERVED_FIELDS: usize = 64;

/// A field: its name in the records and the location of its value.
pub(crate) struct MergedField<'a> {
    pub(crate) name: Cow<'a, [u8]>,
    /// It has a name that the document needs for something else.
    is_displaced: bool,
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
            has_special_names: location == FieldLocation::TopLevel
                && !names.document.schema.derived_names().is_empty(),
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
            self.put(name, false, slot, line, map, value);
            at = end;
        }
    }

    /// Merges the fields of a record. Returns its text: the rank of the name, and the bytes. With
    /// `is_trace` the trace id and the text are not merged, because the document has them
    /// elsewhere. Other values under these names are displaced; without a trace, lists and objects
    /// are, where stores have a text.
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
                        self.put(name, true, slot, line, record, value);
                    }
                    continue;
                }
                if self.repeated_id.is_some() && as_text(token) == self.repeated_id && names.is_key(&name) {
                    continue;
                }
                if let Some(rank) = names.text_rank(&name) {
                    match (as_text(token), text) {
                        (None, _) => self.put(name, true, slot, line, record, value),
                        (Some(bytes), None) => text = Some((rank, bytes, value)),
                        (Some(bytes), Some((best, _, other))) if rank <= best => {
                            if rank < best {
                                let name = names
                                    .text
                                    .get(best)
                                    .map(|name| Cow::Owned(name.as_bytes().to_vec()));
                                self.put(name.unwrap_or_default(), false, slot, line, record, other);
                            }
                            text = Some((rank, bytes, value));
                        }
                        (Some(_), Some(_)) => self.put(name, false, slot, line, record, value),
                    }
                    continue;
                }
            }
            let is_displaced = matches!(token, Token::Array(_) | Token::Map(_)) && names.is_value_name(&name);
            self.put(name, is_displaced, slot, line, record, value);
            slot += 1;
        }
        text.map(|(rank, bytes, _)| (rank, bytes))
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
            && field.rule == MergeRule::Newest
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
        mut is_displaced: bool,
        line: u32,
        map: &'a [u8],
        value: usize,
    ) {
        let rule = match self.location {
            FieldLocation::TopLevel => self.names.merge_rule(&name),
            FieldLocation::Metadata => self.names.metadata_rule(&name),
        };
        if self.location == FieldLocation::TopLevel {
            let (has_level, has_services) = self.known;
            match self
                .names
                .document
                .schema
                .placement(&name, has_level, has_services)
            {
                Placement::Keep => {}
                Placement::Drop => return,
                Placement::Rename => is_displaced = true,
            }
        }
        let is_special = is_displaced || !is_simple_at_top(&name);
        if is_special && let Cow::Owned(other) = text(&name) {
            name = Cow::Owned(other.into_bytes());
        }
        let mut known = self.list.iter();
        let known = known.position(|field| field.name == name && field.is_displaced == is_displaced);
        let Some(at) = known else {
            self.has_special_names |= is_special;
            let mut field = MergedField {
                name,
                is_displaced,
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
                field.write_value(&field.name, &mut json);
            }
            Cow::Owned(json)
        });
        DocumentNames { names, fields }
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
    /// line `newest`, or whose rule is not the usual one. With their names in the document and lines.
    pub(crate) fn to_note<'n>(
        &'n self,
        names: &'n DocumentNames<'_>,
        newest: u32,
    ) -> impl Iterator<Item = (&'n [u8], MergeRule, u32)> {
        self.list.iter().enumerate().filter_map(move |(number, field)| {
            let line = if field.rule.is_by_value() {
                newest
            } else {
                field.line
            };
            let name = names.get(number, field);
            (line != newest || field.rule != usual_rule(name)).then_some((name, field.rule, line))
        })
    }
}

impl MergedField<'_> {
    /// Whether it has a name that the document needs for something else.
    pub(crate) fn is_displaced(&self) -> bool {
        self.is_displaced
    }

    /// Takes a value into account, if the rule compares values.
    fn compare_value(&mut self, map: &[u8], value: usize) {
        if self.rule.is_by_value() {
            let mut text = Vec::new();
            json::write_field_value(&mut text, &self.name, map, value);
            if let Ok(text) = std::str::from_utf8(&text) {
                self.values.add(self.rule, text);
            }
        }
    }

    /// Appends the value of the field with this name in the document.
    pub(crate) fn write_value(&self, name: &[u8], out: &mut Vec<u8>) {
        if self.rule.is_by_value() {
            self.values.write(self.rule, out);
        } else {
            json::write_field_value(out, name, self.map, self.value);
        }
    }
}

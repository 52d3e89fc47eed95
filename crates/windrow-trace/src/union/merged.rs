//! The union of two parsed documents, and how it is written.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::value::RawValue;

use super::parsed::ParsedDocument;
use crate::document::json::{one_line, write_escaped, write_string};
use crate::document::kept::{KeptRecord, write_kept};
use crate::document::merge_rule::{MergeRule, ValueSet};
use crate::document::schema::{DocumentSchema, Placement};
use crate::document::state::{
    DocumentState, FieldLocation, FieldState, LineState, PartState, SealReason, usual_rule,
};
use crate::document::time::Rfc3339Writer;
use crate::document::windrow_object::{
    LevelCounts, LineSummary, MAX_SERVICES, WindrowObject, begin_document, trace_id_prefix,
    write_windrow_object,
};
use crate::part::PartId;
use crate::record::severity::Severity;

/// The sort key of a line: event time, reception, part, position.
type LineOrder = (i64, i64, PartId, u32);

/// What a line says.
#[derive(Clone, Copy, Debug, Default)]
struct LineContent<'a> {
    text: Option<&'a str>,
    level: Option<Severity>,
    service: Option<&'a str>,
    /// Its record, if it was kept.
    kept: Option<&'a KeptRecord>,
}

/// A field of the union.
struct JoinedField<'a> {
    location: FieldLocation,
    name: Cow<'a, str>,
    rule: MergeRule,
    /// The line of the value.
    line: LineOrder,
    raw: &'a RawValue,
    /// The values, if the rule chooses by value.
    values: ValueSet,
}

/// The union of two documents, ready to be written.
pub(super) struct MergedDocument<'a> {
    schema: DocumentSchema,
    key_name: &'a str,
    key: &'a str,
    text_name: Option<&'a str>,
    parts: BTreeMap<PartId, PartState>,
    lines: BTreeMap<LineOrder, LineContent<'a>>,
    pub(super) line_count: usize,
    fields: Vec<JoinedField<'a>>,
    tags: Vec<&'a str>,
    services: Vec<&'a str>,
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
    let services: BTreeSet<&str> = a.services.iter().chain(&b.services).map(String::as_str).collect();
    let services: Vec<&str> = services.into_iter().take(MAX_SERVICES).collect();
    let mut lines: BTreeMap<LineOrder, LineContent<'a>> = BTreeMap::new();
    for document in [a, b] {
        let texts = document.line_texts().unwrap_or_default();
        for (number, (line, text)) in document.state.lines.iter().zip(texts).enumerate() {
            let Some(order) = order(document, line) else {
                continue;
            };
            let known = lines.entry(order).or_insert(LineContent {
                text,
                ..LineContent::default()
            });
            let service = document.line_service(line);
            let service = service.filter(|name| services.binary_search(name).is_ok());
            known.level = known.level.max(line.level);
            known.service = known.service.max(service);
            known.kept = known.kept.or_else(|| document.kept(number));
        }
    }
    let schema = a.state.schema.max(b.state.schema);
    let newer = if b.state.schema > a.state.schema { b } else { a };
    let text_name = preferred(a.state.text_name.as_deref(), b.state.text_name.as_deref());
    let mut joined = MergedDocument {
        schema,
        key_name: &newer.key_name,
        key: &a.key,
        text_name: text_name.map(|name| schema.text().unwrap_or(name)),
        parts: BTreeMap::new(),
        line_count: lines.len(),
        lines,
        fields: Vec::new(),
        tags: a.tags.iter().chain(&b.tags).map(String::as_str).collect(),
        services,
        state: (
            a.state.reason.max(b.state.reason),
            a.state.sealed_at.min(b.state.sealed_at),
        ),
    };
    joined.tags.sort_unstable();
    joined.tags.dedup();
    joined.join_fields([a, b], order);
    joined.parts = parts;
    joined
}

impl<'a> MergedDocument<'a> {
    fn join_fields(
        &mut self,
        documents: [&'a ParsedDocument<'a>; 2],
        order: impl Fn(&ParsedDocument<'_>, &LineState) -> Option<LineOrder>,
    ) {
        let noted = documents.map(ParsedDocument::noted);
        let mut rules: HashMap<(FieldLocation, &str), MergeRule> = HashMap::new();
        let mut all = Vec::new();
        for (document, noted) in documents.into_iter().zip(&noted) {
            for (location, name, raw) in &document.fields {
                let (rule, line) = document.field_state(noted, *location, name);
                let Some(order) = line.and_then(|line| order(document, line)) else {
                    continue;
                };
                let known = rules.entry((*location, name)).or_insert(rule);
                *known = rule.max(*known);
                all.push((*location, name.as_str(), order, *raw));
            }
        }
        let mut known: HashMap<(FieldLocation, Cow<'a, str>), usize> = HashMap::new();
        for (location, name, line, raw) in all {
            let rule = rules.get(&(location, name)).copied().unwrap_or_default();
            let Some(name) = self.place(location, name, raw) else {
                continue;
            };
            let candidate = JoinedField {
                location,
                name: name.clone(),
                rule,
                line,
                raw,
                values: ValueSet::default(),
            };
            let at = *known.entry((location, name)).or_insert(self.fields.len());
            if at == self.fields.len() {
                self.fields.push(candidate);
            } else if self
                .fields
                .get(at)
                .is_some_and(|field| self.replaces(&candidate, field))
                && let Some(field) = self.fields.get_mut(at)
            {
                (field.line, field.raw) = (line, raw);
            }
            if rule.is_by_value()
                && let Some(field) = self.fields.get_mut(at)
            {
                if let Ok(text) = String::from_utf8(one_line(raw).collect()) {
                    field.values.add(rule, &text);
                }
            }
        }
    }

    /// The name of a field in a document of this schema, if it has one.
    fn place(&self, location: FieldLocation, name: &'a str, raw: &RawValue) -> Option<Cow<'a, str>> {
        if location == FieldLocation::Metadata {
            return Some(name.into());
        }
        let is_map = raw.get().starts_with('{');
        match self.schema.placement(name.as_bytes(), is_map, false, false) {
            Placement::Keep => Some(name.into()),
            Placement::Drop => None,
            Placement::Rename => Some(format!("{name}_").into()),
        }
    }

    /// Whether the value of `other` replaces that of `field`.
    fn replaces(&self, other: &JoinedField<'_>, field: &JoinedField<'_>) -> bool {
        let age = |field: &JoinedField<'_>| (field.line.0, field.line.2, field.line.3);
        let level = |field: &JoinedField<'_>| self.lines.get(&field.line).and_then(|line| line.level);
        match other.rule {
            MergeRule::Newest => other.line > field.line,
            MergeRule::Oldest => age(other) < age(field),
            MergeRule::Worst => (level(other), age(other)) > (level(field), age(field)),
            MergeRule::Max | MergeRule::Min | MergeRule::Set => false,
        }
    }

    pub(super) fn adds_nothing_to(&self, a: &ParsedDocument<'_>) -> bool {
        let content = |line: &LineState| (line.level, a.line_service(line));
        self.lines.len() == a.state.lines.len()
            && self.parts.len() == a.state.parts.len()
            && a.state
                .parts
                .iter()
                .all(|part| self.parts.get(&part.id) == Some(part))
            && self.state == (a.state.reason, a.state.sealed_at)
            && self.tags.len() == a.tags.len()
            && self.services.len() == a.services.len()
            && self.schema == a.state.schema
            // The lines of both are in the same order.
            && self
                .lines
                .values()
                .zip(&a.state.lines)
                .all(|(line, known)| (line.level, line.service) == content(known))
            && self.lines.values().enumerate().all(|(number, line)| line.kept.is_some() == a.kept(number).is_some())
            && self.has_fields_of(a)
    }

    /// Whether all fields are those of `a`. With the same lines they differ where a document of
    /// another form chose its values by another rule.
    fn has_fields_of(&self, a: &ParsedDocument<'_>) -> bool {
        let noted = a.noted();
        let values: HashMap<_, _> = a
            .fields
            .iter()
            .map(|(location, name, raw)| ((*location, name.as_str()), *raw))
            .collect();
        let mut text = Vec::new();
        self.fields.iter().all(|field| {
            text.clear();
            field.write_value(&mut text);
            let known = values.get(&(field.location, &*field.name));
            let (rule, line) = a.field_state(&noted, field.location, &field.name);
            let is_origin = |line: &LineState| {
                let part = a.line_part(line).map(|part| part.id);
                (line.time, part, line.position) == (field.line.0, Some(field.line.2), field.line.3)
            };
            known.is_some_and(|raw| one_line(raw).eq(text.iter().copied()))
                && rule == field.rule
                && (rule.is_by_value() || line.is_some_and(is_origin))
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (reason, sealed_at) = self.state;
        let mut parts: Vec<PartState> = self.parts.values().copied().collect();
        parts.sort_unstable_by_key(|part| (part.received, part.id));
        let first = self.lines.first_key_value().map_or(0, |(order, _)| order.0);
        let last = self.lines.last_key_value().map_or(0, |(order, _)| order.0);
        let mut levels = LevelCounts::default();
        for line in self.lines.values() {
            levels.add(line.level, 1);
        }
        let summary = LineSummary {
            between: (first, last),
            lines: self.lines.len(),
            late: self.lines.keys().filter(|order| order.1 > sealed_at).count() as u64,
            levels,
            services: &self.services,
        };

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
            for (i, text) in self.lines.values().filter_map(|line| line.text).enumerate() {
                if i > 0 {
                    out.extend_from_slice(b"\\n");
                }
                write_escaped(out, text.as_bytes());
            }
            out.push(b'"');
        }
        self.schema.write_derived(out, &summary.derived());
        let known = (levels.worst().is_some(), !self.services.is_empty());
        let is_written = |field: &&JoinedField<'_>| {
            let name = field.name.as_bytes();
            field.location == FieldLocation::Metadata
                || self.schema.placement(name, true, known.0, known.1) != Placement::Drop
        };
        let fields: Vec<_> = self.fields.iter().filter(is_written).collect();
        let of = |location: FieldLocation| fields.iter().filter(move |field| field.location == location);
        for field in of(FieldLocation::TopLevel) {
            out.push(b',');
            field.write(out);
        }
        let total: u64 = parts.iter().map(|part| u64::from(part.total)).sum();
        let object = WindrowObject {
            reason,
            first,
            last,
            lines: summary.lines,
            tags: &self.tags,
            parts: parts.len(),
            late: summary.late,
            truncated: total.saturating_sub(self.lines.len() as u64),
            levels,
            services: &self.services,
        };
        write_windrow_object(out, &mut times, &object);
        let mut metadata = of(FieldLocation::Metadata).peekable();
        if metadata.peek().is_some() {
            out.extend_from_slice(b",\"metadata\":{");
            for (i, field) in metadata.enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                field.write(out);
            }
            out.push(b'}');
        }
        if self.lines.values().any(|line| line.kept.is_some()) {
            let values = fields.iter().map(|field| field.located_value()).collect();
            write_kept(out, self.lines.values().map(|line| line.kept), &values);
        }
        let fields = self.field_states(fields.iter().copied());
        let state = DocumentState {
            schema: self.schema,
            key_name: self.key_name.to_owned(),
            text_name: self.text_name.map(str::to_owned),
            reason,
            sealed_at,
            lines: self.line_states(&parts),
            parts,
            fields,
        };
        out.extend_from_slice(b",\"state\":\"");
        state.write(out);
        out.extend_from_slice(b"\"}}");
    }

    fn line_states(&self, parts: &[PartState]) -> Vec<LineState> {
        let number: HashMap<PartId, u32> = parts.iter().zip(0..).map(|(part, i)| (part.id, i)).collect();
        let lines = self.lines.iter().filter_map(|(&(time, _, id, position), line)| {
            let service = line
                .service
                .and_then(|name| self.services.binary_search(&name).ok());
            Some(LineState {
                time,
                part: *number.get(&id)?,
                position,
                text: line.text.map(|text| text.len() as u32),
                level: line.level,
                service: service.map(|number| number as u32),
            })
        });
        lines.collect()
    }

    fn field_states<'f>(&self, fields: impl Iterator<Item = &'f JoinedField<'a>>) -> Vec<FieldState>
    where
        'a: 'f,
    {
        let number: HashMap<LineOrder, u32> =
            self.lines.keys().zip(0..).map(|(order, i)| (*order, i)).collect();
        let newest = (self.lines.len() as u32).saturating_sub(1);
        let states = fields.filter_map(|field| {
            let line = if field.rule.is_by_value() {
                newest
            } else {
                *number.get(&field.line)?
            };
            let is_noted = line != newest || field.rule != usual_rule(field.name.as_bytes());
            is_noted.then(|| FieldState {
                location: field.location,
                name: field.name.to_string(),
                rule: field.rule,
                line,
            })
        });
        states.collect()
    }
}

impl JoinedField<'_> {
    /// Appends name and value.
    fn write(&self, out: &mut Vec<u8>) {
        write_string(out, self.name.as_bytes());
        out.push(b':');
        self.write_value(out);
    }

    fn located_value(&self) -> ((FieldLocation, String), String) {
        let mut value = Vec::new();
        self.write_value(&mut value);
        let value = String::from_utf8(value).unwrap_or_default();
        ((self.location, self.name.to_string()), value)
    }

    fn write_value(&self, out: &mut Vec<u8>) {
        if self.rule.is_by_value() {
            self.values.write(self.rule, out);
        } else {
            out.extend(one_line(self.raw));
        }
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

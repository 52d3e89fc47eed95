//! The union of two parsed documents, and how it is written.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::value::RawValue;

use super::field::JoinedField;
use super::parsed::ParsedDocument;
use crate::document::field_names::top_level::Field;
use crate::document::json::{one_line, write_escaped, write_string};
use crate::document::kept::{KeptRecord, write_kept};
use crate::document::merge_rule::{MergeRule, ValueSet};
use crate::document::schema::{DocumentSchema, Placement};
use crate::document::state::{
    DocumentState, FieldLocation, FieldState, LineState, PartState, RenamedField, SealReason, usual_rule,
};
use crate::document::time::Rfc3339Writer;
use crate::document::windrow_object::{
    LevelCounts, LineSummary, MAX_SERVICES, MAX_TAGS, WindrowObject, begin_document, trace_id_prefix,
    write_windrow_object,
};
use crate::name_origin::{NameOrigin, field_names};
use crate::part::PartId;
use crate::record::severity::Severity;
use crate::unmapped::{METADATA_OWNER, UNMAPPED, Unmap, begin_pair, unmap};

/// The sort key of a line: event time, reception, part, position.
pub(super) type LineOrder = (i64, i64, PartId, u32);

/// What a line says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LineContent<'a> {
    pub(super) text: Option<&'a str>,
    level: Option<Severity>,
    pub(super) service: Option<&'a str>,
    /// Its record, if it was kept.
    kept: Option<&'a KeptRecord>,
}

/// The union of two documents, ready to be written.
#[derive(Clone)]
pub(super) struct MergedDocument<'a> {
    schema: DocumentSchema,
    key_name: &'a str,
    key: &'a str,
    text_name: Option<&'a str>,
    pub(super) parts: BTreeMap<PartId, PartState>,
    pub(super) lines: BTreeMap<LineOrder, LineContent<'a>>,
    pub(super) fields: Vec<JoinedField<'a>>,
    tags: Vec<&'a str>,
    pub(super) services: Vec<&'a str>,
    unmapped: Vec<&'a str>,
    state: (SealReason, i64),
    pub(super) continued: bool,
    pub(super) continues: Option<&'a str>,
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
            let known = lines.entry(order).or_insert_with(|| LineContent {
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
        lines,
        fields: Vec::new(),
        tags: a.tags.iter().chain(&b.tags).map(String::as_str).collect(),
        services,
        unmapped: a.unmapped.iter().chain(&b.unmapped).map(String::as_str).collect(),
        state: (
            a.state.reason.max(b.state.reason),
            a.state.sealed_at.min(b.state.sealed_at),
        ),
        continued: a.continued || b.continued,
        continues: a.continues.as_deref().or(b.continues.as_deref()),
    };
    joined.tags.sort_unstable();
    joined.tags.dedup();
    joined.tags.truncate(MAX_TAGS);
    joined.unmapped.sort_unstable();
    joined.unmapped.dedup();
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
        let mut rules: HashMap<(FieldLocation, NameOrigin<'a>), MergeRule> = HashMap::new();
        let mut all = Vec::new();
        for document in documents {
            let (noted, origins) = (document.noted(), document.origins());
            for field in &document.fields {
                let (rule, line) = document.field_state(&noted, field.location, &field.name);
                let Some(order) = line.and_then(|line| order(document, line)) else {
                    continue;
                };
                let origin = origins.get(&(field.location, field.name.as_str())).copied();
                let origin = origin.unwrap_or((&field.name, &field.name));
                let known = rules.entry((field.location, origin)).or_insert(rule);
                *known = rule.max(*known);
                all.push((field, origin, order));
            }
        }
        let mut known: HashMap<(FieldLocation, &'a str, Cow<'a, str>), usize> = HashMap::new();
        for (field, origin, line) in all {
            let location = field.location;
            let rule = rules.get(&(location, origin)).copied().unwrap_or_default();
            let Some(natural) = self.place(location, origin) else {
                continue;
            };
            let candidate = JoinedField {
                location,
                original: origin.0,
                natural: natural.clone(),
                rule,
                line,
                raw: field.raw,
                unmapped: field.unmapped,
                values: ValueSet::default(),
            };
            let at = *known
                .entry((location, origin.0, natural))
                .or_insert(self.fields.len());
            if at == self.fields.len() {
                self.fields.push(candidate);
            } else if self
                .fields
                .get(at)
                .is_some_and(|field| self.replaces(&candidate, field))
                && let Some(known) = self.fields.get_mut(at)
            {
                (known.line, known.raw, known.unmapped) = (line, field.raw, field.unmapped);
            }
            if rule.is_by_value()
                && let Some(known) = self.fields.get_mut(at)
                && let Ok(text) = String::from_utf8(one_line(field.raw).collect())
            {
                known.values.add(rule, &text);
                // Where any value was refused, their set is.
                known.unmapped |= field.unmapped;
            }
        }
    }

    /// What the name of a field becomes in a document of this schema, if it has one.
    fn place(&self, location: FieldLocation, (original, natural): NameOrigin<'a>) -> Option<Cow<'a, str>> {
        if location == FieldLocation::Metadata {
            return Some(natural.into());
        }
        match self.schema.placement(original.as_bytes(), false, false) {
            Placement::Keep => Some(natural.into()),
            Placement::Drop => None,
            Placement::Rename => Some(Field::new(original.into(), true).natural),
        }
    }

    /// The fields that are written, with their names in the document.
    fn named_fields(&self, known: (bool, bool)) -> Vec<(&JoinedField<'a>, String)> {
        let is_written = |field: &&JoinedField<'_>| {
            let name = field.original.as_bytes();
            field.location == FieldLocation::Metadata
                || self.schema.placement(name, known.0, known.1) != Placement::Drop
        };
        let fields: Vec<_> = self.fields.iter().filter(is_written).collect();
        let values: Vec<Box<RawValue>> = fields.iter().map(|field| field.as_raw()).collect();
        let all: Vec<_> = fields
            .iter()
            .zip(&values)
            .map(|(field, raw)| (field.location, (field.original, &*field.natural), &**raw))
            .collect();
        let own = self.text_name.into_iter().chain([self.key_name]);
        let names = field_names(&all, own, self.schema.derived_names());
        fields.into_iter().zip(names).collect()
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
            && self.continued == a.continued
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
            .map(|field| ((field.location, field.name.as_str()), field))
            .collect();
        let mut text = Vec::new();
        self.named_fields(self.known()).iter().all(|(field, name)| {
            text.clear();
            field.write_value(&mut text);
            let known = values.get(&(field.location, name.as_str()));
            let (rule, line) = a.field_state(&noted, field.location, name);
            let is_origin = |line: &LineState| {
                let part = a.line_part(line).map(|part| part.id);
                (line.time, part, line.position) == (field.line.0, Some(field.line.2), field.line.3)
            };
            known.is_some_and(|known| {
                known.unmapped == field.unmapped && one_line(known.raw).eq(text.iter().copied())
            }) && rule == field.rule
                && (rule.is_by_value() || line.is_some_and(is_origin))
        })
    }

    /// Whether the document has a level and services.
    fn known(&self) -> (bool, bool) {
        let has_level = self.lines.values().any(|line| line.level.is_some());
        (has_level, !self.services.is_empty())
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
        let named = self.named_fields(self.known());
        let of = |location: FieldLocation, unmapped: bool| {
            let here = move |(field, _): &&(&JoinedField<'_>, String)| {
                field.location == location && field.unmapped == unmapped
            };
            named.iter().filter(here).peekable()
        };
        let write_field = |out: &mut Vec<u8>, (field, name): &(&JoinedField<'_>, String)| {
            begin_pair(out, name);
            field.write_value(out);
        };
        of(FieldLocation::TopLevel, false).for_each(|field| write_field(out, field));
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
            continued: self.continued,
            continues: self.continues,
        };
        write_windrow_object(out, &mut times, &object);
        let write_metadata = |out: &mut Vec<u8>, unmapped: bool| {
            let mut fields = of(FieldLocation::Metadata, unmapped);
            if fields.peek().is_some() {
                begin_pair(out, "metadata");
                out.push(b'{');
                fields.for_each(|field| write_field(out, field));
                out.push(b'}');
            }
        };
        write_metadata(out, false);
        if named.iter().any(|(field, _)| field.unmapped) {
            begin_pair(out, UNMAPPED);
            out.push(b'{');
            of(FieldLocation::TopLevel, true).for_each(|field| write_field(out, field));
            if of(FieldLocation::Metadata, true).peek().is_some() {
                begin_pair(out, METADATA_OWNER);
                out.push(b'{');
                write_metadata(out, true);
                out.push(b'}');
            }
            out.push(b'}');
        }
        if self.lines.values().any(|line| line.kept.is_some()) {
            let values = named.iter().filter_map(|(field, _)| field.located_value());
            write_kept(out, self.lines.values().map(|line| line.kept), &values.collect());
        }
        let renamed = named.iter().filter(|(field, name)| field.original != name);
        let renamed = renamed.map(|(field, name)| RenamedField {
            location: field.location,
            name: name.clone(),
            original: field.original.to_owned(),
            natural: field.natural.to_string(),
        });
        let (fields, renamed) = (self.field_states(&named), renamed.collect());
        let state = DocumentState {
            schema: self.schema,
            key_name: self.key_name.to_owned(),
            text_name: self.text_name.map(str::to_owned),
            reason,
            sealed_at,
            lines: self.line_states(&parts),
            parts,
            fields,
            renamed,
        };
        out.extend_from_slice(b",\"state\":\"");
        state.write(out);
        out.extend_from_slice(b"\"}}");
        for name in &self.unmapped {
            if let Some((moved, _)) = unmap(out, Unmap::Field(name)) {
                *out = moved;
            }
        }
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

    fn field_states(&self, named: &[(&JoinedField<'_>, String)]) -> Vec<FieldState> {
        let number: HashMap<LineOrder, u32> =
            self.lines.keys().zip(0..).map(|(order, i)| (*order, i)).collect();
        let newest = (self.lines.len() as u32).saturating_sub(1);
        let states = named.iter().filter_map(|(field, name)| {
            let line = if field.rule.is_by_value() {
                newest
            } else {
                // A continuation may have fields of lines that are elsewhere.
                number.get(&field.line).copied().unwrap_or(newest)
            };
            let is_noted = line != newest || field.rule != usual_rule(name.as_bytes());
            is_noted.then(|| FieldState {
                location: field.location,
                name: name.clone(),
                rule: field.rule,
                line,
            })
        });
        states.collect()
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

//! The union of two documents of one trace. Every case in which a trace could become two documents
//! ends here.
//!
//! A pure function that all outputs use. It is a join (commutative, associative, idempotent;
//! `tests/union.rs` checks that), so neither the order of writers nor lost responses nor how a
//! restart regroups the records matter:
//!
//! * parts: the set union by id. Of a part received twice the later reception counts, because then
//!   the winner of each field is always the winner in one of the two documents; with the earlier
//!   one it could be a value that neither document kept.
//! * lines: the set union by part and position, ordered by event time, reception of the part, part
//!   id and position.
//! * fields: of two values, that of the line which comes later in that order. A field that was moved
//!   to `windrow.unmapped` counts as a field of its own name, and stays where its value was.
//! * reason: the greater; time of sealing: the earlier; tags: the set union. The rest is derived.

mod bounded;
mod parsed;

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;

use crate::document::json::{write_escaped, write_string};
use crate::document::state::{
    DocumentState, FieldLocation, LineState, OlderField, PartState, RenamedField, SealReason,
};
use crate::document::time::Rfc3339Writer;
use crate::document::windrow_object::{WindrowObject, begin_document, trace_id_prefix, write_windrow_object};
use crate::name_origin::{NameOrigin, field_names, name_origins};
use crate::part::PartId;
use crate::raw_fields::write_raw;
use crate::unmapped::{METADATA_OWNER, UNMAPPED, Unmap, begin_pair, restore_unindexed, unmap};

pub use self::bounded::{BoundedUnion, Continuation, union_within};
use self::parsed::ParsedDocument;

/// The union of an existing document with another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Union {
    /// The existing document contains everything of the other.
    Unchanged,
    /// The document to write in place of the existing one.
    Merged {
        /// The merged document.
        document: Vec<u8>,
        /// Number of lines that the existing document lacked.
        new_lines: u32,
    },
}

/// A document that cannot be merged: Windrow did not write it, or somebody changed it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{which} document cannot be merged: {why}")]
pub struct UnionError {
    /// Which document: `existing` or `own`.
    pub which: &'static str,
    /// What is wrong with it.
    pub why: String,
}

/// Merges two documents of one trace, as the renderer or this function wrote them.
///
/// # Errors
///
/// [`UnionError`] if a document has no readable `windrow.state`, its text does not have the lengths
/// noted there, or the two belong to different traces.
pub fn union(existing: &[u8], ours: &[u8]) -> Result<Union, UnionError> {
    let (existing, ours) = (restore_unindexed(existing), restore_unindexed(ours));
    let (a, b) = parse_both(&existing, &ours)?;
    let joined = join(&a, &b);
    if joined.adds_nothing_to(&a) {
        return Ok(Union::Unchanged);
    }
    let mut out = Vec::with_capacity(existing.len() + ours.len());
    joined.write(&mut out);
    let new_lines = (joined.lines.len() - a.state.lines.len()) as u32;
    Ok(Union::Merged {
        document: out,
        new_lines,
    })
}

/// Parses two documents of one trace; of those with everything in a text, what is in the text.
fn parse_both<'a>(
    existing: &'a [u8],
    ours: &'a [u8],
) -> Result<(ParsedDocument<'a>, ParsedDocument<'a>), UnionError> {
    let a = ParsedDocument::parse(existing).map_err(|why| UnionError {
        which: "existing",
        why,
    })?;
    let b = ParsedDocument::parse(ours).map_err(|why| UnionError { which: "own", why })?;
    if a.key != b.key {
        let why = format!("it is of trace {:?}, not of {:?}", a.key, b.key);
        return Err(UnionError {
            which: "existing",
            why,
        });
    }
    Ok((a, b))
}

/// The ids of the parts of a document, for log messages. Empty if it is not a document of a trace.
pub fn part_ids(document: &[u8]) -> Vec<String> {
    ParsedDocument::parse(&restore_unindexed(document))
        .map(|document| {
            document
                .state
                .parts
                .iter()
                .map(|part| part.id.to_string())
                .collect()
        })
        .unwrap_or_default()
}

/// The sort key of a line: event time, reception, part, position.
type LineOrder = (i64, i64, PartId, u32);

/// A field of a document.
#[derive(Clone, Copy)]
struct Field<'a, N> {
    location: FieldLocation,
    name: N,
    raw: &'a RawValue,
    /// It is in `windrow.unmapped`.
    unmapped: bool,
}

/// The union of two documents, ready to be written.
#[derive(Clone)]
struct MergedDocument<'a> {
    key_name: &'a str,
    key: &'a str,
    text_name: Option<&'a str>,
    parts: BTreeMap<PartId, PartState>,
    lines: BTreeMap<LineOrder, Option<&'a str>>,
    /// With the names in the records.
    fields: Vec<(Field<'a, NameOrigin<'a>>, LineOrder)>,
    tags: Vec<&'a str>,
    unmapped: Vec<&'a str>,
    state: (SealReason, i64),
    continued: bool,
    continues: Option<&'a str>,
}

fn join<'a>(a: &'a ParsedDocument<'a>, b: &'a ParsedDocument<'a>) -> MergedDocument<'a> {
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
    let mut fields: Vec<(Field<'a, NameOrigin<'a>>, LineOrder)> = Vec::new();
    let mut known: HashMap<(FieldLocation, NameOrigin<'a>), usize> = HashMap::new();
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
        let origins = name_origins(&document.state);
        for field in &document.fields {
            let Some(order) = document
                .origin(&older, field.location, &field.name)
                .and_then(|line| order(document, line))
            else {
                continue;
            };
            let origin = origins.get(&(field.location, field.name.as_str())).copied();
            let name = origin.unwrap_or((&field.name, &field.name));
            let borrowed = Field {
                location: field.location,
                name,
                raw: field.raw,
                unmapped: field.unmapped,
            };
            match known.get(&(field.location, name)) {
                None => {
                    known.insert((field.location, name), fields.len());
                    fields.push((borrowed, order));
                }
                Some(&at) if fields[at].1 < order => fields[at] = (borrowed, order),
                Some(_) => {}
            }
        }
    }
    let mut tags: Vec<&str> = a.tags.iter().chain(&b.tags).map(String::as_str).collect();
    tags.sort_unstable();
    tags.dedup();
    let mut unmapped: Vec<&str> = a.unmapped.iter().chain(&b.unmapped).map(String::as_str).collect();
    unmapped.sort_unstable();
    unmapped.dedup();
    MergedDocument {
        key_name: &a.key_name,
        key: &a.key,
        text_name: preferred(a.state.text_name.as_deref(), b.state.text_name.as_deref()),
        parts,
        lines,
        fields,
        tags,
        unmapped,
        state: (
            a.state.reason.max(b.state.reason),
            a.state.sealed_at.min(b.state.sealed_at),
        ),
        continued: a.continued || b.continued,
        continues: a.continues.as_deref().or(b.continues.as_deref()),
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
    fn adds_nothing_to(&self, a: &ParsedDocument<'_>) -> bool {
        self.lines.len() == a.state.lines.len()
            && self.parts.len() == a.state.parts.len()
            && a.state
                .parts
                .iter()
                .all(|part| self.parts.get(&part.id) == Some(part))
            && self.state == (a.state.reason, a.state.sealed_at)
            && self.tags.len() == a.tags.len()
            && self.continued == a.continued
    }

    fn write(&self, out: &mut Vec<u8>) {
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
        let fields = self
            .fields
            .iter()
            .map(|(field, _)| (field.location, field.name, field.raw));
        let own = self.text_name.into_iter().chain([self.key_name]);
        let names = field_names(&fields.collect::<Vec<_>>(), own);
        let of = |location: FieldLocation, unmapped: bool| {
            let fields = self.fields.iter().zip(&names).map(|((field, _), name)| Field {
                location: field.location,
                name: name.as_str(),
                raw: field.raw,
                unmapped: field.unmapped,
            });
            let chosen =
                move |field: &Field<'_, &str>| field.location == location && field.unmapped == unmapped;
            fields.filter(chosen).peekable()
        };
        for field in of(FieldLocation::TopLevel, false) {
            field.write(out);
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
            continued: self.continued,
            continues: self.continues,
        };
        write_windrow_object(out, &mut times, &object);
        let write_metadata = |out: &mut Vec<u8>, unmapped: bool| {
            let mut fields = of(FieldLocation::Metadata, unmapped);
            if fields.peek().is_some() {
                begin_pair(out, "metadata");
                out.push(b'{');
                fields.for_each(|field| field.write(out));
                out.push(b'}');
            }
        };
        write_metadata(out, false);
        if self.fields.iter().any(|(field, _)| field.unmapped) {
            begin_pair(out, UNMAPPED);
            out.push(b'{');
            of(FieldLocation::TopLevel, true).for_each(|field| field.write(out));
            if of(FieldLocation::Metadata, true).peek().is_some() {
                begin_pair(out, METADATA_OWNER);
                out.push(b'{');
                write_metadata(out, true);
                out.push(b'}');
            }
            out.push(b'}');
        }
        let newest = (self.lines.len() as u32).saturating_sub(1);
        let older = self
            .fields
            .iter()
            .zip(&names)
            .filter_map(|((field, order), name)| {
                let line = *line_number.get(order)?;
                (line != newest).then(|| OlderField {
                    location: field.location,
                    name: name.clone(),
                    line,
                })
            });
        let renamed = self.fields.iter().zip(&names).filter_map(|((field, _), name)| {
            let (original, natural) = field.name;
            (original != name).then(|| RenamedField {
                location: field.location,
                name: name.clone(),
                original: original.to_owned(),
                natural: natural.to_owned(),
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
            renamed: renamed.collect(),
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
}

impl Field<'_, &str> {
    fn write(&self, out: &mut Vec<u8>) {
        begin_pair(out, self.name);
        write_raw(out, self.raw);
    }
}

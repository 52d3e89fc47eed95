//! The union within a limit: a document that has no space for another one takes no further lines,
//! and what it lacks goes on in documents of its own, one per part.
//!
//! A document that is *continued* never gets another line, and one that is not continued has no
//! continuations. So a line is in one document of the trace, whoever writes it and however often:
//! the id of a continuation depends on the trace, the part and the position of the first line only.
//! `docs/decisions/0031-long-traces.md` has the reasons.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use twox_hash::XxHash3_128;

use super::field::JoinedField;
use super::merged::{LineOrder, join};
use super::parsed::ParsedDocument;
use super::{Union, UnionError, parse_both};
use crate::document::state::PartState;
use crate::part::PartId;
use crate::unmapped::restore_unindexed;

/// Longest `_id` of a continuation. Elasticsearch refuses ids of more than 512 bytes.
const MAX_ID_BYTES: usize = 512;
/// Bytes of fields that every continuation gets, also of those that come from a line of another
/// one: so that it is found by a service or a host.
const MAX_REPEATED_FIELD_BYTES: usize = 4 << 10;

/// The union of an existing document with another one, within a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundedUnion {
    /// What becomes of the existing document.
    pub main: Union,
    /// Documents to create once `main` is stored, or to unite with those that have their ids.
    pub continuations: Vec<Continuation>,
}

/// A document with the lines of one part, for which the document of the trace has no space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Its `_id`.
    pub id: String,
    /// Time of its first event, Unix ns.
    pub first_ns: i64,
    /// Number of its lines.
    pub lines: u32,
    /// The document.
    pub document: Vec<u8>,
}

/// As [`super::union`], but the union of a document with lines that it lacks has at most
/// `max_bytes`. `id` is the `_id` of the existing document.
///
/// If it would have more, the existing document is marked as continued and gets none of the lines:
/// each part of them becomes a [`Continuation`]. A continued document gets no further lines, and a
/// continuation has no continuations.
///
/// # Errors
///
/// As [`super::union`].
pub fn union_within(
    existing: &[u8],
    ours: &[u8],
    id: &str,
    max_bytes: usize,
) -> Result<BoundedUnion, UnionError> {
    let (existing, ours) = (restore_unindexed(existing), restore_unindexed(ours));
    let (a, b) = parse_both(&existing, &ours)?;
    let is_main = a.continues.is_none();
    if !(is_main && a.continued) {
        let joined = join(&a, &b);
        let new_lines = joined.lines.len() - a.state.lines.len();
        if joined.adds_nothing_to(&a) {
            return Ok(BoundedUnion::without_continuations(Union::Unchanged));
        }
        let takes_all = !is_main || new_lines == 0;
        let texts = joined.lines.values().filter_map(|line| line.text);
        // A document is at least as long as its texts: one that is far too long is not written.
        if takes_all || texts.map(str::len).sum::<usize>() <= max_bytes {
            let mut document = Vec::with_capacity(existing.len() + ours.len());
            joined.write(&mut document);
            if takes_all || document.len() <= max_bytes {
                return Ok(BoundedUnion::without_continuations(Union::Merged {
                    document,
                    new_lines: new_lines as u32,
                }));
            }
        }
    }
    let continuations = continuations(&a, &b, id, ours.len());
    if a.continued {
        let main = Union::Unchanged;
        return Ok(BoundedUnion { main, continuations });
    }
    let mut document = Vec::with_capacity(existing.len() + 32);
    let mut closed = join(&a, &a);
    closed.continued = true;
    closed.write(&mut document);
    let main = Union::Merged {
        document,
        new_lines: 0,
    };
    Ok(BoundedUnion { main, continuations })
}

impl BoundedUnion {
    /// A union for which the existing document has space.
    pub fn without_continuations(main: Union) -> Self {
        Self {
            main,
            continuations: Vec::new(),
        }
    }

    /// Number of lines that no document of the trace had.
    pub fn new_lines(&self) -> u32 {
        let main = match self.main {
            Union::Unchanged => 0,
            Union::Merged { new_lines, .. } => new_lines,
        };
        main + self.continuations.iter().map(|one| one.lines).sum::<u32>()
    }
}

/// The lines of `ours` that `existing` lacks, one document per part. `ours_bytes` is the length of
/// `ours`.
fn continuations(
    existing: &ParsedDocument<'_>,
    ours: &ParsedDocument<'_>,
    id: &str,
    ours_bytes: usize,
) -> Vec<Continuation> {
    let known: HashSet<(PartId, u32)> = existing
        .state
        .lines
        .iter()
        .filter_map(|line| Some((existing.line_part(line)?.id, line.position)))
        .collect();
    // Of the union with itself the common content is left, without lines, parts and fields.
    let mut common = join(ours, ours);
    common.continued = false;
    common.continues = Some(id);
    let lines = std::mem::take(&mut common.lines);
    let parts = std::mem::take(&mut common.parts);
    let fields = std::mem::take(&mut common.fields);
    let mut by_part: BTreeMap<PartId, BTreeMap<LineOrder, _>> = BTreeMap::new();
    for (order, line) in lines {
        let (_, _, part, position) = order;
        if !known.contains(&(part, position)) {
            by_part.entry(part).or_default().insert(order, line);
        }
    }
    let repeat_fields = are_short(&fields, by_part.len(), ours_bytes);
    let of_part = |(part, lines): (PartId, BTreeMap<LineOrder, _>)| {
        let position = lines.keys().map(|order| order.3).min()?;
        let state = parts.get(&part)?;
        let mut one = common.clone();
        one.lines = lines;
        let total = one.lines.len() as u32;
        one.parts.insert(part, PartState { total, ..*state });
        let services: BTreeSet<&str> = one.lines.values().filter_map(|line| line.service).collect();
        one.services = services.into_iter().collect();
        let own = |field: &&JoinedField<'_>| repeat_fields || one.lines.contains_key(&field.line);
        one.fields = fields.iter().filter(own).cloned().collect();
        let mut document = Vec::new();
        one.write(&mut document);
        Some(Continuation {
            id: continuation_id(id, part, position),
            first_ns: one.lines.first_key_value().map_or(0, |(order, _)| order.0),
            lines: total,
            document,
        })
    };
    by_part.into_iter().filter_map(of_part).collect()
}

/// Whether fields are short enough for each of `documents`. Many short parts must not multiply them.
fn are_short(fields: &[JoinedField<'_>], documents: usize, ours_bytes: usize) -> bool {
    let mut values = Vec::new();
    for field in fields {
        field.write_value(&mut values);
    }
    let names: usize = fields.iter().map(|field| field.original.len()).sum();
    let bytes = names + values.len();
    bytes <= MAX_REPEATED_FIELD_BYTES && bytes * documents <= ours_bytes.max(1 << 20)
}

/// The `_id` of the continuation of the document `main` with the lines of `part` from `position` on.
fn continuation_id(main: &str, part: PartId, position: u32) -> String {
    let mut id = String::with_capacity(main.len() + 32);
    id.push_str(main);
    id.push('~');
    part.push_document_id(&mut id, position);
    if id.len() > MAX_ID_BYTES {
        return format!("{:032x}", XxHash3_128::oneshot(id.as_bytes()));
    }
    id
}

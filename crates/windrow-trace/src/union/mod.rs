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
//! * level and service of a line: the known one; services: the smallest of the set union.
//! * fields: the value that the merge rule of the field chooses. `newest` is that of the line which
//!   comes later in that order. The other rules compare nothing that a merge can change: values, or
//!   level, event time, part id and position.
//! * reason: the greater; time of sealing: the earlier; tags: the set union; schema: the greater.
//!   The rest is derived.
//!
//! A document that is continued in others stays so; `bounded` has the union within a limit. A field
//! that was moved to `windrow.unmapped` counts as a field of its own name, and stays where its value
//! was. A document of Windrow 0.1.0 has lines without level and service.

mod bounded;
mod field;
mod lines;
mod merged;
mod parsed;

pub use self::bounded::{BoundedUnion, Continuation, union_within};
pub use self::lines::{DocumentLine, document_lines};
use self::merged::join;
use self::parsed::ParsedDocument;
use crate::unmapped::restore_unindexed;

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
    let new_lines = joined.lines.len().saturating_sub(a.state.lines.len()) as u32;
    Ok(Union::Merged {
        document: out,
        new_lines,
    })
}

/// Parses two documents of one trace.
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

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
//! * fields: of two values, that of the line which comes later in that order.
//! * reason: the greater; time of sealing: the earlier; tags: the set union. The rest is derived.

mod lines;
mod merged;
mod parsed;

pub use self::lines::{DocumentLine, document_lines};
use self::merged::join;
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

/// The ids of the parts of a document, for log messages. Empty if it is not a document of a trace.
pub fn part_ids(document: &[u8]) -> Vec<String> {
    ParsedDocument::parse(document)
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

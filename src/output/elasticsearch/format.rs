//! Functions on documents that this output needs, as parameters.
//!
//! The output does not know what documents contain; its tests use a format of their own.

use windrow_trace::{Union, UnionError, Unmap};

/// Functions on documents that this output needs.
#[derive(Debug, Clone, Copy)]
pub struct DocumentFormat {
    /// `union(existing, ours)`: commutative, associative, idempotent.
    pub union: fn(&[u8], &[u8]) -> Result<Union, UnionError>,
    /// Ids of the parts that a document holds, for the dead letter.
    pub part_ids: fn(&[u8]) -> Vec<String>,
    /// Moves fields to where they are not mapped; the document and the names of the fields, or
    /// `None` if there is nothing to move.
    pub unmap: fn(&[u8], Unmap<'_>) -> Option<(Vec<u8>, Vec<String>)>,
}

//! Functions on documents that this output needs, as parameters.
//!
//! The output does not know what documents contain; its tests use a format of their own.

use windrow_trace::{BoundedUnion, UnionError, Unmap};

/// `union(existing, ours, id, max_bytes)`: the union within `max_bytes` with the existing document
/// of this id.
pub(super) type UnionFn = fn(&[u8], &[u8], &str, usize) -> Result<BoundedUnion, UnionError>;

/// As [`windrow_trace::unmap`].
pub(super) type UnmapFn = fn(&[u8], Unmap<'_>) -> Option<(Vec<u8>, Vec<String>)>;

/// Functions on documents that this output needs.
#[derive(Debug, Clone, Copy)]
pub struct DocumentFormat {
    /// As [`windrow_trace::union_within`].
    pub union: UnionFn,
    /// Longest document that lines are added to.
    pub max_bytes: usize,
    /// Ids of the parts that a document holds, for the dead letter.
    pub part_ids: fn(&[u8]) -> Vec<String>,
    /// Moves fields to where they are not mapped; the document and the names of the fields, or
    /// `None` if there is nothing to move.
    pub unmap: UnmapFn,
}

impl DocumentFormat {
    /// The union with an existing document of this id, within the limit.
    pub(crate) fn union_of(
        &self,
        existing: &[u8],
        ours: &[u8],
        id: &str,
    ) -> Result<BoundedUnion, UnionError> {
        (self.union)(existing, ours, id, self.max_bytes)
    }
}

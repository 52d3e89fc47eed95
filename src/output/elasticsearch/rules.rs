//! The functions of the trace module that this output needs, as parameters: it moves documents, it does not know what
//! is in them, and its tests can bring a rule of their own.

use windrow_trace::{Union, UnionError};

/// The functions of the trace module that this output needs.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// `union(existing, ours)`: commutative, associative, idempotent.
    pub union: fn(&[u8], &[u8]) -> Result<Union, UnionError>,
    /// Ids of the parts that a document holds, for the dead letter.
    pub part_ids: fn(&[u8]) -> Vec<String>,
}

//! The merge rule as a parameter: this output moves documents, it does not know what is in them.

/// What the union of two documents of one trace is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Union {
    /// The existing document holds all of ours.
    Same,
    /// The new document that holds both.
    Merged(Vec<u8>),
}

/// One of the two documents was not written by Windrow; it must not be touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOurs;

/// The functions of the trace module that this output needs.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// `union(existing, ours)`: commutative, associative, idempotent.
    pub union: fn(&[u8], &[u8]) -> Result<Union, NotOurs>,
    /// Ids of the parts that a document holds, for the dead letter.
    pub part_ids: fn(&[u8]) -> Vec<String>,
}

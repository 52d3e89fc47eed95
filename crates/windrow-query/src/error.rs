//! A query that cannot be understood, with its place.

/// What is wrong with a query, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at byte {at})")]
pub struct QueryError {
    /// What is wrong, and what to write instead.
    pub message: String,
    /// Byte offset of the mistake in the query.
    pub at: usize,
    /// Its length in bytes; 0 at the end of the query.
    pub length: usize,
}

impl QueryError {
    pub(crate) fn new(message: impl Into<String>, range: std::ops::Range<usize>) -> Self {
        Self {
            message: message.into(),
            at: range.start,
            length: range.len(),
        }
    }
}

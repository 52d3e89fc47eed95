//! Outputs: where sealed documents go. Owns what every output shares (the sealed document and its
//! confirmation); each output is a module of its own. Knows nothing of how a document was gathered.

pub mod dead_letter;
pub mod elasticsearch;
pub mod replay;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// One of the configured outputs, by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OutputId(pub u8);

/// A finished document on its way to the outputs.
pub struct Sealed {
    /// Trace id, or for a record without one its part id and number; at most 512 bytes, any characters.
    pub id: Box<str>,
    /// `false`: the document is written once and never merged; "exists already" is success.
    pub is_trace: bool,
    /// First event time, Unix nanoseconds; it decides the index.
    pub first_ns: i64,
    /// Last event time, Unix nanoseconds.
    pub last_ns: i64,
    /// Log lines in the document.
    pub lines: u32,
    /// The complete document: one JSON object without a newline.
    pub json: Bytes,
    /// Called with each confirmation.
    pub hook: Box<dyn Fn(OutputId) + Send + Sync>,
}

impl Sealed {
    /// `output` has the document durably.
    pub fn confirm(self: &Arc<Self>, output: OutputId) {
        (self.hook)(output);
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("id", &self.id)
            .field("bytes", &self.json.len())
            .finish_non_exhaustive()
    }
}

//! Metadata of a document in a batch: id, kind, time, lines, position. Written once, when it is
//! rendered.

use std::ops::Range;

use crate::output::{ALL_OUTPUTS, DestinationId};

/// Metadata of a document.
#[derive(Debug)]
pub struct DocumentMeta {
    pub(super) id: Range<u32>,
    pub(super) is_trace: bool,
    pub(super) outputs: u8,
    pub(super) destination: DestinationId,
    pub(super) first_ns: i64,
    pub(super) lines: u32,
    pub(super) span: DocumentSpan,
}

/// Byte positions of a document in the text of its batch.
#[derive(Clone, Copy, Debug)]
pub struct DocumentSpan {
    pub(super) start: usize,
    pub(super) json: usize,
    pub(super) end: usize,
}

impl DocumentMeta {
    /// `id`: range of its id in the ids of the batch, at most [`crate::output::MAX_ID_BYTES`] long.
    /// `is_trace`: it is merged with an existing document; for another one "exists already" is
    /// success. `first_ns`: first event time, Unix ns, which decides the index. `lines`: number of
    /// records.
    pub fn new(id: Range<usize>, is_trace: bool, first_ns: i64, lines: u32, span: DocumentSpan) -> Self {
        Self {
            id: id.start as u32..id.end as u32,
            is_trace,
            outputs: ALL_OUTPUTS,
            destination: DestinationId::DEFAULT,
            first_ns,
            lines,
            span,
        }
    }

    /// For a destination whose documents go to the outputs with these bits.
    #[must_use]
    pub(crate) fn to(mut self, destination: DestinationId, outputs: u8) -> Self {
        (self.destination, self.outputs) = (destination, outputs);
        self
    }
}

impl DocumentSpan {
    /// The frame, if there is one, begins at `start`, the document at `json`, the next document at
    /// `end`.
    pub fn new(start: usize, json: usize, end: usize) -> Self {
        Self { start, json, end }
    }

    pub(super) fn json(self, framed: bool) -> Range<usize> {
        self.json..self.end - usize::from(framed)
    }
}

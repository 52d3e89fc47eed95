//! What is known of a document of a batch besides its text.
//!
//! Written once, when the document is rendered. What becomes of the document is noted elsewhere (`state`).

use std::ops::Range;

/// What is known of a document besides its text.
#[derive(Debug)]
pub struct DocumentMeta {
    pub(super) id: Range<u32>,
    pub(super) is_trace: bool,
    pub(super) first_ns: i64,
    pub(super) lines: u32,
    pub(super) place: DocumentSpan,
}

/// Where a document stands in its batch's text.
#[derive(Clone, Copy, Debug)]
pub struct DocumentSpan {
    pub(super) start: usize,
    pub(super) json: usize,
    pub(super) end: usize,
}

impl DocumentMeta {
    /// `id`: where its id stands among those of the batch; it has at most [`crate::output::MAX_ID_BYTES`]. `is_trace`: it may
    /// have to be joined with what is stored; otherwise "exists already" is success. `first_ns`: first event time, Unix ns,
    /// which decides the index. `lines`: records in it.
    pub fn new(id: Range<usize>, is_trace: bool, first_ns: i64, lines: u32, place: DocumentSpan) -> Self {
        Self {
            id: id.start as u32..id.end as u32,
            is_trace,
            first_ns,
            lines,
            place,
        }
    }
}

impl DocumentSpan {
    /// From `start` on its frame, if the text is framed; from `json` on the document; at `end` the next begins.
    pub fn new(start: usize, json: usize, end: usize) -> Self {
        Self { start, json, end }
    }

    pub(super) fn json(self, framed: bool) -> Range<usize> {
        self.json..self.end - usize::from(framed)
    }
}

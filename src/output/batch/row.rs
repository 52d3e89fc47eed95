//! What is known of a document of a batch besides its text, and what has become of it.
//!
//! Owns the marks that outputs leave on a document, from several threads, and how its lines are counted by them. Knows
//! neither text nor claims.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use crate::output::OutputId;

/// What is known of a document besides its text, and what has become of it.
#[derive(Debug)]
pub struct Row {
    pub(super) id: Range<u32>,
    pub(super) is_trace: bool,
    pub(super) first_ns: i64,
    pub(super) lines: u32,
    pub(super) place: Place,
    /// One bit per output that has not confirmed it yet.
    pub(super) waiting: AtomicU8,
    /// Lines that an output had already, and whether one gave the document up.
    pub(super) repeated: AtomicU32,
    pub(super) dead: AtomicU8,
    /// Whether an unanswered write may have stored it.
    pub(super) unsettled: AtomicU8,
    /// Whether it was joined with a document that was there already.
    pub(super) joined: AtomicU8,
}

/// Where a document stands in its batch's text.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub(super) start: usize,
    pub(super) json: usize,
    pub(super) end: usize,
}

/// Documents of one batch that all outputs have confirmed, and their lines by what became of them.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) documents: usize,
    pub(super) lines: u64,
    pub(super) delivered: u64,
    pub(super) repeated: u64,
    pub(super) late: u64,
    pub(super) dead: u64,
}

impl Settled {
    pub(super) fn add(&mut self, row: &Row) {
        let lines = u64::from(row.lines);
        self.documents += 1;
        self.lines += lines;
        if row.dead.load(Ordering::Acquire) == 1 {
            self.dead += lines;
            return;
        }
        let repeated = u64::from(row.repeated.load(Ordering::Acquire));
        self.delivered += lines - repeated;
        self.repeated += repeated;
        if row.joined.load(Ordering::Acquire) == 1 {
            self.late += lines - repeated;
        }
    }
}

impl Row {
    /// Of a document that `outputs` outputs (1 to 8) have to confirm. `id`: where its id stands among those of the batch;
    /// it has at most [`crate::output::MAX_ID_BYTES`]. `is_trace`: it may have to be joined with what is stored; otherwise "exists
    /// already" is success. `first_ns`: first event time, Unix ns, which decides the index. `lines`: records in it.
    pub fn new(
        id: Range<usize>,
        is_trace: bool,
        first_ns: i64,
        lines: u32,
        place: Place,
        outputs: u8,
    ) -> Self {
        Self {
            id: id.start as u32..id.end as u32,
            is_trace,
            first_ns,
            lines,
            place,
            waiting: AtomicU8::new(u8::MAX >> (8 - outputs.clamp(1, 8))),
            repeated: AtomicU32::new(0),
            dead: AtomicU8::new(0),
            unsettled: AtomicU8::new(0),
            joined: AtomicU8::new(0),
        }
    }

    /// This output has it. Whether it was the last one that had to confirm it.
    pub(super) fn confirm(&self, output: OutputId) -> bool {
        let bit = 1u8 << (output.0 & 7);
        // The bit is taken before the question, so that of several outputs exactly one is the last.
        self.waiting.fetch_and(!bit, Ordering::AcqRel) == bit
    }
}

impl Place {
    /// From `start` on its frame, if the text is framed; from `json` on the document; at `end` the next begins.
    pub fn new(start: usize, json: usize, end: usize) -> Self {
        Self { start, json, end }
    }

    pub(super) fn json(self, framed: bool) -> Range<usize> {
        self.json..self.end - usize::from(framed)
    }
}

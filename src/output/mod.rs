//! Delivery: sealed documents go to every configured output, and their journal records are released once all of them
//! have confirmed.
//!
//! * `sqlite`: the embedded store, one row per trace;
//! * `stdout`: one JSON document per line;
//! * `elasticsearch`: bulk writes, with `create` first and a union on conflict;
//! * `dead_letter`: what can never be accepted, with its reason.
//!
//! Knows nothing of the Forward protocol or of how a trace is gathered.

pub mod dead_letter;
pub mod elasticsearch;
pub mod replay;
pub mod sqlite;
pub mod stdout;
mod text;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;

pub use self::text::{Charge, Claims, Framing, Place, Text};

/// Elasticsearch refuses document ids of more bytes than this.
pub const MAX_ID_BYTES: usize = 512;

/// Which output: its place among the configured ones, at most eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputId(pub u8);

/// The documents that go to an output at a time.
pub type Batch = Vec<Arc<Sealed>>;

/// A document on its way to the outputs.
#[derive(Debug)]
pub struct Sealed {
    /// The trace id, or for a record without one its part's id and its number; at most [`MAX_ID_BYTES`] long.
    pub id: Box<str>,
    /// Whether it is a trace, which may have to be joined with what is stored. Otherwise "exists already" is success.
    pub is_trace: bool,
    /// First event time, Unix ns: decides the index.
    pub first_ns: i64,
    /// Last event time, Unix ns.
    pub last_ns: i64,
    /// Records in it.
    pub lines: u32,
    text: Arc<Text>,
    place: Place,
    /// One bit per output that has not confirmed it yet.
    waiting: AtomicU8,
    /// Lines that an output had already, and whether one gave the document up.
    repeated: AtomicU32,
    dead: AtomicU8,
    /// Whether an unanswered write may have stored it.
    unsettled: AtomicU8,
    /// Whether it was joined with a document that was there already.
    joined: AtomicU8,
}

/// Where the lines of sealed documents ended. Lines that are received are, at every quiet moment, delivered, repeated,
/// dead, or open.
#[derive(Debug, Default)]
pub struct Account {
    /// In documents that have been handed to the outputs and not been confirmed by all of them.
    pub in_flight: AtomicU64,
    /// In documents that are stored.
    pub delivered: AtomicU64,
    /// Stored already when they came again.
    pub duplicate: AtomicU64,
    /// Among the delivered: added to a document that was there already.
    pub late: AtomicU64,
    /// In the dead letter.
    pub dead: AtomicU64,
}

/// What the pipeline knows of a document when it hands it over.
#[derive(Debug)]
pub struct Parts {
    /// See [`Sealed::id`].
    pub id: Box<str>,
    /// See [`Sealed::is_trace`].
    pub is_trace: bool,
    /// See [`Sealed::first_ns`].
    pub first_ns: i64,
    /// See [`Sealed::last_ns`].
    pub last_ns: i64,
    /// See [`Sealed::lines`].
    pub lines: u32,
    /// The text that it stands in, and where.
    pub text: Arc<Text>,
    /// See above.
    pub place: Place,
}

impl Sealed {
    /// A document that `outputs` outputs (1 to 8) have to confirm.
    pub fn new(parts: Parts, outputs: u8) -> Arc<Self> {
        let Parts {
            id,
            is_trace,
            first_ns,
            last_ns,
            lines,
            text,
            place,
        } = parts;
        Arc::new(Self {
            id,
            is_trace,
            first_ns,
            last_ns,
            lines,
            text,
            place,
            waiting: AtomicU8::new(u8::MAX >> (8 - outputs.clamp(1, 8))),
            repeated: AtomicU32::new(0),
            dead: AtomicU8::new(0),
            unsettled: AtomicU8::new(0),
            joined: AtomicU8::new(0),
        })
    }

    /// The complete document: one JSON object without a newline.
    pub fn json(&self) -> &[u8] {
        let place = self.place.json(self.text.is_framed());
        self.text.bytes().get(place).unwrap_or_default()
    }

    /// [`Self::json`], without a copy.
    pub fn shared_json(&self) -> Bytes {
        self.text.bytes().slice(self.place.json(self.text.is_framed()))
    }

    /// The whole text of its batch, and where the document stands in it together with its frame; `None` when it has
    /// none.
    pub fn framed(&self) -> Option<(&Bytes, Range<usize>)> {
        self.text
            .is_framed()
            .then(|| (self.text.bytes(), self.place.frame()))
    }

    /// This output has it, durably. Confirming twice is harmless.
    pub fn confirm(&self, output: OutputId) {
        let bit = 1u8 << (output.0 & 7);
        // The bit is taken before the question, so that of several outputs exactly one is the last.
        let before = self.waiting.fetch_and(!bit, Ordering::AcqRel);
        if before == bit {
            self.settle();
            self.text.confirm_one();
        }
    }

    /// A write of it was sent, and its answer did not come: it may be stored. For the counters.
    pub fn note_unsettled(&self) {
        self.unsettled.store(1, Ordering::Release);
    }

    /// All of it was stored before: its lines are repeated, unless a write of ours is the likely reason. For the
    /// counters; to be said before it is confirmed.
    pub fn note_unchanged(&self) {
        if self.unsettled.load(Ordering::Acquire) == 0 {
            self.repeated.store(self.lines, Ordering::Release);
        }
    }

    /// It was joined with a document that was there already, to which so many of its lines are new. For the counters
    /// only; to be said before it is confirmed.
    pub fn note_joined(&self, new_lines: u32) {
        self.joined.store(1, Ordering::Release);
        self.repeated
            .store(self.lines.saturating_sub(new_lines), Ordering::Release);
    }

    /// This output can never store it; it is in the dead letter, durably.
    pub fn confirm_dead(&self, output: OutputId) {
        self.dead.store(1, Ordering::Release);
        self.confirm(output);
    }

    fn settle(&self) {
        let lines = u64::from(self.lines);
        let repeated = u64::from(self.repeated.load(Ordering::Acquire));
        let add = |counter: &AtomicU64, n: u64| counter.fetch_add(n, Ordering::Relaxed);
        if self.dead.load(Ordering::Acquire) == 1 {
            add(&self.text.account().dead, lines);
        } else {
            add(&self.text.account().delivered, lines - repeated);
            add(&self.text.account().duplicate, repeated);
            if self.joined.load(Ordering::Acquire) == 1 {
                add(&self.text.account().late, lines - repeated);
            }
        }
        self.text.account().in_flight.fetch_sub(lines, Ordering::Relaxed);
    }
}

/// The `_id` of a trace: its id, or a hash of it when that is longer than [`MAX_ID_BYTES`].
pub fn document_id(trace_id: &[u8]) -> Box<str> {
    // Nearly all are valid, which this finds out several times quicker.
    let id = match std::str::from_utf8(trace_id) {
        Ok(id) => Cow::Borrowed(id),
        Err(_) => String::from_utf8_lossy(trace_id),
    };
    match id {
        id if id.len() <= MAX_ID_BYTES => id.into(),
        id => format!("xxh3-{:032x}", xxhash_rust::xxh3::xxh3_128(id.as_bytes())).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_named_as_its_trace_where_that_is_possible() {
        assert_eq!(&*document_id(b"abc"), "abc");
        assert_eq!(&*document_id("né".as_bytes()), "né");
        assert_eq!(&*document_id(b"a\xff\xc3"), "a\u{fffd}\u{fffd}");
        let longest = "x".repeat(MAX_ID_BYTES);
        assert_eq!(&*document_id(longest.as_bytes()), longest);
        for long in [
            format!("{longest}x").into_bytes(),
            vec![0xff; MAX_ID_BYTES / 3 + 1],
        ] {
            let id = document_id(&long);
            assert!(id.starts_with("xxh3-") && id.len() == 37, "{id}");
        }
    }
}

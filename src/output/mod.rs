//! Outputs: each sealed document goes to every configured output, and its journal records are
//! released once all outputs have confirmed it.
//!
//! * `sqlite`: the embedded store, one row per trace;
//! * `stdout`: one JSON document per line;
//! * `elasticsearch`: bulk requests, with `create` first and a merge on conflict;
//! * `silent`: questions about traces whose completion record came to another instance;
//! * `destination`: the index names and outputs that routes give to documents;
//! * `dead_letter`: what can never be accepted, with its reason: documents, which `replay` sends
//!   again, and rejected input.
//!
//! Knows nothing of the Forward protocol or of how traces are gathered.

mod batch;
pub mod dead_letter;
mod destination;
pub mod elasticsearch;
mod framing;
pub mod replay;
pub(crate) mod silent;
pub mod sqlite;
pub mod stdout;
mod tap;
mod watchdog;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use self::batch::{Batch, BatchBuffer, DocumentMeta, DocumentSpan, MemoryCharge, SealedDocument};
pub(crate) use self::destination::ALL_OUTPUTS;
pub use self::destination::{Destination, DestinationId, Destinations, IndexName, Placeholder};
pub(crate) use self::destination::{MAX_DATA_STREAM_BYTES, matches_wildcard};
pub use self::framing::Framing;
pub use self::tap::{BatchTap, Watching};
pub use self::watchdog::Watchdog;

/// Elasticsearch refuses document ids of more bytes than this.
pub const MAX_ID_BYTES: usize = 512;

/// Index of an output among the configured ones, 0 to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputId(pub u8);

/// Lines of sealed documents by outcome, for the audit: when idle, every received record is
/// delivered, duplicate, joined, dead or open.
#[derive(Debug, Default)]
pub struct LineCounters {
    /// In documents that not all outputs have confirmed.
    pub in_flight: AtomicU64,
    /// Stored.
    pub delivered: AtomicU64,
    /// Stored already when they were sent again.
    pub duplicate: AtomicU64,
    /// Parts of lines that were joined to the last part of their line.
    pub joined: AtomicU64,
    /// Of the delivered: added to a document that existed.
    pub late: AtomicU64,
    /// Dropped by a route.
    pub dropped: AtomicU64,
    /// In the dead letter or rejected.
    pub dead: AtomicU64,
    /// Waiting on disk until an output takes them.
    pub deferred: AtomicU64,
}

impl LineCounters {
    /// `lines` that waited on disk are stored, or in the dead letter. Those that an earlier run
    /// left there are in no counter.
    pub fn undefer(&self, lines: u64, dead: bool) {
        let take = |waiting: u64| Some(waiting.saturating_sub(lines));
        let before = self.deferred.fetch_update(Relaxed, Relaxed, take);
        let own = before.unwrap_or(0).min(lines);
        let counter = if dead { &self.dead } else { &self.delivered };
        counter.fetch_add(own, Relaxed);
    }
}

/// The `_id` of a trace; see [`push_document_id`].
pub fn document_id(trace_id: &[u8]) -> String {
    let mut id = String::new();
    push_document_id(&mut id, trace_id);
    id
}

/// Appends the `_id` of a trace: its id, or a hash of it when that is longer than [`MAX_ID_BYTES`].
pub fn push_document_id(out: &mut String, trace_id: &[u8]) {
    // Faster than `from_utf8_lossy` for valid ids.
    let id = match std::str::from_utf8(trace_id) {
        Ok(id) => Cow::Borrowed(id),
        Err(_) => String::from_utf8_lossy(trace_id),
    };
    if id.len() <= MAX_ID_BYTES {
        out.push_str(&id);
    } else {
        let hash = twox_hash::XxHash3_128::oneshot(id.as_bytes());
        // Writing to a string cannot fail.
        let _ = write!(out, "xxh3-{hash:032x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_named_as_its_trace_where_that_is_possible() {
        assert_eq!(document_id(b"abc"), "abc");
        assert_eq!(document_id("né".as_bytes()), "né");
        assert_eq!(document_id(b"a\xff\xc3"), "a\u{fffd}\u{fffd}");
        let longest = "x".repeat(MAX_ID_BYTES);
        assert_eq!(document_id(longest.as_bytes()), longest);
        for long in [
            format!("{longest}x").into_bytes(),
            vec![0xff; MAX_ID_BYTES / 3 + 1],
        ] {
            let id = document_id(&long);
            assert!(id.starts_with("xxh3-") && id.len() == 37, "{id}");
        }
    }
}

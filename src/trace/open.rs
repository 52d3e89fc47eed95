//! An open trace: its records as they come, up to its limit.
//!
//! Owns what is remembered of a trace besides its lines: parts, holds, tags, and when it was used. When it is sealed is
//! the table's business.

use std::sync::Arc;

use smallvec::SmallVec;

use super::document::PartInfo;
use super::lines::{Lines, NewLine, Span};
use super::part::PartId;
use super::shape::ShapeId;

/// Bytes that a trace costs beyond its records: list node, hash slot, key, and what the allocator rounds up.
const TRACE_OVERHEAD: usize = 448;

/// A trace id. Those of the usual lengths (32 hex digits, a UUID) lie where they are looked up.
pub type Key = SmallVec<[u8; 40]>;

/// What must be held until a trace is written: one for each of its parts, of which there are mostly few.
pub type Holds<H> = SmallVec<[H; 2]>;

/// A record on its way into the table.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The trace id, not empty.
    pub key: &'a [u8],
    /// Event time, Unix ns.
    pub time: i64,
    /// The part that it belongs to.
    pub part: PartId,
    /// When the part was received, Unix µs.
    pub received: i64,
    /// Its number in the chunk.
    pub position: u32,
    /// The record, a MessagePack map.
    pub record: &'a [u8],
    /// Its metadata, a MessagePack map, or empty.
    pub metadata: &'a [u8],
    /// The tag that it came under.
    pub tag: &'a Arc<str>,
    /// Whether it says that its trace is complete.
    pub completes: bool,
    /// Its shape, when it is known, and its values are what the shape asks for.
    pub shape: Option<ShapeId>,
    /// With a shape: where its text lies in the record.
    pub text: Option<Span>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a record that found no room must go to the dead letter"]
pub enum Added {
    /// It is in its trace.
    Kept,
    /// Its trace is at `max_trace_bytes`.
    NoRoom,
    /// It is longer than `max_trace_bytes`.
    TooLong,
}

/// An open trace.
#[derive(Debug)]
pub(super) struct Trace<H> {
    pub(super) parts: SmallVec<[PartInfo; 2]>,
    /// One for each part.
    pub(super) holds: Holds<H>,
    pub(super) lines: Lines,
    pub(super) tags: SmallVec<[Arc<str>; 1]>,
    pub(super) opened: i64,
    pub(super) last_seen: i64,
    /// When it was moved to the end of the list.
    pub(super) placed: i64,
    /// A record said that it is complete.
    pub(super) completed: bool,
    /// It is complete or too old, and stands among those that are due.
    pub(super) queued: bool,
}

impl<H> Trace<H> {
    pub(super) fn new(now: i64, lines: Lines) -> Self {
        Self {
            parts: SmallVec::new(),
            holds: SmallVec::new(),
            lines,
            tags: SmallVec::new(),
            opened: now,
            last_seen: now,
            placed: now,
            completed: false,
            queued: false,
        }
    }

    pub(super) fn cost(&self) -> usize {
        let spilled = if self.parts.spilled() {
            self.parts.capacity() * (size_of::<PartInfo>() + size_of::<H>())
        } else {
            0
        };
        TRACE_OVERHEAD + self.lines.capacity() + spilled
    }

    /// Takes a record of so many bytes (with its header) in, if there is room for it.
    pub(super) fn add(
        &mut self,
        now: i64,
        incoming: &Incoming<'_>,
        hold: impl FnOnce() -> H,
        max_bytes: usize,
        size: usize,
    ) -> Added {
        self.last_seen = now;
        self.completed |= incoming.completes;
        // The records of a part follow each other, so only the last part can be this record's.
        if self.parts.last().is_none_or(|part| part.id != incoming.part) {
            self.parts.push(PartInfo {
                id: incoming.part,
                received: incoming.received,
                total: 0,
            });
            self.holds.push(hold());
            if !self
                .tags
                .iter()
                .any(|tag| Arc::ptr_eq(tag, incoming.tag) || tag == incoming.tag)
            {
                self.tags.push(Arc::clone(incoming.tag));
            }
        }
        if let Some(part) = self.parts.last_mut() {
            part.total += 1;
        }
        if self.lines.received() + size > max_bytes {
            return if size > max_bytes {
                Added::TooLong
            } else {
                Added::NoRoom
            };
        }
        self.lines.push(&NewLine {
            time: incoming.time,
            part: self.parts.len() as u32 - 1,
            position: incoming.position,
            shape: incoming.shape,
            record: incoming.record,
            metadata: incoming.metadata,
            text: incoming.text,
        });
        Added::Kept
    }
}

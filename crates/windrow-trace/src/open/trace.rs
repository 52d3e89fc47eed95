//! An open trace: its records as they come, up to its limit.
//!
//! Owns what is remembered of a trace besides its lines: the sources of its parts, and when it was used. When it is
//! sealed is the table's business.

use prefetch_index::prefetch_index;
use smallvec::SmallVec;

use super::cache_line::LINE;
use super::joined::Joined;
use super::lines::{HEADER, Lines, NewLine};
use crate::document::content::{Content, Line};
use crate::document::shape::ShapeId;
use crate::source::{SourceId, Sources};
use crate::trace_id::Id;

/// Bytes that a trace costs beyond its records: list node, hash slot, key, and what the allocator rounds up.
const TRACE_OVERHEAD: usize = 320;

/// Bytes of records that are fetched ahead at the most.
const MOST_FETCHED: usize = 2048;

/// A record on its way into the table.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The trace id, not empty; from [`crate::Table::id`].
    pub id: Id<'a>,
    /// Event time, Unix ns.
    pub time: i64,
    /// Where it comes from; see [`crate::Table::begin`].
    pub source: SourceId,
    /// Its number in the chunk.
    pub position: u32,
    /// The record, a MessagePack map.
    pub record: &'a [u8],
    /// Its metadata, a MessagePack map, or empty.
    pub metadata: &'a [u8],
    /// Whether it says that its trace is complete.
    pub completes: bool,
    /// Its shape, when it is known, and its values are what the shape asks for.
    pub shape: Option<ShapeId>,
    /// With a shape: its text, a piece of the record.
    pub text: Option<&'a [u8]>,
}

/// The records of a trace that came together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) source: SourceId,
    /// Records, with those that found no room.
    pub(crate) total: u32,
}

/// Of which a trace mostly has few.
pub(crate) type Parts = SmallVec<[Part; 4]>;

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
pub(crate) struct Trace {
    pub(crate) parts: Parts,
    pub(crate) records: Records,
    pub(crate) opened: i64,
    pub(crate) last_seen: i64,
    /// When it was moved to the end of the list.
    pub(crate) placed: i64,
    /// A record said that it is complete.
    pub(crate) completed: bool,
    /// It is complete or too old, and stands among those that are due.
    pub(crate) queued: bool,
}

/// The records of a trace.
#[derive(Debug)]
pub(crate) enum Records {
    /// All of one shape, in order.
    Joined(Joined),
    /// Any.
    Lines(Lines),
}

impl Trace {
    /// A place for one.
    pub(crate) const fn vacant() -> Self {
        Self {
            parts: Parts::new_const(),
            records: Records::Joined(Joined::nothing()),
            opened: 0,
            last_seen: 0,
            placed: 0,
            completed: false,
            queued: false,
        }
    }

    /// Begins with the first record, which is not too long, in a vacant place. `buffer` is empty.
    // In its place and not as a value: a value that was just written piece by piece is slow to be moved.
    #[inline]
    pub(crate) fn begin<H: Clone>(
        &mut self,
        now: i64,
        incoming: &Incoming<'_>,
        sources: &mut Sources<H>,
        buffer: Vec<u8>,
    ) {
        if let Records::Lines(_) = self.records {
            self.vacate();
        }
        let line = new_line(incoming, 0);
        let left = match &mut self.records {
            Records::Joined(joined) => joined.begin(buffer, &line).err(),
            Records::Lines(_) => Some(buffer),
        };
        if let Some(buffer) = left {
            let mut lines = Lines::in_space(buffer);
            lines.push(&line);
            self.records = Records::Lines(lines);
        }
        sources.use_again(incoming.source);
        self.parts.clear();
        self.parts.push(Part {
            source: incoming.source,
            total: 1,
        });
        (self.opened, self.last_seen, self.placed) = (now, now, now);
        (self.completed, self.queued) = (incoming.completes, false);
    }

    /// Makes a vacant place of it. Gives the buffer of its records.
    #[inline]
    pub(crate) fn vacate(&mut self) -> Vec<u8> {
        if self.parts.spilled() {
            self.parts = Parts::new();
        }
        match &mut self.records {
            Records::Joined(joined) => joined.take_buffer(),
            Records::Lines(lines) => {
                let buffer = lines.take_buffer();
                self.records = Records::Joined(Joined::nothing());
                buffer
            }
        }
    }

    pub(crate) fn cost(&self) -> usize {
        let spilled = if self.parts.spilled() {
            self.parts.capacity() * size_of::<Part>()
        } else {
            0
        };
        let buffer = match &self.records {
            Records::Joined(joined) => joined.buffer().capacity(),
            Records::Lines(lines) => lines.capacity(),
        };
        TRACE_OVERHEAD + buffer + spilled
    }

    /// Records in it.
    pub(crate) fn count(&self) -> u32 {
        match &self.records {
            Records::Joined(joined) => joined.count(),
            Records::Lines(lines) => lines.len(),
        }
    }

    /// Bytes of its records as they are kept.
    pub(crate) fn bytes(&self) -> usize {
        match &self.records {
            Records::Joined(joined) => joined.buffer().len(),
            Records::Lines(lines) => lines.buffer().len(),
        }
    }

    /// Has the processor fetch the places where the next record goes.
    #[inline]
    pub(crate) fn fetch(&self) {
        match &self.records {
            Records::Joined(joined) => joined.fetch(),
            Records::Lines(lines) => prefetch_index(lines.buffer(), lines.buffer().len()),
        }
    }

    /// Has the processor fetch all of its records, if they are few.
    #[inline]
    pub(crate) fn fetch_whole(&self) {
        let buffer = match &self.records {
            Records::Joined(joined) => joined.buffer(),
            Records::Lines(lines) => lines.buffer(),
        };
        for at in (0..buffer.len().min(MOST_FETCHED)).step_by(LINE) {
            prefetch_index(buffer, at);
        }
    }

    fn received(&self) -> usize {
        match &self.records {
            Records::Joined(joined) => joined.received(),
            Records::Lines(lines) => lines.received(),
        }
    }

    /// Takes one more record in, if there is room for it.
    #[inline]
    pub(crate) fn add<H: Clone>(
        &mut self,
        now: i64,
        incoming: &Incoming<'_>,
        sources: &mut Sources<H>,
        max_bytes: usize,
    ) -> Added {
        self.last_seen = now;
        self.completed |= incoming.completes;
        // The records of a part follow each other, so only the last part can be this record's.
        match self.parts.last_mut() {
            Some(part) if part.source == incoming.source => part.total += 1,
            _ => {
                sources.use_again(incoming.source);
                let source = incoming.source;
                self.parts.push(Part { source, total: 1 });
            }
        }
        let size = HEADER + incoming.record.len() + incoming.metadata.len();
        if self.received() + size > max_bytes {
            return if size > max_bytes {
                Added::TooLong
            } else {
                Added::NoRoom
            };
        }
        let line = new_line(incoming, self.parts.len() as u32 - 1);
        if let Records::Joined(joined) = &mut self.records
            && joined.add(&line, is_later(sources, &self.parts, joined.part(), line.part))
        {
            return Added::Kept;
        }
        match &mut self.records {
            Records::Lines(lines) => lines.push(&line),
            Records::Joined(_) => self.lines().push(&line),
        }
        Added::Kept
    }

    /// Its records as lines, whatever they were.
    pub(crate) fn lines(&mut self) -> &mut Lines {
        let nothing = Records::Lines(Lines::in_space(Vec::new()));
        let lines = match std::mem::replace(&mut self.records, nothing) {
            Records::Joined(joined) => joined.into_lines(),
            Records::Lines(lines) => lines,
        };
        self.records = Records::Lines(lines);
        match &mut self.records {
            Records::Lines(lines) => lines,
            Records::Joined(_) => unreachable!("they have just been made lines"),
        }
    }

    /// Lists its records, if they are kept one by one.
    pub(crate) fn list(&self, lines: &mut Vec<Line>) {
        if let Records::Lines(of) = &self.records {
            lines.extend(of.iter());
        }
    }

    /// Its records; `lines` are those that stand in its document.
    pub(crate) fn content<'a>(&'a self, lines: &'a mut Vec<Line>) -> Content<'a> {
        match &self.records {
            Records::Joined(joined) => Content::Joined(joined.view()),
            Records::Lines(of) => Content::Lines {
                buffer: of.buffer(),
                lines,
            },
        }
    }
}

/// Whether a part was received later than another one of the trace.
#[inline]
fn is_later<H: Clone>(sources: &Sources<H>, parts: &[Part], before: u32, part: u32) -> bool {
    let received = |part: u32| {
        let part = parts.get(part as usize)?;
        Some(sources.get(part.source)?.received)
    };
    before != part && received(part) > received(before)
}

#[inline]
fn new_line<'a>(incoming: &Incoming<'a>, part: u32) -> NewLine<'a> {
    NewLine {
        time: incoming.time,
        part,
        position: incoming.position,
        shape: incoming.shape,
        record: incoming.record,
        metadata: incoming.metadata,
        text: incoming.text,
    }
}

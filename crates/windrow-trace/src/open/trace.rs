//! An open trace: its records, its parts and when it was used.
//!
//! Owns the limit of bytes per trace and the choice between joined records and lines. Does not
//! decide when a trace is sealed.

use prefetch_index::prefetch_index;
use smallvec::SmallVec;

use super::cache_line::CACHE_LINE_BYTES;
use super::joined::JoinedRecords;
use super::lines::{HEADER_BYTES, LineBuffer};
use crate::document::content::{Line, SealedRecords};
use crate::document::shape::{ShapeId, ShapeRegistry};
use crate::record::severity::Severity;
use crate::source::{SourceId, Sources};
use crate::trace_id::TraceId;

/// Bytes of a trace beyond its records: slot, index entry, id, and rounding by the allocator.
const TRACE_OVERHEAD_BYTES: usize = 320;

/// Maximum bytes of records to prefetch.
const MAX_PREFETCH_BYTES: usize = 2048;

/// A record to add to the table.
#[derive(Clone, Copy, Debug)]
pub struct IncomingRecord<'a> {
    /// The trace id, not empty, from [`crate::Table::trace_id`].
    pub id: TraceId<'a>,
    /// Event time, Unix ns.
    pub time: i64,
    /// Its source, from [`crate::Table::begin_source`].
    pub source: SourceId,
    /// Its number in the chunk.
    pub position: u32,
    /// The record, a MessagePack map.
    pub record: &'a [u8],
    /// Its metadata, a MessagePack map, or empty.
    pub metadata: &'a [u8],
    /// Whether the record completes its trace.
    pub completes: bool,
    /// Its shape, if known, when its values are of the types that the shape requires.
    pub shape: Option<ShapeId>,
    /// With a shape: the text, a slice of `record`.
    pub text: Option<&'a [u8]>,
    /// Its level.
    pub level: Option<Severity>,
    /// The service that wrote it. A slice of the record or of the message that brought it.
    pub service: Option<&'a [u8]>,
}

/// The records of a trace from one source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TracePart {
    pub(crate) source: SourceId,
    /// Number of records.
    pub(crate) total: u32,
}

/// Most traces have few parts.
pub(crate) type TraceParts = SmallVec<[TracePart; 4]>;

/// The outcome of [`crate::Table::add`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a record that was not added must be added again"]
pub enum AddOutcome {
    /// The record is in its trace.
    Added,
    /// The record begins a part for which its trace has no space: nothing has changed. Seal the
    /// trace and add the record again.
    TraceFull,
}

/// Bytes that a part may have, beyond one long record: a quarter of a trace, at most 4 MiB, which
/// is more than the chunks of most clients. The caller cuts chunks into parts of this size.
pub fn max_part_bytes(max_trace_bytes: usize) -> usize {
    (max_trace_bytes / 4).clamp(1, 4 << 20)
}

/// Bytes of a record that count towards the limits of a trace and of a part.
#[inline]
pub fn record_cost(record: &[u8], metadata: &[u8]) -> usize {
    HEADER_BYTES + record.len() + metadata.len()
}

/// An open trace.
#[derive(Debug)]
pub(crate) struct OpenTrace {
    pub(crate) parts: TraceParts,
    pub(crate) records: OpenRecords,
    pub(crate) opened_at: i64,
    pub(crate) last_seen: i64,
    /// When it was last promoted in the LRU list.
    pub(crate) promoted_at: i64,
    /// A record completed it.
    pub(crate) is_complete: bool,
    /// It is completed or too old, and waits for its deadline instead of the idle timeout.
    pub(crate) has_deadline: bool,
    /// How often its document was looked up because it was silent.
    pub(crate) lookups: u8,
}

/// The records of an open trace.
#[derive(Debug)]
pub(crate) enum OpenRecords {
    /// All of one shape, in order.
    Joined(JoinedRecords),
    /// Any records.
    Lines(LineBuffer),
}

impl OpenTrace {
    /// The content of a vacant slot.
    pub(crate) const fn vacant() -> Self {
        Self {
            parts: TraceParts::new_const(),
            records: OpenRecords::Joined(JoinedRecords::empty()),
            opened_at: 0,
            last_seen: 0,
            promoted_at: 0,
            is_complete: false,
            has_deadline: false,
            lookups: 0,
        }
    }

    /// Fills a vacant trace with its first record. `buffer` is empty.
    // In place: moving a value that was just written field by field stalls on store forwarding.
    #[inline]
    pub(crate) fn begin<H: Clone>(
        &mut self,
        now: i64,
        incoming: &IncomingRecord<'_>,
        sources: &mut Sources<H>,
        buffer: Vec<u8>,
    ) {
        if let OpenRecords::Lines(_) = self.records {
            self.vacate();
        }
        let rejected = match &mut self.records {
            OpenRecords::Joined(joined) => joined.begin(buffer, incoming).err(),
            OpenRecords::Lines(_) => Some(buffer),
        };
        if let Some(buffer) = rejected {
            let mut lines = LineBuffer::with_buffer(buffer);
            lines.push(incoming, 0);
            self.records = OpenRecords::Lines(lines);
        }
        sources.retain(incoming.source);
        self.parts.clear();
        self.parts.push(TracePart {
            source: incoming.source,
            total: 1,
        });
        (self.opened_at, self.last_seen, self.promoted_at) = (now, now, now);
        (self.is_complete, self.has_deadline, self.lookups) = (incoming.completes, false, 0);
    }

    /// Makes the trace vacant. Returns its record buffer.
    #[inline]
    pub(crate) fn vacate(&mut self) -> Vec<u8> {
        if self.parts.spilled() {
            self.parts = TraceParts::new();
        }
        match &mut self.records {
            OpenRecords::Joined(joined) => joined.take_buffer(),
            OpenRecords::Lines(lines) => {
                let buffer = lines.take_buffer();
                self.records = OpenRecords::Joined(JoinedRecords::empty());
                buffer
            }
        }
    }

    /// Bytes of the trace in memory, with its overhead.
    pub(crate) fn memory_bytes(&self) -> usize {
        let spilled = if self.parts.spilled() {
            self.parts.capacity() * size_of::<TracePart>()
        } else {
            0
        };
        TRACE_OVERHEAD_BYTES + self.record_capacity() + spilled
    }

    /// Bytes allocated for the records.
    #[inline]
    fn record_capacity(&self) -> usize {
        match &self.records {
            OpenRecords::Joined(joined) => joined.buffer().capacity(),
            OpenRecords::Lines(lines) => lines.capacity(),
        }
    }

    /// Number of records.
    pub(crate) fn count(&self) -> u32 {
        match &self.records {
            OpenRecords::Joined(joined) => joined.count(),
            OpenRecords::Lines(lines) => lines.len(),
        }
    }

    /// Event time of its first record, Unix ns.
    pub(crate) fn first_ns(&self) -> i64 {
        match &self.records {
            OpenRecords::Joined(joined) => joined.view().first,
            OpenRecords::Lines(lines) => lines.iter().map(|line| line.time).min().unwrap_or(0),
        }
    }

    /// The text that was added last, if it is known without looking into the record.
    pub(crate) fn newest_text(&self) -> Option<&[u8]> {
        match &self.records {
            OpenRecords::Joined(joined) => joined.newest_text(),
            OpenRecords::Lines(lines) => lines.newest_text(),
        }
    }

    /// Bytes of the records as stored.
    pub(crate) fn record_bytes(&self) -> usize {
        match &self.records {
            OpenRecords::Joined(joined) => joined.buffer().len(),
            OpenRecords::Lines(lines) => lines.buffer().len(),
        }
    }

    /// Prefetches where the next record will be written.
    #[inline]
    pub(crate) fn prefetch(&self) {
        match &self.records {
            OpenRecords::Joined(joined) => joined.prefetch(),
            OpenRecords::Lines(lines) => prefetch_index(lines.buffer(), lines.buffer().len()),
        }
    }

    /// Prefetches the records, up to a limit.
    #[inline]
    pub(crate) fn prefetch_all(&self) {
        let buffer = match &self.records {
            OpenRecords::Joined(joined) => joined.buffer(),
            OpenRecords::Lines(lines) => lines.buffer(),
        };
        for at in (0..buffer.len().min(MAX_PREFETCH_BYTES)).step_by(CACHE_LINE_BYTES) {
            prefetch_index(buffer, at);
        }
    }

    /// Bytes that all records would take as whole lines.
    fn received_bytes(&self) -> usize {
        match &self.records {
            OpenRecords::Joined(joined) => joined.received_bytes(),
            OpenRecords::Lines(lines) => lines.received_bytes(),
        }
    }

    /// Adds a record, if it continues a part or there is space for another part. Returns by how
    /// much [`Self::memory_bytes`] has grown; `None` if the trace is full.
    #[inline]
    pub(crate) fn add<H: Clone>(
        &mut self,
        now: i64,
        incoming: &IncomingRecord<'_>,
        sources: &mut Sources<H>,
        shapes: &ShapeRegistry,
        max_bytes: usize,
    ) -> Option<isize> {
        let mut grown = 0;
        // Records of a part come consecutively, so only the last part can be the record's.
        match self.parts.last_mut() {
            Some(part) if part.source == incoming.source => part.total += 1,
            _ => {
                // A part is never divided between two documents: their union could not tell which
                // of its lines are elsewhere.
                let size = record_cost(incoming.record, incoming.metadata);
                if self.received_bytes() + size.max(max_part_bytes(max_bytes)) > max_bytes {
                    return None;
                }
                sources.retain(incoming.source);
                let source = incoming.source;
                if self.parts.len() == self.parts.capacity() {
                    grown = self.grow_parts();
                }
                self.parts.push(TracePart { source, total: 1 });
            }
        }
        self.last_seen = now;
        self.is_complete |= incoming.completes;
        let part = self.parts.len() as u32 - 1;
        let before = self.record_capacity();
        if let OpenRecords::Joined(joined) = &mut self.records {
            let is_later = |last| was_received_later(sources, &self.parts, last, part);
            let part_id = |part: u32| Some(sources.get(self.parts.get(part as usize)?.source)?.part);
            if joined.add(incoming, part, is_later, shapes, part_id) {
                return Some(grown + difference(joined.buffer().capacity(), before));
            }
        }
        match &mut self.records {
            OpenRecords::Lines(lines) => lines.push(incoming, part),
            OpenRecords::Joined(_) => self.lines().push(incoming, part),
        }
        Some(grown + difference(self.record_capacity(), before))
    }

    /// Makes room for more parts. Returns by how many bytes they have grown.
    #[cold]
    fn grow_parts(&mut self) -> isize {
        let before = self.memory_bytes();
        self.parts.reserve(1);
        difference(self.memory_bytes(), before)
    }

    /// The records as lines; joined ones are converted.
    pub(crate) fn lines(&mut self) -> &mut LineBuffer {
        let empty = OpenRecords::Lines(LineBuffer::with_buffer(Vec::new()));
        let lines = match std::mem::replace(&mut self.records, empty) {
            OpenRecords::Joined(joined) => joined.into_lines(),
            OpenRecords::Lines(lines) => lines,
        };
        self.records = OpenRecords::Lines(lines);
        match &mut self.records {
            OpenRecords::Lines(lines) => lines,
            OpenRecords::Joined(_) => unreachable!("the records were just converted"),
        }
    }

    /// Appends the lines to `lines`, if the records are not joined.
    pub(crate) fn append_lines_to(&self, lines: &mut Vec<Line>) {
        if let OpenRecords::Lines(buffer) = &self.records {
            lines.extend(buffer.iter());
        }
    }

    /// The records for rendering. `lines` are those to render.
    pub(crate) fn content<'a>(&'a self, lines: &'a mut Vec<Line>) -> SealedRecords<'a> {
        match &self.records {
            OpenRecords::Joined(joined) => SealedRecords::Joined(joined.view()),
            OpenRecords::Lines(buffer) => SealedRecords::Lines {
                buffer: buffer.buffer(),
                lines,
            },
        }
    }
}

#[inline]
fn difference(now: usize, before: usize) -> isize {
    now.wrapping_sub(before).cast_signed()
}

/// Whether part `part` was received later than part `before`.
#[inline]
fn was_received_later<H: Clone>(sources: &Sources<H>, parts: &[TracePart], before: u32, part: u32) -> bool {
    let received = |part: u32| {
        let part = parts.get(part as usize)?;
        Some(sources.get(part.source)?.received)
    };
    before != part && received(part) > received(before)
}

//! The input of the renderer: the content of a sealed trace, and records without a trace id.
//!
//! Borrows all bytes; the form of the records is that of the open trace.

use smallvec::SmallVec;

use super::shape::{Shape, ShapeId};
use super::state::SealReason;
use crate::part::PartInfo;
use crate::record::severity::Severity;

/// The content of a sealed trace.
#[derive(Debug)]
pub struct TraceContent<'a> {
    /// The trace id.
    pub id: &'a [u8],
    /// The parts, in order of reception.
    pub parts: &'a [PartInfo],
    /// The distinct tags of the records, sorted.
    pub tags: SmallVec<[&'a str; 2]>,
    /// Why the trace was sealed.
    pub reason: SealReason,
    /// When it was sealed, Unix µs.
    pub sealed_at: i64,
    /// Its records.
    pub records: SealedRecords<'a>,
}

/// The records of a sealed trace.
#[derive(Debug)]
pub enum SealedRecords<'a> {
    /// Joined as in the document.
    Joined(JoinedView<'a>),
    /// One by one.
    Lines {
        /// The buffer that the spans of `lines` point into.
        buffer: &'a [u8],
        /// The lines, in any order.
        lines: &'a mut [Line],
    },
}

/// A record without a trace id.
#[derive(Clone, Copy, Debug)]
pub struct UntracedRecord<'a> {
    /// Its shape, if known.
    pub shape: Option<&'a Shape>,
    /// Event time, Unix ns.
    pub time: i64,
    /// Its tag.
    pub tag: &'a str,
    /// The record: a MessagePack map.
    pub record: &'a [u8],
    /// Its metadata: a MessagePack map, or empty.
    pub metadata: &'a [u8],
    /// Its level.
    pub level: Option<Severity>,
    /// The service that wrote it.
    pub service: Option<&'a [u8]>,
}

/// A rendered document, apart from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenderedDocument {
    /// Offset of the document in the output buffer.
    pub at: usize,
    /// First event time, Unix ns.
    pub first: i64,
    /// Last event time, Unix ns.
    pub last: i64,
    /// Number of records.
    pub lines: u32,
}

/// A borrowed view of joined records.
#[derive(Clone, Copy, Debug)]
pub struct JoinedView<'a> {
    pub(crate) shape: ShapeId,
    pub(crate) count: u32,
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// Index of the time unit of `line_states`.
    pub(crate) time_unit: u8,
    pub(crate) line_states: &'a [u8],
    /// The joined text, escaped as the inside of a JSON string.
    pub(crate) text: &'a [u8],
    /// The newest record, which has the values of all other fields.
    pub(crate) newest: &'a [u8],
}

/// A record of a sealed trace.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Event time, Unix ns.
    pub time: i64,
    /// Index of its part in `TraceContent::parts`.
    pub part: u32,
    /// Number of the record in its chunk.
    pub position: u32,
    /// Its shape, if known.
    pub shape: Option<ShapeId>,
    /// The record, a MessagePack map. Empty when a newer record of its shape follows: then only the
    /// text is kept.
    pub record: Span,
    /// Its metadata, a MessagePack map, or empty.
    pub metadata: Span,
    /// Its text, if its shape has one.
    pub text: Option<Span>,
}

/// A range of bytes in a record buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub(crate) at: u32,
    pub(crate) len: u32,
}

impl Span {
    /// The range of `len` bytes from `at` on. Buffers are smaller than 4 GiB: they hold at most
    /// `max_trace_bytes` and one message.
    pub fn new(at: usize, len: usize) -> Self {
        Self {
            at: at as u32,
            len: len as u32,
        }
    }

    /// The bytes of the range, or nothing if it is outside of `buffer`.
    #[inline]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        let at = self.at as usize;
        buffer.get(at..at + self.len as usize).unwrap_or_default()
    }

    /// The range of `piece` in `whole`, which must contain it.
    #[inline]
    pub(crate) fn within(whole: &[u8], piece: &[u8]) -> Self {
        let at = (piece.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        debug_assert!(at <= whole.len(), "the piece lies in the whole");
        Self::new(at, piece.len())
    }

    /// Whether the range is empty.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

//! What the document of a sealed trace is made of.

use smallvec::SmallVec;

use super::shape::{Shape, ShapeId};
use super::state::SealReason;
use crate::part::PartInfo;

/// Everything of a trace at the moment of sealing.
#[derive(Debug)]
pub struct TraceContent<'a> {
    /// The trace id.
    pub id: &'a [u8],
    /// The parts, in the order in which they were received.
    pub parts: &'a [PartInfo],
    /// The tags under which they came, sorted, each once.
    pub tags: SmallVec<[&'a str; 2]>,
    /// Why it is sealed.
    pub reason: SealReason,
    /// When, Unix µs.
    pub sealed_at: i64,
    /// Its records.
    pub records: SealedRecords<'a>,
}

/// The records of a trace at the moment of sealing.
#[derive(Debug)]
pub enum SealedRecords<'a> {
    /// Joined as the document has them.
    Joined(JoinedView<'a>),
    /// One by one.
    Lines {
        /// Where the lines lie.
        buffer: &'a [u8],
        /// The lines, in any order.
        lines: &'a mut [Line],
    },
}

/// A record without a trace id.
#[derive(Clone, Copy, Debug)]
pub struct UntracedRecord<'a> {
    /// The shape that it is of, if one is known.
    pub shape: Option<&'a Shape>,
    /// Event time, Unix ns.
    pub time: i64,
    /// The tag under which it came.
    pub tag: &'a str,
    /// The record: a MessagePack map.
    pub record: &'a [u8],
    /// Its metadata: a MessagePack map, or empty.
    pub metadata: &'a [u8],
}

/// What the outputs need to know of a rendered document besides its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenderedDocument {
    /// Where it begins in the buffer.
    pub at: usize,
    /// First event time, Unix ns.
    pub first: i64,
    /// Last event time, Unix ns.
    pub last: i64,
    /// Records in it.
    pub lines: u32,
}

/// All that a document needs of them.
#[derive(Clone, Copy, Debug)]
pub struct JoinedView<'a> {
    pub(crate) shape: ShapeId,
    pub(crate) count: u32,
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// Number of the unit of time in the state.
    pub(crate) unit: u8,
    pub(crate) state: &'a [u8],
    /// The inside of a JSON string.
    pub(crate) text: &'a [u8],
    /// The record from which the document has its fields.
    pub(crate) newest: &'a [u8],
}

/// One line of a trace that is being sealed.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Event time, Unix ns.
    pub time: i64,
    /// Number of its part in `TraceContent::parts`.
    pub part: u32,
    /// Number of the record in the chunk that it came with.
    pub position: u32,
    /// The shape of the record, when it has one.
    pub shape: Option<ShapeId>,
    /// The record, a MessagePack map. Nothing when a newer one of its shape is there: then the text is all of it.
    pub record: Span,
    /// Its metadata: a MessagePack map, or nothing.
    pub metadata: Span,
    /// Its text, where the shape says that it has one.
    pub text: Option<Span>,
}

/// A piece of the buffer of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub(crate) at: u32,
    pub(crate) len: u32,
}

impl Span {
    /// The piece from `at` on, `len` bytes long. Buffers are smaller than 4 GiB: they hold at most
    /// `max_trace_bytes` and one message more.
    pub fn new(at: usize, len: usize) -> Self {
        Self {
            at: at as u32,
            len: len as u32,
        }
    }

    /// What lies there; nothing when the buffer is another one.
    #[inline]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        let at = self.at as usize;
        buffer.get(at..at + self.len as usize).unwrap_or_default()
    }

    /// Where `piece` lies in `whole`, of which it is a part.
    #[inline]
    pub(crate) fn within(whole: &[u8], piece: &[u8]) -> Self {
        let at = (piece.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        debug_assert!(at <= whole.len(), "the piece lies in the whole");
        Self::new(at, piece.len())
    }

    /// Whether it is no bytes long.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

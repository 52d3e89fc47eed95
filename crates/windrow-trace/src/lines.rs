//! The lines of an open trace: one buffer, in the order in which they came.
//!
//! Owns what of a record is kept. Of the records of one shape only the newest is needed for the fields of the document:
//! when the next one comes, all that stays of the one before is its text. What that saves is most of the memory of open
//! traces, and of the work at sealing. Records without a shape, and those with metadata, are kept whole.

use super::shape::ShapeId;

/// Bytes before each line in the buffer.
pub(super) const HEADER: usize = 36;
/// The length of a text that is not there.
pub(super) const NO_TEXT: u32 = u32::MAX;

/// A piece of the buffer of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub(super) at: u32,
    pub(super) len: u32,
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
    pub(super) fn within(whole: &[u8], piece: &[u8]) -> Self {
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

/// One line of a trace that is being sealed.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Event time, Unix ns.
    pub time: i64,
    /// Number of its part in `Gathered::parts`.
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

impl Line {
    /// The line of this header, when what follows the header begins at `body`.
    #[inline]
    pub(super) fn of(head: &Head, body: usize) -> Self {
        let text = (head.text.len != NO_TEXT)
            .then(|| Span::new(body + head.text.at as usize, head.text.len as usize));
        let metadata = body + head.body() - head.metadata as usize;
        Self {
            time: head.time,
            part: head.part,
            position: head.position,
            shape: ShapeId::from_u32(head.shape),
            record: Span::new(body, head.record as usize),
            metadata: Span::new(metadata, head.metadata as usize),
            text,
        }
    }
}

/// A record on its way into the buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewLine<'a> {
    pub(super) time: i64,
    pub(super) part: u32,
    pub(super) position: u32,
    pub(super) shape: Option<ShapeId>,
    pub(super) record: &'a [u8],
    pub(super) metadata: &'a [u8],
    /// The text, a piece of the record. Not as a place in it: two small numbers, written one by one and read as one, would
    /// make the processor wait until they are in its cache, behind everything that was written before.
    pub(super) text: Option<&'a [u8]>,
}

/// The lines.
#[derive(Debug)]
pub(super) struct Lines {
    /// Each line behind its header.
    buffer: Vec<u8>,
    /// Where the header of the last line stands.
    last: usize,
    count: u32,
    /// Bytes of all records as they came.
    received: usize,
}

impl Lines {
    /// No line yet, with room for so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self::in_space(Vec::with_capacity(bytes))
    }

    /// No line yet, in this space, which is empty.
    pub(super) fn in_space(buffer: Vec<u8>) -> Self {
        Self {
            buffer,
            last: 0,
            count: 0,
            received: 0,
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    /// Bytes of all records as they came, with their headers.
    pub(super) fn received(&self) -> usize {
        self.received
    }

    /// Bytes that it takes.
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    pub(super) fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// Gives the buffer away; what it is then counts for nothing.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub(super) fn push(&mut self, line: &NewLine<'_>) {
        self.count += 1;
        self.received += HEADER + line.record.len() + line.metadata.len();
        if line.shape.is_some() {
            self.strip_last(line);
        }
        let size = HEADER + line.record.len() + line.metadata.len();
        if self.buffer.capacity() - self.buffer.len() < size {
            // Half again instead of twice: open traces are most of the memory.
            self.buffer.reserve_exact(size.max(self.buffer.len() / 2));
        }
        self.last = self.buffer.len();
        let none = Span { at: 0, len: NO_TEXT };
        let text = line.text.map_or(none, |text| Span::within(line.record, text));
        let head = Head {
            time: line.time,
            part: line.part,
            position: line.position,
            shape: ShapeId::to_u32(line.shape),
            record: line.record.len() as u32,
            metadata: line.metadata.len() as u32,
            text,
        };
        self.buffer.extend_from_slice(&head.encode());
        self.buffer.extend_from_slice(line.record);
        if !line.metadata.is_empty() {
            self.buffer.extend_from_slice(line.metadata);
        }
    }

    /// Takes all but its text from the last line, if `next` overrides everything else of it.
    #[inline]
    fn strip_last(&mut self, next: &NewLine<'_>) {
        let Some(bytes) = self.buffer.get(self.last..).and_then(|last| last.first_chunk()) else {
            return;
        };
        let mut head = Head::decode(bytes);
        // Newer without a doubt: which of two parts counts as the earlier may change while the trace is open.
        let newer = head.time < next.time
            || (head.time == next.time && head.part == next.part && head.position < next.position);
        if head.shape != ShapeId::to_u32(next.shape) || head.metadata != 0 || !newer {
            return;
        }
        let body = self.last + HEADER;
        let mut end = body;
        if head.text.len != NO_TEXT {
            let from = body + head.text.at as usize;
            let to = from + head.text.len as usize;
            if to > self.buffer.len() {
                return;
            }
            self.buffer.copy_within(from..to, body);
            end += head.text.len as usize;
        }
        self.buffer.truncate(end);
        head.record = 0;
        head.text.at = 0;
        if let Some(place) = self.buffer.get_mut(self.last..body) {
            place.copy_from_slice(&head.encode());
        }
    }

    /// A line as another one has it, at the end.
    pub(super) fn push_raw(&mut self, head: &Head, body: &[u8]) {
        self.last = self.buffer.len();
        self.count += 1;
        self.buffer.extend_from_slice(&head.encode());
        self.buffer.extend_from_slice(body);
    }

    /// Says how many bytes all records had as they came.
    pub(super) fn set_received(&mut self, bytes: usize) {
        self.received = bytes;
    }

    /// What stands before each line, and what behind that, in the order in which they came.
    pub(super) fn raw(&self) -> impl Iterator<Item = (Head, &[u8])> {
        let mut rest = self.buffer.as_slice();
        std::iter::from_fn(move || {
            let (head, behind) = rest.split_first_chunk()?;
            let head = Head::decode(head);
            let (body, behind) = behind.split_at_checked(head.body())?;
            rest = behind;
            Some((head, body))
        })
    }

    /// The lines in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = Line> {
        let mut at = 0;
        self.raw().map(move |(head, behind)| {
            let body = at + HEADER;
            at = body + behind.len();
            Line::of(&head, body)
        })
    }
}

/// What stands before a line.
pub(super) struct Head {
    pub(super) time: i64,
    pub(super) part: u32,
    pub(super) position: u32,
    pub(super) shape: u32,
    /// Length of the record; 0 when only its text is left (a record is never empty).
    pub(super) record: u32,
    pub(super) metadata: u32,
    /// Where the text begins behind the header, and its length.
    pub(super) text: Span,
}

impl Head {
    /// Bytes behind it: the record, or the text that is left of it, and the metadata.
    #[inline]
    pub(super) fn body(&self) -> usize {
        let kept = match self.record {
            0 if self.text.len != NO_TEXT => self.text.len,
            length => length,
        };
        kept as usize + self.metadata as usize
    }

    #[inline]
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0u8; HEADER];
        bytes[0..8].copy_from_slice(&self.time.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.part.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.position.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.shape.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.record.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.metadata.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.text.at.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.text.len.to_le_bytes());
        bytes
    }

    #[inline]
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Self {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self {
            time: (u64::from(word(0)) | u64::from(word(4)) << 32) as i64,
            part: word(8),
            position: word(12),
            shape: word(16),
            record: word(20),
            metadata: word(24),
            text: Span {
                at: word(28),
                len: word(32),
            },
        }
    }
}

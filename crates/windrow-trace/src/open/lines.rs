//! The line buffer: the form of an open trace with records of any kind, in the order of arrival.
//!
//! Keeps whole records, except that of consecutive records of one shape only the newest and worst
//! is kept whole: the others are reduced to their text, because their fields are overwritten in the
//! document. Records without a shape or with metadata are always kept whole.

use super::line_context::cut_service;
use super::trace::IncomingRecord;
use crate::document::content::{Line, Span};
use crate::document::shape::ShapeId;
use crate::record::severity::Severity;

/// Bytes of the header of a line.
pub(crate) const HEADER_BYTES: usize = 40;
/// The length of a missing text.
pub(crate) const NO_TEXT: u32 = u32::MAX;

/// The line buffer.
#[derive(Debug)]
pub(crate) struct LineBuffer {
    /// Each line is a header followed by its record (or text), metadata and service.
    buffer: Vec<u8>,
    /// Offset of the last line.
    last: usize,
    count: u32,
    /// Bytes that all records would take as whole lines.
    received_bytes: usize,
}

impl LineBuffer {
    /// An empty line buffer with space for `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        Self::with_buffer(Vec::with_capacity(bytes))
    }

    /// An empty line buffer in `buffer`, which must be empty.
    pub(crate) fn with_buffer(buffer: Vec<u8>) -> Self {
        Self {
            buffer,
            last: 0,
            count: 0,
            received_bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    /// Bytes that all records would take as whole lines.
    pub(crate) fn received_bytes(&self) -> usize {
        self.received_bytes
    }

    /// Allocated bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    pub(crate) fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes the buffer out. The rest is meaningless afterwards.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Appends a record of part `part`.
    pub(crate) fn push(&mut self, line: &IncomingRecord<'_>, part: u32) {
        self.count += 1;
        self.received_bytes += HEADER_BYTES + line.record.len() + line.metadata.len();
        if line.shape.is_some() {
            self.strip_last(line, part);
        }
        let service = cut_service(line.service.unwrap_or_default());
        let size = HEADER_BYTES + line.record.len() + line.metadata.len() + service.len();
        if self.buffer.capacity() - self.buffer.len() < size {
            // By half instead of doubling: open traces are most of the memory.
            self.buffer.reserve_exact(size.max(self.buffer.len() / 2));
        }
        self.last = self.buffer.len();
        let none = Span { at: 0, len: NO_TEXT };
        let text = line.text.map_or(none, |text| Span::within(line.record, text));
        let header = LineHeader {
            time: line.time,
            part,
            position: line.position,
            shape: ShapeId::to_u32(line.shape),
            record: line.record.len() as u32,
            metadata: line.metadata.len() as u32,
            text,
            level: line.level,
            service: service.len() as u8,
            is_partial: false,
        };
        self.buffer.extend_from_slice(&header.encode());
        self.buffer.extend_from_slice(line.record);
        if !line.metadata.is_empty() {
            self.buffer.extend_from_slice(line.metadata);
        }
        self.buffer.extend_from_slice(service);
    }

    /// Reduces the last line to its text, if `next` overwrites all of its fields.
    #[inline]
    fn strip_last(&mut self, next: &IncomingRecord<'_>, part: u32) {
        let Some(bytes) = self.buffer.get(self.last..).and_then(|last| last.first_chunk()) else {
            return;
        };
        let mut header = LineHeader::decode(bytes);
        // Newer whatever happens: which of two parts counts as earlier may change while the trace
        // is open.
        let newer = header.time < next.time
            || (header.time == next.time && header.part == part && header.position < next.position);
        if header.shape != ShapeId::to_u32(next.shape)
            || header.metadata != 0
            || header.level > next.level
            || !newer
        {
            return;
        }
        let body = self.last + HEADER_BYTES;
        let service = self.buffer.len() - usize::from(header.service)..self.buffer.len();
        let mut end = body;
        if header.text.len != NO_TEXT {
            let from = body + header.text.at as usize;
            let to = from + header.text.len as usize;
            if to > self.buffer.len() {
                return;
            }
            self.buffer.copy_within(from..to, body);
            end += header.text.len as usize;
        }
        self.buffer.copy_within(service.clone(), end);
        self.buffer.truncate(end + service.len());
        header.record = 0;
        header.text.at = 0;
        header.is_partial = true;
        if let Some(place) = self.buffer.get_mut(self.last..body) {
            place.copy_from_slice(&header.encode());
        }
    }

    /// Appends a line with a ready header. `body`: record, text of a partial record, service.
    pub(crate) fn push_raw(&mut self, header: &LineHeader, body: &[&[u8]]) {
        self.last = self.buffer.len();
        self.count += 1;
        self.buffer.extend_from_slice(&header.encode());
        for piece in body {
            self.buffer.extend_from_slice(piece);
        }
    }

    /// Sets the bytes that all records would take as whole lines.
    pub(crate) fn set_received_bytes(&mut self, bytes: usize) {
        self.received_bytes = bytes;
    }

    /// The lines in the order of arrival.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Line> {
        decode(&self.buffer)
    }

    /// The text of the line that was added last, if it has one.
    pub(crate) fn newest_text(&self) -> Option<&[u8]> {
        let header = LineHeader::decode(self.buffer.get(self.last..)?.first_chunk()?);
        let text = header.line(self.last + HEADER_BYTES).text?;
        Some(text.of(&self.buffer))
    }

    /// Appends all lines to `out`. Returns what is needed to read them, and the buffer.
    pub(crate) fn pack(&mut self, out: &mut Vec<u8>) -> (PackedLines, Vec<u8>) {
        out.extend_from_slice(&self.buffer);
        let packed = PackedLines {
            count: self.count,
            // Only small traces are packed.
            last: self.last as u32,
            received_bytes: u32::try_from(self.received_bytes).unwrap_or(u32::MAX),
        };
        (packed, self.take_buffer())
    }
}

/// Everything about packed lines except their bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedLines {
    count: u32,
    last: u32,
    received_bytes: u32,
}

impl PackedLines {
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Restores the line buffer from exactly the packed bytes.
    pub(crate) fn unpack(&self, bytes: &[u8]) -> LineBuffer {
        LineBuffer {
            buffer: bytes.to_vec(),
            last: self.last as usize,
            count: self.count,
            received_bytes: self.received_bytes as usize,
        }
    }
}

/// The lines of a line buffer.
pub(crate) fn decode(buffer: &[u8]) -> impl Iterator<Item = Line> + use<'_> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let header = LineHeader::decode(buffer.get(at..)?.first_chunk()?);
        let body = at + HEADER_BYTES;
        at = body + header.body();
        (at <= buffer.len()).then(|| header.line(body))
    })
}

/// The header of a line.
pub(crate) struct LineHeader {
    pub(crate) time: i64,
    pub(crate) part: u32,
    pub(crate) position: u32,
    pub(crate) shape: u32,
    /// Length of the record: 0 when only its text is kept (a record is never empty).
    pub(crate) record: u32,
    pub(crate) metadata: u32,
    /// Offset of the text behind the header, and its length.
    pub(crate) text: Span,
    pub(crate) level: Option<Severity>,
    /// Length of the service.
    pub(crate) service: u8,
    /// Of the record only some fields are kept, or none; the text follows them.
    pub(crate) is_partial: bool,
}

impl LineHeader {
    /// Bytes behind the header: the record, the text of a partial record, metadata and service.
    #[inline]
    pub(crate) fn body(&self) -> usize {
        let text = if self.is_partial && self.text.len != NO_TEXT {
            self.text.len
        } else {
            0
        };
        self.record as usize + text as usize + self.metadata as usize + usize::from(self.service)
    }

    /// The line of this header, when its record starts at `body`.
    #[inline]
    pub(crate) fn line(&self, body: usize) -> Line {
        let text = (self.text.len != NO_TEXT)
            .then(|| Span::new(body + self.text.at as usize, self.text.len as usize));
        let service = body + self.body() - usize::from(self.service);
        let metadata = service - self.metadata as usize;
        Line {
            time: self.time,
            part: self.part,
            position: self.position,
            shape: ShapeId::from_u32(self.shape),
            record: Span::new(body, self.record as usize),
            metadata: Span::new(metadata, self.metadata as usize),
            text,
            level: self.level,
            service: Span::new(service, usize::from(self.service)),
            is_partial: self.is_partial,
        }
    }

    #[inline]
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.time.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.part.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.position.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.shape.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.record.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.metadata.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.text.at.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.text.len.to_le_bytes());
        bytes[36] = self.level.map_or(0, |level| level as u8);
        bytes[37] = self.service;
        bytes[38] = u8::from(self.is_partial);
        bytes
    }

    #[inline]
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
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
            level: Severity::from_u8(bytes[36]),
            service: bytes[37],
            is_partial: bytes[38] != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::source::SourceId;
    use crate::trace_id::TraceIdHasher;

    use super::*;

    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![4 => 0..200u32, 1 => 65_530..65_540u32, 1 => any::<u32>()]
    }

    fn size() -> impl Strategy<Value = usize> {
        prop_oneof![3 => Just(0), 1 => 1..5usize]
    }

    /// Time, part, position, shape, bytes of the record and of its metadata, whether it has text.
    type TestLine = (i64, u32, u32, u32, usize, usize, bool);

    fn nothing() -> IncomingRecord<'static> {
        IncomingRecord {
            id: TraceIdHasher::default().id(b"id"),
            time: 0,
            source: SourceId(0),
            position: 0,
            record: b"",
            metadata: b"",
            completes: false,
            shape: None,
            text: None,
            level: None,
            service: None,
        }
    }

    fn filled(lines: &[TestLine]) -> LineBuffer {
        let mut filled = LineBuffer::new(1);
        for (number, &(time, part, position, shape, record, metadata, text)) in lines.iter().enumerate() {
            let whole = vec![number as u8; record];
            let metadata = vec![255; metadata];
            let incoming = IncomingRecord {
                // Some are newer than the line before, which is then reduced to its text.
                time: if number % 3 == 0 { time } else { i64::MAX },
                position,
                shape: ShapeId::from_u32(shape.wrapping_sub(1)),
                record: &whole,
                metadata: &metadata,
                text: text.then(|| &whole[record / 2..record / 2 + record / 3]),
                ..nothing()
            };
            filled.push(&incoming, part);
        }
        filled
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(
            lines in prop::collection::vec(
                (any::<i64>(), number(), number(), 0..3u32, 1..400usize, size(), any::<bool>()),
                0..30,
            ),
        ) {
            let mut before = filled(&lines);
            let mut bytes = b"before".to_vec();
            let (packed, buffer) = filled(&lines).pack(&mut bytes);
            prop_assert_eq!(&buffer, before.buffer());
            prop_assert_eq!(decode(&bytes[6..]).count(), lines.len());
            let mut after = packed.unpack(&bytes[6..]);
            prop_assert_eq!(after.buffer(), before.buffer());
            prop_assert_eq!((after.len(), after.received_bytes()), (before.len(), before.received_bytes()));
            // And more can be added as before.
            for lines in [&mut before, &mut after] {
                let incoming = IncomingRecord {
                    time: i64::MAX,
                    position: u32::MAX,
                    shape: ShapeId::from_u32(0),
                    record: b"one more",
                    ..nothing()
                };
                lines.push(&incoming, 2);
            }
            prop_assert_eq!(after.buffer(), before.buffer());
        }
    }
}

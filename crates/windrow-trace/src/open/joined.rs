//! Joined records: the form of an open trace while all its records have one shape, are in order and
//! have no metadata. Nearly all traces are like that.
//!
//! Keeps only what the document needs: the joined text, the line states of `windrow.state`, and the
//! newest record, which has the value of every other field. When a record does not fit, the trace
//! is converted to a `LineBuffer`.
//!
//! ```text
//! buffer:  line states, with room for more | joined text, JSON-escaped | newest record
//! packed:  line states | joined text, JSON-escaped | newest record
//! ```

use prefetch_index::prefetch_index;

use super::cache_line::CACHE_LINE_BYTES;
use super::lines::{HEADER_BYTES, LineBuffer, LineHeader, NO_TEXT, NewLine};
use crate::document::content::{JoinedView, Span};
use crate::document::json::{push_unescaped, write_escaped};
use crate::document::shape::ShapeId;
use crate::document::state::{MAX_LINE_STATE_BYTES, StateLineWriter, decode_lines};

/// Bytes reserved for line states, enough for most traces.
const STATE_AREA_BYTES: usize = 96;
/// A larger buffer or record converts the trace to lines: offsets have 32 bits, and escaping can
/// make a text six times as long.
const MAX_BUFFER_BYTES: usize = 1 << 30;
const MAX_RECORD_BYTES: usize = 1 << 28;

/// How many bytes to prefetch for the next text, and for text and record together. Most are
/// shorter.
const PREFETCH_TEXT_BYTES: usize = 128;
const PREFETCH_BYTES: usize = 640;

/// The joined records of an open trace.
#[derive(Debug)]
pub(crate) struct JoinedRecords {
    buffer: Vec<u8>,
    /// The joined text: from the end of the state area up to `text_end`.
    state_area: u32,
    text_end: u32,
    /// Where the text is in the newest record.
    newest_text: Span,
    meta: JoinedMeta,
}

/// Everything about the records except their bytes.
#[derive(Clone, Copy, Debug)]
struct JoinedMeta {
    shape: ShapeId,
    count: u32,
    /// Event times of the first and the last record, Unix ns.
    first: i64,
    last: i64,
    /// The part of the last record.
    part: u32,
    writer: StateLineWriter,
    /// Bytes of the line states.
    state_bytes: u32,
    /// Bytes that all records would take as whole lines, with headers.
    received_bytes: usize,
}

impl JoinedRecords {
    /// No records. To be filled by [`Self::begin`].
    pub(crate) const fn empty() -> Self {
        Self {
            buffer: Vec::new(),
            state_area: 0,
            text_end: 0,
            newest_text: Span { at: 0, len: 0 },
            meta: JoinedMeta {
                shape: ShapeId::NONE,
                count: 0,
                first: 0,
                last: 0,
                part: 0,
                writer: StateLineWriter::resume(0, 0, 0),
                state_bytes: 0,
                received_bytes: 0,
            },
        }
    }

    /// Starts over with the first record of a trace. Returns `buffer`, which must be empty, as an
    /// error if the record cannot be joined.
    #[inline]
    pub(crate) fn begin(&mut self, buffer: Vec<u8>, line: &NewLine<'_>) -> Result<(), Vec<u8>> {
        let fits = line.metadata.is_empty() && line.record.len() <= MAX_RECORD_BYTES;
        let Some(shape) = line.shape.filter(|_| fits) else {
            return Err(buffer);
        };
        self.buffer = buffer;
        (self.state_area, self.text_end) = (STATE_AREA_BYTES as u32, STATE_AREA_BYTES as u32);
        self.newest_text = Span { at: 0, len: 0 };
        self.meta = JoinedMeta {
            shape,
            count: 0,
            first: line.time,
            last: line.time,
            part: line.part,
            writer: StateLineWriter::new(line.time),
            state_bytes: 0,
            received_bytes: 0,
        };
        self.buffer.extend_from_slice(&[0; STATE_AREA_BYTES]);
        self.push(line);
        Ok(())
    }

    /// Takes the buffer out. The rest is meaningless until [`Self::begin`].
    #[inline]
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// The part of the last record.
    #[inline]
    pub(crate) fn part(&self) -> u32 {
        self.meta.part
    }

    /// Adds a record. Returns `false` if it cannot be joined. `later`: its part differs from that
    /// of the last record, and was received_bytes later.
    #[inline]
    pub(crate) fn add(&mut self, line: &NewLine<'_>, later: bool) -> bool {
        let JoinedMeta {
            writer, last, part, ..
        } = &self.meta;
        let follows = later || (line.part == *part && line.position >= writer.next_position());
        let newer = line.time > *last || (line.time == *last && follows);
        if line.shape != Some(self.meta.shape)
            || !newer
            || !line.metadata.is_empty()
            || self.buffer.len() > MAX_BUFFER_BYTES
            || line.record.len() > MAX_RECORD_BYTES
        {
            return false;
        }
        self.push(line);
        true
    }

    #[inline]
    fn push(&mut self, line: &NewLine<'_>) {
        let size = HEADER_BYTES + line.record.len();
        self.buffer.truncate(self.text_end as usize);
        if self.meta.state_bytes as usize + MAX_LINE_STATE_BYTES > self.state_area as usize {
            self.grow_state_area(self.state_area as usize);
        }
        // With space for some escapes, and for the whole blocks that escaping writes.
        let text = line.text.map_or(0, |text| text.len() + text.len() / 8 + 32);
        if self.buffer.capacity() - self.buffer.len() < text + line.record.len() {
            // By half instead of doubling: open traces are most of the memory.
            let more = (text + line.record.len()).max(self.buffer.len() / 2);
            self.buffer.reserve_exact(more);
        }
        let text = line.text.map(|text| {
            if self.meta.count > 0 {
                self.buffer.extend_from_slice(b"\\n");
            }
            let length = write_escaped(&mut self.buffer, text);
            self.newest_text = Span::within(line.record, text);
            length as u32
        });
        self.text_end = self.buffer.len() as u32;
        self.buffer.extend_from_slice(line.record);
        if self.meta.writer.is_too_coarse(line.time) {
            self.refine_time_unit(line.time);
        }
        let meta = &mut self.meta;
        if line.part != meta.part {
            meta.part = line.part;
            meta.writer.begin_part();
        }
        let at = meta.state_bytes as usize;
        if let Some(room) = self.buffer.get_mut(at..at + MAX_LINE_STATE_BYTES)
            && let Some(room) = room.first_chunk_mut()
        {
            meta.state_bytes += meta.writer.write(room, line.time, line.part, line.position, text) as u32;
        }
        meta.count += 1;
        meta.last = line.time;
        meta.received_bytes += size;
    }

    /// Inserts `more` bytes of space for line states.
    #[cold]
    fn grow_state_area(&mut self, more: usize) {
        let at = self.meta.state_bytes as usize;
        self.buffer.splice(at..at, std::iter::repeat_n(0, more));
        self.state_area += more as u32;
        self.text_end += more as u32;
    }

    /// Rewrites the line states in a finer unit, in which `time` is a whole number.
    #[cold]
    fn refine_time_unit(&mut self, time: i64) {
        let JoinedMeta {
            writer, state_bytes, ..
        } = self.meta;
        let mut finer = StateLineWriter::new(time);
        let mut bytes = Vec::new();
        let mut part = None;
        let lines = decode_lines(
            self.buffer.get(..state_bytes as usize).unwrap_or_default(),
            writer.unit(),
        );
        for line in lines {
            if part.replace(line.part) != Some(line.part) {
                finer.begin_part();
            }
            let mut room = [0; MAX_LINE_STATE_BYTES];
            let length = finer.write(&mut room, line.time, line.part, line.position, line.text);
            bytes.extend_from_slice(room.get(..length).unwrap_or_default());
        }
        self.meta.writer = finer;
        let missing = (bytes.len() + MAX_LINE_STATE_BYTES).saturating_sub(self.state_area as usize);
        if missing > 0 {
            self.grow_state_area(missing);
        }
        self.meta.state_bytes = bytes.len() as u32;
        if let Some(place) = self.buffer.get_mut(..bytes.len()) {
            place.copy_from_slice(&bytes);
        }
    }

    pub(crate) fn count(&self) -> u32 {
        self.meta.count
    }

    /// Bytes that all records would take as whole lines, with headers.
    pub(crate) fn received_bytes(&self) -> usize {
        self.meta.received_bytes
    }

    pub(crate) fn buffer(&self) -> &Vec<u8> {
        &self.buffer
    }

    /// Prefetches where the next record will be written.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch_index(&self.buffer, 0);
        // The next text overwrites the newest record, and the next record follows it.
        let end = (self.buffer.len() + PREFETCH_TEXT_BYTES).min(self.buffer.capacity());
        let from = self.text_end as usize;
        for at in (from..end.min(from + PREFETCH_BYTES)).step_by(CACHE_LINE_BYTES) {
            prefetch_index(&self.buffer, at);
        }
    }

    fn text(&self) -> &[u8] {
        let place = self.state_area as usize..self.text_end as usize;
        self.buffer.get(place).unwrap_or_default()
    }

    fn newest(&self) -> &[u8] {
        self.buffer.get(self.text_end as usize..).unwrap_or_default()
    }

    /// The text of the newest record, empty if it has none.
    pub(crate) fn newest_text(&self) -> Option<&[u8]> {
        Some(self.newest_text.of(self.newest()))
    }

    pub(crate) fn view(&self) -> JoinedView<'_> {
        let state = self
            .buffer
            .get(..self.meta.state_bytes as usize)
            .unwrap_or_default();
        self.meta.view(state, self.text(), self.newest())
    }

    /// Appends the packed form to `out`. Returns what is needed to read it, and the buffer.
    #[inline]
    pub(crate) fn pack(&mut self, out: &mut Vec<u8>) -> (PackedJoined, Vec<u8>) {
        out.extend_from_slice(
            self.buffer
                .get(..self.meta.state_bytes as usize)
                .unwrap_or_default(),
        );
        out.extend_from_slice(self.buffer.get(self.state_area as usize..).unwrap_or_default());
        let JoinedMeta {
            shape,
            count,
            first,
            last,
            part,
            writer,
            state_bytes,
            received_bytes,
        } = self.meta;
        let packed = PackedJoined {
            first,
            last,
            shape,
            count,
            part,
            state_bytes,
            text_bytes: self.text_end - self.state_area,
            newest_text: self.newest_text,
            next_position: writer.next_position(),
            // Only small traces are packed.
            received_bytes: received_bytes as u32,
            time_unit: writer.unit(),
        };
        (packed, std::mem::take(&mut self.buffer))
    }

    /// Converts the records to lines.
    pub(crate) fn into_lines(self) -> LineBuffer {
        let mut lines = LineBuffer::new(self.buffer.len());
        let state = self
            .buffer
            .get(..self.meta.state_bytes as usize)
            .unwrap_or_default();
        let escaped = self.text();
        let (mut at, mut text) = (0, Vec::new());
        for (number, line) in (1..).zip(decode_lines(state, self.meta.writer.unit())) {
            text.clear();
            if let Some(length) = line.text {
                if number > 1 {
                    at += b"\\n".len();
                }
                at = push_unescaped(&mut text, escaped, at, length as usize);
            }
            let text_len = line.text.map_or(NO_TEXT, |_| text.len() as u32);
            let mut header = LineHeader {
                time: line.time,
                part: line.part,
                position: line.position,
                shape: ShapeId::to_u32(Some(self.meta.shape)),
                record: 0,
                metadata: 0,
                text: Span { at: 0, len: text_len },
            };
            if number < self.meta.count {
                lines.push_raw(&header, &text);
                continue;
            }
            let record = self.newest();
            if line.text.is_some() {
                // The original: in the joined text, invalid UTF-8 was replaced.
                header.text = self.newest_text;
            }
            header.record = record.len() as u32;
            lines.push_raw(&header, record);
        }
        lines.set_received_bytes(self.meta.received_bytes);
        lines
    }
}

impl JoinedMeta {
    fn view<'a>(&self, line_states: &'a [u8], text: &'a [u8], newest: &'a [u8]) -> JoinedView<'a> {
        JoinedView {
            shape: self.shape,
            count: self.count,
            first: self.first,
            last: self.last,
            time_unit: self.writer.unit(),
            line_states,
            text,
            newest,
        }
    }
}

/// Everything about packed records except their bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedJoined {
    first: i64,
    last: i64,
    shape: ShapeId,
    count: u32,
    part: u32,
    state_bytes: u32,
    text_bytes: u32,
    newest_text: Span,
    next_position: u32,
    received_bytes: u32,
    time_unit: u8,
}

impl PackedJoined {
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The view of exactly the packed bytes.
    pub(crate) fn view<'a>(&self, bytes: &'a [u8]) -> JoinedView<'a> {
        let (state, rest) = bytes
            .split_at_checked(self.state_bytes as usize)
            .unwrap_or_default();
        let (text, newest) = rest
            .split_at_checked(self.text_bytes as usize)
            .unwrap_or_default();
        self.meta().view(state, text, newest)
    }

    fn meta(&self) -> JoinedMeta {
        JoinedMeta {
            shape: self.shape,
            count: self.count,
            first: self.first,
            last: self.last,
            part: self.part,
            writer: StateLineWriter::resume(self.time_unit, self.last, self.next_position),
            state_bytes: self.state_bytes,
            received_bytes: self.received_bytes as usize,
        }
    }

    /// Restores the records from exactly the packed bytes.
    pub(crate) fn unpack(&self, bytes: &[u8]) -> JoinedRecords {
        let mut buffer = Vec::with_capacity(bytes.len() + STATE_AREA_BYTES);
        let JoinedView {
            line_states,
            text,
            newest,
            ..
        } = self.view(bytes);
        let state_area = (line_states.len() + MAX_LINE_STATE_BYTES).max(STATE_AREA_BYTES);
        buffer.extend_from_slice(line_states);
        buffer.resize(state_area, 0);
        buffer.extend_from_slice(text);
        let text_end = buffer.len() as u32;
        buffer.extend_from_slice(newest);
        JoinedRecords {
            buffer,
            state_area: state_area as u32,
            text_end,
            newest_text: self.newest_text,
            meta: self.meta(),
        }
    }
}

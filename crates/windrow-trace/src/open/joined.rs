//! Joined records: the form of an open trace while all its records have one shape, are in order and
//! have no metadata. Nearly all traces are like that.
//!
//! Keeps only what the document needs: the joined text, the line states of `windrow.state`, the
//! services, the level fields of the worst line, and the newest record, which has the value of
//! every other field. When a record does not fit, the trace is converted to a `LineBuffer`.
//!
//! ```text
//! buffer:  state area                          | joined text, JSON-escaped | newest record
//! area:    line states | free | line context
//! packed:  line states | line context          | joined text, JSON-escaped | newest record
//! ```

mod area;
mod packed;

use prefetch_index::prefetch_index;

pub(crate) use self::packed::PackedJoined;

use super::cache_line::CACHE_LINE_BYTES;
use super::line_context::{
    FoundService, LineContextMeta, LineContextView, MAX_WORST_BYTES, cut_service, worst_order,
};
use super::lines::{HEADER_BYTES, LineBuffer, LineHeader, NO_TEXT};
use super::trace::IncomingRecord;
use crate::document::content::{JoinedView, Span};
use crate::document::json::{push_unescaped, write_escaped};
use crate::document::shape::{ShapeId, ShapeRegistry};
use crate::document::state::{MAX_LINE_STATE_BYTES, StateLineWriter, decode_lines, line_code};
use crate::part::PartId;

/// Bytes reserved for line states and line context, enough for most traces.
const STATE_AREA_BYTES: usize = 96;
/// A larger buffer or record converts the trace to lines: offsets have 32 bits, and escaping can
/// make a text six times as long.
const MAX_BUFFER_BYTES: usize = 1 << 30;
const MAX_RECORD_BYTES: usize = 1 << 28;
/// The bits of the level in the code of a line.
const LEVEL_BITS: u8 = 7;

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
    context: LineContextMeta,
}

impl JoinedRecords {
    /// No records, for [`Self::begin`].
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
                writer: StateLineWriter::resume(0, 0, 0, 0),
                state_bytes: 0,
                received_bytes: 0,
                context: LineContextMeta::EMPTY,
            },
        }
    }

    /// Starts over with the first record of a trace, which is of part 0. Returns `buffer`, which must be empty, as an
    /// error if the record cannot be joined.
    #[inline]
    pub(crate) fn begin(&mut self, buffer: Vec<u8>, line: &IncomingRecord<'_>) -> Result<(), Vec<u8>> {
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
            part: 0,
            writer: StateLineWriter::new(line.time),
            state_bytes: 0,
            received_bytes: 0,
            context: LineContextMeta::EMPTY,
        };
        self.buffer.extend_from_slice(&[0; STATE_AREA_BYTES]);
        let code = self.first_code(line);
        self.meta.context.worst_level = code & LEVEL_BITS;
        self.push(line, 0, code);
        Ok(())
    }

    /// Takes the buffer out. The rest is meaningless until [`Self::begin`].
    #[inline]
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Adds a record of the part `of_part`. Returns `false` if it cannot be joined. `is_later`:
    /// whether that part differs from this one, and was received later.
    #[inline]
    pub(crate) fn add(
        &mut self,
        line: &IncomingRecord<'_>,
        of_part: u32,
        is_later: impl FnOnce(u32) -> bool,
        shapes: &ShapeRegistry,
        part_id: impl Fn(u32) -> Option<PartId>,
    ) -> bool {
        let JoinedMeta {
            writer, last, part, ..
        } = &self.meta;
        let follows = || is_later(*part) || (of_part == *part && line.position >= writer.next_position());
        let newer = line.time > *last || (line.time == *last && follows());
        if line.shape != Some(self.meta.shape)
            || !newer
            || !line.metadata.is_empty()
            || self.buffer.len() > MAX_BUFFER_BYTES
            || line.record.len() > MAX_RECORD_BYTES
        {
            return false;
        }
        let Some(code) = self.code(line) else {
            return false;
        };
        let JoinedMeta { last, part, .. } = self.meta;
        let context = &mut self.meta.context;
        let level = code & LEVEL_BITS;
        context.mixed_levels |= level != self.meta.writer.last_code() & LEVEL_BITS;
        if context.tracks_worst {
            // The newest of equally bad lines is the worst.
            let is_newest =
                line.time > last || (of_part == part && context.worst_bytes == 0 && line.time == last);
            if level > context.worst_level || (level == context.worst_level && is_newest) {
                (context.worst_level, context.worst_bytes) = (level, 0);
            } else if !self.contest_worst(line, of_part, level, shapes, part_id) {
                return false;
            }
        }
        self.push(line, of_part, code);
        true
    }

    /// [`Self::code`] of the first line.
    #[inline]
    fn first_code(&mut self, line: &IncomingRecord<'_>) -> u8 {
        let level = line_code(line.level) as u8;
        let Some(service) = line.service.map(cut_service) else {
            return level;
        };
        self.reserve_in_area(service.len() + 1);
        if let Some(area) = self.buffer.get_mut(..self.state_area as usize) {
            self.meta.context.insert_first_service(area, service);
        }
        level | 1 << LEVEL_BITS.count_ones()
    }

    /// Level and service of a line as one number. `None` if there are too many services.
    #[inline]
    fn code(&mut self, line: &IncomingRecord<'_>) -> Option<u8> {
        let level = line_code(line.level) as u8;
        let Some(service) = line.service else {
            return Some(level);
        };
        let last = self.meta.writer.last_code() & !LEVEL_BITS;
        let area = self.buffer.get(..self.state_area as usize).unwrap_or_default();
        if last != 0 && self.meta.context.is_last_service(area, service) {
            return Some(level | last);
        }
        self.other_service(cut_service(service))
            .map(|number| level | (number + 1) << LEVEL_BITS.count_ones())
    }

    /// The number of a service that is not the last line's.
    #[inline(never)]
    fn other_service(&mut self, service: &[u8]) -> Option<u8> {
        let context = &mut self.meta.context;
        let area = self.buffer.get(..self.state_area as usize)?;
        match context.find_service(area, service) {
            FoundService::Known(number) => Some(number),
            FoundService::TooMany => None,
            FoundService::New => {
                self.reserve_in_area(service.len() + 1);
                let area = self.buffer.get_mut(..self.state_area as usize)?;
                Some(self.meta.context.insert_service(area, service))
            }
        }
    }

    /// A line that is not worse than all before: keeps the level fields of the worst line. Returns
    /// `false` if they are too long.
    #[inline(never)]
    fn contest_worst(
        &mut self,
        line: &IncomingRecord<'_>,
        of_part: u32,
        level: u8,
        shapes: &ShapeRegistry,
        part_id: impl Fn(u32) -> Option<PartId>,
    ) -> bool {
        let JoinedMeta {
            count, last, part, ..
        } = self.meta;
        let context = &mut self.meta.context;
        if line.time > last || of_part != part || context.worst_bytes == 0 {
            context.lost_tie = false;
        }
        let worst_line = if context.worst_bytes > 0 {
            context.worst_line
        } else {
            count - 1
        };
        if level == context.worst_level && !context.lost_tie {
            let state = self
                .buffer
                .get(..self.meta.state_bytes as usize)
                .unwrap_or_default();
            let worst = decode_lines(state, self.meta.writer.unit()).nth(worst_line as usize);
            let order = (line.time, part_id(of_part), line.position);
            if worst.is_none_or(|worst| worst_order(&worst, part_id) < order) {
                context.worst_bytes = 0;
                return true;
            }
            context.lost_tie = true;
        }
        if context.worst_bytes > 0 {
            return true;
        }
        let shape = shapes.get(self.meta.shape);
        let fields = shape.map_or_else(Vec::new, |shape| shape.worst_fields(self.newest()));
        if fields.is_empty() {
            self.meta.context.tracks_worst = false;
            return true;
        }
        if fields.len() > MAX_WORST_BYTES {
            return false;
        }
        self.reserve_in_area(fields.len());
        if let Some(area) = self.buffer.get_mut(..self.state_area as usize) {
            self.meta.context.put_worst(area, worst_line, &fields);
        }
        true
    }

    /// Makes room for a line and this many bytes more in the state area.
    #[inline]
    fn reserve_in_area(&mut self, bytes: usize) {
        let needed =
            self.meta.state_bytes as usize + self.meta.context.bytes() + MAX_LINE_STATE_BYTES + bytes;
        if needed > self.state_area as usize {
            self.grow_state_area((self.state_area as usize).max(bytes));
        }
    }

    #[inline]
    fn push(&mut self, line: &IncomingRecord<'_>, part: u32, code: u8) {
        let size = HEADER_BYTES + line.record.len();
        self.buffer.truncate(self.text_end as usize);
        self.reserve_in_area(0);
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
        if part != meta.part {
            meta.part = part;
            meta.writer.begin_part();
        }
        let at = meta.state_bytes as usize;
        if let Some(room) = self.buffer.get_mut(at..at + MAX_LINE_STATE_BYTES)
            && let Some(room) = room.first_chunk_mut()
        {
            meta.state_bytes +=
                meta.writer
                    .write(room, line.time, part, line.position, text, code) as u32;
        }
        meta.count += 1;
        meta.last = line.time;
        meta.received_bytes += size;
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
        let area = self.buffer.get(..self.state_area as usize).unwrap_or_default();
        let state = area.get(..self.meta.state_bytes as usize).unwrap_or_default();
        let context = self.meta.context.view(area);
        self.meta.view(state, context, self.text(), self.newest())
    }

    /// Converts the records to lines.
    pub(crate) fn into_lines(self) -> LineBuffer {
        let mut lines = LineBuffer::new(self.buffer.len());
        let view = self.view();
        let mut services: Vec<&[u8]> = view.context.services_reversed().collect();
        services.reverse();
        let (mut at, mut text) = (0, Vec::new());
        for (number, line) in (0..).zip(decode_lines(view.line_states, view.time_unit)) {
            text.clear();
            if let Some(length) = line.text {
                if number > 0 {
                    at += b"\\n".len();
                }
                at = push_unescaped(&mut text, view.text, at, length as usize);
            }
            let text_len = line.text.map_or(NO_TEXT, |_| text.len() as u32);
            let service = line.service.and_then(|number| services.get(number as usize));
            let service = service.copied().unwrap_or_default();
            let mut header = LineHeader {
                time: line.time,
                part: line.part,
                position: line.position,
                shape: ShapeId::to_u32(Some(self.meta.shape)),
                record: 0,
                metadata: 0,
                text: Span { at: 0, len: text_len },
                level: line.level,
                service: service.len() as u8,
                is_partial: true,
            };
            let record = if number + 1 == self.meta.count {
                header.is_partial = false;
                if line.text.is_some() {
                    // The original: in the joined text, invalid UTF-8 was replaced.
                    header.text = self.newest_text;
                }
                text.clear();
                view.newest
            } else if number == view.context.worst_line {
                view.context.worst
            } else {
                &[]
            };
            header.record = record.len() as u32;
            if header.is_partial && line.text.is_some() {
                header.text.at = header.record;
            }
            lines.push_raw(&header, &[record, &text, service]);
        }
        lines.set_received_bytes(self.meta.received_bytes);
        lines
    }
}

impl JoinedMeta {
    #[inline]
    fn view<'a>(
        &self,
        line_states: &'a [u8],
        context: LineContextView<'a>,
        text: &'a [u8],
        newest: &'a [u8],
    ) -> JoinedView<'a> {
        JoinedView {
            last_code: self.writer.last_code(),
            context,
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

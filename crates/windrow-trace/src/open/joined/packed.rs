//! The packed form of joined records, for lingering traces.

use super::{JoinedMeta, JoinedRecords, STATE_AREA_BYTES};
use crate::document::content::{JoinedView, Span};
use crate::document::shape::ShapeId;
use crate::document::state::{MAX_LINE_STATE_BYTES, StateLineWriter};
use crate::open::line_context::LineContextMeta;

impl JoinedRecords {
    /// Appends the packed form to `out`. Returns what is needed to read it, and the buffer.
    #[inline]
    pub(crate) fn pack(&mut self, out: &mut Vec<u8>) -> (PackedJoined, Vec<u8>) {
        out.extend_from_slice(
            self.buffer
                .get(..self.meta.state_bytes as usize)
                .unwrap_or_default(),
        );
        let context_at = self.state_area as usize - self.meta.context.bytes();
        out.extend_from_slice(self.buffer.get(context_at..).unwrap_or_default());
        let JoinedMeta {
            shape,
            count,
            first,
            last,
            part,
            writer,
            state_bytes,
            received_bytes,
            context,
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
            last_code: writer.last_code(),
            context,
        };
        (packed, std::mem::take(&mut self.buffer))
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
    last_code: u8,
    context: LineContextMeta,
}

impl PackedJoined {
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The view of exactly the packed bytes.
    pub(crate) fn view<'a>(&self, bytes: &'a [u8]) -> JoinedView<'a> {
        let [state, context, text, newest] = self.pieces(bytes);
        self.meta().view(state, self.context.view(context), text, newest)
    }

    /// Line states, line context, text and newest record.
    #[inline]
    fn pieces<'a>(&self, bytes: &'a [u8]) -> [&'a [u8]; 4] {
        let split = |bytes: &'a [u8], at| bytes.split_at_checked(at).unwrap_or_default();
        let (state, rest) = split(bytes, self.state_bytes as usize);
        let (context, rest) = split(rest, self.context.bytes());
        let (text, newest) = split(rest, self.text_bytes as usize);
        [state, context, text, newest]
    }

    fn meta(&self) -> JoinedMeta {
        JoinedMeta {
            shape: self.shape,
            count: self.count,
            first: self.first,
            last: self.last,
            part: self.part,
            writer: StateLineWriter::resume(self.time_unit, self.last, self.next_position, self.last_code),
            state_bytes: self.state_bytes,
            received_bytes: self.received_bytes as usize,
            context: self.context,
        }
    }

    /// Restores the records from exactly the packed bytes.
    pub(crate) fn unpack(&self, bytes: &[u8]) -> JoinedRecords {
        let mut buffer = Vec::with_capacity(bytes.len() + STATE_AREA_BYTES);
        let [line_states, context, text, newest] = self.pieces(bytes);
        let needed = line_states.len() + context.len() + MAX_LINE_STATE_BYTES;
        let state_area = needed.max(STATE_AREA_BYTES);
        buffer.extend_from_slice(line_states);
        buffer.resize(state_area - context.len(), 0);
        buffer.extend_from_slice(context);
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

//! State area of joined records: what happens when it is too small, or its time unit too coarse.

use super::{JoinedMeta, JoinedRecords};
use crate::document::state::{MAX_LINE_STATE_BYTES, StateLineWriter, decode_lines};

impl JoinedRecords {
    /// Inserts `more` bytes of space into the state area.
    #[cold]
    pub(super) fn grow_state_area(&mut self, more: usize) {
        let at = self.meta.state_bytes as usize;
        self.buffer.splice(at..at, std::iter::repeat_n(0, more));
        self.state_area += more as u32;
        self.text_end += more as u32;
    }

    /// Rewrites the line states in a finer unit, in which `time` is a whole number.
    #[cold]
    pub(super) fn refine_time_unit(&mut self, time: i64) {
        let JoinedMeta {
            writer, state_bytes, ..
        } = self.meta;
        let mut finer = StateLineWriter::new(time);
        let mut bytes = Vec::new();
        let mut part = 0;
        let lines = decode_lines(
            self.buffer.get(..state_bytes as usize).unwrap_or_default(),
            writer.unit(),
        );
        for line in lines {
            if line.part != part {
                part = line.part;
                finer.begin_part();
            }
            let mut room = [0; MAX_LINE_STATE_BYTES];
            let code = line.code() as u8;
            let length = finer.write(&mut room, line.time, line.part, line.position, line.text, code);
            bytes.extend_from_slice(room.get(..length).unwrap_or_default());
        }
        self.meta.writer = finer;
        let needed = bytes.len() + self.meta.context.bytes() + MAX_LINE_STATE_BYTES;
        let missing = needed.saturating_sub(self.state_area as usize);
        if missing > 0 {
            self.grow_state_area(missing);
        }
        self.meta.state_bytes = bytes.len() as u32;
        if let Some(place) = self.buffer.get_mut(..bytes.len()) {
            place.copy_from_slice(&bytes);
        }
    }
}

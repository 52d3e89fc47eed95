//! Writers of document states, which need no `DocumentState` value on the hot path.
//!
//! Own the varint encoding and the choice of the time unit. `state` defines the format.

use base64_simd::URL_SAFE_NO_PAD;

use super::{
    CODE_DIFFERS, FLAG_BITS, FieldLocation, HAS_KEY_NAME, HAS_RENAMED, HAS_TEXT, HAS_TEXT_NAME, LineState,
    PART_DIFFERS, PartState, SCHEMA_SHIFT, SealReason, TIME_UNITS_NS, VERSION, base_time, default_key,
    default_text,
};
use crate::document::merge_rule::MergeRule;
use crate::document::schema::DocumentSchema;

/// Maximum bytes of a line: varints of 64, 35, 32, 32 and 36 bits.
pub(crate) const MAX_LINE_STATE_BYTES: usize = 32;

/// Writes a state into a scratch buffer, and then its text form into a document.
pub(crate) struct StateWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Index of the time unit.
    unit: usize,
    last_received: i64,
    last_time: i64,
    last_part: u32,
    last_code: u64,
    sealed_at: i64,
}

impl<'a> StateWriter<'a> {
    /// Starts a state in the scratch buffer `out`, whose content is replaced.
    pub(crate) fn begin(
        out: &'a mut Vec<u8>,
        schema: DocumentSchema,
        key_name: &str,
        text_name: Option<&str>,
        reason: SealReason,
        sealed_at: i64,
        parts: usize,
    ) -> Self {
        out.clear();
        let mut flags = (schema as u8) << SCHEMA_SHIFT;
        if key_name != default_key(schema) {
            flags |= HAS_KEY_NAME;
        }
        if let Some(name) = text_name {
            flags |= HAS_TEXT;
            if name != default_text(schema) {
                flags |= HAS_TEXT_NAME;
            }
        }
        out.extend_from_slice(&[VERSION, flags]);
        if flags & HAS_KEY_NAME != 0 {
            put_text(out, key_name);
        }
        if let Some(name) = text_name.filter(|_| flags & HAS_TEXT_NAME != 0) {
            put_text(out, name);
        }
        in_place(out, |bytes, at| {
            put_byte(bytes, at, reason as u8);
            put_number(bytes, at, zigzag(sealed_at));
            put_number(bytes, at, parts as u64);
        });
        Self {
            out,
            unit: TIME_UNITS_NS.len() - 1,
            last_received: sealed_at,
            last_time: 0,
            last_part: 0,
            last_code: 0,
            sealed_at,
        }
    }

    #[inline]
    pub(crate) fn part(&mut self, part: &PartState) {
        let received = part.received.wrapping_sub(self.last_received);
        self.last_received = part.received;
        in_place(self.out, |bytes, at| {
            // An id and two varints always fit.
            if let Some(place) = bytes.first_chunk_mut() {
                *place = part.id.0;
            }
            *at = part.id.0.len();
            put_number(bytes, at, zigzag(received));
            put_number(bytes, at, u64::from(part.total));
        });
    }

    /// Starts the lines. The time unit is chosen from `times`.
    pub(crate) fn lines(&mut self, times: impl ExactSizeIterator<Item = i64>) {
        let count = times.len() as u32;
        let unit = times.map(unit_of).max().unwrap_or(0);
        self.begin_lines(count, unit as u8);
    }

    /// Starts this number of lines in this time unit.
    pub(crate) fn begin_lines(&mut self, count: u32, unit: u8) {
        in_place(self.out, |bytes, at| {
            put_number(bytes, at, u64::from(count));
            put_byte(bytes, at, unit);
        });
        self.unit = usize::from(unit);
        self.last_time = TIME_UNITS_NS
            .get(self.unit)
            .map_or(0, |unit| base_time(self.sealed_at, *unit));
    }

    /// Writes lines that a [`StateLineWriter`] encoded in this unit, the first of which is at `first`.
    pub(crate) fn encoded_lines(&mut self, count: u32, unit: u8, first: i64, lines: &[u8]) {
        self.begin_lines(count, unit);
        // Only the first time is absolute.
        let first = in_unit(first, self.unit);
        let length = length_of(zigzag(first));
        let first = zigzag(first.wrapping_sub(self.last_time));
        in_place(self.out, |bytes, at| put_number(bytes, at, first));
        self.out
            .extend_from_slice(lines.get(length..).unwrap_or_default());
    }

    /// `next_position` is the position behind the last line of the same part.
    pub(crate) fn line(&mut self, line: &LineState, next_position: u32) {
        let time = in_unit(line.time, self.unit);
        let code = line.code();
        let differs = Differences {
            code: code != self.last_code,
            part: line.part != self.last_part,
        };
        let position = zigzag(i64::from(line.position) - i64::from(next_position));
        let delta = zigzag(time.wrapping_sub(self.last_time));
        in_place(self.out, |bytes, at| {
            put_number(bytes, at, delta);
            put_number(bytes, at, position << FLAG_BITS | differs.flags());
            if differs.part {
                put_number(bytes, at, u64::from(line.part));
            }
            put_number(bytes, at, line.text.map_or(0, |length| u64::from(length) + 1));
            if differs.code {
                put_number(bytes, at, code);
            }
        });
        (self.last_time, self.last_part, self.last_code) = (time, line.part, code);
    }

    pub(crate) fn field_count(&mut self, count: usize) {
        put(self.out, count as u64);
    }

    pub(crate) fn field(&mut self, location: FieldLocation, rule: MergeRule, name: &[u8], line: u32) {
        self.out.push(location as u8 | (rule as u8) << 1);
        put(self.out, name.len() as u64);
        self.out.extend_from_slice(name);
        put(self.out, u64::from(line));
    }

    /// Starts the renamed fields, if there are any.
    #[inline]
    pub(crate) fn renamed_count(&mut self, count: usize) {
        if count > 0 {
            if let Some(flags) = self.out.get_mut(1) {
                *flags |= HAS_RENAMED;
            }
            put(self.out, count as u64);
        }
    }

    pub(crate) fn renamed_field(
        &mut self,
        location: FieldLocation,
        name: &str,
        original: &str,
        natural: &str,
    ) {
        self.out.push(location as u8);
        put_text(self.out, name);
        put_text(self.out, original);
        put_text(self.out, if natural == name { "" } else { natural });
    }

    /// Appends the text form to `json`.
    pub(crate) fn finish(self, json: &mut Vec<u8>) {
        // By SIMD: a table-driven encoder takes an eighth of the time of a document.
        URL_SAFE_NO_PAD.encode_append(&*self.out, json);
    }
}

/// What differs between a line and the one before.
#[derive(Clone, Copy)]
struct Differences {
    code: bool,
    part: bool,
}

impl Differences {
    #[inline]
    fn flags(self) -> u64 {
        (u64::from(self.code) * CODE_DIFFERS) | (u64::from(self.part) * PART_DIFFERS)
    }
}

/// Encodes the lines of a state one by one as they arrive, in order, with the lines of each part
/// together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateLineWriter {
    unit: u8,
    /// Level and service of the last line: level + 8 * (service + 1).
    last_code: u8,
    /// The part of the next line is not that of the last one.
    part_differs: bool,
    /// In units.
    last_time: i64,
    next_position: u32,
}

impl StateLineWriter {
    /// Starts in the unit that `time` needs.
    #[inline]
    pub(crate) fn new(time: i64) -> Self {
        Self {
            unit: unit_of(time) as u8,
            last_code: 0,
            part_differs: false,
            last_time: 0,
            next_position: 0,
        }
    }

    /// Continues behind a line of this time and code, in this unit.
    pub(crate) const fn resume(unit: u8, time: i64, next_position: u32, last_code: u8) -> Self {
        Self {
            unit,
            last_code,
            part_differs: false,
            last_time: in_unit(time, unit as usize),
            next_position,
        }
    }

    /// Index of the time unit.
    #[inline]
    pub(crate) fn unit(&self) -> u8 {
        self.unit
    }

    /// Level and service of the last line: level + 8 * (service + 1).
    #[inline]
    pub(crate) fn last_code(&self) -> u8 {
        self.last_code
    }

    /// Whether `time` is not a whole number of units.
    #[inline]
    pub(crate) fn is_too_coarse(&self, time: i64) -> bool {
        // Written out, because the compiler makes divisions by constants several times faster.
        match self.unit {
            0 => time % TIME_UNITS_NS[0] != 0,
            1 => time % TIME_UNITS_NS[1] != 0,
            2 => time % TIME_UNITS_NS[2] != 0,
            _ => false,
        }
    }

    /// Starts another part.
    #[inline]
    pub(crate) fn begin_part(&mut self) {
        (self.next_position, self.part_differs) = (0, true);
    }

    /// The position behind the last line of the part.
    #[inline]
    pub(crate) fn next_position(&self) -> u32 {
        self.next_position
    }

    /// Encodes a line. Returns its length.
    #[inline]
    pub(crate) fn write(
        &mut self,
        out: &mut [u8; MAX_LINE_STATE_BYTES],
        time: i64,
        part: u32,
        position: u32,
        text: Option<u32>,
        code: u8,
    ) -> usize {
        let time = in_unit(time, usize::from(self.unit));
        let differs = Differences {
            code: code != self.last_code,
            part: self.part_differs,
        };
        let offset = zigzag(i64::from(position) - i64::from(self.next_position));
        let offset = offset << FLAG_BITS | differs.flags();
        let text = text.map_or(0, |length| u64::from(length) + 1);
        let mut at = 0;
        put_number(out, &mut at, zigzag(time.wrapping_sub(self.last_time)));
        self.last_time = time;
        self.next_position = position.wrapping_add(1);
        // Most lines: a short text that follows the line before in everything.
        if offset < 0x80 && text < 0x80 && !differs.part && !differs.code {
            put_byte(out, &mut at, offset as u8);
            put_byte(out, &mut at, text as u8);
            return at;
        }
        put_number(out, &mut at, offset);
        if differs.part {
            put_number(out, &mut at, u64::from(part));
            self.part_differs = false;
        }
        put_number(out, &mut at, text);
        if differs.code {
            put_number(out, &mut at, u64::from(code));
            self.last_code = code;
        }
        at
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes at the end of `out`. In place rather than into a temporary: bytes stored one by one and
/// then loaded as words stall on store forwarding.
#[inline]
fn in_place(out: &mut Vec<u8>, write: impl FnOnce(&mut [u8; MAX_LINE_STATE_BYTES], &mut usize)) {
    let start = out.len();
    out.extend_from_slice(&[0; MAX_LINE_STATE_BYTES]);
    let mut at = 0;
    if let Some(room) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
        write(room, &mut at);
    }
    out.truncate(start + at);
}

#[inline]
fn put_number(bytes: &mut [u8; MAX_LINE_STATE_BYTES], at: &mut usize, mut number: u64) {
    while number >= 0x80 {
        put_byte(bytes, at, number as u8 | 0x80);
        number >>= 7;
    }
    put_byte(bytes, at, number as u8);
}

#[inline]
fn put_byte(bytes: &mut [u8; MAX_LINE_STATE_BYTES], at: &mut usize, byte: u8) {
    // The numbers of a line always fit.
    if let Some(place) = bytes.get_mut(*at) {
        *place = byte;
    }
    *at += 1;
}

/// Index of the largest unit in which `time` is a whole number.
fn unit_of(time: i64) -> usize {
    // Written out, because the compiler makes divisions by constants several times faster.
    if time % TIME_UNITS_NS[2] != 0 {
        3
    } else if time % TIME_UNITS_NS[1] != 0 {
        2
    } else if time % TIME_UNITS_NS[0] != 0 {
        1
    } else {
        0
    }
}

/// The time in this unit.
const fn in_unit(time: i64, unit: usize) -> i64 {
    match unit {
        0 => time / TIME_UNITS_NS[0],
        1 => time / TIME_UNITS_NS[1],
        2 => time / TIME_UNITS_NS[2],
        _ => time,
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Bytes that [`put_number`] writes: one for each seven bits.
fn length_of(number: u64) -> usize {
    (u64::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_largest_that_keeps_times_exact() {
        let times = [
            0,
            1,
            -1,
            999,
            1_000,
            -1_000,
            1_500_000,
            2_000_000,
            3_000_000_000,
            i64::MIN,
            i64::MAX,
        ];
        for time in times {
            let unit = unit_of(time);
            let exact: Vec<usize> = (0..TIME_UNITS_NS.len())
                .filter(|unit| time % TIME_UNITS_NS[*unit] == 0)
                .collect();
            assert_eq!(Some(&unit), exact.first(), "{time}");
            for unit in exact {
                assert_eq!(in_unit(time, unit), time / TIME_UNITS_NS[unit]);
            }
        }
    }
}

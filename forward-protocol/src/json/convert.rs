//! [`MessageWriter`]: converts a JSON text to MessagePack while it is parsed, without a tree.

use std::fmt;

use serde_core::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::number::{NumberTexts, is_plain};
use crate::msgpack::{
    self, Value, write_array_len, write_bool, write_ext, write_f64, write_i64, write_map_len, write_nil,
    write_str, write_u64,
};

/// The deepest nesting that serde_json accepts.
const MAX_DEPTH: u32 = 128;
/// Most keys of a map that are compared by their marks; more are sorted.
const MAX_MARKS: u32 = 64;

/// Appends one value to `out`.
pub(super) struct MessageWriter<'a> {
    pub(super) out: &'a mut Vec<u8>,
    /// The length that `out` may have.
    max_len: usize,
    pub(super) too_long: bool,
    /// Open containers, and how many there may be.
    depth: u32,
    max_depth: u32,
    /// Where the pairs of the open maps begin, those of the innermost map last. Offsets count from
    /// the end of the map's header.
    pairs: Vec<u32>,
    /// Marks of the keys of the open maps, at most [`MAX_MARKS`] of each: keys with different marks
    /// are different.
    marks: Vec<u32>,
    /// The numbers of the text as they are written, and the extension type of those whose digits a
    /// float would change. `None`: such numbers become floats.
    numbers: Option<(NumberTexts<'a>, i8)>,
}

/// A container whose end is not parsed yet. Its header grows with the number of its elements, so
/// that it has the shortest form at the end.
struct OpenContainer {
    header: usize,
    header_len: usize,
    count: u32,
}

impl<'a> MessageWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, max_len: usize) -> Self {
        Self {
            out,
            max_len,
            too_long: false,
            depth: 0,
            max_depth: MAX_DEPTH,
            pairs: Vec::new(),
            marks: Vec::new(),
            numbers: None,
        }
    }

    /// A writer that keeps the digits of the numbers in `text`; see [`super::write_object`].
    pub(super) fn with_digits(out: &'a mut Vec<u8>, max_len: usize, text: &'a [u8], extension: i8) -> Self {
        Self {
            numbers: Some((NumberTexts::new(text), extension)),
            ..Self::new(out, max_len)
        }
    }

    /// Accepts no deeper nesting than this.
    pub(super) fn with_max_depth(mut self, max_depth: u32) -> Self {
        self.max_depth = max_depth;
        self
    }

    /// Converts `text`; `Ok(false)` when the message would be too long.
    pub(super) fn write(mut self, text: &[u8]) -> Result<bool, serde_json::Error> {
        let mut parser = serde_json::Deserializer::from_slice(text);
        let parsed = ValueSeed(&mut self)
            .deserialize(&mut parser)
            .and_then(|()| parser.end());
        match parsed {
            Err(_) if self.too_long => Ok(false),
            parsed => parsed.map(|()| true),
        }
    }

    /// Fails once the message is too long.
    fn check_len<E: Error>(&mut self) -> Result<(), E> {
        self.too_long = self.out.len() > self.max_len;
        match self.too_long {
            true => Err(E::custom("the message is too long")),
            false => Ok(()),
        }
    }

    /// Writes a number that is no integer of 64 bits.
    fn write_float(&mut self, value: f64) {
        let Some((texts, extension)) = &mut self.numbers else {
            write_f64(self.out, value);
            return;
        };
        let text = texts.next().unwrap_or_default();
        match std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
            Some(value) if is_plain(text) => write_f64(self.out, value),
            _ => write_ext(self.out, *extension, text),
        }
    }

    /// Passes over the text of an integer.
    fn skip_integer(&mut self) {
        if let Some((texts, _)) = &mut self.numbers {
            texts.next();
        }
    }

    fn open<E: Error>(&mut self) -> Result<OpenContainer, E> {
        self.depth += 1;
        if self.depth > self.max_depth {
            return Err(E::custom(format_args!(
                "arrays and objects are nested deeper than {}",
                self.max_depth
            )));
        }
        Ok(self.begin())
    }

    /// Forgets the containers that an error has left open.
    pub(super) fn reset(&mut self) {
        self.depth = 0;
        self.pairs.clear();
        self.marks.clear();
    }

    fn begin(&mut self) -> OpenContainer {
        let header = self.out.len();
        self.out.push(0);
        OpenContainer {
            header,
            header_len: 1,
            count: 0,
        }
    }

    /// Writes an object as a map.
    pub(super) fn map<'de, A: MapAccess<'de>>(&mut self, mut pairs: A) -> Result<(), A::Error> {
        let (first_pair, first_mark) = (self.pairs.len(), self.marks.len());
        let mut map = self.open()?;
        loop {
            let at = self.out.len();
            let pair = at - map.header - map.header_len;
            let Some(()) = pairs.next_key_seed(KeySeed(self))? else {
                break;
            };
            // A message is shorter than 4 GiB.
            self.pairs.push(pair as u32);
            if map.count < MAX_MARKS {
                let mark = mark(self.out.get(at..).unwrap_or_default());
                self.marks.push(mark);
            }
            pairs.next_value_seed(ValueSeed(self))?;
            map.add(self.out);
        }
        self.end_map(map, first_pair, first_mark);
        self.depth -= 1;
        self.check_len()
    }

    /// Ends a map: of equal keys the last value counts, in the place of the first.
    fn end_map(&mut self, mut map: OpenContainer, first_pair: usize, first_mark: usize) {
        let marks = self.marks.get(first_mark..).unwrap_or_default();
        let are_marked = map.count <= MAX_MARKS;
        let mut earlier = marks.iter().enumerate().map(|(n, mark)| (mark, marks.get(..n)));
        let are_distinct =
            are_marked && earlier.all(|(mark, earlier)| !earlier.unwrap_or_default().contains(mark));
        self.marks.truncate(first_mark);
        if are_distinct {
            self.pairs.truncate(first_pair);
            map.end(self.out, write_map_len);
            return;
        }
        let body = map.header + map.header_len;
        let pairs = self.pairs.get_mut(first_pair..).unwrap_or_default();
        let out = &*self.out;
        pairs.sort_unstable_by(|a, b| key(out, body, *a).cmp(key(out, body, *b)).then(a.cmp(b)));
        let is_same = |a: &u32, b: &u32| key(out, body, *a) == key(out, body, *b);
        if pairs.is_sorted_by(|a, b| !is_same(a, b)) {
            self.pairs.truncate(first_pair);
        } else {
            let mut unique: Vec<(u32, u32)> = pairs
                .chunk_by(is_same)
                .filter_map(|same| Some((*same.first()?, *same.last()?)))
                .collect();
            unique.sort_unstable();
            let mut kept = Vec::new();
            for &(_, last) in &unique {
                let start = body + last as usize;
                let end = msgpack::skip(out, start, MAX_DEPTH)
                    .and_then(|value| msgpack::skip(out, value, MAX_DEPTH))
                    .unwrap_or(start);
                kept.extend_from_slice(out.get(start..end).unwrap_or_default());
            }
            self.pairs.truncate(first_pair);
            self.out.truncate(map.header);
            map = self.begin();
            for _ in &unique {
                map.add(self.out);
            }
            self.out.extend_from_slice(&kept);
        }
        map.end(self.out, write_map_len);
    }
}

/// A number that differs for most different keys: from the length and the first and last bytes of
/// the encoded key.
fn mark(key: &[u8]) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = |bytes: Option<&[u8; 8]>| bytes.map(|bytes| u64::from_le_bytes(*bytes));
    let mixed = match (word(key.first_chunk()), word(key.last_chunk())) {
        (Some(first), Some(last)) => first.rotate_left(23) ^ last,
        _ => key.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    ((mixed ^ key.len() as u64).wrapping_mul(ODD) >> 32) as u32
}

/// The key of a pair.
fn key(out: &[u8], body: usize, pair: u32) -> &[u8] {
    match Value::read(out, body + pair as usize) {
        Ok((Value::Str(key), _)) => key,
        _ => &[],
    }
}

impl OpenContainer {
    /// Counts one more element, which follows.
    fn add(&mut self, out: &mut Vec<u8>) {
        self.count += 1;
        // The first counts that need a header of 3 and of 5 bytes.
        if matches!(self.count, 0x10 | 0x1_0000) {
            let end = self.header + self.header_len;
            out.splice(end..end, [0; 2]);
            self.header_len += 2;
        }
    }

    fn end(self, out: &mut [u8], write_len: fn(&mut Vec<u8>, u32)) {
        let mut header = Vec::with_capacity(self.header_len);
        write_len(&mut header, self.count);
        if let Some(place) = out.get_mut(self.header..self.header + self.header_len) {
            place.copy_from_slice(&header);
        }
    }
}

pub(super) struct ValueSeed<'w, 'a>(pub(super) &'w mut MessageWriter<'a>);

impl<'de> DeserializeSeed<'de> for ValueSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A key, which JSON writes as a string.
struct KeySeed<'w, 'a>(&'w mut MessageWriter<'a>);

impl<'de> DeserializeSeed<'de> for KeySeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(ValueSeed(self.0))
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        write_nil(self.0.out);
        self.0.check_len()
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        write_bool(self.0.out, value);
        self.0.check_len()
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.0.skip_integer();
        write_u64(self.0.out, value);
        self.0.check_len()
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.0.skip_integer();
        write_i64(self.0.out, value);
        self.0.check_len()
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.0.write_float(value);
        self.0.check_len()
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        write_str(self.0.out, value.as_bytes());
        self.0.check_len()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let writer = self.0;
        let mut array = writer.open()?;
        while let Some(()) = values.next_element_seed(ValueSeed(writer))? {
            array.add(writer.out);
        }
        array.end(writer.out, write_array_len);
        writer.depth -= 1;
        writer.check_len()
    }

    fn visit_map<A: MapAccess<'de>>(self, pairs: A) -> Result<(), A::Error> {
        self.0.map(pairs)
    }
}

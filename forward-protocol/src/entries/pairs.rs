//! The pairs of a record map, in place.

use crate::msgpack::{Error, Value, extent, scalar_end};

/// One pair of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The key.
    pub key: Key<'a>,
    /// The raw MessagePack bytes of the value.
    pub value: &'a [u8],
}

/// The key of a pair. Senders use strings; MessagePack allows anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// A string or binary; not checked for UTF-8.
    Text(&'a [u8]),
    /// The raw MessagePack bytes of a key of any other type.
    Other(&'a [u8]),
}

/// Iterates over the pairs of one map, in the order in which they stand. A key may come twice.
///
/// The bytes are expected to be one whole map, as [`super::Entry::record`] is; with other bytes the iteration ends
/// early, it never panics.
#[derive(Clone, Debug)]
pub struct MapPairs<'a> {
    buf: &'a [u8],
    at: usize,
    left: u32,
}

impl<'a> MapPairs<'a> {
    /// The pairs of the map that begins `buf`; none when something else stands there.
    pub fn new(buf: &'a [u8]) -> Self {
        match Value::read(buf, 0) {
            Ok((Value::Map(left), at)) => Self { buf, at, left },
            _ => Self {
                buf,
                at: buf.len(),
                left: 0,
            },
        }
    }

    /// How many pairs are still to come, as the map declares.
    pub fn remaining(&self) -> u32 {
        self.left
    }
}

impl<'a> Iterator for MapPairs<'a> {
    type Item = Pair<'a>;

    #[inline]
    fn next(&mut self) -> Option<Pair<'a>> {
        self.left = self.left.checked_sub(1)?;
        let mut opened = 0;
        let (pair, next) = pair_at(self.buf, self.at, &mut opened).ok()?;
        self.at = next;
        Some(pair)
    }
}

/// Reads the pair at `at`; adds the containers inside it to `opened`.
#[inline]
pub(super) fn pair_at<'a>(buf: &'a [u8], at: usize, opened: &mut u32) -> Result<(Pair<'a>, usize), Error> {
    let short = Error::Incomplete { at };
    let first = *buf.get(at).ok_or(short)?;
    let (key, middle) = if (0xa0..=0xbf).contains(&first) {
        let end = at + 1 + usize::from(first & 0x1f);
        (Key::Text(buf.get(at + 1..end).ok_or(short)?), end)
    } else {
        other_key(buf, at, opened)?
    };
    let (value, end) = value_at(buf, middle, opened)?;
    Ok((Pair { key, value }, end))
}

/// Reads the value at `at`; adds the containers inside it to `opened`.
#[inline]
pub(super) fn value_at<'a>(buf: &'a [u8], at: usize, opened: &mut u32) -> Result<(&'a [u8], usize), Error> {
    match scalar_end(buf, at).and_then(|end| Some((buf.get(at..end)?, end))) {
        Some(scalar) => Ok(scalar),
        None => other_value(buf, at, opened),
    }
}

/// The same for a value that is a container, that is long, or that is cut short.
#[inline(never)]
fn other_value<'a>(buf: &'a [u8], at: usize, opened: &mut u32) -> Result<(&'a [u8], usize), Error> {
    let (end, inner) = extent(buf, at)?;
    *opened = opened.saturating_add(inner);
    let value = buf.get(at..end).ok_or(Error::Incomplete { at })?;
    Ok((value, end))
}

#[cold]
fn other_key<'a>(buf: &'a [u8], at: usize, opened: &mut u32) -> Result<(Key<'a>, usize), Error> {
    let (end, inner) = extent(buf, at)?;
    *opened = opened.saturating_add(inner);
    let key = match Value::read(buf, at)?.0 {
        Value::Str(text) | Value::Bin(text) => Key::Text(text),
        _ => Key::Other(buf.get(at..end).ok_or(Error::Incomplete { at })?),
    };
    Ok((key, end))
}

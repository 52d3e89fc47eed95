//! [`MapPairs`]: the iterator over the pairs of a map, in place.

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

/// Iterates over the pairs of one map, in wire order. A key may occur twice.
///
/// `buf` must be one whole map, as [`super::Entry::record`] is; with other bytes the iteration ends
/// early. It never panics.
#[derive(Clone, Debug)]
pub struct MapPairs<'a> {
    buf: &'a [u8],
    at: usize,
    remaining: u32,
}

impl<'a> MapPairs<'a> {
    /// The pairs of the map at the front of `buf`; none when another value is there.
    pub fn new(buf: &'a [u8]) -> Self {
        match Value::read(buf, 0) {
            Ok((Value::Map(remaining), at)) => Self { buf, at, remaining },
            _ => Self {
                buf,
                at: buf.len(),
                remaining: 0,
            },
        }
    }

    /// The number of pairs left, as the map declares.
    pub fn remaining(&self) -> u32 {
        self.remaining
    }
}

impl<'a> Iterator for MapPairs<'a> {
    type Item = Pair<'a>;

    #[inline]
    fn next(&mut self) -> Option<Pair<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
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
        key_slow(buf, at, opened)?
    };
    let (value, end) = value_at(buf, middle, opened)?;
    Ok((Pair { key, value }, end))
}

/// Reads the value at `at`; adds the containers inside it to `opened`.
#[inline]
pub(super) fn value_at<'a>(buf: &'a [u8], at: usize, opened: &mut u32) -> Result<(&'a [u8], usize), Error> {
    match scalar_end(buf, at).and_then(|end| Some((buf.get(at..end)?, end))) {
        Some(scalar) => Ok(scalar),
        None => value_slow(buf, at, opened),
    }
}

/// The same for a container, a long value, or a truncated one.
#[inline(never)]
fn value_slow<'a>(buf: &'a [u8], at: usize, opened: &mut u32) -> Result<(&'a [u8], usize), Error> {
    let (end, inner) = extent(buf, at)?;
    *opened = opened.saturating_add(inner);
    let value = buf.get(at..end).ok_or(Error::Incomplete { at })?;
    Ok((value, end))
}

#[cold]
fn key_slow<'a>(buf: &'a [u8], at: usize, opened: &mut u32) -> Result<(Key<'a>, usize), Error> {
    let (end, inner) = extent(buf, at)?;
    *opened = opened.saturating_add(inner);
    let key = match Value::read(buf, at)?.0 {
        Value::Str(text) | Value::Bin(text) => Key::Text(text),
        _ => Key::Other(buf.get(at..end).ok_or(Error::Incomplete { at })?),
    };
    Ok((key, end))
}

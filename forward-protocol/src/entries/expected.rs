//! Keys as they stand on the wire, prepared for comparison: senders write few lists of keys, each of them millions of
//! times.
//!
//! Owns the comparison and the walk over pairs of which the keys were expected. Pairs with other keys are `pairs`'s.

#[cfg(test)]
mod tests;

use super::iter::Visitor;
use super::pairs::value_at;
use crate::msgpack::{Error, scalar_size, write_str};

/// Bytes of the wire that are compared at once.
const WIDTH: usize = 16;
/// Bytes that are there for the quick way: a key, and the first bytes of its value.
const WINDOW: usize = WIDTH + 3;

/// A string key that records are expected to have; see [`Visitor::record`].
///
/// It is the key in its shortest form, which is the one that senders write. A key that is the same text in another form
/// is not recognised, and goes the general way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireKey {
    /// The first bytes, zeros behind them, and which of them count. None count of a key that is too long to be compared
    /// at once, and no bytes are its first.
    head: [u64; 2],
    mask: [u64; 2],
    /// Which of them is the last.
    last: u8,
    /// Header and text.
    wire: Box<[u8]>,
    /// Bytes of the header.
    header: u8,
    passed_over: bool,
}

impl WireKey {
    /// The key with this text.
    pub fn new(text: &[u8]) -> Self {
        let mut wire = Vec::new();
        write_str(&mut wire, text);
        let (mut head, mut mask) = ([0; WIDTH], [0; WIDTH]);
        for ((byte, head), mask) in wire.iter().zip(&mut head).zip(&mut mask) {
            (*head, *mask) = (*byte, 0xff);
        }
        if wire.len() > WIDTH {
            (head, mask) = ([0xff; WIDTH], [0; WIDTH]);
        }
        Self {
            head: words(&head),
            mask: words(&mask),
            last: wire.len().min(WIDTH) as u8 - 1,
            header: (wire.len() - text.len()) as u8,
            wire: wire.into(),
            passed_over: false,
        }
    }

    /// The same key, but [`Visitor::value`] is not called for it.
    #[must_use]
    pub fn passed_over(self) -> Self {
        Self {
            passed_over: true,
            ..self
        }
    }

    /// Its text.
    pub fn text(&self) -> &[u8] {
        self.wire.get(usize::from(self.header)..).unwrap_or_default()
    }

    /// Where a pair that begins `rest` has its value and where that ends, when it has this key and a value whose first
    /// bytes tell its size. `None` says nothing of the pair. The end may lie beyond the bytes.
    #[inline(always)]
    fn quick(&self, rest: &[u8]) -> Option<(usize, usize)> {
        let window: &[u8; WINDOW] = rest.first_chunk()?;
        // One comparison, whatever the length: what stands behind a short key does not count.
        let [low, high] = words(window.first_chunk()?);
        if low & self.mask[0] != self.head[0] || high & self.mask[1] != self.head[1] {
            return None;
        }
        // So that the compiler knows that all of the places are in the window.
        let last = usize::from(self.last) % WIDTH;
        let size = scalar_size(window[last + 1], window[last + 2], window[last + 3])?;
        Some((last + 1, last + 1 + size))
    }

    /// The same for a key of any length, a value of any type, and the last bytes of a payload. Adds the containers in
    /// the value to `opened`. `None`: it is another key.
    #[inline(never)]
    fn general(&self, rest: &[u8], opened: &mut u32) -> Result<Option<(usize, usize)>, Error> {
        if !rest.starts_with(&self.wire) {
            return Ok(None);
        }
        let middle = self.wire.len();
        let (_, end) = value_at(rest, middle, opened)?;
        Ok(Some((middle, end)))
    }
}

#[inline(always)]
fn words(bytes: &[u8; WIDTH]) -> [u64; 2] {
    let bytes = u128::from_le_bytes(*bytes);
    [bytes as u64, (bytes >> 64) as u64]
}

/// Walks over the pairs that begin at `at` as long as they have the expected keys. Gives the number of the first one
/// that has not, and where it begins.
#[inline]
pub(super) fn walk<'a, 'k>(
    buf: &'a [u8],
    at: usize,
    keys: &'k [WireKey],
    visitor: &mut impl Visitor<'a, 'k>,
    opened: &mut u32,
) -> Result<(usize, usize), Error> {
    let mut rest = buf.get(at..).unwrap_or_default();
    let mut number = 0;
    for key in keys {
        let (middle, end) = match key.quick(rest) {
            Some(found) => found,
            None => match key.general(rest, opened)? {
                Some(found) => found,
                None => break,
            },
        };
        let cut = Error::Incomplete { at };
        let (pair, behind) = rest.split_at_checked(end).ok_or(cut)?;
        if !key.passed_over {
            visitor.value(number, pair.get(middle..).ok_or(cut)?);
        }
        rest = behind;
        number += 1;
    }
    Ok((number, buf.len() - rest.len()))
}

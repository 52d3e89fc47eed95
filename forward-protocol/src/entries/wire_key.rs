//! [`WireKey`]: an encoded key prepared for comparison with received bytes.
//!
//! Owns the comparison. Senders use few lists of keys, each of them millions of times, so comparing
//! is faster than parsing; `pairs` parses all other keys.

#[cfg(test)]
mod tests;

use super::pairs::value_at;
use crate::msgpack::{Error, scalar_size, write_str};

/// Bytes that are compared at once.
const COMPARED_BYTES: usize = 16;
/// Bytes that the fast path needs: a key, and the first 3 bytes of its value.
const WINDOW_BYTES: usize = COMPARED_BYTES + 3;

/// A string key that records are expected to have; see [`Visitor::record`](super::Visitor::record).
///
/// Holds the key in its shortest encoding, which is the one that senders use. The same text in a
/// longer encoding does not match and is parsed like any other key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireKey {
    /// The first bytes of `wire`, padded with zeros, and the mask of those that count. For a key
    /// too long for one comparison the mask is empty and `head` is all ones, which never matches.
    head: [u64; 2],
    mask: [u64; 2],
    /// Index of the last of them.
    last: u8,
    /// Header and text.
    wire: Box<[u8]>,
    /// Length of the header.
    header: u8,
    pub(super) skipped: bool,
}

impl WireKey {
    /// The key with this text.
    pub fn new(text: &[u8]) -> Self {
        let mut wire = Vec::new();
        write_str(&mut wire, text);
        let (mut head, mut mask) = ([0; COMPARED_BYTES], [0; COMPARED_BYTES]);
        for ((byte, head), mask) in wire.iter().zip(&mut head).zip(&mut mask) {
            (*head, *mask) = (*byte, 0xff);
        }
        if wire.len() > COMPARED_BYTES {
            (head, mask) = ([0xff; COMPARED_BYTES], [0; COMPARED_BYTES]);
        }
        Self {
            head: words(&head),
            mask: words(&mask),
            last: wire.len().min(COMPARED_BYTES) as u8 - 1,
            header: (wire.len() - text.len()) as u8,
            wire: wire.into(),
            skipped: false,
        }
    }

    /// The same key, for which [`Visitor::value`](super::Visitor::value) is not called.
    #[must_use]
    pub fn skipped(self) -> Self {
        Self {
            skipped: true,
            ..self
        }
    }

    /// Its text.
    pub fn text(&self) -> &[u8] {
        self.wire.get(usize::from(self.header)..).unwrap_or_default()
    }

    /// Start and end of the value of the pair at the front of `rest`, when the pair has this key
    /// and the first bytes of the value tell its size. `None`: not decided here. The end may lie
    /// beyond the bytes.
    #[inline(always)]
    pub(super) fn match_fast(&self, rest: &[u8]) -> Option<(usize, usize)> {
        let window: &[u8; WINDOW_BYTES] = rest.first_chunk()?;
        // One comparison, whatever the length: the mask excludes the bytes after a short key.
        let [low, high] = words(window.first_chunk()?);
        if low & self.mask[0] != self.head[0] || high & self.mask[1] != self.head[1] {
            return None;
        }
        // Lets the compiler drop the bounds checks of the window.
        let last = usize::from(self.last) % COMPARED_BYTES;
        let size = scalar_size(window[last + 1], window[last + 2], window[last + 3])?;
        Some((last + 1, last + 1 + size))
    }

    /// The same for a key of any length, a value of any type, and the end of a payload. Adds the
    /// containers in the value to `opened`. `None`: the pair has another key.
    #[inline(never)]
    pub(super) fn match_slow(&self, rest: &[u8], opened: &mut u32) -> Result<Option<(usize, usize)>, Error> {
        if !rest.starts_with(&self.wire) {
            return Ok(None);
        }
        let middle = self.wire.len();
        let (_, end) = value_at(rest, middle, opened)?;
        Ok(Some((middle, end)))
    }
}

#[inline(always)]
fn words(bytes: &[u8; COMPARED_BYTES]) -> [u64; 2] {
    let bytes = u128::from_le_bytes(*bytes);
    [bytes as u64, (bytes >> 64) as u64]
}

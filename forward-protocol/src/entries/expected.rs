//! A key as it stands on the wire, prepared for comparison: senders write few lists of keys, each of them millions of
//! times.
//!
//! Owns the comparison. What is done with a key that was expected, or with another one, is the walk's.

#[cfg(test)]
mod tests;

use crate::msgpack::write_str;

/// Bytes of the wire that are compared at once.
const WIDTH: usize = 16;

/// A string key that records are expected to have; see [`super::Visitor::expected`].
///
/// It is the key in its shortest form, which is the one that senders write. A key that is the same text in another form
/// is not recognised, and goes the general way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireKey {
    /// The first bytes, zeros behind them, and which of them count.
    head: u128,
    mask: u128,
    /// Header and text.
    wire: Box<[u8]>,
    text: usize,
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
        Self {
            head: u128::from_le_bytes(head),
            mask: u128::from_le_bytes(mask),
            text: wire.len() - text.len(),
            wire: wire.into(),
        }
    }

    /// Its text.
    #[inline]
    pub fn text(&self) -> &[u8] {
        self.wire.get(self.text..).unwrap_or_default()
    }

    /// Where it ends when it stands at byte `at` of `buf`.
    #[inline]
    pub fn end_at(&self, buf: &[u8], at: usize) -> Option<usize> {
        let Some(bytes) = buf.get(at..).and_then(<[u8]>::first_chunk) else {
            return self.end_near_the_end(buf, at);
        };
        // One comparison, whatever the length: what stands behind a short key does not count.
        if (u128::from_le_bytes(*bytes) ^ self.head) & self.mask != 0 {
            return None;
        }
        let end = at + self.wire.len();
        if self.wire.len() > WIDTH && buf.get(at + WIDTH..end) != self.wire.get(WIDTH..) {
            return None;
        }
        Some(end)
    }

    /// The same where fewer bytes are left than are compared at once.
    #[cold]
    fn end_near_the_end(&self, buf: &[u8], at: usize) -> Option<usize> {
        buf.get(at..)?
            .starts_with(&self.wire)
            .then(|| at + self.wire.len())
    }
}

//! [`Visitor`]: a callback for the pairs of a record, and the walks over a record that call it.

use std::ops::Range;

use super::pairs::{Pair, pair_at};
use super::wire_key::WireKey;
use crate::msgpack::Error;

/// Sees the pairs of a record during [`Entries::next_with`](super::Entries::next_with). `'k` is the
/// lifetime of the keys that it expects.
pub trait Visitor<'a, 'k> {
    /// A record with `pairs` declared pairs begins. Discard what was collected from an earlier
    /// record, which may have been bad: collected pairs are valid only once `next_with` returns an
    /// entry.
    ///
    /// Returns the expected keys in order; empty for none. While the pairs have these keys, their
    /// values go to [`Self::value`]: keys are compared and not parsed, which is faster. From the
    /// first pair with another key on, and after the last expected key, pairs go to [`Self::pair`].
    fn record(&mut self, pairs: u32) -> &'k [WireKey];

    /// The next pair; `number` counts from 0.
    fn pair(&mut self, number: usize, pair: Pair<'a>);

    /// The value, as raw MessagePack bytes, of pair `number`, which has the expected key. Not
    /// called for [skipped](WireKey::skipped) keys.
    fn value(&mut self, number: usize, value: &'a [u8]) {
        let _ = (number, value);
    }
}

/// Walks over the pairs that begin at `at` while they have the expected keys. Returns the number
/// and the offset of the first pair with another key.
#[inline]
pub(super) fn walk_expected<'a, 'k>(
    buf: &'a [u8],
    at: usize,
    keys: &'k [WireKey],
    visitor: &mut impl Visitor<'a, 'k>,
    opened: &mut u32,
) -> Result<(usize, usize), Error> {
    let mut rest = buf.get(at..).unwrap_or_default();
    // Counted by what is left: a counter of its own would cost more than the comparisons.
    let mut left = keys;
    while let [key, others @ ..] = left {
        let (value_at, end) = match key.match_fast(rest) {
            Some(found) => found,
            None => match key.match_slow(rest, opened)? {
                Some(found) => found,
                None => break,
            },
        };
        let cut = Error::Incomplete { at };
        let (pair, behind) = rest.split_at_checked(end).ok_or(cut)?;
        if !key.skipped {
            let number = keys.len() - left.len();
            visitor.value(number, pair.get(value_at..).ok_or(cut)?);
        }
        (rest, left) = (behind, others);
    }
    Ok((keys.len() - left.len(), buf.len() - rest.len()))
}

/// Walks over the remaining pairs, whose keys are not expected ones.
#[inline(never)]
pub(super) fn walk_others<'a, 'k>(
    buf: &'a [u8],
    mut at: usize,
    numbers: Range<usize>,
    visitor: &mut impl Visitor<'a, 'k>,
    mut opened: u32,
) -> Result<(usize, u32), Error> {
    for number in numbers {
        let (pair, next) = pair_at(buf, at, &mut opened)?;
        visitor.pair(number, pair);
        at = next;
    }
    Ok((at, opened))
}

//! Phrase: a substring to look for in texts, most of which are a line of a log.
//!
//! `memmem` is made for long texts, and takes longer to begin than a short one takes to be seen
//! whole. Here 32 or 16 places are tried at a time by the first and the last byte of the phrase.

use memchr::memmem::Finder;
use wide::u8x16;

/// Places tried at a time, at least.
const BLOCK_BYTES: usize = 16;
const WIDE_BLOCK_BYTES: usize = 2 * BLOCK_BYTES;
/// Longest text that is looked through here (bytes).
const MAX_SHORT_BYTES: usize = 256;

/// A substring to look for.
#[derive(Clone, Debug)]
pub struct Phrase {
    finder: Finder<'static>,
    /// Its first and its last byte, once for each byte of a block; zeros of an empty one.
    first: u8x16,
    last: u8x16,
}

impl Phrase {
    /// To look for `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let of = |byte: Option<&u8>| u8x16::splat(byte.copied().unwrap_or_default());
        Self {
            finder: Finder::new(text).into_owned(),
            first: of(text.as_bytes().first()),
            last: of(text.as_bytes().last()),
        }
    }

    /// Whether it is in `text`.
    #[inline(always)]
    #[must_use]
    pub fn is_in(&self, text: &[u8]) -> bool {
        let phrase = self.finder.needle();
        let Some(last_place) = text.len().checked_sub(phrase.len()) else {
            return false;
        };
        if last_place < WIDE_BLOCK_BYTES - 1 || text.len() > MAX_SHORT_BYTES || phrase.is_empty() {
            return self.is_in_other(text, last_place);
        }
        is_in_blocks(phrase, text, |head, tail| {
            equal_in_wide(head, self.first) & equal_in_wide(tail, self.last)
        })
    }

    /// [`Self::is_in`] a text that is shorter or longer than most.
    #[inline(never)]
    fn is_in_other(&self, text: &[u8], last_place: usize) -> bool {
        let phrase = self.finder.needle();
        let is_short = (BLOCK_BYTES..=MAX_SHORT_BYTES).contains(&text.len());
        if !is_short || phrase.is_empty() {
            return self.finder.find(text).is_some();
        }
        if last_place >= BLOCK_BYTES - 1 {
            return is_in_blocks(phrase, text, |head, tail| {
                equal(head, self.first) & equal(tail, self.last)
            });
        }
        // The blocks of first and of last bytes begin and end with the text.
        let (Some(head), Some(tail)) = (text.first_chunk(), text.last_chunk()) else {
            return false;
        };
        let places = last_place + 1;
        let found = equal(head, self.first) & (equal(tail, self.last) >> (BLOCK_BYTES - places));
        is_at_any(phrase, text, 0, found & ((1 << places) - 1))
    }
}

/// Whether the phrase is in a text with at least one block of places. `ends_fit` compares blocks of
/// bytes with its first and its last byte, and gives a bit for each place.
#[inline(always)]
fn is_in_blocks<const BYTES: usize>(
    phrase: &[u8],
    text: &[u8],
    ends_fit: impl Fn(&[u8; BYTES], &[u8; BYTES]) -> u32,
) -> bool {
    let ends = phrase.len().saturating_sub(1);
    // The bytes at which it may begin, and those at which it ends then.
    let heads = text.get(..text.len().saturating_sub(ends)).unwrap_or_default();
    let tails = text.get(ends..).unwrap_or_default();
    let blocks = heads.as_chunks().0.iter().zip(tails.as_chunks().0);
    for (number, (head, tail)) in blocks.enumerate() {
        let places = ends_fit(head, tail);
        if places != 0 && is_at_any(phrase, text, number * BYTES, places) {
            return true;
        }
    }
    match (heads.last_chunk(), tails.last_chunk()) {
        // Overlaps the one before.
        (Some(head), Some(tail)) => {
            let places = ends_fit(head, tail);
            places != 0 && is_at_any(phrase, text, heads.len() - BYTES, places)
        }
        _ => false,
    }
}

/// A bit for each byte of a wide block that is the one in `bytes`.
#[inline]
fn equal_in_wide(block: &[u8; WIDE_BLOCK_BYTES], bytes: u8x16) -> u32 {
    let (Some(low), Some(high)) = (block.first_chunk(), block.last_chunk()) else {
        return 0;
    };
    equal(low, bytes) | equal(high, bytes) << BLOCK_BYTES
}

/// A bit for each byte of a block that is the one in `bytes`.
#[inline]
fn equal(block: &[u8; BLOCK_BYTES], bytes: u8x16) -> u32 {
    u8x16::new(*block).simd_eq(bytes).to_bitmask()
}

/// Whether the phrase is at one of the places behind `from` whose bits are set.
#[inline(never)]
fn is_at_any(phrase: &[u8], text: &[u8], from: usize, mut places: u32) -> bool {
    while places != 0 {
        let at = from + places.trailing_zeros() as usize;
        if text.get(at..at + phrase.len()) == Some(phrase) {
            return true;
        }
        places &= places - 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(text: &[u8], phrase: &[u8]) -> bool {
        phrase.is_empty() || text.windows(phrase.len()).any(|part| part == phrase)
    }

    #[test]
    fn a_phrase_is_found_at_every_place_of_texts_of_every_length() {
        for phrase in [
            "d",
            "ok",
            "request completed",
            "a phrase that is longer than two whole blocks",
        ] {
            let looked_for = Phrase::new(phrase);
            for length in 0..300 {
                let text = vec![b'.'; length];
                assert!(!looked_for.is_in(&text), "{phrase} in {length} bytes");
                for at in 0..=length.saturating_sub(phrase.len()) {
                    let mut text = text.clone();
                    if let Some(place) = text.get_mut(at..at + phrase.len()) {
                        place.copy_from_slice(phrase.as_bytes());
                        assert!(looked_for.is_in(&text), "{phrase} at {at} of {length} bytes");
                    }
                }
            }
        }
        assert!(Phrase::new("").is_in(b"") && Phrase::new("").is_in(b"a text of some twenty bytes"));
    }

    proptest! {
        #[test]
        fn finds_what_the_text_contains(text in "[ab]{0,80}", phrase in "[ab]{0,20}") {
            let found = Phrase::new(&phrase).is_in(text.as_bytes());
            prop_assert_eq!(found, contains(text.as_bytes(), phrase.as_bytes()));
        }
    }
}

//! Phrase: a substring to look for in texts, most of which are a line of a log.
//!
//! `memmem` is made for long texts, and takes longer to begin than a short one takes to be seen
//! whole. Here sixteen places are tried at a time by the first and the last byte of the phrase.

use memchr::memmem::Finder;
use wide::u8x16;

/// Places tried at a time.
const BLOCK_BYTES: usize = 16;
/// Longest text that is looked through here (bytes).
const MAX_SHORT_BYTES: usize = 256;

/// A substring to look for.
#[derive(Clone, Debug)]
pub struct Phrase {
    finder: Finder<'static>,
}

impl Phrase {
    /// To look for `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            finder: Finder::new(text).into_owned(),
        }
    }

    /// Whether it is in `text`.
    #[inline]
    #[must_use]
    pub fn is_in(&self, text: &[u8]) -> bool {
        let phrase = self.finder.needle();
        let Some(last_place) = text.len().checked_sub(phrase.len()) else {
            return false;
        };
        let is_short = (BLOCK_BYTES..=MAX_SHORT_BYTES).contains(&text.len());
        let (Some(first), Some(last), true) = (phrase.first(), phrase.last(), is_short) else {
            return self.finder.find(text).is_some();
        };
        let ends = phrase.len() - 1;
        if last_place < BLOCK_BYTES - 1 {
            // The blocks of first and of last bytes begin and end with the text.
            let (Some(head), Some(tail)) = (text.first_chunk(), text.last_chunk()) else {
                return false;
            };
            let places = last_place + 1;
            let found = equal(head, *first) & (equal(tail, *last) >> (BLOCK_BYTES - places));
            return is_at_any(phrase, text, 0, found & ((1 << places) - 1));
        }
        let mut place = 0;
        loop {
            let (Some(head), Some(tail)) = (
                text.get(place..).and_then(<[u8]>::first_chunk),
                text.get(place + ends..).and_then(<[u8]>::first_chunk),
            ) else {
                return false;
            };
            if is_at_any(phrase, text, place, equal(head, *first) & equal(tail, *last)) {
                return true;
            }
            if place == last_place - (BLOCK_BYTES - 1) {
                return false;
            }
            // The last block overlaps the one before.
            place = (place + BLOCK_BYTES).min(last_place - (BLOCK_BYTES - 1));
        }
    }
}

/// A bit for each byte of a block that is `byte`.
#[inline]
fn equal(block: &[u8; BLOCK_BYTES], byte: u8) -> u32 {
    u8x16::new(*block).simd_eq(u8x16::splat(byte)).to_bitmask()
}

/// Whether the phrase is at one of the places behind `from` whose bits are set.
#[inline]
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

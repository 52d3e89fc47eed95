//! JSON strings: escaping, and replacement of invalid UTF-8 by U+FFFD.
//!
//! Nearly all texts are short or need no escapes, and they are most of a document: 16 bytes are
//! classified at a time by SIMD, and runs without escapes are copied whole.

use std::borrow::Cow;

use wide::i8x16;

/// Bytes classified at a time.
const BLOCK_BYTES: usize = 16;

/// Appends `text` as a JSON string with its quotes. Invalid UTF-8 is replaced by U+FFFD.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    // Names and most values are shorter than a block.
    let short = (text.len() < BLOCK_BYTES).then(|| Block::short(text));
    match short.filter(|block| block.special::<false>().first() >= text.len()) {
        Some(block) => {
            out.extend_from_slice(&block.bytes());
            out.truncate(out.len() - BLOCK_BYTES + text.len());
        }
        None => {
            write_escaped(out, text);
        }
    }
    out.push(b'"');
}

/// Appends `text` as the inside of a JSON string. Returns its length in bytes of unescaped UTF-8.
pub fn write_escaped(out: &mut Vec<u8>, text: &[u8]) -> usize {
    let rest = write_escaping::<false>(out, text);
    if rest.is_empty() {
        return text.len();
    }
    let ascii = text.len() - rest.len();
    let rest = match std::str::from_utf8(rest) {
        Ok(valid) => Cow::Borrowed(valid),
        Err(_) => String::from_utf8_lossy(rest),
    };
    write_escaping::<true>(out, rest.as_bytes());
    ascii + rest.len()
}

/// Escapes `text` to its end or, unless `UTF8` says that it is valid, to the first non-ASCII byte.
/// Returns the rest.
#[inline]
fn write_escaping<'a, const UTF8: bool>(out: &mut Vec<u8>, text: &'a [u8]) -> &'a [u8] {
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain::<UTF8>(rest));
        out.extend_from_slice(plain);
        match special.split_first() {
            Some((byte, after)) if UTF8 || byte.is_ascii() => {
                write_escape(out, *byte);
                rest = after;
            }
            _ => return special,
        }
    }
}

/// Number of bytes before the first that must be escaped or, unless `UTF8`, is not ASCII.
#[inline]
fn plain<const UTF8: bool>(text: &[u8]) -> usize {
    let (blocks, _) = text.as_chunks();
    for (number, block) in blocks.iter().enumerate() {
        let special = Block::new(block).special::<UTF8>();
        if !special.is_none() {
            return number * BLOCK_BYTES + special.first();
        }
    }
    let seen = blocks.len() * BLOCK_BYTES;
    if seen == text.len() {
        return seen;
    }
    match text.last_chunk() {
        // Overlaps bytes that were found plain already.
        Some(block) => text.len() - BLOCK_BYTES + Block::new(block).special::<UTF8>().first(),
        None => Block::short(text).special::<UTF8>().first().min(text.len()),
    }
}

/// Sixteen bytes of a text as two little-endian words.
#[derive(Clone, Copy)]
struct Block(u64, u64);

impl Block {
    #[inline]
    fn new(bytes: &[u8; BLOCK_BYTES]) -> Self {
        let block = u128::from_le_bytes(*bytes);
        Self(block as u64, (block >> 64) as u64)
    }

    /// A shorter text, padded with zeros.
    #[inline]
    fn short(bytes: &[u8]) -> Self {
        match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            (Some(first), Some(last)) => {
                // The last eight bytes, without those that are among the first eight.
                let again = 8 * (BLOCK_BYTES as u32 - bytes.len() as u32);
                let last = u64::from_le_bytes(*last).checked_shr(again).unwrap_or(0);
                Self(u64::from_le_bytes(*first), last)
            }
            _ => Self(short_word(bytes), 0),
        }
    }

    #[inline]
    fn bytes(self) -> [u8; BLOCK_BYTES] {
        (u128::from(self.0) | u128::from(self.1) << 64).to_le_bytes()
    }

    /// The bytes that must be escaped or, unless `UTF8`, are not ASCII.
    #[inline]
    fn special<const UTF8: bool>(self) -> ByteMask {
        ByteMask::of::<UTF8>(self)
    }
}

/// A bit mask of bytes in a block, the first byte in the lowest bit.
#[derive(Clone, Copy)]
struct ByteMask(u32);

impl ByteMask {
    #[inline]
    fn of<const UTF8: bool>(block: Block) -> Self {
        let block = i8x16::new(block.bytes().map(|byte| byte as i8));
        let is = |byte: u8| block.simd_eq(i8x16::splat(byte as i8));
        // As signed bytes, non-ASCII ones are negative.
        let less = block.simd_lt(i8x16::splat(0x20));
        let less = if UTF8 { less & !block } else { less };
        // `to_bitmask` takes the highest bit of each byte.
        Self((less | is(b'"') | is(b'\\')).to_bitmask())
    }

    #[inline]
    fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Number of bytes before the first set bit.
    #[inline]
    fn first(self) -> usize {
        (self.0 | 1 << BLOCK_BYTES).trailing_zeros() as usize
    }
}

/// Up to seven bytes as the low bytes of a word.
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        // The two may overlap, where they are equal.
        (Some(first), Some(last)) => {
            let shift = 8 * (bytes.len() as u32 - 4);
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << shift
        }
        _ => match *bytes {
            [a] => u64::from(a),
            [a, b] => u64::from(u16::from_le_bytes([a, b])),
            [a, b, c] => u64::from(u32::from_le_bytes([a, b, c, 0])),
            _ => 0,
        },
    }
}

#[inline]
fn write_escape(out: &mut Vec<u8>, byte: u8) {
    match SHORT_ESCAPES[usize::from(byte)] {
        0 => write_long_escape(out, byte),
        short => out.extend_from_slice(&[b'\\', short]),
    }
}

#[cold]
fn write_long_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
}

/// The character behind the backslash; 0 for bytes that need `\u00xx`.
static SHORT_ESCAPES: [u8; 256] = {
    let mut short = [0; 256];
    let all = *b"\"\"\\\\\nn\tt\rr\x08b\x0cf";
    let mut at = 0;
    while at < all.len() {
        short[all[at] as usize] = all[at + 1];
        at += 2;
    }
    short
};

/// Appends `length` bytes of the text that [`write_escaped`] wrote at offset `at` of `escaped`.
/// Returns the offset behind them.
pub(crate) fn push_unescaped(out: &mut Vec<u8>, escaped: &[u8], mut at: usize, length: usize) -> usize {
    let end = out.len() + length;
    while out.len() < end
        && let Some(byte) = escaped.get(at)
    {
        at += 1;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let kind = escaped.get(at).copied().unwrap_or_default();
        at += 1;
        out.push(match kind {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 0x08,
            b'f' => 0x0c,
            b'u' => {
                let digits = escaped
                    .get(at..at + 4)
                    .and_then(|digits| std::str::from_utf8(digits).ok());
                at += 4;
                digits
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                    .unwrap_or_default()
            }
            other => other,
        });
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What serde_json writes for the same text, and the length of the text.
    fn expected(text: &[u8]) -> (Vec<u8>, usize) {
        let text = String::from_utf8_lossy(text);
        (serde_json::to_vec(&text).unwrap(), text.len())
    }

    fn written(text: &[u8]) -> (Vec<u8>, usize) {
        let mut out = b"\"".to_vec();
        let length = write_escaped(&mut out, text);
        out.push(b'"');
        let mut string = Vec::new();
        write_string(&mut string, text);
        assert_eq!(string, out);
        // And back.
        let mut unescaped = Vec::new();
        assert_eq!(push_unescaped(&mut unescaped, &out, 1, length), out.len() - 1);
        assert_eq!(unescaped, String::from_utf8_lossy(text).as_bytes());
        (out, length)
    }

    #[test]
    fn every_byte_at_every_place_of_every_length() {
        let special: Vec<u8> = (0..=0x20)
            .chain([b'"', b'\\', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xc3, 0xff])
            .collect();
        for length in (0..=20).chain(29..=41).chain(62..=73) {
            let plain: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
            assert_eq!(written(&plain), expected(&plain));
            for at in 0..length {
                for &byte in &special {
                    let mut text = plain.clone();
                    text[at] = byte;
                    assert_eq!(written(&text), expected(&text), "{byte:#x} at {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn escapes_next_to_each_other_and_characters_over_boundaries() {
        for length in 0..70 {
            let quotes = vec![b'"'; length];
            assert_eq!(written(&quotes), expected(&quotes));
            for piece in ["é", "\u{20ac}", "😀", "\"\\", "\n\u{1}", "\u{7f}\u{80}", "é\""] {
                let text = format!("{}{piece}{}", "x".repeat(length), "y".repeat(40));
                assert_eq!(written(text.as_bytes()), expected(text.as_bytes()), "{text}");
                // Cut within the piece, which is invalid if it has more than one byte.
                let cut = &text.as_bytes()[..=length];
                assert_eq!(written(cut), expected(cut), "{cut:x?}");
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_texts(text in prop_oneof![".*", "[ -~]{0,40}[\"\\\\\n\u{1f}\u{7f}é]?[ -~]{0,40}"]) {
            prop_assert_eq!(written(text.as_bytes()), expected(text.as_bytes()));
        }

        #[test]
        fn agrees_with_serde_json_on_any_bytes(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x20..0x80u8], 0..100)) {
            prop_assert_eq!(written(&bytes), expected(&bytes));
        }
    }
}

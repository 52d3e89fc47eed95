//! Walks with expected keys against walks that parse every key.

use proptest::prelude::*;

use super::super::{Entries, Key, Pair, Visitor, WireKey};
use crate::msgpack::{write_map_len, write_str};

#[derive(Default)]
struct Pairs<'a, 'k> {
    expected: &'k [WireKey],
    /// Whether the key is text, its bytes, and the value.
    pairs: Vec<(bool, Vec<u8>, &'a [u8])>,
    recognised: usize,
}

impl<'a, 'k> Visitor<'a, 'k> for Pairs<'a, 'k> {
    fn record(&mut self, _pairs: u32) -> &'k [WireKey] {
        self.pairs.clear();
        self.expected
    }

    fn pair(&mut self, number: usize, pair: Pair<'a>) {
        assert_eq!(number, self.pairs.len());
        let (is_text, key) = match pair.key {
            Key::Text(key) => (true, key),
            Key::Other(key) => (false, key),
        };
        self.pairs.push((is_text, key.to_vec(), pair.value));
    }

    fn value(&mut self, number: usize, value: &'a [u8]) {
        assert_eq!(number, self.pairs.len());
        self.recognised += 1;
        let text = self.expected[number].text().to_vec();
        self.pairs.push((true, text, value));
    }
}

fn keys(texts: &[impl AsRef<[u8]>]) -> Vec<WireKey> {
    texts.iter().map(|text| WireKey::new(text.as_ref())).collect()
}

/// One entry with these keys, and the same value under each.
fn entry(texts: &[impl AsRef<[u8]>], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x92, 0x01];
    write_map_len(&mut bytes, texts.len() as u32);
    for text in texts {
        write_str(&mut bytes, text.as_ref());
        bytes.extend(value);
    }
    bytes
}

#[test]
fn keys_that_were_expected_are_recognised() {
    let texts = [0, 1, 3, 7, 14, 15, 16, 17, 31, 32, 40, 255, 256].map(|len| vec![b'k'; len]);
    let keys = keys(&texts);
    for (text, key) in texts.iter().zip(&keys) {
        assert_eq!(key.text(), text);
    }
    for value in [
        &b"\x07"[..],
        b"\xc0",
        b"\xa3abc",
        b"\xd9\x02ab",
        b"\xda\x00\x01a",
        b"\xdb\x00\x00\x00\x01a",
        b"\xc4\x01a",
        b"\xcd\x01\x02",
        b"\xcb12345678",
        b"\xd4\x05a",
        b"\x80",
        b"\x81\xa1a\x92\x01\xc3",
    ] {
        let bytes = entry(&texts, value);
        let mut visitor = Pairs {
            expected: &keys,
            ..Pairs::default()
        };
        let entry = Entries::new(&bytes, 9).next_with(&mut visitor).unwrap().unwrap();
        assert_eq!(entry.record, &bytes[2..]);
        assert_eq!(visitor.recognised, texts.len());
        assert!(visitor.pairs.iter().all(|(_, _, seen)| *seen == value));
    }
}

#[test]
fn values_of_keys_that_are_passed_over_are_not_seen() {
    let texts = ["a", "b", "c", "d"];
    let mut keys = keys(&texts);
    keys[0] = keys[0].clone().skipped();
    keys[2] = WireKey::new(b"x").skipped();
    let bytes = entry(&texts, b"\x07");
    let mut visitor = Numbers(&keys, Vec::new(), Vec::new());
    let entry = Entries::new(&bytes, 9).next_with(&mut visitor).unwrap().unwrap();
    assert_eq!(entry.record, &bytes[2..]);
    assert_eq!((visitor.1, visitor.2), (vec![1], vec![2, 3]));
}

/// Expected keys, the numbers of the values that were seen, and of the pairs.
struct Numbers<'k>(&'k [WireKey], Vec<usize>, Vec<usize>);

impl<'a, 'k> Visitor<'a, 'k> for Numbers<'k> {
    fn record(&mut self, _pairs: u32) -> &'k [WireKey] {
        self.0
    }

    fn pair(&mut self, number: usize, _pair: Pair<'a>) {
        self.2.push(number);
    }

    fn value(&mut self, number: usize, _value: &'a [u8]) {
        self.1.push(number);
    }
}

#[test]
fn a_key_with_another_byte_is_another_key() {
    for len in [0, 1, 3, 7, 14, 15, 16, 17, 31, 32, 40, 255, 256] {
        let texts = [vec![b'k'; len], b"next".to_vec()];
        let keys = keys(&texts);
        let bytes = entry(&texts, b"\xa3abc");
        for behind in [0, 30] {
            for at in 3..bytes.len() {
                for bit in 0..8 {
                    let mut bytes = bytes.clone();
                    bytes[at] ^= 1 << bit;
                    bytes.extend(vec![0xc0; behind]);
                    agree(&bytes, &keys).unwrap();
                }
            }
        }
        for cut in 0..bytes.len() {
            agree(&bytes[..cut], &keys).unwrap();
        }
    }
}

/// Walks with and without expecting the keys; gives how many pairs had them.
fn agree(bytes: &[u8], keys: &[WireKey]) -> Result<usize, TestCaseError> {
    let mut expecting = Pairs {
        expected: keys,
        ..Pairs::default()
    };
    let mut general = Pairs::default();
    let (mut one, mut other) = (Entries::new(bytes, 5), Entries::new(bytes, 5));
    loop {
        let next = one.next_with(&mut expecting);
        prop_assert_eq!(&next, &other.next_with(&mut general));
        prop_assert_eq!(&expecting.pairs, &general.pairs);
        if next.is_none() {
            return Ok(expecting.recognised);
        }
    }
}

proptest! {
    #[test]
    fn expecting_keys_changes_nothing(
        expected in prop::collection::vec("[ab]{0,20}", 0..4),
        pieces in prop::collection::vec(prop_oneof![
            "[ab]{0,20}".prop_map(|text| { let mut out = vec![]; write_str(&mut out, text.as_bytes()); out }),
            prop::collection::vec(prop_oneof![any::<u8>(), 0x80..0x84u8, 0xc0..0xe0u8], 1..4),
            Just(vec![0x92, 0x01, 0x82]),
            Just(vec![0x92, 0x01, 0x81]),
        ], 0..12),
        recognised in any::<bool>(),
    ) {
        let mut bytes = if recognised { entry(&expected, b"\x07") } else { Vec::new() };
        bytes.extend(pieces.concat());
        let seen = agree(&bytes, &keys(&expected))?;
        if recognised {
            prop_assert!(seen >= expected.len());
        }
    }
}

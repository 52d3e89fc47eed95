//! Expected keys against keys that are read: for any bytes, the walk is the same.

use proptest::prelude::*;

use super::super::{Entries, Key, Pair, Visitor, WireKey};
use crate::msgpack::{write_map_len, write_str};

#[derive(Default)]
struct Pairs<'a> {
    expected: Vec<WireKey>,
    /// Whether the key is text, its bytes, and the value.
    pairs: Vec<(bool, Vec<u8>, &'a [u8])>,
    recognised: usize,
}

impl<'a> Visitor<'a> for Pairs<'a> {
    fn record(&mut self, _pairs: u32) {
        self.pairs.clear();
    }

    fn pair(&mut self, number: usize, pair: Pair<'a>) {
        assert_eq!(number, self.pairs.len());
        let (is_text, key) = match pair.key {
            Key::Text(key) => (true, key),
            Key::Other(key) => (false, key),
        };
        self.pairs.push((is_text, key.to_vec(), pair.value));
    }

    fn expected(&self, number: usize) -> Option<&WireKey> {
        self.expected.get(number)
    }

    fn value(&mut self, number: usize, value: &'a [u8]) {
        assert_eq!(number, self.pairs.len());
        self.recognised += 1;
        let text = self.expected[number].text().to_vec();
        self.pairs.push((true, text, value));
    }
}

#[test]
fn keys_that_were_expected_are_recognised() {
    let texts: Vec<Vec<u8>> = [0, 1, 3, 7, 14, 15, 16, 17, 31, 32, 40, 255, 256]
        .map(|len| vec![b'k'; len])
        .to_vec();
    let mut bytes = vec![0x92, 0x01];
    write_map_len(&mut bytes, texts.len() as u32);
    for text in &texts {
        write_str(&mut bytes, text);
        bytes.push(0xc3);
    }
    let mut visitor = Pairs {
        expected: texts.iter().map(|text| WireKey::new(text)).collect(),
        ..Pairs::default()
    };
    assert!(
        Entries::new(&bytes, 9)
            .next_with(&mut visitor)
            .is_some_and(|next| next.is_ok())
    );
    assert_eq!(visitor.recognised, texts.len());

    for text in &texts {
        let key = WireKey::new(text);
        assert_eq!(key.text(), text);
        let mut wire = Vec::new();
        write_str(&mut wire, text);
        let end = wire.len();
        for behind in [0, 1, 20] {
            let mut buf = [&[7, 7][..], &wire, &vec![0xc0; behind]].concat();
            assert_eq!(key.end_at(&buf, 2), Some(2 + end));
            assert_eq!(key.end_at(&buf[..1 + end], 2), None, "cut short");
            assert_eq!(key.end_at(&buf, buf.len() + 1), None);
            for at in 2..2 + end {
                buf[at] ^= 0x20;
                assert_eq!(key.end_at(&buf, 2), None, "{} bytes, another at {at}", text.len());
                buf[at] ^= 0x20;
            }
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
        let mut bytes = Vec::new();
        if recognised {
            bytes.extend([0x92, 0x01, 0x80 | expected.len() as u8]);
            for text in &expected {
                write_str(&mut bytes, text.as_bytes());
                bytes.push(0x07);
            }
        }
        bytes.extend(pieces.concat());
        let mut expecting = Pairs {
            expected: expected.iter().map(|text| WireKey::new(text.as_bytes())).collect(),
            ..Pairs::default()
        };
        let (mut general, mut one, mut other) = (Pairs::default(), Entries::new(&bytes, 5), Entries::new(&bytes, 5));
        loop {
            let next = one.next_with(&mut expecting);
            prop_assert_eq!(&next, &other.next_with(&mut general));
            prop_assert_eq!(&expecting.pairs, &general.pairs);
            if next.is_none() {
                break;
            }
        }
        if recognised {
            prop_assert!(expecting.recognised >= expected.len());
        }
    }
}

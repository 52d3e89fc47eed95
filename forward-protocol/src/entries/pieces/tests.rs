//! The streaming walk against a walk over the whole payload.

use std::io::Write as _;

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::super::Defect;
use super::*;
use crate::encode::write_entry;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(plain).expect("into memory");
    encoder.finish().expect("into memory")
}

/// What was walked over, without where it lies.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Entry(super::super::Time, Vec<u8>, Option<(Vec<u8>, Vec<u8>)>),
    Bad(Vec<u8>, Defect),
    TooLong,
}

/// All that is left of these entries.
fn seen(entries: &mut Entries<'_>) -> Vec<Seen> {
    let mut all = Vec::new();
    while let Some(item) = entries.next() {
        let group = entries.group();
        all.push(match item {
            Ok(entry) => Seen::Entry(
                entry.time,
                entry.record.to_vec(),
                group.map(|group| (group.metadata.to_vec(), group.attributes.to_vec())),
            ),
            Err(bad) => Seen::Bad(bad.bytes.to_vec(), bad.defect),
        });
    }
    all
}

fn stream(longest: usize, payload: &[u8]) -> (Vec<Seen>, Option<Damage>) {
    let mut all = Vec::new();
    let damage = Decompressor::new().walk(Compression::Gzip, payload, 100, longest, |piece| {
        match piece {
            Piece::Entries(entries) => all.extend(seen(entries)),
            Piece::TooLong => all.push(Seen::TooLong),
        }
        ControlFlow::Continue(())
    });
    (all, damage)
}

/// `[time, {"t": TEXT}]` with `len` bytes of text.
fn entry(number: usize, len: usize) -> Vec<u8> {
    let mut record = b"\x81\xa1t\xdb".to_vec();
    record.extend_from_slice(&(len as u32).to_be_bytes());
    record.resize(record.len() + len, b'a' + (number % 26) as u8);
    let mut out = Vec::new();
    write_entry(&mut out, 1_000_000_000 * (1 + number as i64), None, &record);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pieces_are_the_whole(
        items in prop::collection::vec(prop_oneof![
            6 => (0usize..3000).prop_map(Some),
            2 => (100_000usize..400_000).prop_map(Some),
            1 => Just(None),
        ], 1..40),
        groups in prop::collection::vec(any::<bool>(), 40),
        longest in prop_oneof![Just(4_000usize), Just(1 << 30)],
        cut in prop::option::of(0usize..200),
    ) {
        let mut plain = Vec::new();
        for (number, (item, group)) in items.iter().zip(&groups).enumerate() {
            if *group {
                // A group begins, or the one before it ends.
                plain.extend_from_slice(b"\x92\xd7\x00\xff\xff\xff");
                plain.extend_from_slice(if number % 2 == 0 { b"\xff\0\0\0\0\x81\xa1g\x01" } else { b"\xfe\0\0\0\0\x80" });
            }
            match item {
                Some(len) => plain.extend(entry(number, *len)),
                // An entry of three elements.
                None => plain.extend_from_slice(b"\x93\x01\x02\xa3bad"),
            }
        }
        plain.truncate(plain.len() - cut.unwrap_or(0).min(plain.len()));
        let expected = seen(&mut Entries::new(&plain, 100));
        let (found, damage) = stream(longest, &gzip(&plain));
        prop_assert_eq!(damage, None);
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            let len = match expected {
                Seen::Entry(_, record, _) => record.len(),
                Seen::Bad(bytes, _) => bytes.len(),
                Seen::TooLong => 0,
            };
            prop_assert!(found == expected || (*found == Seen::TooLong && len > longest), "{found:?}");
        }
        if longest > plain.len() {
            prop_assert!(!found.contains(&Seen::TooLong));
        }
    }
}

#[test]
fn an_entry_that_is_too_long_is_passed_over_and_its_neighbours_are_kept() {
    let plain = [entry(0, 10), entry(1, 3 << 20), entry(2, 10), entry(3, 5 << 20)].concat();
    let (found, damage) = stream(1 << 20, &gzip(&plain));
    assert_eq!(damage, None);
    let neighbours: Vec<_> = [entry(0, 10), entry(2, 10)].concat();
    let mut expected = seen(&mut Entries::new(&neighbours, 100));
    expected.insert(1, Seen::TooLong);
    expected.push(Seen::TooLong);
    assert_eq!(found, expected);
}

#[test]
fn memory_is_that_of_the_longest_entry() {
    let payload = gzip(&[entry(0, 64 << 20), entry(1, 10)].concat());
    let mut decompressor = Decompressor::new();
    let (mut walked, mut too_long) = (0, 0);
    decompressor.walk(Compression::Gzip, &payload, 100, 1 << 20, |piece| {
        match piece {
            Piece::Entries(entries) => walked += entries.count(),
            Piece::TooLong => too_long += 1,
        }
        ControlFlow::Continue(())
    });
    assert_eq!((walked, too_long), (1, 1));
    // It is kept only if it is not much.
    assert!(
        (1..=4 << 20).contains(&decompressor.retained_bytes()),
        "{}",
        decompressor.retained_bytes()
    );
}

#[test]
fn damage_is_told_after_what_came_before_it() {
    let plain = [entry(0, 10), entry(1, 3 << 20)].concat();
    let mut payload = gzip(&plain);
    payload.truncate(payload.len() - 4);
    let (found, damage) = stream(1 << 30, &payload);
    assert_eq!(damage, Some(Damage::Truncated));
    assert_eq!(found.len(), 2);
}

#[test]
fn nothing_is_decompressed_that_nobody_wants() {
    let payload = gzip(&[entry(0, 10), entry(1, 2 << 20), entry(2, 10)].concat());
    let mut pieces = 0;
    let damage = Decompressor::new().walk(Compression::Gzip, &payload, 100, 1 << 20, |_| {
        pieces += 1;
        ControlFlow::Break(())
    });
    assert_eq!((damage, pieces), (None, 1));
}

#[test]
fn what_is_no_messagepack_inside_a_long_entry_ends_the_walk() {
    let mut plain = b"\x92\x01\xdd\xff\xff\xff\xff".to_vec();
    plain.resize(3 << 20, 1);
    plain.push(0xc1);
    plain.extend(entry(0, 10));
    let (found, damage) = stream(1 << 20, &gzip(&plain));
    assert_eq!((found, damage), (vec![Seen::TooLong], None));
}

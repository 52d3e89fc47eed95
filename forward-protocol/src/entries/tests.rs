//! Entries of every form, bad entries, groups, times and compressed payloads.

use proptest::prelude::*;

use super::*;
use crate::msgpack::Kind;
use crate::vectors::{NANOS, RECORD, SECONDS, hex};

const REC: &str = "81a36c6f67a26869";

fn walk(text: &str) -> Vec<Result<(Time, usize), (usize, Defect)>> {
    let bytes = hex(&text.replace('R', REC));
    let items: Vec<_> = Entries::new(&bytes, 100).collect();
    let mut visiting = Entries::new(&bytes, 100);
    let mut visited = Vec::new();
    while let Some(item) = visiting.next_with(&mut Keys::default()) {
        visited.push(item);
    }
    assert_eq!(items, visited, "both ways of walking agree");
    items
        .into_iter()
        .map(|item| match item {
            Ok(entry) => Ok((entry.time, entry.offset)),
            Err(bad) => Err((bad.offset, bad.defect)),
        })
        .collect()
}

/// The time of an entry with this encoded time.
fn time(text: &str) -> Result<Time, Defect> {
    let items = walk(&format!("92 {text} R"));
    assert_eq!(items.len(), 1);
    items[0].map(|(time, _)| time).map_err(|(_, defect)| defect)
}

#[test]
fn every_form_of_time_is_understood() {
    for (text, expected) in [
        ("d7006553f100075bcd15", Time::At(NANOS)),
        ("c708006553f100075bcd15", Time::At(NANOS)),
        ("c80008006553f100075bcd15", Time::At(NANOS)),
        ("c900000008006553f100075bcd15", Time::At(NANOS)),
        // Year 2040: seconds are unsigned.
        ("d70083aa7e8000000000", Time::At(2_208_988_800_000_000_000)),
        // The last nanosecond of a second, and what is none.
        ("d7006553f1003b9ac9ff", Time::At(SECONDS + 999_999_999)),
        ("d7006553f1003b9aca00", Time::Invalid),
        ("d7006553f100ffffffff", Time::Invalid),
        // Seconds of a group marker but with nanoseconds: a time in 2106.
        ("d700ffffffff00000001", Time::At(4_294_967_295_000_000_001)),
        ("d7000000000000000000", Time::Absent),
        // Integers of any width.
        ("ce6553f100", Time::At(SECONDS)),
        ("cf000000006553f100", Time::At(SECONDS)),
        ("d3000000006553f100", Time::At(SECONDS)),
        ("01", Time::At(1_000_000_000)),
        ("ff", Time::At(-1_000_000_000)),
        ("00", Time::Absent),
        ("c0", Time::Absent),
        // Date.now(), and the same in microseconds and nanoseconds.
        ("cf0000018bcfe5687b", Time::At(1_700_000_000_123_000_000)),
        ("cf00060a24181e4040", Time::At(1_700_000_000_000_064_000)),
        ("cf17979cfe362a0000", Time::At(SECONDS)),
        ("cf0000010000000000", Time::At(1_099_511_627_776_000_000)),
        ("cfffffffffffffffff", Time::Invalid),
        ("d38000000000000000", Time::Invalid),
        // 10^10 seconds are beyond what nanoseconds in 64 bits can say.
        ("cf00000002540be400", Time::Invalid),
        // Floats.
        ("cb41d954fc40000000", Time::At(SECONDS)),
        ("cb41d954fc4007e6b7", Time::At(1_700_000_000_123_456_716)),
        ("ca3f800000", Time::At(1_000_000_000)),
        ("cb7ff8000000000000", Time::Invalid),
        ("cb7ff0000000000000", Time::Invalid),
        ("cbfff0000000000000", Time::Invalid),
        ("cb8000000000000000", Time::Absent),
        // MessagePack's own timestamp.
        ("d6ff6553f100", Time::At(SECONDS)),
        ("d7ff1d6f34546553f100", Time::At(NANOS)),
        ("c70cff075bcd15000000006553f100", Time::At(NANOS)),
        ("c70cffffffffff000000006553f100", Time::Invalid),
    ] {
        let read = time(text).unwrap();
        if let (Time::At(read), Time::At(expected)) = (read, expected) {
            assert!((read - expected).abs() < 512, "{text}: {read} is not {expected}");
        } else {
            assert_eq!(read, expected, "{text}");
        }
    }
}

#[test]
fn what_is_no_time_leaves_the_record_as_it_is() {
    for text in [
        "d60000000000",         // an event time of 4 bytes
        "d7050000000000000000", // extension 5
        "d7086553f10000000001", // extension 8
        "d4ff00",               // a timestamp of 1 byte
        "c3",
        "c2",
        "a131",
        "c40131",
        "80",
        "81a17401",
    ] {
        assert_eq!(time(text), Ok(Time::Invalid), "{text}");
        let items = walk(&format!("92 92 {text} 80 R"));
        assert_eq!(items, [Ok((Time::Invalid, 0))], "{text} beside metadata");
    }
}

#[test]
fn both_kinds_of_entry_mix() {
    let bytes = hex(
        &"92 d7006553f100075bcd15 R 92 92 d7006553f100075bcd15 80 R 92 92 01 81a16b01 R 92 92 01 c0 R \
        dc0002 dd00000002 01 df00000000 R"
            .replace('R', REC),
    );
    let entries: Vec<_> = Entries::new(&bytes, 100).map(Result::unwrap).collect();
    assert_eq!(entries.len(), 5);
    assert!(entries.iter().all(|entry| entry.record == RECORD));
    assert_eq!(entries[2].metadata, Some(&b"\x81\xa1k\x01"[..]));
    assert!(
        entries
            .iter()
            .enumerate()
            .all(|(n, entry)| entry.metadata.is_none() == (n != 2))
    );
}

#[test]
fn what_is_not_walked_is_left() {
    let bytes = hex(&"92 01 R 92 02 R".replace('R', REC));
    let mut entries = Entries::new(&bytes, 100);
    for left in [bytes.len(), bytes.len() / 2, 0] {
        assert_eq!(entries.rest(), left);
        assert_eq!(entries.next().is_some(), left > 0);
    }
}

#[test]
fn bad_entries_do_not_spoil_their_neighbours() {
    let one = Time::At(1_000_000_000);
    assert_eq!(
        walk("92 01 R 07 9101 9301 R c0 92 01 a178 92 9101 R 92 92 01 07 R 92 01 R"),
        [
            Ok((one, 0)),
            Err((10, Defect::NotArray(Kind::Int))),
            Err((11, Defect::Size(1))),
            Err((13, Defect::Size(3))),
            Err((24, Defect::Record(Kind::Str))),
            Err((28, Defect::HeaderSize(1))),
            Err((39, Defect::Metadata(Kind::Int))),
            Ok((one, 51)),
        ]
    );
}

#[test]
fn a_payload_that_ends_or_breaks_inside_an_entry_keeps_what_is_complete() {
    let one = Time::At(1_000_000_000);
    for cut in [
        "92",
        "9201",
        "920181a1",
        "92d7006553",
        "9292",
        "929201",
        "92920180",
        "92dd",
        "920181a161",
    ] {
        assert_eq!(
            walk(&format!("9201 R {cut}")),
            [Ok((one, 0)), Err((10, Defect::Truncated))],
            "{cut}"
        );
    }
    assert_eq!(
        walk("9201 R 9201 81a161c1 9201 R"),
        [Ok((one, 0)), Err((10, Defect::Malformed))]
    );
    assert_eq!(walk("9201 R c1"), [Ok((one, 0)), Err((10, Defect::Malformed))]);
}

#[test]
fn depth_is_limited_per_entry() {
    let nested = |n: usize| format!("92 01 81 a161 {} c0", "91".repeat(n));
    // The record is a container too.
    assert!(walk(&nested(99))[0].is_ok());
    assert_eq!(
        walk(&format!("{} 9201 R", nested(100))),
        [Err((0, Defect::TooDeep(100))), Ok((Time::At(1_000_000_000), 106))]
    );
    assert_eq!(
        walk(&format!("92 92 01 81 a161 {} c0 R", "91".repeat(100))),
        [Err((0, Defect::TooDeep(100)))]
    );
}

#[test]
fn group_markers_are_no_events() {
    let start = "9292 d700ffffffff00000000 81a16701 81a16102";
    let end = "9292 d700fffffffe00000000 80 80";
    let text = format!("9201R {start} 9201R {start} 9201R {end} 9201R {end} {start}").replace('R', REC);
    let bytes = hex(&text);
    let mut entries = Entries::new(&bytes, 100);
    let mut groups = Vec::new();
    while let Some(entry) = entries.next() {
        assert_eq!(entry.unwrap().record, RECORD);
        groups.push(entries.group());
    }
    let group = Some(Group {
        metadata: b"\x81\xa1g\x01",
        attributes: b"\x81\xa1a\x02",
    });
    assert_eq!(groups, [None, group, group, None]);
}

#[test]
fn pairs_are_visited_with_keys_of_every_type() {
    let map = hex("86 a161 01 c40162 9102 07 a178 c0 80 d90163 c3 9101 c2");
    let pairs: Vec<_> = MapPairs::new(&map).map(|pair| (pair.key, pair.value)).collect();
    assert_eq!(
        pairs,
        [
            (Key::Text(b"a"), &b"\x01"[..]),
            (Key::Text(b"b"), b"\x91\x02"),
            (Key::Other(b"\x07"), b"\xa1x"),
            (Key::Other(b"\xc0"), b"\x80"),
            (Key::Text(b"c"), b"\xc3"),
            (Key::Other(b"\x91\x01"), b"\xc2"),
        ]
    );
    assert_eq!(MapPairs::new(b"\x91\x01").count(), 0);
    assert_eq!(MapPairs::new(b"\x82\xa1a\x01\xa1").count(), 1);

    let bytes = [&hex("9201")[..], &map, &hex("9202 80")].concat();
    let mut entries = Entries::new(&bytes, 100);
    let mut keys = Keys::default();
    assert!(entries.next_with(&mut keys).unwrap().is_ok());
    assert_eq!(keys.0.len(), 6);
    assert!(entries.next_with(&mut keys).unwrap().is_ok());
    assert_eq!(keys.0, []);
}

#[derive(Default)]
struct Keys<'a>(Vec<Key<'a>>);

impl<'a> Visitor<'a, '_> for Keys<'a> {
    fn record(&mut self, _pairs: u32) -> &'static [WireKey] {
        self.0.clear();
        &[]
    }

    fn pair(&mut self, _number: usize, pair: Pair<'a>) {
        self.0.push(pair.key);
    }
}

#[cfg(feature = "gzip")]
mod gzip {
    use std::io::Write as _;

    use super::*;

    fn member(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn plain(bytes: &[u8]) -> Decompressed {
        assert_eq!(Compression::sniff(bytes), Some(Compression::Gzip));
        decompress(Compression::Gzip, bytes, 1 << 20).unwrap()
    }

    #[test]
    fn members_join_to_one_stream() {
        let parts: [&[u8]; 5] = [b"one", b"", b"two", &[7; 200_000], b""];
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| member(part)).collect();
        assert_eq!(
            plain(&bytes),
            Decompressed {
                bytes: parts.concat(),
                damage: None
            }
        );
        bytes.extend([0; 100]);
        assert_eq!(
            plain(&bytes),
            Decompressed {
                bytes: parts.concat(),
                damage: None
            }
        );
        let at = bytes.len();
        bytes.extend(b"rest");
        let damaged = plain(&bytes);
        assert_eq!(damaged.bytes, parts.concat());
        assert_eq!(
            damaged.damage,
            Some(Damage::Trailing {
                at: at - 100,
                len: 104
            })
        );
    }

    #[test]
    fn optional_header_fields_are_passed_over() {
        let bare = member(b"text");
        // FHCRC | FEXTRA | FNAME | FCOMMENT; the header checksum is not looked at.
        let fields = [
            &[0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 0, 0, 0, 0, 0, 255][..],
            b"\x03\0abcname\0comment\0\x12\x34",
        ];
        let bytes = [&fields.concat(), &bare[10..]].concat();
        assert_eq!(
            plain(&bytes),
            Decompressed {
                bytes: b"text".to_vec(),
                damage: None
            }
        );
        for cut in 2..bytes.len() {
            assert_eq!(plain(&bytes[..cut]).damage.map(|_| ()), Some(()), "{cut}");
        }
    }

    #[test]
    fn what_comes_before_a_defect_is_kept() {
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| n.to_le_bytes()).collect();
        let good = member(&text);
        let cut = plain(&good[..good.len() / 2]);
        assert_eq!(cut.damage, Some(Damage::Truncated));
        assert!(cut.bytes.len() > text.len() / 4 && text.starts_with(&cut.bytes));

        let mut checksum = good.clone();
        *checksum.iter_mut().nth_back(7).unwrap() ^= 1;
        assert_eq!(
            plain(&checksum),
            Decompressed {
                bytes: text.clone(),
                damage: Some(Damage::Checksum { at: good.len() })
            }
        );

        let two = [
            &good[..],
            &[
                0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ],
        ]
        .concat();
        let broken = plain(&two);
        assert_eq!(broken.bytes, text);
        assert!(matches!(broken.damage, Some(Damage::Corrupt { at }) if at >= good.len()));
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = member(&vec![0; 50 << 20]);
        let oversize = Oversize {
            compressed: bomb.len(),
            limit: 1 << 20,
        };
        assert_eq!(decompress(Compression::Gzip, &bomb, 1 << 20), Err(oversize));
        let mut decompressor = Decompressor::new();
        assert_eq!(
            decompressor.check_size(Compression::Gzip, &bomb, 1 << 20),
            Err(oversize)
        );
        assert_eq!(
            decompressor.check_size(Compression::Gzip, &bomb, 50 << 20),
            Ok(())
        );
        assert!(
            decompressor
                .check_size(Compression::Gzip, &bomb, (50 << 20) - 1)
                .is_err()
        );
        let exact = decompressor
            .decompress(Compression::Gzip, &bomb, 50 << 20)
            .unwrap();
        assert_eq!((exact.bytes.len(), exact.damage), (50 << 20, None));
    }
}

#[cfg(feature = "zstd")]
mod zstandard {
    use super::*;

    /// A stream writer does not know the content size and leaves it out.
    fn frame(bytes: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(bytes, 3).unwrap()
    }

    fn plain(bytes: &[u8]) -> Decompressed {
        decompress(Compression::Zstd, bytes, 16 << 20).unwrap()
    }

    #[test]
    fn frames_join_to_one_stream() {
        let parts: [&[u8]; 4] = [b"one", b"", &[9; 300_000], b"two"];
        let bytes: Vec<u8> = parts.iter().flat_map(|part| frame(part)).collect();
        assert_eq!(Compression::sniff(&bytes), Some(Compression::Zstd));
        assert_eq!(
            plain(&bytes),
            Decompressed {
                bytes: parts.concat(),
                damage: None
            }
        );
    }

    #[test]
    fn damage_keeps_what_came_before() {
        let text: Vec<u8> = (0..500_000u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let good = frame(&text);
        let cut = plain(&good[..good.len() / 2]);
        assert_eq!(cut.damage, Some(Damage::Truncated));
        assert!(!cut.bytes.is_empty() && text.starts_with(&cut.bytes));
        let trailing = plain(&[&good[..], b"rest"].concat());
        assert_eq!(trailing.bytes, text);
        assert!(trailing.damage.is_some());
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = frame(&vec![0; 50 << 20]);
        assert!(decompress(Compression::Zstd, &bomb, 1 << 20).is_err());
        assert!(
            Decompressor::new()
                .check_size(Compression::Zstd, &bomb, (50 << 20) - 1)
                .is_err()
        );
        assert!(
            Decompressor::new()
                .check_size(Compression::Zstd, &bomb, 50 << 20)
                .is_ok()
        );
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_every_byte_is_accounted_for(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x90..0x94u8, 0x80..0x84u8, 0xc0..0xe0u8], 0..200),
    ) {
        let mut covered = 0;
        for item in Entries::new(&bytes, 5) {
            match item {
                Ok(entry) => {
                    prop_assert!(entry.offset >= covered);
                    covered = entry.offset + entry.record.len();
                    let mut left = MapPairs::new(entry.record);
                    let declared = left.remaining() as usize;
                    prop_assert_eq!(left.by_ref().count(), declared);
                }
                Err(bad) => {
                    prop_assert!(bad.offset >= covered);
                    covered = bad.offset + bad.bytes.len();
                }
            }
        }
        prop_assert!(covered <= bytes.len());
        for compression in [Compression::Gzip, Compression::Zstd] {
            let _ = decompress(compression, &bytes, 1 << 16);
        }
    }
}

//! Tests of the bytes of each mode, against the vectors of the protocol fact sheet.

use super::*;

const ENTRY: &[u8] = b"\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x81\xa3log\xa2hi";
/// Of "wjuG8UNGMPQTCSrJs/JvPA==".
const RANDOM: [u8; 16] = [
    0xc2, 0x3b, 0x86, 0xf1, 0x43, 0x46, 0x30, 0xf4, 0x13, 0x09, 0x2a, 0xc9, 0xb3, 0xf2, 0x6f, 0x3c,
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn message_mode_without_options_is_the_vector_v2() {
    let message = single("t.a", ENTRY, None);
    assert_eq!(
        hex(&message.bytes),
        "93a3742e61d7006553f100075bcd1581a36c6f67a26869"
    );
    assert_eq!(&message.bytes[message.range], &ENTRY[1..]);
}

#[test]
fn message_mode_with_a_chunk_id() {
    let message = single("t.a", ENTRY, Some(&ChunkId::from_random(RANDOM)));
    let expected = [
        &b"\x94\xa3t.a"[..],
        &ENTRY[1..],
        b"\x81\xa5chunk\xb8wjuG8UNGMPQTCSrJs/JvPA==",
    ]
    .concat();
    assert_eq!(message.bytes, expected);
}

#[test]
fn forward_mode() {
    let plain = message(Mode::Forward, "t.a", &[ENTRY, ENTRY].concat(), 2, None);
    assert_eq!(plain.bytes, [&b"\x92\xa3t.a\x92"[..], ENTRY, ENTRY].concat());
    let acked = message(
        Mode::Forward,
        "t.a",
        ENTRY,
        1,
        Some(&ChunkId::from_random(RANDOM)),
    );
    let options = b"\x82\xa5chunk\xb8wjuG8UNGMPQTCSrJs/JvPA==\xa4size\x01";
    assert_eq!(acked.bytes, [&b"\x93\xa3t.a\x91"[..], ENTRY, options].concat());
    assert_eq!(&acked.bytes[acked.entries.unwrap()], ENTRY);
}

#[test]
fn packed_mode() {
    let plain = message(Mode::Packed, "t.a", ENTRY, 1, None);
    assert_eq!(plain.bytes, [&b"\x92\xa3t.a\xc4\x13"[..], ENTRY].concat());
    assert_eq!(&plain.bytes[plain.entries.unwrap()], ENTRY);
    let many = ENTRY.repeat(20_000);
    let acked = message(
        Mode::Packed,
        "t.a",
        &many,
        20_000,
        Some(&ChunkId::from_random(RANDOM)),
    );
    let options = b"\x82\xa5chunk\xb8wjuG8UNGMPQTCSrJs/JvPA==\xa4size\xcd\x4e\x20";
    assert_eq!(
        acked.bytes,
        [&b"\x93\xa3t.a\xc6\x00\x05\xcc\x60"[..], &many, options].concat()
    );
}

#[cfg(feature = "gzip")]
#[test]
fn gzip_mode() {
    use std::io::Read as _;
    let sealed = message(
        Mode::PackedGzip,
        "t.a",
        &ENTRY.repeat(100),
        100,
        Some(&ChunkId::from_random(RANDOM)),
    );
    assert!(sealed.entries.is_none());
    let mut reader = forward_protocol::msgpack::Reader::new(&sealed.bytes);
    assert_eq!(reader.array_len().unwrap(), 3);
    assert_eq!(reader.str_or_bin().unwrap(), b"t.a");
    let mut inflated = Vec::new();
    flate2::read::MultiGzDecoder::new(reader.str_or_bin().unwrap())
        .read_to_end(&mut inflated)
        .unwrap();
    assert_eq!(inflated, ENTRY.repeat(100));
    let options = b"\x83\xa5chunk\xb8wjuG8UNGMPQTCSrJs/JvPA==\xa4size\x64\xaacompressed\xa4gzip";
    assert_eq!(&sealed.bytes[reader.position()..], options);
}

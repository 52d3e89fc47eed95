//! Encoded messages against literal bytes, and read back by the server side.

#[cfg(all(feature = "gzip", feature = "zstd"))]
use proptest::prelude::*;

use super::*;
use crate::entries::{Entries, Time};
use crate::vectors::{self, NANOS, RECORD, SECONDS, hex};

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

#[test]
fn messages_are_those_of_the_vectors() {
    let one = written(|out| write_message(out, b"t.a", NANOS, RECORD, None, None));
    assert_eq!(one, hex(vectors::MESSAGE_FIXEXT8));

    let entry = written(|out| write_entry(out, NANOS, Some(&[0x80]), RECORD));
    let stream = EntryStream {
        bytes: &entry,
        count: 1,
    };
    assert_eq!(
        written(|out| write_forward(out, b"t.a", stream, None)),
        hex(vectors::BIT_DEFAULT)
    );

    let entry = written(|out| write_entry(out, NANOS, None, RECORD));
    let stream = EntryStream {
        bytes: &entry,
        count: 1,
    };
    assert_eq!(
        written(|out| write_forward(out, b"t.a", stream, None)),
        hex("92a3742e619192d7006553f100075bcd1581a36c6f67a26869")
    );
    assert_eq!(
        written(|out| write_packed(out, b"t.a", stream, None)),
        hex("92a3742e61c41392d7006553f100075bcd1581a36c6f67a26869")
    );

    let id = ChunkId::from_random(*b"\xc2;\x86\xf1CF0\xf4\x13\x09*\xc9\xb3\xf2o<");
    assert_eq!(id.to_string(), "wjuG8UNGMPQTCSrJs/JvPA==");
    assert_eq!(
        written(|out| write_forward(out, b"t.a", stream, Some(&id))),
        hex("93a3742e619192d7006553f100075bcd1581a36c6f67a26869\
            82a56368756e6bb8776a754738554e474d5051544353724a732f4a7650413d3da473697a6501")
    );
    assert_eq!(
        written(|out| write_message(out, b"t.a", NANOS, RECORD, Some(b"\x81\xa1k\xa1v"), Some(&id))),
        hex("94a3742e61d7006553f100075bcd1581a36c6f67a26869\
            82a56368756e6bb8776a754738554e474d5051544353724a732f4a7650413d3da86d6574616461746181a16ba176")
    );
}

#[test]
fn times_that_an_event_time_cannot_say_become_whole_seconds() {
    for (ns, bytes) in [
        (NANOS, "d7006553f100075bcd15"),
        (SECONDS + 999_999_999, "d7006553f1003b9ac9ff"),
        // 2040
        (2_208_988_800_000_000_000, "d70083aa7e8000000000"),
        (0, "d7000000000000000000"),
        (-1, "ff"),
        (-1_500_000_000, "fe"),
        // The seconds before the group markers, the markers, and what comes after.
        (4_294_967_293_000_000_001, "d700fffffffd00000001"),
        (4_294_967_294_000_000_000, "cefffffffe"),
        (4_294_967_295_000_000_000, "ceffffffff"),
        (4_294_967_296_000_000_000, "cf0000000100000000"),
    ] {
        assert_eq!(written(|out| write_time(out, ns)), hex(bytes), "{ns}");
    }
    // The extremes do not panic or wrap.
    let read = |ns| {
        let entry = written(|out| write_entry(out, ns, None, RECORD));
        Entries::new(&entry, 9).next().unwrap().unwrap().time
    };
    assert_eq!(read(i64::MAX), Time::At(i64::MAX / 1_000_000_000 * 1_000_000_000));
    assert_eq!(read(-1), Time::At(-1_000_000_000));
}

#[cfg(feature = "gzip")]
#[test]
fn a_compressed_message_has_the_standard_head_and_options() {
    let entry = written(|out| write_entry(out, NANOS, None, RECORD));
    let gzip = compress(Compression::Gzip, &entry, 6).unwrap();
    // No file time, so the same entries give the same bytes.
    assert_eq!(gzip[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    let message = written(|out| write_compressed(out, b"t.a", Compression::Gzip, &gzip, 1, None));
    let head = hex("93a3742e61c4");
    assert!(message.starts_with(&head));
    assert!(message.ends_with(&hex("82a473697a6501aa636f6d70726573736564a4677a6970")));
}

#[test]
fn chunk_ids_differ_and_have_no_newline() {
    assert_eq!(
        ChunkId::from_random([0; 16]).to_string(),
        "AAAAAAAAAAAAAAAAAAAAAA=="
    );
    assert_eq!(
        ChunkId::from_random([255; 16]).to_string(),
        "/////////////////////w=="
    );
}

#[test]
fn a_chunk_id_may_be_a_text_of_the_callers() {
    for text in ["1", "é", &"f".repeat(64)] {
        assert_eq!(ChunkId::from_text(text).unwrap().to_string(), text);
    }
    for text in ["", &"f".repeat(65), &"f".repeat(256), &"f".repeat(257)] {
        assert_eq!(ChunkId::from_text(text), None);
    }
    let mut message = Vec::new();
    let entries = EntryStream { bytes: b"", count: 0 };
    write_packed(&mut message, b"t", entries, ChunkId::from_text("c1").as_ref());
    assert_eq!(message, b"\x93\xa1t\xc4\x00\x82\xa5chunk\xa2c1\xa4size\x00");
}

#[cfg(all(feature = "gzip", feature = "zstd"))]
proptest! {
    #[test]
    fn what_is_written_is_read_back(
        tag in prop::collection::vec(any::<u8>(), 0..40),
        times in prop::collection::vec(1_000_000_000..4_294_967_294_000_000_000i64, 0..20),
        id in any::<Option<[u8; 16]>>(),
        shape in 0..4usize,
    ) {
        use crate::entries::decompress;
        use crate::frame::{Compressed, Framer, Limits, Mode, Payload};

        let id = id.map(ChunkId::from_random);
        let mut entries = Vec::new();
        for (n, time) in times.iter().enumerate() {
            write_entry(&mut entries, *time, (n % 2 == 1).then_some(&b"\x81\xa1k\xc0"[..]), RECORD);
        }
        let stream = EntryStream { bytes: &entries, count: times.len() as u32 };
        let packed = |out: &mut Vec<u8>, compression| {
            let bytes = compress(compression, &entries, 3).unwrap();
            write_compressed(out, &tag, compression, &bytes, stream.count, id.as_ref());
        };
        let bytes = written(|out| match shape {
            0 => write_forward(out, &tag, stream, id.as_ref()),
            1 => write_packed(out, &tag, stream, id.as_ref()),
            2 => packed(out, Compression::Gzip),
            _ => packed(out, Compression::Zstd),
        });
        let run = Framer::new(Limits::default()).scan(&bytes);
        prop_assert_eq!((run.end, run.frames.len()), (bytes.len(), 1));
        let message = run.frames[0].message(&bytes).unwrap();
        prop_assert_eq!(message.tag, &tag[..]);
        prop_assert_eq!(message.mode, if shape == 0 { Mode::Forward } else { Mode::Packed });
        prop_assert_eq!(message.options.compressed, [
            Compressed::Absent, Compressed::Absent, Compressed::Gzip, Compressed::Zstd,
        ][shape]);
        prop_assert!(!message.compression_mismatch());
        prop_assert_eq!(message.options.size, (id.is_some() || shape > 1).then_some(times.len() as i64));
        prop_assert_eq!(message.options.chunk.map(|raw| raw[1..].to_vec()), id.map(|id| id.as_bytes().to_vec()));
        let plain = match message.payload(100) {
            Payload::Compressed { compression, bytes } => decompress(compression, bytes, 1 << 20).unwrap().bytes,
            _ => message.body.to_vec(),
        };
        let read: Vec<Time> = Entries::new(&plain, 100).map(|entry| entry.unwrap().time).collect();
        prop_assert_eq!(read, times.iter().map(|time| Time::At(*time)).collect::<Vec<_>>());
    }
}
